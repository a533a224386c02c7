"""The table of predictions, what a denoiser may define, and what samplers ask of it."""

import math

import numpy as np
import pytest
import torch
from mpmath import mp, mpf
from torch import nn

from scoresde import (
    DDIM,
    VESDE,
    VPSDE,
    Affine,
    Ancestral,
    ClassifierFree,
    CosineVPSDE,
    DDPMChain,
    EDMDenoiser,
    EpsDenoiser,
    FeynmanKac,
    GaussianMixture,
    Given,
    Guided,
    KarrasSDE,
    MeanShift,
    Rescaled,
    ScoreDenoiser,
    StraightPath,
    SubVPSDE,
    TwistedSMC,
    VDenoiser,
    X0Denoiser,
    quadratic,
    sample,
)
from scoresde.denoiser import Denoiser, Wrapper
from scoresde.guidance import classifier_log_prob
from scoresde.inverse import Mask, Measurement, Observed
from scoresde.nets import MLP
from scoresde.prediction import QUANTITIES, TABLE, factors
from scoresde.tilt import Tilt

D = 0.7  # the width of EDM's data
KINDS = {
    "eps": EpsDenoiser,
    "x0": X0Denoiser,
    "v": VDenoiser,
    "score": ScoreDenoiser,
    "F": EDMDenoiser,
}
SDE = VPSDE()
T = torch.tensor


def vp(t):
    low, high = mpf("0.1"), mpf(20)
    big_b, beta = low * t + (high - low) * t**2 / 2, low + (high - low) * t
    return mp.exp(-big_b / 2), 1 - mp.exp(-big_b), -beta / 2, beta


def cosine(t):
    s = mpf("0.008")
    turn = mp.pi / 2 / (1 + s)
    alpha = mp.cos(turn * (t + s)) / mp.cos(turn * s)
    f = -turn * mp.tan(turn * (t + s))
    return alpha, 1 - alpha**2, f, -2 * f


def sub_vp(t):
    alpha, sigma2, f, beta = vp(t)
    return alpha, sigma2**2, f, beta * (1 - alpha**4)


def ve(t):
    low, high = mpf("0.01"), mpf(50)
    rate = 2 * mp.log(high / low)
    return mpf(1), low**2 * mp.expm1(rate * t), mpf(0), low**2 * rate * mp.exp(rate * t)


EXACT = {  # alpha, sigma^2, f, g^2 as the papers have them
    VPSDE(): vp,
    CosineVPSDE(): cosine,
    SubVPSDE(): sub_vp,
    VESDE(): ve,
    KarrasSDE(): lambda t: (mpf(1), (80 * t) ** 2, mpf(0), 2 * 80**2 * t),
    StraightPath(): lambda t: (1 - t, t**2, -1 / (1 - t), 2 * t / (1 - t)),
}
each_sde = pytest.mark.parametrize("sde", EXACT, ids=lambda sde: type(sde).__name__)


def by_definition(numbers, known, asked):
    """(a, b) by the definitions alone, through x0, in 60 digits."""
    alpha, sigma2, f, g2 = numbers
    sigma, s = mp.sqrt(sigma2), mp.sqrt(sigma2) / alpha
    x0 = {  # what the known quantity says of x0: (factor of x, factor of it)
        "x0": (mpf(0), mpf(1)),
        "eps": (1 / alpha, -sigma / alpha),
        "v": (alpha / (alpha**2 + sigma2), -sigma / (alpha**2 + sigma2)),
        "score": (1 / alpha, sigma2 / alpha),
        "F": (mpf(D) ** 2 / (s**2 + mpf(D) ** 2) / alpha, s * D / mp.sqrt(s**2 + mpf(D) ** 2)),
    }[known]
    of = lambda x, x0_hat: {
        "x0": x0_hat,
        "eps": (x - alpha * x0_hat) / sigma,
        "v": alpha * (x - alpha * x0_hat) / sigma - sigma * x0_hat,
        "score": (alpha * x0_hat - x) / sigma2,
        "velocity": f * x - g2 / 2 * (alpha * x0_hat - x) / sigma2,
    }[asked]
    return of(mpf(1), x0[0]), of(mpf(0), x0[1])


class TestN24:
    """Every pair of the table against 60 digits, in float32 where sigma is small."""

    @pytest.mark.parametrize("time", [1e-5, 1e-3, 0.3])
    @each_sde
    def test_n24_every_pair(self, sde, time):
        t = T(time, dtype=torch.float32)
        with mp.workdps(60):
            numbers = EXACT[sde](mpf(float(t)))
            for known, asked in TABLE:
                pair = factors(sde, known, asked, t, D)
                found = [o if c is None else float(c) for c, o in zip(pair, (0, 1), strict=True)]
                expected = [float(c) for c in by_definition(numbers, known, asked)]
                # of a velocity the drift f x is a part, which v's own may cancel: T is constant
                scale = [abs(expected[0]) + 1e-30, abs(expected[1])]
                scale[0] += abs(float(numbers[2])) if asked == "velocity" else 1e-30
                error = max(abs(f - e) / s for f, e, s in zip(found, expected, scale, strict=True))
                assert error < 1e-6, (known, asked, found, expected)

    def test_n24_a_chain(self):
        """Its rates have no closed form: float32 against float64."""
        sde, t = DDPMChain.linear(1000).sde(), T(1e-5, dtype=torch.float32)
        for known, asked in TABLE:
            pairs = factors(sde, known, asked, t, D), factors(sde, known, asked, t.double(), D)
            for narrow, wide in zip(*pairs, strict=True):
                assert (narrow is None) is (wide is None)
                if wide is not None and abs(wide) > 1e-12:
                    assert abs(narrow.double() / wide - 1) < 1e-6, (known, asked)

    @pytest.mark.parametrize("known", KINDS)
    @each_sde
    def test_n24_predictions(self, sde, known):
        """As a denoiser answers, from the same output F in float32 and in float64."""
        x, own, t = *torch.randn(2, 50, 2, dtype=torch.float32), T(1e-5, dtype=torch.float32)
        net = nn.Module()
        net.forward = lambda x, t: own.to(x)
        more = {"sigma_data": D} if known == "F" else {}
        denoiser = KINDS[known](net, sde, **more)
        for asked in QUANTITIES:
            narrow, wide = (denoiser.predict(asked, v, t.to(v)) for v in (x, x.double()))
            a, b = factors(sde, known, asked, t.double(), D)
            scale = (0 if a is None else a.abs()) * x.abs() + (1 if b is None else b.abs()) * own
            assert float(((narrow - wide).abs() / scale.abs().max()).max()) < 1e-6, asked
            if asked == "x0":
                assert torch.equal(denoiser(x, t), narrow)
            else:
                assert torch.equal(getattr(denoiser, asked)(x, t), narrow)

    @each_sde
    def test_n24_at_the_data(self, sde):
        """At sigma = 0 what divides by sigma is infinite, and nothing else is."""
        for known, asked in TABLE:
            divides = (known == "x0" and asked != "x0") or (
                known in ("eps", "v", "F") and asked in ("score", "velocity")
            )
            pair = [c for c in factors(sde, known, asked, T(0.0), D) if c is not None]
            assert all(math.isfinite(c) for c in pair) is not divides, (known, asked)

    def test_n24_along_the_same_table(self):
        """A loop's numbers are those of predict; infinite ones are refused before it starts."""
        ts, x = T([0.9, 0.3, 1e-4]), torch.randn(4, 2)
        for kind in KINDS.values():
            denoiser = kind(MLP(2, width=8, depth=1), SDE)
            nn.init.normal_(denoiser.net.trunk.last.weight)
            alpha, sigma = SDE.alpha(ts), SDE.sigma(ts)
            eps, plain = denoiser.along(ts, x, 1 / sigma, -alpha / sigma), denoiser.along(ts, x)
            for k, t in enumerate(ts):
                torch.testing.assert_close(plain(k, x), denoiser(x, t), rtol=1e-12, atol=1e-12)
                torch.testing.assert_close(eps(k, x), denoiser.eps(x, t), rtol=1e-9, atol=1e-9)
            with pytest.raises(ValueError, match=r"expected finite factors .* at t = 0.0"):
                denoiser.along(T([0.0]), x, 1 / SDE.sigma(T([0.0])))

    def test_n24_of_a_mixture_at_both_ends(self):
        """v = alpha eps - sigma x0, each from the form that is regular: float32 to rounding."""
        law = GaussianMixture.isotropic([0.5, 0.5], [[1.0], [-1.0]], 0.3, SDE)
        x = torch.linspace(-2, 2, 9)[:, None]
        for time in (0.0, 1e-5, 0.5, 1.0):
            t = T(time)
            for asked in QUANTITIES:
                narrow = law.predict(asked, x.float(), t.float())
                wide = law.predict(asked, x, t.float().double())
                part = {"x0": 1.0, "v": float(SDE.sigma(t)), "velocity": 2 * float(SDE.f(t).abs())}
                size = max(1e-3, part.get(asked, 0), float(wide.abs().max()))  # of its terms
                assert float((narrow - wide).abs().max()) < 3e-6 * size, (time, asked)
            alpha, sigma = SDE.alpha(t), SDE.sigma(t)
            v = alpha * law.eps(x, t) - sigma * law(x, t)
            torch.testing.assert_close(law.v(x, t), v, rtol=1e-12, atol=1e-12)


class TestOneMethod:
    """A class defines forward or predict; the rest follows, whatever it inherits."""

    @pytest.mark.parametrize("name", ["eps", "v", "score", "velocity"])
    def test_no_quantity_is_defined_twice(self, name):
        with pytest.raises(TypeError, match=f"leave {name} to predict, .* override predict"):
            type("Mine", (EpsDenoiser,), {name: lambda self, x, t: x})

    def test_neither_is_refused(self):
        with pytest.raises(TypeError, match=r"define forward.* or predict"):
            type("Nothing", (Denoiser,), {})(SDE)

    def test_what_is_no_quantity_is_refused(self):
        law = GaussianMixture.isotropic([1.0], [[0.0]], 1.0, SDE)
        net = EpsDenoiser(MLP(1, width=8, depth=1), SDE)
        for denoiser in (law, net, Guided(law, lambda x, t: x[:, 0]), Given(net)):
            with pytest.raises(ValueError, match=r"expected a quantity among .* got 'noise'"):
                denoiser.predict("noise", torch.randn(3, 1), T(0.5))

    def test_a_clipped_network_is_clipped_in_every_quantity(self):
        """forward below a class that answers by predict: all follows from it, and no recursion."""

        class Clipped(EpsDenoiser):
            def forward(self, x, t, **cond):
                return super().forward(x, t, **cond).clamp(-0.1, 0.1)

        denoiser = Clipped(MLP(2, width=8, depth=1), SDE)
        x, t = 3 * torch.randn(5, 2), T(0.5)
        alpha, sigma = SDE.alpha(t), SDE.sigma(t)
        x0_hat = (x / alpha).clamp(-0.1, 0.1)  # a fresh network says eps = 0
        torch.testing.assert_close(denoiser(x, t), x0_hat)
        torch.testing.assert_close(denoiser.eps(x, t), (x - alpha * x0_hat) / sigma)
        torch.testing.assert_close(denoiser.along(t[None], x)(0, x), x0_hat)
        guided = Guided(denoiser, lambda x, t: x[:, 0], 0.0)
        torch.testing.assert_close(guided.score(x, t), denoiser.score(x, t))

    def test_predict_below_forward(self):
        class Zero(Denoiser):
            def forward(self, x, t, **cond):
                return 0 * x

        class Scaled(Zero):
            def predict(self, quantity, x, t, **cond):
                return 2 * super().predict(quantity, x, t, **cond)

        x, t = torch.randn(3, 2), T(0.5)
        assert torch.equal(Scaled(SDE).score(x, t), 2 * Zero(SDE).score(x, t))
        assert torch.equal(Scaled(SDE)(x, t), 0 * x)


def constant_net():
    """x0_hat = y for every coordinate, whatever x and t."""
    net = nn.Module()
    net.calls = []

    def forward(x, t, y):
        net.calls.append(len(x))
        return torch.zeros_like(x) + y.reshape(-1, *[1] * (x.ndim - 1))

    net.forward = forward
    return X0Denoiser(net, SDE)


class TestN3:
    """Rescaled guidance where there is no spread, and outside of the interval."""

    @pytest.mark.parametrize("event", [(1,), (5,), (3, 2)])
    @pytest.mark.parametrize("w", [1.0, 3.0])
    def test_n03_no_spread_is_no_rescaling(self, event, w):
        """One coordinate, or numbers that are equal: 0/0 was 0, and x0_hat with it."""
        model, x = constant_net(), torch.randn(4, *event)
        free = ClassifierFree(Given(model, y=0.1), Given(model, y=0.3), w)
        for phi in (0.7, 1.0):
            mixed = free(x, T(0.5))
            torch.testing.assert_close(Rescaled(free, phi)(x, T(0.5)), mixed)
            torch.testing.assert_close(mixed, torch.full_like(x, 0.3 + w * (0.1 - 0.3)))

    def test_n03_outside_of_the_interval_u_is_not_asked(self):
        """Twenty steps of which four lie within: one batch of 2B there, of B elsewhere."""
        model = constant_net()
        free = ClassifierFree(Given(model, y=0.1), Given(model, y=0.3), 2.0, (0.405, 0.605))
        DDIM()(Rescaled(free), torch.randn(6, 2), torch.linspace(1, 0, 21))
        assert sorted(model.net.calls) == [6] * 16 + [12] * 4

    def test_n03_along_is_time_by_time(self):
        net = VDenoiser(MLP(3, width=8, depth=1, classes=2), SDE)
        nn.init.normal_(net.net.trunk.last.weight)
        free = ClassifierFree(Given(net, y=0), Given(net, y=2), 3.0, (0.2, 0.6))
        ts, x = T([0.9, 0.6, 0.4, 0.1]), torch.randn(5, 3)
        u, w, rescaled = T([0.3, 1.0, 0.0, 2.0]), T([1.0, 0.5, 1.0, -1.0]), Rescaled(free, 0.7)
        ask = rescaled.along(ts, x, u, w)
        for k, t in enumerate(ts):
            expected = u[k] * x + w[k] * rescaled(x, t)
            torch.testing.assert_close(ask(k, x), expected, rtol=1e-11, atol=1e-11)


class Seen(nn.Module):
    """Remembers its condition."""

    def forward(self, x, t, **cond):
        self.cond = cond
        return x


class TestN15:
    """The first dimension of a tensor counts samples; (1, *), () and numbers hold for all."""

    @pytest.mark.parametrize(
        ("bound", "seen"),
        [
            (3, torch.full((4,), 3)),
            (np.int64(3), torch.full((4,), 3)),
            (True, torch.full((4,), 1)),
            (0.5, torch.full((4,), 0.5)),
            (np.float32(0.5), torch.full((4,), 0.5)),
            (T(2), torch.full((4,), 2)),
            (T([5.0]), torch.full((4,), 5.0)),
            (T([[1.0, 2.0, 3.0, 4.0]]), T([[1.0, 2.0, 3.0, 4.0]]).expand(4, 4)),
            (torch.arange(12.0).reshape(4, 3), torch.arange(12.0).reshape(4, 3)),
            (None, None),
        ],
    )
    def test_n15_what_the_network_gets(self, bound, seen):
        net, x = Seen(), torch.randn(4, 2)
        given = Given(EpsDenoiser(net, SDE), c=bound)
        for run in (given, given.along(T([0.5]), x)):
            run(x, T(0.5)) if run is given else run(0, x)
            assert type(net.cond["c"]) is type(seen)
            if seen is not None:
                seen = seen.to(x) if isinstance(bound, float | np.floating) else seen
                assert net.cond["c"].dtype == seen.dtype and torch.equal(net.cond["c"], seen)
        first = given.part(slice(0, 2))
        first(x[:2], T(0.5))
        assert seen is None or torch.equal(net.cond["c"], seen[:2])

    def test_n15_a_vector_for_all_has_a_dimension_for_samples(self):
        """(C,) was cut per sample where B = C, and refused elsewhere."""
        model, v = EpsDenoiser(MLP(2, width=8, depth=1, context=3), SDE), T([1.0, 2.0, 3.0])
        nn.init.normal_(model.net.trunk.last.weight)
        with pytest.raises(ValueError, match=r"expected c \(B, 3\), or \(1, 3\) .* c\[None\]"):
            Given(model, c=v)
        x, t = torch.randn(3, 2), T(0.5)
        expected = model(x, t, c=v.expand(3, 3))
        torch.testing.assert_close(Given(model, c=v[None])(x, t), expected)
        with pytest.raises(ValueError, match=r"for each of 3 samples, got 2.*v\[None\]"):
            Given(model, c=torch.randn(2, 3))(x, t)
        with pytest.raises(TypeError, match="expected y to be a tensor or a number, got list"):
            Given(model, y=[1, 2])

    def test_n15_more_labels_than_samples(self):
        """Ten labels for five samples: the first five were used."""
        law = GaussianMixture.isotropic([0.5, 0.5], [[2.0], [-2.0]], 0.3, SDE)
        y = torch.arange(10) % 2
        labelled = Given(constant_net(), y=y)
        by_class = classifier_log_prob(lambda x, t: law.posterior(x, t).log(), y)
        measured = Measurement(Mask(T([True])), torch.zeros(10, 1), 0.1)
        free = ClassifierFree(Given(constant_net(), y=0), labelled, 2.0)
        for denoiser in (labelled, Guided(law, by_class), free, Observed(law, measured)):
            assert denoiser.samples == 10 and denoiser.part(slice(2, 5)).samples == 3
            with pytest.raises(ValueError, match=r"expected conditions of 5 samples, .* got 10"):
                sample(denoiser, DDIM(), (5, 1), quadratic(2), seed=0)
            assert sample(denoiser, DDIM(), (10, 1), quadratic(2), seed=0).shape == (10, 1)
        assert Given(labelled, z=1).samples == 10 and law.samples is None
        with pytest.raises(ValueError, match="conditions of one number of samples"):
            Given(labelled, z=torch.zeros(4))


class TestN2:
    """The map between units: what it is applied to is what its determinant counts."""

    def test_n02_one_scale_for_all_counts_the_event(self):
        """Three coordinates, each twice as large: 3 log 2 (it was log 2)."""
        affine, x = Affine(T(1.0), T(2.0)), torch.randn(4, 3, 5)
        torch.testing.assert_close(affine.inverse(affine(x)), x)
        torch.testing.assert_close(affine.log_det(x), T(15 * math.log(2)))
        with pytest.raises(ValueError, match=r"expected x \(B, \*event\), got none"):
            affine.log_det()

    @pytest.mark.parametrize(
        ("mean", "scale", "message"),
        [
            (torch.zeros(3), T(2.0), r"expected a scale of the shape of mean, \(3,\)"),
            (torch.zeros(3), torch.ones(2), "or a matrix"),
            (torch.zeros(3), torch.eye(2), "or a matrix"),
            (T(0.0), torch.ones(1, 1), "of the shape of mean"),
            (torch.zeros(2), T([1.0, 0.0]), "positive finite scales"),
            (torch.zeros(2), T([1.0, -2.0]), "positive finite scales"),
            (torch.zeros(2), T([1.0, math.nan]), "positive finite scales"),
            (T([math.inf, 0.0]), torch.ones(2), "expected a finite mean"),
            (torch.zeros(2), T([[1.0, 2.0], [2.0, 4.0]]), "or an invertible matrix"),
        ],
    )
    def test_n02_refused(self, mean, scale, message):
        with pytest.raises(ValueError, match=message):
            Affine(mean, scale)

    def test_n02_no_broadcasting(self):
        affine = Affine(torch.zeros(1), T([2.0]))
        for function in (affine, affine.inverse):
            with pytest.raises(ValueError, match=r"expected samples of shape .* got \(3,\)"):
                function(torch.randn(4, 3))

    @pytest.mark.parametrize("size", [1e-200, 1e200])
    def test_n02_the_size_of_the_data_is_no_matter(self, size):
        """Squares of 1e-200 are 0: the deviations were, too."""
        x = torch.randn(50, 2)
        torch.testing.assert_close(
            Affine.fit(size * x).scale / size, Affine.fit(x).scale, rtol=1e-12, atol=0
        )


class Reward(Wrapper):
    """What a user writes: h = e^{x}, said in the words of each sampler."""

    def predict(self, quantity, x, t, **cond):
        return self.inner.predict(quantity, x, t, **cond)

    @property
    def inner(self):
        return Guided(self.denoiser, lambda x, t: x[:, 0], 1.0)

    def tilt(self, x, t, **cond):
        return self.inner.tilt(x, t, **cond)

    def twist(self, x, t):
        return self.inner.twist(x, t)

    def log_target(self, x, t):
        return x[:, 0]

    def pull(self, x, t):
        return torch.ones_like(x)


class TestProtocol:
    """tilt, twist, log_target and pull are methods with defaults, found on the class."""

    law = GaussianMixture.isotropic([1.0], [[0.5]], 1.0, SDE)

    def test_defaults_say_that_nothing_is_guided(self):
        law, x, t = self.law, torch.randn(4, 1), T(0.5)
        tilt = law.tilt(x, t)
        assert isinstance(tilt, Tilt) and torch.equal(tilt.score, law.score(x, t))
        assert not tilt.excess.any() and not law.log_target(x, t).any()
        x0_hat, pull, log_h = law.twist(x, t)
        assert torch.equal(x0_hat, law(x, t)) and not pull.any() and not log_h.any()
        assert not Given(law).pull(x, t).any()

    @pytest.mark.parametrize("sampler", [FeynmanKac(), TwistedSMC(), MeanShift()])
    def test_a_wrapper_of_ones_own_is_taken_as_guided_is(self, sampler):
        law, x, ts = self.law, torch.randn(200, 1), quadratic(8)
        seeded = lambda d: sampler(d, x, ts, torch.Generator().manual_seed(0))
        guided = Guided(law, lambda x, t: x[:, 0], 1.0)
        torch.testing.assert_close(seeded(Reward(law)), seeded(guided), rtol=1e-9, atol=1e-9)
        with pytest.raises(TypeError, match="expected"):
            seeded(law)

    def test_mean_shift_is_that_of_the_row(self):
        """One step of a wrapper with a pull: x_s = mu + c^2 pull + c z."""
        ts, x, noise = T([0.6, 0.5]), torch.randn(5, 1), torch.randn(5, 1)
        a, b, c = (float(v) for v in Ancestral().row(SDE, ts[:1], ts[1:]))
        out = MeanShift()(Reward(self.law), x, ts, noise=lambda *_: noise)
        expected = a * x + b * self.law(x, ts[0]) + c**2 + c * noise
        torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)

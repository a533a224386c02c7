"""What guidance samples: the conditional law at strength 1, three other laws at any other."""

import math
from itertools import pairwise

import pytest
import torch

import scoresde.samplers
from scoresde import samplers as S
from scoresde.distributions import GaussianMixture
from scoresde.grids import log_snr, quadratic, uniform
from scoresde.guidance import ClassifierFree, Guided, classifier_log_prob
from scoresde.nets import Classifier
from scoresde.samplers import MeanShift
from scoresde.sde import VPSDE
from scoresde.training import fit_classifier

SDE = VPSDE()
PAIR = GaussianMixture([0.5, 0.5], [[1.0], [-1.0]], [[[0.25]], [[0.25]]], SDE)
EVERY = [
    S.EulerMaruyama(),
    S.ReverseDiffusion(),
    S.Ancestral(),
    S.Ancestral("beta"),
    S.DDIM(),
    S.DDIM(1.0),
    S.PFEuler(),
    S.PFHeun(),
    S.PFRK4(),
    S.PFAdaptive(1e-6, 1e-6),
    S.SDEAdaptive(0.1, 0.1),
    S.DPMSolver(3),
    S.DPMSolverPP(2),
    S.DPMSolverPP(3, 1.0),
    S.DEIS(3),
    S.UniPC(3),
    S.SASolver(3, 3, 1.0),
    S.Adams(2, 3),
    S.ERSDE(2),
    S.EDMStochastic(5.0),
    S.PredictorCorrector(S.Ancestral()),
    S.PredictorCorrector(S.ReverseDiffusion(), S.Langevin(rule="song")),
    S.TorchSDE("euler"),
]
BASES = {"Sampler", "TableSampler", "RungeKutta", "Exponential"}
GUIDED = {"FeynmanKac", "MeanShift", "TwistedSMC"}  # they want what guides, not a law
FASTER = {"Compiled", "Captured"}  # tests/test_guidance_kinds.py, tests/test_compiled.py


# Its steps follow from an error that is the difference of two nearly equal drifts: the rounding of
# that difference, 1e-8 of it, is that of the steps. (Of equal drifts the steps are equal.)
LOOSE = {S.SDEAdaptive: 1e-4}


def log_posterior(law, k):
    return lambda x, t: law.component(k).log_prob(x, t) - law.log_prob(x, t)


def both_ways(law, k, w=1.0):
    c = law.component(k)
    return Guided(law, log_posterior(law, k), w), ClassifierFree(c, law, w)


@pytest.fixture
def law(reference):
    item = reference["P03"]["inputs"]
    return GaussianMixture(item["weights"], item["means"], item["covs"], SDE)


def test_the_list_is_complete():
    kinds = [getattr(scoresde.samplers, name) for name in scoresde.samplers.__all__]
    kinds = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, S.Sampler)]
    names = {kind.__name__ for kind in kinds} - BASES - FASTER - GUIDED
    assert names == {type(sampler).__name__ for sampler in EVERY}


class TestStrengthOne:
    def test_the_denoiser_anywhere(self, law):
        """Far from the component that was asked for too, at every time."""
        x, t = 1.5 * torch.randn(400, 2), torch.rand(400) * 0.999 + 0.001
        for k in range(3):
            for guided in both_ways(law, k):
                torch.testing.assert_close(
                    guided(x, t), law.component(k)(x, t), rtol=1e-12, atol=1e-12
                )

    @pytest.mark.parametrize("sampler", EVERY)
    def test_every_sampler_gives_the_conditional_law(self, law, sampler):
        """The same samples, from the same noise."""
        ts, k = log_snr(SDE, 15), 1
        x = law.component(k).sample(40, ts[0])
        run = lambda model: sampler(model, x, ts, torch.Generator().manual_seed(1))
        expected = run(law.component(k))
        guided, free = both_ways(law, k)
        tol = LOOSE.get(type(sampler), 1e-10)
        torch.testing.assert_close(run(guided), expected, rtol=tol, atol=tol)
        torch.testing.assert_close(run(free), expected, rtol=1e-10, atol=1e-10)


class TestThreeLaws:
    """Theory K: data 1/2 N(-1, 1/4) + 1/2 N(1, 1/4), guided to +1 from N(0, 1)."""

    @pytest.mark.parametrize(
        ("w", "mean", "var"),
        [
            (1.0, 0.996714, 0.250008),
            (2.0, 1.319828, 0.128899),
            (4.0, 1.674104, 0.083894),
            (8.0, 2.119261, 0.061089),
        ],
    )
    def test_ode(self, w, mean, var):
        """The trapezoid rule in x_T: smooth integrands on [-8, 8] leave no error of its own."""
        x = torch.linspace(-8, 8, 501)[:, None]
        weight = torch.exp(-x[:, 0].square() / 2) * (16 / 500) / math.sqrt(2 * math.pi)
        ts = uniform(200, t_eps=0.0)
        for guided in both_ways(PAIR, 0, w)[: 2 if w == 2 else 1]:
            end = S.PFRK4()(guided, x, ts)[:, 0]
            found = weight @ end
            assert float(found) == pytest.approx(mean, abs=1e-5)
            assert float(weight @ (end - found).square()) == pytest.approx(var, abs=1e-5)

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("w", "mean", "var"),
        [(2.0, 1.166604, 0.193831), (4.0, 1.285981, 0.183957), (8.0, 1.390067, 0.181519)],
    )
    def test_sde(self, w, mean, var):
        """Without Monte Carlo: the law of Euler-Maruyama's steps, extrapolated to small ones."""
        guided = ClassifierFree(PAIR.component(0), PAIR, w)
        coarse, fine = (euler_maruyama_law(guided, uniform(n, t_eps=1e-3)) for n in (150, 300))
        for a, b, truth in zip(coarse, fine, (mean, var), strict=True):
            assert b == pytest.approx(truth, abs=5e-3)
            assert 2 * b - a == pytest.approx(truth, abs=1e-3)

    @pytest.mark.parametrize("w", [2.0, 4.0, 8.0])
    def test_sde_by_its_samples(self, w):
        """They have the law of the steps: mean and variance within 5 standard errors."""
        ts, guided = uniform(100, t_eps=1e-3), ClassifierFree(PAIR.component(0), PAIR, w)
        exact_mean, exact_var = euler_maruyama_law(guided, ts)
        n, generator = 20_000, torch.Generator().manual_seed(0)
        x = S.EulerMaruyama()(guided, torch.randn(n, 1, generator=generator), ts, generator)
        assert abs(float(x.mean()) - exact_mean) < 5 * (exact_var / n) ** 0.5
        fourth = float((x - x.mean()).pow(4).mean())
        assert abs(float(x.var()) - exact_var) < 5 * ((fourth - exact_var**2) / n) ** 0.5

    def test_tilted(self):
        """The third column: p r^w by quadrature, for the other tests and the docs to use."""
        for w, mean, var in (
            (2.0, 1.035517, 0.219298),
            (4.0, 1.061627, 0.202169),
            (8.0, 1.086902, 0.188424),
        ):
            found = tilted(w)
            assert found[:2] == pytest.approx((mean, var), abs=1e-6)


def tilted(w):
    """Mean, variance and mass of p(x) p(+1|x)^w."""
    x = torch.linspace(-9, 9, 4001)[:, None]
    density = PAIR.log_prob(x).exp() * PAIR.posterior(x)[:, 0] ** w
    mass = density.sum()
    mean = (density @ x[:, 0]) / mass
    var = (density @ (x[:, 0] - mean).square()) / mass
    return float(mean), float(var), float(mass * 18 / 4000)


def euler_maruyama_law(denoiser, ts, half=5.0, cells=600):
    """Mean and variance at the end of the grid from N(0, 1), by the kernels of the steps."""
    x = torch.linspace(-half, half, cells)[:, None]
    dx = 2 * half / (cells - 1)
    p = torch.exp(-x[:, 0].square() / 2) / math.sqrt(2 * math.pi)
    for row in S.EulerMaruyama().table(SDE, ts).rows():
        mean = row.a * x + row.b[0] * denoiser(x, torch.tensor(row.t))
        assert row.c > 0.7 * dx  # else the sum over cells is no integral
        kernel = torch.exp(-0.5 * ((x.T - mean) / row.c).square())
        p = (p @ kernel) * dx / (row.c * math.sqrt(2 * math.pi))
    mean = float(p @ x[:, 0]) * dx
    return mean, float(p @ (x[:, 0] - mean).square()) * dx


class TestGaussians:
    """P09: p = N(0, 2), p(.|y) = N(0, 1)."""

    def laws(self, item):
        sde = VPSDE(item["inputs"]["b0"], item["inputs"]["b1"])
        return (GaussianMixture([1.0], [[0.0]], [[[v]]], sde) for v in (1.0, 2.0))

    def test_sde(self, reference):
        """dx = k x dt + g dW backwards: the variance by an accurate integral."""
        item = reference["P09"]
        c, u = self.laws(item)
        for row in item["expected"]:
            free = ClassifierFree(c, u, row["w"])
            expected, tol = row["reverse_SDE_variance"], item["atol"]
            assert sde_variance(free) == pytest.approx(expected, rel=item["rtol"], abs=tol)

    def test_tilted(self, reference):
        """The guided score at t = 0 is that of the tilted law."""
        item, one, zero = reference["P09"], torch.ones(1, 1), torch.tensor(0.0)
        c, u = self.laws(item)
        for row in item["expected"]:
            score = ClassifierFree(c, u, row["w"]).score(one, zero)
            assert -1 / float(score) == pytest.approx(row["tilted_variance"], rel=1e-12)


def sde_variance(denoiser, steps=4000):
    """V' = -(2 (f - g^2 k) V - g^2) backwards from 1, score = k x, by Runge-Kutta."""
    t = torch.linspace(1, 0, 2 * steps + 1)
    k = denoiser.score(torch.ones(len(t), 1), t)[:, 0]
    f, g2 = denoiser.sde.rates(t)
    rate, push = (2 * (g2 * k - f)).tolist(), g2.tolist()
    v, h = 1.0, 1 / steps
    for i in range(0, 2 * steps, 2):
        slope = lambda j, v: rate[j] * v + push[j]
        a = slope(i, v)
        b = slope(i + 1, v + h / 2 * a)
        c = slope(i + 1, v + h / 2 * b)
        v += h / 6 * (a + 2 * b + 2 * c + slope(i + 2, v + h * c))
    return v


class TestMeanShift:
    def setup_method(self):
        self.u, self.c = (
            GaussianMixture([1.0], [[m]], [[[v]]], SDE) for m, v in ((0, 2.0), (0.5, 1.0))
        )

    def guided(self, w):
        return Guided(self.u, lambda x, t: self.c.log_prob(x, t) - self.u.log_prob(x, t), w)

    @pytest.mark.parametrize("sampler", [S.Ancestral(), S.Ancestral("beta"), S.EulerMaruyama()])
    def test_the_step(self, sampler):
        """Written out: the gradient at the mean, at the time of the mean."""
        ts, x = torch.linspace(0.9, 0.0, 7), torch.randn(8, 1)
        out = MeanShift(sampler)(self.guided(1.7), x, ts, torch.Generator().manual_seed(0))
        generator = torch.Generator().manual_seed(0)
        for row in sampler.table(SDE, ts).rows():
            mean = row.a * x + row.b[0] * self.u(x, torch.tensor(row.t))
            s = torch.tensor(row.s)
            shift = 1.7 * (self.c.score(mean, s) - self.u.score(mean, s))
            x = mean
            if row.c:
                x = mean + row.c**2 * shift + row.c * torch.randn(8, 1, generator=generator)
        torch.testing.assert_close(out, x, rtol=1e-12, atol=1e-12)

    def test_converges_to_the_conditional_law_with_order_one(self):
        """All is affine: two points without noise and the factors of the noise give the law."""
        errors = [self.law_error(n) for n in (50, 100, 200, 400)]
        for e in zip(*errors, strict=True):
            orders = [math.log2(a / b) for a, b in pairwise(e)]
            assert 0.85 < orders[-1] < 1.15 and e[-1] < 0.02

    def law_error(self, n):
        ts, shifted, guided = quadratic(n), MeanShift(), self.guided(1.0)
        mean, cov = self.c.marginal(ts[0])
        mean, var = float(mean), float(cov)
        for row, pair in zip(S.Ancestral().table(SDE, ts).rows(), ts.unfold(0, 2, 1), strict=True):
            silent = lambda k, t, s, shape, device, dtype: torch.zeros(shape)
            zero, one = shifted(guided, torch.tensor([[0.0], [1.0]]), pair, noise=silent)[:, 0]
            mean = float(zero + (one - zero) * mean)
            var = float((one - zero) ** 2 * var + row.c**2)
        want_mean, want_var = (float(a) for a in self.c.marginal(ts[-1]))
        return abs(mean - want_mean), abs(var - want_var)

    def test_labels_are_cut_with_the_chunks(self):
        """The guided denoiser carries them, as for every sampler."""
        law = GaussianMixture.isotropic([0.5, 0.5], [[2.0], [-2.0]], 0.3, SDE)
        y = torch.arange(5000) % 2
        guided = Guided(law, classifier_log_prob(lambda x, t: law.posterior(x, t).log(), y))
        x = S.sample(guided, MeanShift(), (5000, 1), quadratic(60), seed=0, chunk=4096)
        assert bool((law.posterior(x).argmax(1) == y).all())

    def test_refused(self):
        with pytest.raises(ValueError, match="expected a sampler with noise in its steps"):
            MeanShift(S.DDIM())
        with pytest.raises(TypeError, match="expected Guided"):
            MeanShift()(self.u, torch.randn(3, 1), quadratic(4))

    def test_without_waiting(self, no_sync):
        x, guided = torch.randn(6, 1), self.guided(1.0)
        with no_sync(x):
            MeanShift()(guided, x, quadratic(4))


class TestTrainedClassifier:
    def test_each_class(self):
        """Three separable classes: more than 99 % of the guided samples are of the one asked for.

        The law's own denoiser is guided, so what fails is the classifier alone.
        """
        law = GaussianMixture.isotropic(
            [0.4, 0.3, 0.3], [[1.4, 0.0], [-0.7, 1.2], [-0.7, -1.2]], 0.25, SDE
        )
        x0 = law.sample(10_000, generator=torch.Generator().manual_seed(0))
        net = Classifier(2, 3, width=32).float()
        fitted = fit_classifier(
            net, SDE, x0.float(), law.posterior(x0).argmax(1), steps=800, batch=256
        )
        assert min(self.accuracy(law, fitted.classifier, k) for k in range(3)) > 0.99
        assert max(self.accuracy(law, fitted.classifier, k, w=0.0) for k in range(3)) < 0.5

    def accuracy(self, law, classifier, k, w=1.0):
        guided = Guided(law, classifier_log_prob(classifier, k), w)
        ts = quadratic(60)
        x = S.sample(guided, S.EulerMaruyama(), (2000, 2), ts, seed=k, dtype=torch.float32)
        return float((law.posterior(x.double()).argmax(1) == k).double().mean())

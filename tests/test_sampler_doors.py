"""What samplers and ``sample`` take, what they refuse in one sentence, whose table is whose."""

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from scoresde import (
    DDIM,
    VPSDE,
    Ancestral,
    BrownianPath,
    EpsDenoiser,
    GaussianMixture,
    PFHeun,
    PredictorCorrector,
    SDEAdaptive,
    X0Denoiser,
    fit_variance,
    log_snr,
    sample,
)
from scoresde.denoiser import Affine
from scoresde.noise import BlockNoise
from scoresde.samplers.base import TableSampler

SDE = VPSDE()
GM1 = GaussianMixture([0.6, 0.4], [[1.5], [-1.0]], [[[0.09]], [[0.25]]], SDE)
TS = log_snr(SDE, 4)


class Shrink(torch.nn.Module):
    """A network of one parameter that is not told what it is called with."""

    def __init__(self, dtype, event=2):
        super().__init__()
        self.linear = torch.nn.Linear(event, event, dtype=dtype)

    def forward(self, x, t):
        return self.linear(x)


def net(dtype=torch.float32):
    return X0Denoiser(Shrink(dtype), SDE)


def scaled(mean, scale=None):
    class Half(torch.nn.Module):
        def forward(self, x, t):
            return 0.5 * x

    mean = torch.as_tensor(mean)
    return X0Denoiser(Half(), SDE, Affine(mean, torch.ones_like(mean) if scale is None else scale))


class TestN07Shapes:
    """The shape asked for is that of the model's units."""

    @pytest.mark.parametrize("event", [(1, 2), (32,), (2, 32), (32, 2, 1), ()])
    def test_others_are_refused(self, event):
        with pytest.raises(ValueError, match=r"expected samples of shape \(32, 2\), as the units"):
            sample(scaled(torch.zeros(32, 2)), DDIM(), (4, *event), TS)

    def test_a_matrix_is_for_one_shape(self):
        model = scaled(torch.zeros(2), torch.eye(2))
        with pytest.raises(ValueError, match=r"expected samples of shape \(2,\).* got \(3, 2\)"):
            sample(model, DDIM(), (4, 3, 2), TS)

    def test_one_number_for_all_fits(self):
        x = sample(scaled(0.5), DDIM(), (4, 3, 8, 8), TS, seed=0)
        plain = sample(scaled(0.0), DDIM(), (4, 3, 8, 8), TS, seed=0)
        torch.testing.assert_close(x, plain + 0.5)

    def test_kin_the_units_refuse_it_both_ways(self):
        affine = Affine(torch.zeros(32, 2), torch.ones(32, 2))
        for turn in (affine.forward, affine.inverse):
            with pytest.raises(ValueError, match=r"expected samples of shape \(32, 2\)"):
                turn(torch.zeros(4, 1, 2))


class TestN09Dtypes:
    """Samples are of the dtype of the model."""

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("default", [torch.float32, torch.float64])
    def test_samples_follow_the_model(self, dtype, default):
        torch.set_default_dtype(default)
        x = sample(net(dtype), DDIM(), (4, 2), TS, seed=0)
        assert x.dtype == dtype

    def test_a_law_has_no_dtype_of_its_own(self, float32):
        assert sample(GM1, DDIM(), (4, 1), TS).dtype == torch.float32
        assert sample(GM1, DDIM(), (4, 1), TS, dtype=torch.float64).dtype == torch.float64

    @pytest.mark.parametrize("own", [torch.float32, torch.float64])
    @pytest.mark.parametrize("units", [torch.float32, torch.float64])
    @pytest.mark.parametrize("asked", [torch.float32, torch.float64, None])
    def test_the_dtype_asked_for_is_that_returned(self, own, units, asked):
        model, plain = net(own), net(own)
        model.affine = Affine(torch.ones(2, dtype=units), 2 * torch.eye(2, dtype=units))  # matrix
        plain.load_state_dict(model.state_dict(), strict=False)
        x, z = (sample(m, DDIM(), (4, 2), TS, seed=0, dtype=asked) for m in (model, plain))
        assert x.dtype == (asked or own)
        torch.testing.assert_close(x, 1 + 2 * z, rtol=1e-6, atol=1e-6)

    @pytest.mark.parametrize("sampler", [DDIM(), Ancestral(), PFHeun(), SDEAdaptive()])
    def test_numpy_and_wider_numbers_go_into_a_float32_network(self, sampler):
        model, wide = net(), torch.randn(5, 2)
        noise = lambda k, t, s, shape, *_: torch.ones(shape, dtype=torch.float32)
        expected = sampler(model, wide.float(), TS, noise=noise)
        for x in (wide, wide.numpy(), wide.float().numpy()):
            out = sampler(model, x, TS, noise=noise)
            assert out.dtype == torch.float32 and torch.equal(out, expected)
        assert isinstance(
            SDEAdaptive().solve(model, wide.numpy(), TS, noise=noise).x, torch.Tensor
        )

    def test_kin_so_do_the_data_of_a_variance(self):
        model, x0 = net(), torch.randn(50, 2)
        draw = lambda x0: fit_variance(model, TS, x0, torch.Generator().manual_seed(0)).values
        assert draw(x0) == draw(x0.numpy()) == draw(x0.float())

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_sixteen_bits_are_for_the_body(self, dtype):
        for call in (
            lambda: sample(GM1, DDIM(), (4, 1), TS, dtype=dtype),
            lambda: DDIM()(GM1, torch.zeros(4, 1, dtype=dtype), TS),
        ):
            with pytest.raises(TypeError, match=r"float32 or float64, got .* nets\.Autocast"):
                call()


@dataclass(frozen=True)
class Kept(VPSDE):
    """A process with a number of its own besides the fields."""

    hidden: float = field(default=1.0, compare=False)

    def sigma(self, t):
        return self.hidden * super().sigma(t)

    def sigma2(self, t):
        return self.hidden**2 * super().sigma2(t)


class Attribute(VPSDE):
    """The same, kept as an attribute by a subclass that is no dataclass."""

    def __init__(self, hidden):
        super().__init__()
        object.__setattr__(self, "hidden", hidden)

    sigma = lambda self, t: self.hidden * VPSDE.sigma(self, t)
    sigma2 = lambda self, t: self.hidden**2 * VPSDE.sigma2(self, t)


class Strength(DDIM):
    """A sampler with an amount of noise that is no field."""

    def __init__(self, hidden):
        super().__init__(1.0)
        object.__setattr__(self, "hidden", hidden)

    def row(self, sde, t, s):
        a, b, c = super().row(sde, t, s)
        return a, b, self.hidden * c


class TestN18Caches:
    """What a table depends on is in its key."""

    @pytest.mark.parametrize(
        "build",
        [
            lambda k: (Ancestral(), Kept(hidden=k)),
            lambda k: (Ancestral(), Attribute(k)),
            lambda k: (Strength(k), SDE),
            lambda k: (PredictorCorrector(Strength(k)), SDE),
        ],
        ids=["a field left out of ==", "an attribute", "of a sampler", "of a sampler within"],
    )
    def test_what_is_equal_to_its_fields_alone(self, build):
        """On a point mass at 0, with z = 1, the rows are x <- a x + c."""
        ts, z = torch.tensor([0.5, 0.4, 0.3]), lambda k, t, s, shape, *_: torch.ones(shape)
        assert build(1.0) == build(3.0)
        for k in (1.0, 3.0, 1.0):
            sampler, sde = build(k)
            law, state = GaussianMixture([1.0], [[0.0]], [[[0.0]]], sde), 0.0
            table = sampler.table(sde, ts)
            for a, c in zip(table.a.tolist(), table.c.tolist(), strict=True):
                state = a * state + c
            out = sampler(law, torch.zeros(1, 1), ts, noise=z)
            assert float(out) == pytest.approx(state, rel=1e-12)

    def test_the_library_s_own_are_computed_once(self):
        calls = []

        @dataclass(frozen=True)
        class Watched(TableSampler):
            eta: float = 0.5
            order = 1
            noise = False

            def row(self, sde, t, s):
                calls.append(self.eta)
                return DDIM().row(sde, t, s)

        for eta in (0.5, 0.5, 0.7):
            Watched(eta)(GM1, torch.zeros(2, 1), TS)
        assert calls == [0.5, 0.7]

    def test_what_can_change_is_computed_each_time(self):
        class Loose(TableSampler):
            order, noise, gain = 1, False, 1.0

            def row(self, sde, t, s):
                return DDIM().row(sde, t, s)[0] * self.gain, torch.zeros_like(t), t * 0

        sampler, ts = Loose(), torch.tensor([0.5, 0.4])
        one = sampler(GM1, torch.ones(1, 1), ts)
        sampler.gain = 2.0
        torch.testing.assert_close(sampler(GM1, torch.ones(1, 1), ts), 2 * one)


N22 = {
    "exchanged": (lambda: sample(DDIM(), GM1, (3, 1), TS), TypeError, "exchange them"),
    "a sampler's class": (
        lambda: sample(GM1, DDIM, (3, 1), TS),
        TypeError,
        r"write DDIM\(\.\.\.\)",
    ),
    "a denoiser's class": (
        lambda: DDIM()(EpsDenoiser, torch.zeros(2, 1), TS),
        TypeError,
        "instance",
    ),
    "a bare network": (
        lambda: sample(torch.nn.Linear(1, 1), DDIM(), (3, 1), TS),
        TypeError,
        r"expected a denoiser, such as EpsDenoiser\(net, sde\).*got Linear",
    ),
    "a sampler by name": (
        lambda: sample(GM1, "ddim", (3, 1), TS),
        TypeError,
        "expected a sampler",
    ),
    "a sampler as a denoiser": (
        lambda: DDIM()(DDIM(), torch.zeros(2, 1), TS),
        TypeError,
        "denoiser",
    ),
    "a number for a shape": (
        lambda: sample(GM1, DDIM(), 5, TS),
        ValueError,
        r"\(n, \*event\).*got 5",
    ),
    "text for a shape": (lambda: sample(GM1, DDIM(), "5", TS), ValueError, r"\(n, \*event\)"),
    "text for a seed": (
        lambda: sample(GM1, DDIM(), (3, 1), TS, seed="0"),
        TypeError,
        "expected an integer for a seed, got '0'",
    ),
    "True for a seed": (lambda: sample(GM1, DDIM(), (3, 1), TS, seed=True), TypeError, "got True"),
    "a fraction for a seed": (lambda: BlockNoise(0.5, 3, (1,)), TypeError, r"got 0\.5"),
    "text for a path's seed": (lambda: BrownianPath("0", (3, 1)), TypeError, "integer for a seed"),
    "a seed for a generator": (
        lambda: Ancestral()(GM1, torch.zeros(2, 1), TS, 0),
        TypeError,
        r"expected a torch\.Generator, got 0",
    ),
    "a repeated time": (
        lambda: DDIM()(GM1, torch.zeros(2, 1), torch.tensor([1.0, 0.5, 0.5, 0.1])),
        ValueError,
        "every time of the grid once, got 0.5 twice in a row: leave out",
    ),
    "no sample": (lambda: DDIM()(GM1, torch.zeros(0, 1), TS), ValueError, "at least one sample"),
    "no particle": (
        lambda: SDEAdaptive().solve(GM1, torch.zeros(0, 1), TS),
        ValueError,
        "at least one sample",
    ),
    "a column of times": (
        lambda: GM1(torch.zeros(3, 1), torch.full((3, 1), 0.5)),
        ValueError,
        r"expected a time \(\) or \(3,\)",
    ),
    "the options in a row": (lambda: sample(GM1, DDIM(), (3, 1), TS, 0), TypeError, "positional"),
}


@pytest.mark.parametrize("name", N22)
def test_n22_one_clear_sentence(name):
    call, error, message = N22[name]
    with pytest.raises(error, match=message):
        call()


def test_n22_integers_of_every_kind_are_seeds():
    draw = lambda seed: sample(GM1, DDIM(), (3, 1), TS, seed=seed)
    for seed in (np.int64(3), np.uint8(3), torch.tensor(3)):
        assert torch.equal(draw(seed), draw(3))
    assert not torch.equal(draw(-3), draw(3))

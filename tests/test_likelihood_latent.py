"""Latents: the flow of the ODE against quantile maps, its inverse, and paths between points."""

import math

import pytest
import torch

from scoresde.data import gauss, gm1, gm2, ring
from scoresde.denoiser import Affine, EpsDenoiser
from scoresde.distributions import GaussianMixture
from scoresde.likelihood import Adaptive, Fixed, decode, encode, interpolate, ode_likelihood
from scoresde.likelihood.latent import _on_the_sphere
from scoresde.nets import MLP
from scoresde.sde import VESDE, VPSDE

SDE = VPSDE()
TIGHT = Adaptive(rtol=1e-8, atol=1e-8)


def cdf(law, x, t):
    """Of a mixture on the line."""
    alpha, sigma2 = SDE.alpha(t), SDE.sigma2(t)
    std = (alpha**2 * law.spectrum[:, 0] + sigma2).sqrt()
    z = (x - alpha * law.means[:, 0]) / std
    return torch.distributions.Normal(0.0, 1.0).cdf(z) @ law.weights


def test_p04(reference):
    """The flow, its density and its slope against quantile maps computed with 30 digits."""
    item, law = reference["P04"], gm1(SDE)
    close = {"rel": item["rtol"], "abs": item["atol"]}
    for case, expected in zip(item["inputs"]["cases"], item["expected"], strict=True):
        x_T, t = torch.tensor([[case["x"]]]), float(case["t_end"])
        x = decode(law, x_T, TIGHT, t_eps=t)
        assert float(x) == pytest.approx(expected["x_end"], **close)
        assert float(encode(law, x, TIGHT, t_eps=t)) == pytest.approx(case["x"], **close)
        found = ode_likelihood(law, x, TIGHT, prior=law, t_eps=t)
        assert float(found.log_prob) == pytest.approx(expected["log_density_end"], **close)
        slope = float((law.log_prob(found.latent, torch.tensor(1.0)) - found.log_prob).exp())
        assert slope == pytest.approx(expected["jacobian_dxend_dxstart"], **close)


@pytest.mark.parametrize("walk", [TIGHT, Fixed(300)])
def test_the_quantile_map(walk):
    law = gm1(SDE)
    x = torch.linspace(-2.5, 2.5, 41)[:, None]
    latent = encode(law, x, walk)
    before, after = cdf(law, x, torch.tensor(0.0)), cdf(law, latent, torch.tensor(1.0))
    torch.testing.assert_close(before, after, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("walk", "error"), [(TIGHT, 1e-6), (Adaptive(), 1e-3), (Fixed(250), 1e-5)]
)
def test_round_trip(walk, error):
    law = ring(SDE)
    x = law.sample(50, generator=torch.Generator().manual_seed(0))
    latent = encode(law, x, walk)
    torch.testing.assert_close(decode(law, latent, walk), x, atol=error, rtol=0)
    start = torch.randn(50, 2)
    torch.testing.assert_close(
        encode(law, decode(law, start, walk), walk), start, atol=10 * error, rtol=0
    )


def test_latents_of_a_gaussian():
    """The flow of one Gaussian is affine in each principal direction: sqrt(v_T/v_0) (x - m)."""
    law = gauss(SDE)
    x, (mean, _) = law.sample(20), law.marginal()
    alpha, sigma2 = SDE.alpha(torch.tensor(1.0)), SDE.sigma2(torch.tensor(1.0))
    stretch = ((alpha**2 * law.spectrum[0] + sigma2) / law.spectrum[0]).sqrt()
    basis = law.basis[0]
    expected = alpha * mean + (x - mean) @ basis * stretch @ basis.T
    torch.testing.assert_close(encode(law, x, TIGHT), expected, atol=1e-6, rtol=0)


def test_units():
    law = GaussianMixture.isotropic([1.0], torch.zeros(1, 2), 0.5, SDE)
    plain = encode(law, torch.tensor([[0.3, -0.2]]), TIGHT)
    law.affine = Affine(torch.tensor([5.0, 1.0]), torch.tensor([10.0, 0.1]))
    x = law.affine.inverse(torch.tensor([[0.3, -0.2]]))
    torch.testing.assert_close(encode(law, x, TIGHT), plain)
    torch.testing.assert_close(decode(law, plain, TIGHT), x, atol=1e-6, rtol=0)


def test_networks_begin_above_zero(no_sync):
    net = MLP(2, width=8, depth=1)
    torch.nn.init.normal_(net.trunk.last.weight, std=0.1)
    model, x = EpsDenoiser(net, SDE), torch.randn(4, 2)
    with no_sync(x):
        latent = encode(model, x, Fixed(40))
        decode(model, latent, Fixed(40))
    torch.testing.assert_close(decode(model, encode(model, x, TIGHT), TIGHT), x, atol=1e-6, rtol=0)


@pytest.mark.parametrize("sde", [VPSDE(), VESDE()])
def test_interpolation(sde):
    """It begins and ends at a and b, and every point between lies where the data are."""
    law = gm2(sde)
    a, b = law.component(0).sample(3), law.component(1).sample(3)
    path = interpolate(law, a, b, 7, Fixed(250))
    assert path.shape == (7, 3, 2)
    torch.testing.assert_close(path[0], a, atol=1e-4, rtol=0)
    torch.testing.assert_close(path[-1], b, atol=1e-4, rtol=0)
    expected = _on_the_sphere(encode(law, a), encode(law, b), 7)[3]
    torch.testing.assert_close(encode(law, path[3]), expected, atol=2e-3, rtol=1e-3)


def test_great_circles():
    a = torch.tensor([[3.0, 0.0], [1.0, 1.0], [2.0, 0.0]])
    b = torch.tensor([[0.0, 3.0], [2.0, 2.0], [-1.0, 1e-4]])
    path = _on_the_sphere(a, b, 4)
    angle = torch.arange(4) * math.pi / 6
    torch.testing.assert_close(path[:, 0], 3 * torch.stack([angle.cos(), angle.sin()], 1))
    line = torch.linspace(1, 2, 4)[:, None].expand(4, 2)  # one direction: a straight line
    torch.testing.assert_close(path[:, 1], line)
    lengths = torch.linspace(2, 1, 4)  # nearly opposite, and of two lengths: still no detour
    torch.testing.assert_close(path[:, 2].norm(dim=1), lengths, rtol=1e-6, atol=0)


class TestN01Opposite:
    """Opposite latents: a straight line in one dimension, else NaN; near it digits are kept."""

    @pytest.mark.parametrize("walk", [TIGHT, Fixed(250)])
    def test_n01_in_one_dimension_of_a_gaussian(self, walk):
        """The quantile map of a Gaussian is affine: equal steps in x, through the mean at 3."""
        law = GaussianMixture([1.0], [[3.0]], [[[4.0]]], SDE)
        path = interpolate(law, torch.tensor([[2.0]]), torch.tensor([[4.5]]), 6, walk)
        expected = torch.linspace(2.0, 4.5, 6)
        torch.testing.assert_close(path.flatten(), expected, atol=1e-6, rtol=0)

    def test_n01_in_one_dimension_of_a_mixture(self):
        """The quantile map of each point: F_0(path) = F_T(line between the latents)."""
        law = gm1(SDE)
        a, b = torch.tensor([[-2.0], [-1.0]]), torch.tensor([[1.5], [2.0]])
        path = interpolate(law, a, b, 5, TIGHT).flatten()[:, None]
        first, last = encode(law, torch.cat([a, b]), TIGHT).split(2)
        assert (first * last < 0).all()  # on both sides of 0
        w = torch.linspace(0, 1, 5).reshape(-1, 1, 1)
        line = torch.lerp(first, last, w).flatten()[:, None]
        zero, one = torch.tensor([0.0, 1.0])
        torch.testing.assert_close(cdf(law, path, zero), cdf(law, line, one), atol=1e-6, rtol=0)

    def test_n01_opposite_latents_are_nan_alone(self):
        law = GaussianMixture.isotropic([1.0], torch.zeros(1, 2), 0.7, SDE)
        a, b = torch.tensor([[1.0, 0.3], [1.0, 0.2]]), torch.tensor([[-1.0, -0.3], [0.3, 0.5]])
        path = interpolate(law, a, b, 5)
        assert path[:, 0].isnan().all()
        torch.testing.assert_close(path[:, 1:], interpolate(law, a[1:], b[1:], 5))

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("miss", [1e-1, 1e-2, 1e-3])
    def test_n01_nearly_opposite(self, miss, dtype):
        """To 4 roundings of unit vectors over the angle that they miss, the condition number."""
        a = torch.tensor([[1.0, 0.0]], dtype=dtype)
        b = torch.tensor([[-math.cos(miss), math.sin(miss)]], dtype=dtype)
        angle = torch.arange(5.0) / 4 * torch.atan2(b[0, 1].double(), b[0, 0].double())
        expected = torch.stack([angle.cos(), angle.sin()], 1)
        found = _on_the_sphere(a, b, 5)[:, 0].double()
        tolerance = 4 * torch.finfo(dtype).eps / miss
        torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)


def test_refusals():
    law, x = gauss(SDE), torch.zeros(2, 2)
    with pytest.raises(ValueError, match="a and b of one shape"):
        interpolate(law, x, x[:1], 3)
    with pytest.raises(ValueError, match="n >= 2 points"):
        interpolate(law, x, x, 1)
    for function in (encode, decode):
        with pytest.raises(TypeError, match="expected floating-point points"):
            function(law, torch.zeros(2))

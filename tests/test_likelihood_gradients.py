"""Gradients through the likelihood and the latents, against closed forms and differences."""

import pytest
import torch

from scoresde.denoiser import Denoiser, EpsDenoiser, like
from scoresde.distributions import GaussianMixture
from scoresde.likelihood import (
    Adaptive,
    Fixed,
    Torchdiffeq,
    bits_per_dim,
    decode,
    elbo,
    encode,
    log_likelihood,
    ode_likelihood,
)
from scoresde.nets import MLP
from scoresde.prediction import convert
from scoresde.sde import VPSDE

SDE = VPSDE()
COV = torch.tensor([[1.0, 0.3], [0.3, 0.5]], dtype=torch.float64)
TIGHT = Adaptive(rtol=1e-8, atol=1e-8)
WALKS = [TIGHT, Fixed(240), Torchdiffeq("dopri8", rtol=1e-9, atol=1e-9)]


class Normal(Denoiser):
    """x0_hat of N(0, e^w I), with w a parameter."""

    regular = True

    def __init__(self, w):
        super().__init__(SDE)
        self.w = torch.nn.Parameter(torch.tensor(w))

    def predict(self, quantity, x, t, **cond):
        alpha, sigma2 = like(SDE.alpha(t), x), like(SDE.sigma2(t), x)
        eps = sigma2.sqrt() / (alpha**2 * self.w.exp() + sigma2) * x
        return convert(SDE, "eps", quantity, x, t, eps)

    def growth(self):
        """dx_T/dx_0 = the ratio of standard deviations."""
        one = torch.tensor(SDE.t_max)
        return ((SDE.alpha(one) ** 2 * self.w.exp() + SDE.sigma2(one)) / self.w.exp()).sqrt()

    def log_prob(self, x):
        """log N(k x; 0, 1) + d log k, k the growth."""
        k = self.growth()
        return SDE.prior_log_prob(k * x) + x.shape[1] * k.log()


def network():
    net = MLP(2, width=8, depth=1)
    torch.nn.init.normal_(net.trunk.last.weight, std=0.3)
    return EpsDenoiser(net, SDE)


@pytest.mark.parametrize("walk", WALKS)
class TestN05ClosedForms:
    def test_n05_score_and_slope_in_the_mean(self, walk):
        """d log N(x; m, C)/dx = -C^{-1}(x - m) = -d/dm."""
        mean = torch.tensor([[0.5, -0.2]], requires_grad=True)
        law = GaussianMixture(torch.ones(1), mean, COV[None], SDE)
        x = torch.randn(4, 2, requires_grad=True)
        log_p = log_likelihood(law, x, walk, prior=law, differentiable=True)
        in_x, in_mean = torch.autograd.grad(log_p.sum(), (x, mean))
        score = torch.linalg.solve(COV, (mean - x).mT).mT
        torch.testing.assert_close(in_x, score, atol=1e-6, rtol=0)
        torch.testing.assert_close(in_mean, -score.sum(0, keepdim=True), atol=1e-6, rtol=0)

    @pytest.mark.parametrize("probes", [None, 1])
    def test_n05_slope_in_a_parameter(self, walk, probes):
        """Rademacher probes are exact where the Jacobian is diagonal."""
        model, x = Normal(-0.5), torch.randn(5, 2, requires_grad=True)
        found = log_likelihood(model, x, walk, probes, differentiable=True)
        expected = model.log_prob(x)
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
        for a in (x, model.w):
            slopes = (
                torch.autograd.grad(p.sum(), a, retain_graph=True) for p in (found, expected)
            )
            torch.testing.assert_close(*slopes, atol=2e-6, rtol=0)

    def test_n05_latents(self, walk):
        model, x = Normal(-0.5), torch.randn(5, 2, requires_grad=True)
        for function, k in ((encode, model.growth()), (decode, 1 / model.growth())):
            found = function(model, x, walk, differentiable=True)
            for a in (x, model.w):
                pair = ((f * x.detach()).sum() for f in (found, k * x))
                slopes = (torch.autograd.grad(p, a, retain_graph=True) for p in pair)
                torch.testing.assert_close(*slopes, atol=1e-5, rtol=1e-6)


def test_n05_elbo_of_a_normal():
    """Gauss-Legendre nodes and given noise: a smooth function, by central differences."""
    x, z = torch.randn(3, 2), torch.randn(2, 3, 2)
    bound = lambda w, x: elbo(Normal(w), x, 16, z=z, differentiable=True).total.sum()
    model, leaf = Normal(-0.5), x.clone().requires_grad_()
    total = elbo(model, leaf, 16, z=z, differentiable=True).total.sum()
    in_x, in_w = torch.autograd.grad(total, (leaf, model.w))
    h, axis = 1e-5, torch.randn(3, 2)
    slope_w = (bound(-0.5 + h, x) - bound(-0.5 - h, x)) / (2 * h)
    slope_x = (bound(-0.5, x + h * axis) - bound(-0.5, x - h * axis)) / (2 * h)
    torch.testing.assert_close(in_w, slope_w.detach(), rtol=1e-7, atol=1e-7)
    torch.testing.assert_close((in_x * axis).sum(), slope_x.detach(), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("probes", [None, torch.ones(1, 3, 2, dtype=torch.float64)])
def test_n05_of_a_network_by_central_differences(probes):
    """On a fixed grid the walk is one smooth function, so differences are right to h^2."""
    model, x = network(), torch.randn(3, 2, requires_grad=True)
    mean = lambda: log_likelihood(model, x, Fixed(12), probes, differentiable=True).mean()
    leaves = [x, *model.parameters()]
    slopes = torch.autograd.grad(mean(), leaves)
    axes = [torch.randn_like(leaf) for leaf in leaves]
    slope = sum((s * a).sum() for s, a in zip(slopes, axes, strict=True))
    values, h = [], 1e-5
    for sign in (1, -2):
        with torch.no_grad():
            for leaf, axis in zip(leaves, axes, strict=True):
                leaf += sign * h * axis
        values.append(mean().detach())
    torch.testing.assert_close(slope, (values[0] - values[1]) / (2 * h), rtol=1e-6, atol=1e-7)


def test_n05_adaptive_takes_the_same_steps_again():
    model, x = network(), torch.randn(3, 2, requires_grad=True)
    plain = ode_likelihood(model, x)
    again = ode_likelihood(model, x, differentiable=True)
    torch.testing.assert_close(again.log_prob, plain.log_prob, rtol=1e-12, atol=1e-12)
    assert plain.evaluations < again.evaluations <= 2 * plain.evaluations
    fine = log_likelihood(model, x, Adaptive(1e-6, 1e-6), differentiable=True)
    pair = [torch.autograd.grad(p.sum(), x)[0] for p in (again.log_prob, fine)]
    torch.testing.assert_close(*pair, atol=1e-3, rtol=1e-3)


def test_n05_without_being_asked_nothing_carries_gradients():
    """Of no part of any answer: half a gradient would be a wrong one."""
    model, x = network(), torch.randn(3, 2, requires_grad=True)
    found = [*ode_likelihood(model, x, Fixed(4), 2), *elbo(model, x, 4)]
    found += [encode(model, x, Fixed(4)), decode(model, x, Fixed(4))]
    found += [bits_per_dim(model, torch.ones(2, 2, dtype=torch.long), 4, 0, 1, walk=Fixed(4))]
    assert not any(a.requires_grad for a in found if isinstance(a, torch.Tensor))
    asked = bits_per_dim(
        model, torch.ones(2, 2, dtype=torch.long), 4, 0, 1, walk=Fixed(4), differentiable=True
    )
    assert asked.requires_grad

"""Gradients through all steps of a sampler, by finite differences and products of Jacobians."""

import pytest
import torch

from scoresde import (
    DDIM,
    DEIS,
    ERSDE,
    PFRK4,
    VPSDE,
    Adams,
    Ancestral,
    Checkpointed,
    ClassifierFree,
    Counted,
    DPMSolver,
    DPMSolverPP,
    EDMStochastic,
    EpsDenoiser,
    EulerMaruyama,
    FeynmanKac,
    GaussianMixture,
    Given,
    Guided,
    Langevin,
    MeanShift,
    PFAdaptive,
    PFEuler,
    PFHeun,
    PredictorCorrector,
    ReverseDiffusion,
    SASolver,
    SDEAdaptive,
    TorchSDE,
    UniPC,
    log_snr,
    sample,
    uniform,
)
from scoresde.denoiser import Affine
from scoresde.inverse import DDRM, Mask, Measurement, Observed, RePaint, Replacement
from scoresde.noise import BlockNoise
from scoresde.samplers import Captured, Compiled

SDE = VPSDE()
GM2 = GaussianMixture.isotropic(
    torch.tensor([0.6, 0.4]), [[1.5, 0.0], [-1.0, 0.5]], torch.tensor([0.3, 0.5]), SDE
)
FIXED = [
    EulerMaruyama(),
    ReverseDiffusion(),
    Ancestral(),
    Ancestral("optimal", lambda t: 0.1 * t),
    DDIM(),
    DDIM(0.5),
    PFEuler(),
    PFHeun(),
    PFRK4(),
    DEIS(3),
    DPMSolverPP(2, 1.0),
    UniPC(3),
    SASolver(2, 2, 0.5),
    DPMSolver(3),
    EDMStochastic(3.0),
    ERSDE(),
    Adams(),
    PredictorCorrector(EulerMaruyama()),
    PredictorCorrector(Ancestral(), Langevin(rule="song"), "cp"),
]
TS = log_snr(SDE, 6)


class Net(torch.nn.Module):
    """eps by two layers, moved by a condition y."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.a, self.b = (
            torch.nn.Parameter(torch.randn(*shape, generator=generator) / 2)
            for shape in ((2, 8), (8, 2))
        )

    def forward(self, x, t, y=None):
        return ((x if y is None else x + y) @ self.a + t).tanh() @ self.b


def noises(x, seed=0):
    z = torch.randn(100, *x.shape, generator=torch.Generator().manual_seed(seed))
    return lambda k, *_: z[k]


def slope(function, at, along, h=2e-5):
    """The derivative along a direction by central differences, extrapolated: O(h^4)."""
    rise = lambda h: (function(at + h * along) - function(at - h * along)) / (2 * h)
    return float((4 * rise(h / 2) - rise(h)) / 3)


def start(seed=1, n=3):
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(seed))


def check_x(sampler, denoiser, ts=TS, n=3):
    """The gradient of a weighted sum of the results with respect to x, along a direction."""
    x, along, weights = start(1, n).requires_grad_(), start(2, n), start(3, n)
    run = lambda x, **kw: (weights * sampler(denoiser, x, ts, noise=noises(x), **kw)).sum()
    (grad,) = torch.autograd.grad(run(x, differentiable=True), x)
    expected = slope(run, x.detach(), along)
    assert float((grad * along).sum()) == pytest.approx(expected, rel=1e-7, abs=1e-9)


@pytest.mark.parametrize("sampler", FIXED)
def test_n05_every_sampler_on_a_fixed_grid(sampler):
    check_x(sampler, GM2)
    check_x(sampler, EpsDenoiser(Net(), SDE), uniform(5, t_eps=0.1))


PULL = torch.tensor([[0.3, -0.2]])
KINDS = {
    "a law's own velocity, to t = 0": (PFHeun(), GM2, uniform(6, t_eps=0.0)),
    "a gradient": (
        Ancestral(),
        Guided(GM2, lambda x, t: GM2.posterior(x, t)[:, 0].log(), 2.0),
        TS,
    ),
    "a shifted step": (MeanShift(), Guided(GM2, lambda x, t: -(x**4).sum(1) * t, 0.5), TS),
    "two models": (UniPC(3), ClassifierFree(GM2.component(0), GM2, 2.0), TS),
    "evaluated again": (PFRK4(), Checkpointed(GM2), uniform(4, t_eps=0.0)),
}


@pytest.mark.parametrize("name", KINDS)
def test_n05_every_kind_of_denoiser(name):
    check_x(*KINDS[name])


def test_n05_the_product_of_jacobians():
    """d x_0/d x_T = prod_k (a_k I + b_k d x0_hat/dx), from the states on the way."""
    x, states = start(n=1), []
    for sampler in (DDIM(), EulerMaruyama()):
        states.clear()
        source = noises(x)
        sampler(GM2, x, TS, noise=source, callback=lambda k, t, x, x0_hat: states.append(x))
        product = torch.eye(2)
        for row, state in zip(sampler.table(SDE, TS).rows(), states, strict=False):
            t = torch.tensor(row.t)
            inner = torch.func.jacrev(lambda y, t=t: GM2(y[None], t)[0])(state[0])
            product = (row.a * torch.eye(2) + row.b[0] * inner) @ product
        run = lambda x: sampler(GM2, x[None], TS, noise=source, differentiable=True)[0]  # noqa: B023
        jacobian = torch.autograd.functional.jacobian(run, x[0])
        torch.testing.assert_close(jacobian, product, rtol=1e-11, atol=1e-13)


def test_n05_the_slope_of_the_quantile_map():
    """In one dimension the flow carries quantiles: d x_0/d x_T = p_T(x_T)/p_0(x_0).

    RK4 with 400 steps: its error falls as n^-4, 1.5e-9 here.
    """
    law = GaussianMixture([0.6, 0.4], [[1.5], [-1.0]], [[[0.09]], [[0.25]]], SDE)
    x = torch.linspace(-2, 2, 7)[:, None].requires_grad_()
    out = PFRK4()(law, x, uniform(400, t_eps=0.0), differentiable=True)
    (grad,) = torch.autograd.grad(out.sum(), x)
    with torch.no_grad():
        ratio = (law.log_prob(x, torch.ones(())) - law.log_prob(out)).exp()
    torch.testing.assert_close(grad[:, 0], ratio, rtol=1e-7, atol=0)


def numbers(net, y, **kw):
    """A weighted sum of samples in the user's units, by chunks of a network with conditions."""
    model = EpsDenoiser(net, SDE, Affine(torch.tensor([1.0, -2.0]), torch.tensor([3.0, 0.5])))
    sampler = PredictorCorrector(Ancestral(), Langevin(rule="song"))
    x = sample(Given(model, y=y), sampler, (5, 2), TS, seed=0, **kw)
    return (x * torch.linspace(-1, 1, 10).reshape(5, 2)).sum()


def test_n05_parameters_and_conditions_through_sample():
    """Song's corrector multiplies by the noise, whose memory ``sample`` uses again by default."""
    net, y = Net(), start(4, 5).requires_grad_()
    grads = torch.autograd.grad(numbers(net, y, differentiable=True), [*net.parameters(), y])
    for k, part in enumerate((net.a, net.b, y)):
        along = torch.randn(part.shape, generator=torch.Generator().manual_seed(k))

        def run(value, part=part):
            old = part.data
            part.data = value
            out = numbers(net, y)
            part.data = old
            return out

        expected = slope(run, part.data, along)
        assert float((grads[k] * along).sum()) == pytest.approx(expected, rel=1e-7, abs=1e-9)


def test_n05_a_parameter_of_the_guide():
    """``torch.func`` within, autograd outside: d/d strength of a guide."""
    strength, x = torch.tensor(0.7, requires_grad=True), start()

    def run(s, **kw):
        guided = Guided(GM2, lambda x, t: -s * (x - PULL).square().sum(1))
        return DDIM()(guided, x, TS, **kw).sum()

    (grad,) = torch.autograd.grad(run(strength, differentiable=True), strength)
    expected = slope(run, strength.detach(), torch.tensor(1.0))
    assert float(grad) == pytest.approx(expected, rel=1e-7, abs=1e-9)


def test_n05_a_way_to_walk_that_knows_a_measurement():
    measurement = Measurement(Mask(torch.tensor([True, False])), torch.tensor([[0.4]]), 0.1)
    for sampler in (Replacement(), DDRM(), RePaint(resamples=2)):
        check_x(sampler, Observed(GM2, measurement), torch.tensor([0.2, 0.1, 0.05]), n=2)


def test_n05_evaluated_again_instead_of_kept():
    """The same numbers and gradients, n evaluations more, and no activations in between."""
    x, n, kept = start(), len(TS) - 1, []
    grads, sizes, calls = [], [], []
    for wrap in (lambda d: d, Checkpointed):
        net, kept = Net(), []
        counted = Counted(EpsDenoiser(net, SDE))
        pack = lambda t: kept.append(t) or t  # noqa: B023
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            out = Ancestral()(wrap(counted), x, TS, noise=noises(x), differentiable=True)
        sizes.append(sum(t.numel() for t in kept if t.shape == (3, 8)))
        calls.append(counted.calls)
        grads.append([out.detach(), *torch.autograd.grad(out.sum(), [net.a, net.b])])
        calls.append(counted.calls)
    assert calls == [n, n, n, 2 * n]
    assert sizes[0] >= n * 3 * 8 and sizes[1] == 0
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-13, atol=1e-13)


def test_n05_evaluated_once_where_no_gradient_is_asked_for():
    counted = Counted(GM2)
    x, t = start(), torch.tensor(0.5)
    torch.testing.assert_close(
        DDIM()(Checkpointed(counted), x, TS), DDIM()(GM2, x, TS), rtol=1e-14, atol=1e-14
    )
    assert counted.calls == len(TS) - 1
    for name in ("eps", "v", "score", "velocity"):
        assert torch.equal(getattr(Checkpointed(GM2), name)(x, t), getattr(GM2, name)(x, t))


def test_n05_by_default_there_are_none():
    net, x = EpsDenoiser(Net(), SDE), start()
    assert not DDIM()(net, x, TS).requires_grad
    assert not sample(net, DDIM(), (3, 2), TS).requires_grad
    with torch.no_grad():
        assert not DDIM()(net, start().requires_grad_(), TS).requires_grad


def test_n05_the_memory_of_noise_is_used_again_only_without_gradients():
    draw = lambda noise: noise(0, 1.0, 0.5, (4, 2), torch.device("cpu"), torch.float64)
    own, used = BlockNoise(0, 4, (2,)), BlockNoise(0, 4, (2,))
    one, other = draw(own), draw(own)
    with torch.no_grad():
        first = draw(used)
        assert torch.equal(first, one)
        second = draw(used)
    assert torch.equal(second, other) and first.data_ptr() == second.data_ptr()
    assert one.data_ptr() != other.data_ptr()


X, GRID = start().requires_grad_(), TS.clone().requires_grad_()
ASK = {"differentiable": True}
REFUSED = {
    "x that requires grad": (lambda: DDIM()(GM2, X, TS), ValueError, r"x\.detach\(\)"),
    "a grid": (
        lambda: DDIM()(GM2, X, TS.clone().requires_grad_(), **ASK),
        ValueError,
        "ts.detach",
    ),
    "nothing to follow": (lambda: DDIM()(GM2, start(), TS, **ASK), RuntimeError, "got none"),
    "no grad": (lambda: torch.no_grad()(DDIM())(GM2, X, TS, **ASK), RuntimeError, "got none"),
    **{
        type(sampler).__name__: (
            lambda sampler=sampler: sampler(GM2, X, TS, **ASK),
            TypeError,
            "no gradients pass through",
        )
        for sampler in (PFAdaptive(), SDEAdaptive(), TorchSDE(), FeynmanKac(), Compiled(DDIM()))
    },
    "a graph": (lambda: Captured(DDIM())(GM2, X, TS, **ASK), TypeError, "no gradients pass"),
    "a compiled run": (
        lambda: sample(EpsDenoiser(Net(), SDE), DDIM(), (2, 2), TS, compile=True, **ASK),
        TypeError,
        "no gradients pass through",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_n05_never_a_silent_zero(name):
    call, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        call()

"""The Fokker-Planck equation: exact laws obey it, known errors break it by the known amount."""

import itertools
import math

import pytest
import torch

from scoresde import (
    VPSDE,
    CosineVPSDE,
    Denoiser,
    EpsDenoiser,
    GaussianMixture,
    KarrasSDE,
    SubVPSDE,
)
from scoresde.data import gm1, gm2
from scoresde.likelihood import log_likelihood
from scoresde.nets import ConcatMLP
from scoresde.physics import (
    Cells,
    Transport,
    denoising,
    density_residual,
    evolve,
    flow_log_prob,
    log_density_residual,
    noising,
    score_residual,
)
from scoresde.prediction import convert

TIMES = [0.02, 0.05, 0.3, 0.6, 1.0]
SDE = VPSDE()
C = 0.25  # the variance of the data in P11


class Scaled(Denoiser):
    """(1 + delta) times the score of a law: what P11 calls mis-scaled."""

    def __init__(self, law, delta):
        super().__init__(law.sde)
        self.law, self.delta = law, delta

    def predict(self, quantity, x, t):
        score = (1 + self.delta) * self.law.score(x, t)
        return convert(self.sde, "score", quantity, x, t, score)


def time(t):
    return torch.tensor(float(t))


def close(actual, expected, rtol=1e-12, atol=0.0):
    torch.testing.assert_close(
        torch.as_tensor(actual), torch.as_tensor(expected), rtol=rtol, atol=atol
    )


def normal(variance, sde=SDE, dim=1):
    means, covs = torch.zeros(1, dim), variance * torch.eye(dim)[None]
    return GaussianMixture(torch.ones(1), means, covs, sde)


def wrong_log_p(x, t):
    """N(0, 1 + t) at all times, with s = -x/v, v = 1 + t: no solution for any of the processes."""
    v = 1 + t
    return -0.5 * x.flatten(1).square().sum(1) / v - 0.5 * x[0].numel() * (2 * math.pi * v).log()


# ---- residuals --------------------------------------------------------------------------------
@pytest.mark.parametrize("t", TIMES)
@pytest.mark.parametrize("sde", [SDE, CosineVPSDE(), SubVPSDE(), KarrasSDE(4.0)], ids=str)
def test_an_exact_mixture_has_no_residual(sde, t):
    law, t = gm2(sde), time(min(t, sde.t_max))
    scale = float(sde.alpha(t).square() + sde.sigma2(t)) ** 0.5
    x = 2 * scale * torch.randn(50, 2)
    size = 1 + float(sde.g2(t))  # the terms that cancel are of this size
    close(log_density_residual(law.log_prob, sde, x, t) / size, torch.zeros(50), atol=1e-9)
    close(density_residual(law.log_prob, sde, x, t) / size, torch.zeros(50), atol=1e-9)
    close(score_residual(law.score, sde, x, t) / size, torch.zeros(50, 2), atol=1e-9)


@pytest.mark.parametrize("event", [(1,), (3,), (2, 2)])
def test_a_wrong_law_has_the_residual_of_calculus(event):
    """For N(0, v I), v = 1 + t: with w = (1 - 2 f v - g^2)/v, residual w (|x|^2/v - d)/2 of l."""
    x, t = torch.randn(20, *event), torch.linspace(0.1, 0.9, 20)
    (f, g2), v, d = SDE.rates(t), 1 + t, x[0].numel()
    w = (1 - 2 * f * v - g2) / v
    expected = 0.5 * w * (x.flatten(1).square().sum(1) / v - d)
    close(log_density_residual(wrong_log_p, SDE, x, t), expected, 1e-11, 1e-12)
    p = wrong_log_p(x, t).exp()
    close(density_residual(wrong_log_p, SDE, x, t), p * expected, 1e-11, 1e-12)
    column = (-1, *[1] * len(event))
    score = lambda x, t: -x / (1 + t).reshape(column)
    close(score_residual(score, SDE, x, t), (w / v).reshape(column) * x, 1e-11, 1e-12)


def test_a_mis_scaled_score_is_the_score_of_no_process():
    """(1 + d) s of N(0, v): residual g^2 d (1 + d) x/v^2, while the exact part drops out."""
    law, delta, x, t = normal(C), 0.1, torch.randn(20, 1), time(0.3)
    v, g2 = law.marginal(t)[1].squeeze(), SDE.g2(t)
    expected = -g2 * delta * (1 + delta) * x / v**2
    close(score_residual(Scaled(law, delta).score, SDE, x, t), expected, 1e-10)


def test_the_residual_of_a_flow_is_that_of_its_law():
    """The ODE of a mis-scaled score makes N(0, V) with dV/dt = 2 f V + (1 + d) g^2 V/v."""
    law, delta, x, t = normal(C), 0.3, torch.randn(8, 1), time(0.4)
    log_p = flow_log_prob(Scaled(law, delta), law, 16)
    v, end = (law.marginal(s)[1].squeeze() for s in (t, time(1)))
    ratio = (v / SDE.alpha(t).square()) / (end / SDE.alpha(time(1)).square())
    flow_v = SDE.alpha(t).square() / SDE.alpha(time(1)).square() * end * ratio ** (1 + delta)
    expected = -0.5 * x[:, 0].square() / flow_v - 0.5 * (2 * math.pi * flow_v).log()
    close(log_p(x, t), expected, 1e-4)
    # the law needs dV/dt = 2 f V + g^2; the flow's is off by g^2 ((1 + d) V/v - 1)
    w = SDE.g2(t) * ((1 + delta) * flow_v / v - 1) / flow_v
    residual = log_density_residual(log_p, SDE, x, t)
    close(residual, 0.5 * w * (x[:, 0].square() / flow_v - 1), 5e-3, 5e-3)


@pytest.mark.parametrize("make", [gm1, gm2])
def test_the_flow_of_an_exact_score_is_the_law(make):
    law, t = make(SDE), torch.linspace(0.1, 0.9, 9)
    x = law.sample(9, t)
    coarse, fine = ((flow_log_prob(law, law, n)(x, t) - law.log_prob(x, t)) for n in (24, 48))
    assert fine.abs().max() < 2e-5
    assert coarse.abs().max() / fine.abs().max() > 12  # order four: 16


def test_the_flow_of_an_exact_score_has_no_residual():
    law, t = gm1(SDE), torch.linspace(0.4, 0.9, 5)
    residual = log_density_residual(flow_log_prob(law, law, 16), SDE, law.sample(5, t), t)
    close(residual, torch.zeros(5), atol=2e-3)


def test_the_law_of_a_network():
    """Its flow obeys d_t l = -div velocity - velocity.s; what is left is the error of the score.

    With e = s_net - s, s the gradient of its own log density, the residual is
    g^2/2 (div e + e.s).
    """
    net, x, t = ConcatMLP(1, width=16), torch.randn(6, 1), time(0.7)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    model = EpsDenoiser(net, SDE)
    log_p = flow_log_prob(model, steps=12)
    close(log_p(x, t), log_likelihood(model, x, t_eps=0.7), 1e-5)
    s = torch.func.grad(lambda x: log_p(x, t).sum())
    error = lambda x: model.score(x, t) - s(x)
    e, div = torch.func.jvp(error, (x,), (torch.ones_like(x),))
    expected = 0.5 * SDE.g2(t) * (div + e * s(x))[:, 0]
    assert expected.abs().min() > 0.01
    close(log_density_residual(log_p, SDE, x, t), expected.detach(), 1e-3, 1e-3)


def test_the_flow_starts_from_the_prior_unless_told():
    law, x, t = normal(4.0, KarrasSDE(2.0)), torch.randn(5, 1), time(1.0)
    close(flow_log_prob(law, steps=1)(x, t), law.sde.prior(1.0).log_prob(x))
    close(flow_log_prob(law, law, 1)(x, t), law.log_prob(x, t))


# ---- the cells --------------------------------------------------------------------------------
def test_the_geometry_of_a_box():
    cells = Cells((-1.0, 5.0), (3.0, 6.0), (2, 4))
    assert cells.widths == (2.0, 0.25)
    close(cells.middles(1), torch.tensor([5.125, 5.375, 5.625, 5.875]))
    close(cells.points()[:5, 0], torch.tensor([0.0, 0, 0, 0, 2]))
    close(cells.faces(0), torch.stack((torch.ones(4), cells.middles(1)), 1))
    close(cells.faces(1)[:4, 1], torch.tensor([5.25, 5.5, 5.75, 5.25]))
    linear = cells.density(lambda x: (x[:, 0] * x[:, 1] + 7).log())  # integral 4 (1 5.5 + 7)
    close(cells.integral(torch.stack((linear, torch.ones(2, 4)))), torch.tensor([50.0, 4.0]))


# ---- the grid: forwards -----------------------------------------------------------------------
def forward_error(count, substeps, theta, end=0.3, law=None):
    law = law or gm1(SDE)
    dim = law.dim
    cells = Cells.cube(6.0, count, dim)
    start = cells.density(lambda x: law.log_prob(x, time(0.02)))
    found = evolve(noising(SDE), cells, start, torch.tensor([0.02, end]), substeps, theta)[-1]
    return float((found - cells.density(lambda x: law.log_prob(x, time(end)))).abs().max())


def orders(errors):
    return [math.log2(a / b) for a, b in itertools.pairwise(errors)]


def test_order_in_space():
    found = orders([forward_error(n, 200, 0.5) for n in (100, 200, 400)])
    assert found == pytest.approx([2, 2], abs=0.05)


@pytest.mark.parametrize(("theta", "order"), [(1.0, 1), (0.5, 2)])
def test_order_in_time(theta, order):
    """Richardson: differences between runs on the same cells do not see the error in space."""
    law, cells = gm1(SDE), Cells.cube(6.0, 300)
    start = cells.density(lambda x: law.log_prob(x, time(0.02)))
    ts = torch.tensor([0.02, 0.3])
    runs = [evolve(noising(SDE), cells, start, ts, n, theta)[-1] for n in (50, 100, 200, 400)]
    gaps = [float((a - b).abs().max()) for a, b in itertools.pairwise(runs)]
    assert orders(gaps) == pytest.approx([order] * 2, abs=0.1)


def test_order_in_the_plane():
    found = orders([forward_error(n, 40, 0.5, 0.2, gm2(SDE)) for n in (40, 80, 160)])
    assert found[-1] == pytest.approx(2, abs=0.15)


@pytest.mark.parametrize("dim", [1, 2])
@pytest.mark.parametrize("theta", [1.0, 0.5])
def test_the_stationary_law_stays(dim, theta):
    cells = Cells((-8.0, -7.0)[:dim], (8.0, 9.0)[:dim], (81, 60)[:dim])
    p = cells.density(lambda x: -0.5 * x.square().sum(1) - 0.5 * dim * math.log(2 * math.pi))
    end = evolve(noising(SDE), cells, p, torch.tensor([0.0, 1.0]), 100, theta)[-1]
    close(end, p, 1e-12)


@pytest.mark.parametrize("theta", [1.0, 0.5])
def test_mass_is_conserved(theta):
    """From a spike, in steps a thousand times longer than a cell holds its content."""
    cells = Cells((-6.0, -5.0), (6.0, 5.0), (120, 90))
    p = torch.zeros(120, 90)
    p[70, 30] = 1 / cells.integral(torch.ones(120, 90)) * 120 * 90
    runs = evolve(noising(SDE), cells, p, torch.linspace(0, 1, 21), 3, theta)
    close(cells.integral(runs), torch.ones(21), 1e-12)


def test_mass_is_conserved_to_rounding_on_fine_cells():
    """There the linear solver alone loses some 1e-12."""
    cells = Cells.cube(6.0, 20000)
    p = cells.density(gm1(SDE).log_prob)
    runs = evolve(noising(SDE), cells, p, torch.linspace(0, 1, 21))
    close(cells.integral(runs), cells.integral(p).expand(21), 5e-15)


def test_implicit_steps_keep_a_spike_positive_and_others_do_not():
    cells, p = Cells.cube(6.0, 300), torch.zeros(300)
    p[200] = 1.0
    implicit, half = (
        evolve(noising(SDE), cells, p, torch.tensor([0.0, 1.0]), 5, theta) for theta in (1.0, 0.5)
    )
    assert implicit.min() >= 0 and implicit[1].min() > 0
    assert half[1].min() < -1e-3
    fine = Cells.cube(6.0, 4000)
    spike = torch.zeros(4000).index_fill(0, torch.tensor([10]), 1.0)
    assert evolve(noising(SDE), fine, spike, torch.tensor([0.0, 1.0]))[1].min() > 0


def test_a_point_becomes_the_transition_kernel():
    """A spike at x_s spreads into N(scale x_s, std^2), by its mean and its variance."""
    cells, p = Cells.cube(6.0, 1200), torch.zeros(1200)
    p[800] = 1 / cells.widths[0]
    start, s, t = cells.middles()[800], time(0.1), time(0.4)
    end = evolve(noising(SDE), cells, p, torch.stack([s, t]), 800, 0.5)[-1]
    scale, std = SDE.transition(s, t)
    x = cells.middles()
    mean = cells.integral(end * x)
    close(mean, scale * start, 1e-4)
    close(cells.integral(end * (x - mean).square()), std**2, 1e-4)


# ---- the grid: backwards ----------------------------------------------------------------------
def backward(denoiser, noise, count, substeps, theta=1.0, span=(1.0, 0.0), reach=6.0):
    law = getattr(denoiser, "law", denoiser)
    cells = Cells.cube(reach, count, law.dim)
    start = cells.density(lambda x: law.log_prob(x, time(span[0])))
    return cells, evolve(
        denoising(denoiser, noise), cells, start, torch.tensor(span), substeps, theta
    )[-1]


def variance(cells, p):
    return float(cells.integral(p * cells.middles().square()))


@pytest.mark.parametrize(("noise", "least"), [(1.0, 1.9), (0.6, 1.9), (0.0, 0.8)])
def test_every_way_back_ends_at_the_data(noise, least):
    law, errors = gm1(SDE), []
    for n in (100, 200, 400):
        cells, end = backward(law, noise, n, n, 0.5)
        errors.append(float((end - cells.density(law.log_prob)).abs().mul(cells.widths[0]).sum()))
    assert orders(errors)[-1] > least
    assert errors[-1] < (2e-3 if noise else 0.06)


@pytest.mark.parametrize("i", range(4))
def test_p11_variance_of_the_reverse_sde(reference, i):
    """Richardson in cells and steps together, both of order two."""
    row = reference["P11"]["expected"][i]
    model = Scaled(normal(C), row["delta"])
    coarse, fine = (variance(*backward(model, 1.0, n, n, 0.5, reach=7.0)) for n in (200, 400))
    close(fine, row["V_SDE"], 2e-3)
    close((4 * fine - coarse) / 3, row["V_SDE"], 2e-5)


@pytest.mark.parametrize("i", range(3))
def test_p11_variance_of_the_ode(reference, i):
    """Upwind, so of order one in cells; Richardson twice."""
    row = reference["P11"]["expected"][i]
    model = Scaled(normal(C), row["delta"])
    a, b, c = (variance(*backward(model, 0.0, n, 400, 0.5)) for n in (150, 300, 600))
    close((8 * c - 6 * b + a) / 3, row["V_ODE"], 1e-3)
    assert abs(c - row["V_ODE"]) < 0.6 * abs(b - row["V_ODE"])


def test_the_flow_on_the_cells_is_the_limit_of_the_upwind_grid():
    model, errors = Scaled(gm1(SDE), 0.2), []
    for n in (100, 200, 400):
        cells, end = backward(model, 0.0, n, 300, 0.5, span=(1.0, 0.1))
        exact = cells.density(lambda x: flow_log_prob(model, model.law, 32)(x, time(0.1)))
        errors.append(float((end - exact).abs().mul(cells.widths[0]).sum()))
    assert orders(errors)[-1] == pytest.approx(1, abs=0.15)


def test_back_in_the_plane():
    law, errors = gm2(SDE), []
    for n in (60, 120):
        cells, end = backward(law, 1.0, n, n // 2, 0.5, span=(0.4, 0.05), reach=5.5)
        exact = cells.density(lambda x: law.log_prob(x, time(0.05)))
        errors.append(float((end - exact).abs().max()))
        close(cells.integral(end), cells.integral(exact), 1e-6)
    assert orders(errors)[-1] > 1.8


def test_stirring_does_not_move_an_isotropic_gaussian():
    """s + R x, R antisymmetric, has div(p R x) = 0: another score, in the limit the same law."""
    law, turn = normal(C, dim=2), torch.tensor([[0.0, -1.0], [1.0, 0.0]])
    errors = {}
    for name, matrix in {"stirred": turn, "squeezed": turn.abs()}.items():
        model = Scaled(law, 0.0)
        model.score = lambda x, t, matrix=matrix: law.score(x, t) + x @ matrix.T
        for n in (40, 80):
            cells, end = backward(model, 1.0, n, n, 0.5, span=(0.4, 0.05), reach=4.0)
            exact = cells.density(lambda x: law.log_prob(x, time(0.05)))
            errors[name, n] = float(cells.integral((end - exact).abs()))
    assert orders([errors["stirred", 40], errors["stirred", 80]])[0] > 1.8
    assert errors["stirred", 80] < 0.02 < 0.04 < errors["squeezed", 80]


# ---- the door ---------------------------------------------------------------------------------
def test_bad_input_is_refused():
    cells, p, up = Cells.cube(1.0, 4), torch.ones(4), torch.tensor([0.0, 1.0])
    law = gm1(SDE)
    flat, two = torch.ones(3), torch.ones(2)
    for message, call in {
        "low < high": lambda: Cells((1.0,), (1.0,), (4,)),
        "at least 2 cells": lambda: Cells((0.0,), (1.0,), (1,)),
        "of one length": lambda: Cells((0.0, 0.0), (1.0,), (4,)),
        "increasing times": lambda: evolve(noising(SDE), cells, p, up.flip(0)),
        "decreasing times": lambda: evolve(denoising(law), cells, p, up),
        "strictly monotone": lambda: evolve(noising(SDE), cells, p, torch.tensor([0.0, 1, 1])),
        "density >= 0": lambda: evolve(noising(SDE), cells, -p, up),
        "of shape": lambda: evolve(noising(SDE), cells, torch.ones(5), up),
        "theta in": lambda: evolve(noising(SDE), cells, p, up, theta=0.0),
        "substeps >= 1": lambda: evolve(noising(SDE), cells, p, up, substeps=0),
        "noise >= 0": lambda: denoising(law, -1.0),
        "at least one step": lambda: flow_log_prob(law, steps=0),
        r"use \(B, 1\)": lambda: log_density_residual(law.log_prob, SDE, flat, time(0.5)),
        "one time for all": lambda: score_residual(law.score, SDE, flat[:, None], two),
    }.items():
        with pytest.raises(ValueError, match=message):
            call()


def test_the_ode_may_be_walked_both_ways():
    """A steady wind carries a hump by one to the right, and in reversed time to the left."""
    still = Transport(lambda x, t: torch.ones_like(x), lambda t: torch.zeros(()))
    cells, p = Cells.cube(4.0, 80), Cells.cube(4.0, 80).density(lambda x: -x[:, 0].square())
    x, mass = cells.middles(), cells.integral(p)
    up = evolve(still, cells, p, torch.tensor([0.0, 1.0]), 200)[-1]
    down = evolve(still, cells, p, torch.tensor([1.0, 0.0]), 200)[-1]
    close(cells.integral(up * x) / mass, 1.0, 1e-3)
    close(cells.integral(down * x) / mass, -1.0, 1e-3)

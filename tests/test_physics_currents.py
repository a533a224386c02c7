"""Currents, stream lines and the stirring part of a score: against calculus."""

import math

import pytest
import torch

from scoresde import VPSDE, GaussianMixture, KarrasSDE
from scoresde.data import aniso3, gm1, gm2
from scoresde.physics import (
    Cells,
    curl,
    helmholtz,
    osmotic_velocity,
    probability_current,
    stream_lines,
)

SDES = [VPSDE(), KarrasSDE(4.0)]
TIMES = [0.05, 0.3, 0.9]
each_sde = pytest.mark.parametrize("sde", SDES, ids=str)
each_time = pytest.mark.parametrize("t", TIMES)


def time(t):
    return torch.tensor(float(t))


def close(actual, expected, rtol=1e-12, atol=0.0):
    torch.testing.assert_close(
        torch.as_tensor(actual), torch.as_tensor(expected), rtol=rtol, atol=atol
    )


# ---- currents ---------------------------------------------------------------------------------
@each_sde
@each_time
def test_on_the_line_the_current_is_what_leaves_the_left(sde, t):
    """J(x) = -d/dt P(x_t < x), from the error function alone."""
    law, x, t = gm1(sde), torch.linspace(-3, 3, 41)[:, None], time(t)

    def below(t):
        alpha, sigma2 = sde.alpha(t), sde.sigma2(t)
        std = (alpha**2 * law.covs[:, 0, 0] + sigma2).sqrt()
        return torch.special.ndtr((x - alpha * law.means[:, 0]) / std) @ law.weights

    leaving = -torch.func.jvp(below, (t,), (torch.ones(()),))[1]
    close(probability_current(law.log_prob, sde, x, t)[:, 0], leaving, 1e-10, 1e-12)


@each_sde
@each_time
def test_in_the_plane_the_current_takes_what_the_density_loses(sde, t):
    law, t = gm2(sde), time(t)
    x = law.sample(30, t)
    current = lambda x: probability_current(law.log_prob, sde, x[None], t)[0]
    loss = torch.func.vmap(torch.func.jacfwd(current))(x).diagonal(0, 1, 2).sum(1)
    gain = torch.func.jvp(lambda t: law.log_prob(x, t).exp(), (t,), (torch.ones(()),))[1]
    close(-loss, gain, 1e-9, 1e-10 * float(gain.abs().max()))


@each_sde
def test_the_current_is_the_density_times_the_velocity_of_the_flow(sde):
    law, t = gm2(sde), torch.tensor([0.1, 0.5, 0.8])
    x = law.sample(3, t)
    expected = law.log_prob(x, t).exp()[:, None] * law.velocity(x, t)
    close(probability_current(law.log_prob, sde, x, t), expected, 1e-11)


def test_no_current_where_nothing_changes():
    normal = lambda x, t: -0.5 * x.square().sum(1)
    current = probability_current(normal, VPSDE(), torch.randn(20, 3), time(0.4))
    close(current, torch.zeros(20, 3), atol=1e-15)


@each_sde
@each_time
def test_the_osmotic_velocity_of_a_gaussian(sde, t):
    """-g^2/2 x/v, and with the velocity of the flow it makes the drift forwards."""
    law = GaussianMixture(torch.ones(1), torch.zeros(1, 2), 0.3 * torch.eye(2)[None], sde)
    x, t = torch.randn(20, 2), time(t)
    v = 0.3 * sde.alpha(t) ** 2 + sde.sigma2(t)
    osmotic = osmotic_velocity(law, x, t)
    close(osmotic, -0.5 * sde.g2(t) * x / v, 1e-12)
    close(law.velocity(x, t) + osmotic, sde.drift(x, t), 1e-11, 1e-11)


# ---- stream lines -----------------------------------------------------------------------------
def test_stream_lines_of_a_rotation_are_circles_walked_at_speed_one():
    x, turn = torch.tensor([[2.0, 0.0], [0.0, 0.5]]), torch.tensor([[0.0, -3.0], [3.0, 0.0]])

    def error(steps):
        lines = stream_lines(lambda x: x @ turn.T, x, 1.0, steps)
        angle = 1.0 / x.norm(dim=1)
        end = torch.stack((angle.cos(), angle.sin()), 1) * 2
        close(lines[0], x)
        return float((lines[-1, 0] - end[0]).norm())

    assert error(40) < 1e-9
    assert math.log2(error(10) / error(20)) == pytest.approx(4, abs=0.1)


def test_stream_lines_of_a_gaussian_current_are_powers():
    """The flow of N(0, diag(v)) is x_i' = r_i x_i: along a line x_1 = c x_0^{r_1/r_0}."""
    sde, t, covs = VPSDE(), time(0.1), torch.tensor([0.04, 0.4])
    law = GaussianMixture(torch.ones(1), torch.zeros(1, 2), covs.diag()[None], sde)
    v = covs * sde.alpha(t) ** 2 + sde.sigma2(t)
    rates = sde.f(t) + 0.5 * sde.g2(t) / v
    x = torch.tensor([[0.2, 0.3], [0.1, -0.4]])
    current = lambda x: probability_current(law.log_prob, sde, x, t)
    lines = stream_lines(current, x, 0.8, 40)
    power = float(rates[1] / rates[0])
    assert 0.1 < power < 0.9
    close(lines[..., 1], x[:, 1] * (lines[..., 0] / x[:, 0]) ** power, 1e-6)
    close(lines.diff(dim=0).norm(dim=2).sum(0), torch.full((2,), 0.8), 1e-3)
    back = stream_lines(current, lines[-1], -0.8, 40)[-1]
    close(back, x, 1e-6)


def test_a_stream_line_stays_where_nothing_flows():
    x = torch.zeros(1, 2)
    close(stream_lines(lambda x: 2 * x, x, 1.0, 3), torch.zeros(4, 1, 2))


# ---- curl -------------------------------------------------------------------------------------
@each_time
@pytest.mark.parametrize("make", [gm2, aniso3])
def test_an_exact_score_has_no_curl(make, t):
    law = make(VPSDE())
    x = torch.randn(30, law.dim)
    jac_size = 1 / float(law.marginal(time(t))[1].diagonal().min())
    close(curl(law.score, x, time(t)), torch.zeros(30, law.dim, law.dim), atol=1e-12 * jac_size)


def test_the_curl_of_a_stirred_score_is_the_stirring():
    """s + M x has the curl (M - M^T)/2, entry (1, 0) positive where it turns to the left."""
    law, m, x = gm2(VPSDE()), torch.tensor([[0.4, -0.7], [1.1, 0.2]]), torch.randn(10, 2)
    found = curl(lambda x, t: law.score(x, t) + x @ m.T, x, torch.full((10,), 0.3))
    close(found, (0.5 * (m - m.T)).expand(10, 2, 2), atol=1e-12)
    assert found[0, 1, 0] > 0


def test_the_curl_of_a_twisted_field_varies():
    """s = (-y, x) |x|^2 has d s_1/d x_0 - d s_0/d x_1 = 4 |x|^2; events of any shape."""
    x = torch.randn(10, 1, 2)
    twist = lambda x, t: torch.stack((-x[..., 1], x[..., 0]), -1) * x.square().sum(-1)[..., None]
    found = curl(twist, x, time(0.5))
    close(found[:, 1, 0], 2 * x.square().sum((1, 2)), 1e-12)


# ---- Helmholtz --------------------------------------------------------------------------------
V, M = torch.tensor([0.8, 0.3]).double(), torch.tensor([[0.4, -0.7], [1.1, 0.2]]).double()


def gaussian_split(v, m):
    """Of e = m x under N(0, diag v): r = K x with K = diag(v) W, W antisymmetric.

    div(p K x) = 0 asks that diag(1/v) K be antisymmetric, and m - K must be symmetric.
    """
    turn = (m - m.T) / (v[:, None] + v)
    stir = v[:, None] * turn
    square = lambda a: float((a.square() * v).sum())
    return m - stir, square(m - stir), square(stir)


def split_error(n):
    found = helmholtz(lambda x: x @ M.T, lambda x: -0.5 * (x**2 / V).sum(1), Cells.cube(6.0, n, 2))
    _, gradient, stir = gaussian_split(V, M)
    close(gradient + stir, float((M.square() * V).sum()))
    return abs(found.share - stir / (gradient + stir))


def test_the_share_of_a_linear_error_under_a_gaussian():
    assert split_error(80) < 1e-5
    assert math.log2(split_error(60) / split_error(120)) > 1.9


def test_the_parts_and_the_potential_of_a_linear_error():
    """The gradient part is S x, its potential x.S x/2."""
    cells = Cells((-5.5, -4.0), (5.5, 4.0), (110, 120))
    found = helmholtz(lambda x: x @ M.T, lambda x: 3.0 - 0.5 * (x**2 / V).sum(1), cells)
    symmetric, gradient, stir = gaussian_split(V, M)
    close(torch.tensor(found.squares), torch.tensor([gradient, stir]), 1e-3)
    x = cells.points()
    near = (x.square() / V).sum(1) < 4
    phi = 0.5 * (x @ symmetric * x).sum(1)
    gap = (found.potential.flatten() - phi)[near]
    assert gap.std() < 2e-3 * phi[near].std()


def test_in_three_dimensions():
    v, m = torch.tensor([1.0, 0.6, 0.8]), torch.tensor([[0, 1.0, 0], [-0.5, 0, 2], [0.3, 0, 0.4]])
    cells = Cells.cube(5.0, 22, 3)
    found = helmholtz(lambda x: x @ m.T, lambda x: -0.5 * (x**2 / v).sum(1), cells)
    _, gradient, stir = gaussian_split(v, m)
    close(found.share, stir / (gradient + stir), 5e-3)


def test_a_gradient_error_of_a_mixture_has_no_share_and_stirring_has_all():
    """A mis-scaled score errs by a gradient; what circles along the level lines errs by none."""
    law, t, cells = gm2(VPSDE()), time(0.2), Cells.cube(6.0, 120, 2)
    log_p = lambda x: law.log_prob(x, t)
    assert helmholtz(lambda x: 0.1 * law.score(x, t), log_p, cells).share < 1e-6
    turn = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
    stirring = lambda x: law.score(x, t) @ turn.T  # p r = rot grad p: no divergence
    assert helmholtz(stirring, log_p, cells).share > 1 - 1e-3


def test_on_the_line_every_error_is_a_gradient():
    law, t = gm1(VPSDE()), time(0.1)
    cells = Cells.cube(5.0, 200)
    found = helmholtz(lambda x: (3 * x).sin() + 0.2, lambda x: law.log_prob(x, t), cells)
    assert found.share < 1e-20
    x = cells.middles()
    slope = found.potential.diff() / cells.widths[0]
    close(slope, (3 * (x[1:] + x[:-1]) / 2).sin() + 0.2, 1e-8, 1e-8)


# ---- the door ---------------------------------------------------------------------------------
def test_bad_input_is_refused():
    law, cells = gm1(VPSDE()), Cells.cube(1.0, 4)
    log_p = lambda x: law.log_prob(x, time(0.3))
    for message, call in {
        "nothing to split": lambda: helmholtz(torch.zeros_like, log_p, cells),
        "finite field": lambda: helmholtz(lambda x: x / 0, log_p, cells),
        "steps >= 1": lambda: stream_lines(lambda x: x, torch.ones(1, 2), 1.0, 0),
        r"use \(B, 1\)": lambda: curl(law.score, torch.ones(3), time(0.3)),
        r"x \(B, \*\)": lambda: osmotic_velocity(law, torch.ones(3, 1).int(), time(0.3)),
        "one time for all": lambda: probability_current(
            law.log_prob, VPSDE(), torch.ones(3, 1), torch.ones(2)
        ),
    }.items():
        with pytest.raises(ValueError, match=message):
            call()

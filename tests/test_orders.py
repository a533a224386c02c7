"""Measured orders of convergence and their constants: no Monte Carlo anywhere.

Gaussian data N(0.8, 0.25) by the moment recursion; the mixture GM1 against its quantile map (ODE
samplers) or by carrying test functions backwards through the sampler's own kernel (stochastic).
"""

import math

import numpy as np
import pytest
import torch
from scipy.interpolate import CubicSpline
from scipy.optimize import brentq
from scipy.stats import norm

from scoresde import (
    DDIM,
    PFRK4,
    VPSDE,
    Ancestral,
    EulerMaruyama,
    GaussianMixture,
    Langevin,
    PFEuler,
    PFHeun,
    PredictorCorrector,
    ReverseDiffusion,
    log_snr,
    moments,
    quadratic,
    uniform,
)
from scoresde.testing import fitted_order, law_error

seeded = lambda seed: torch.Generator().manual_seed(seed)

SDE = VPSDE()
GAUSS = GaussianMixture([1.0], [[0.8]], [[[0.25]]], SDE)
GM1 = GaussianMixture([0.6, 0.4], [[1.5], [-1.0]], [[[0.09]], [[0.25]]], SDE)
SNR, UNIFORM = (lambda n: log_snr(SDE, n)), uniform


@pytest.mark.parametrize(
    ("sampler", "grid"),
    [
        (EulerMaruyama(), SNR),
        (EulerMaruyama(), UNIFORM),
        (ReverseDiffusion(), SNR),
        (ReverseDiffusion(), UNIFORM),
        (Ancestral(), SNR),
        (Ancestral("beta"), SNR),
        (Ancestral("beta"), UNIFORM),
        (DDIM(0.0), SNR),
        (DDIM(0.5), SNR),
        (DDIM(1.0), SNR),
        (PFEuler(), SNR),
        (PFEuler(), UNIFORM),
        (PFHeun(), SNR),
        (PFHeun(), UNIFORM),
        (PFRK4(), SNR),
        (PFRK4(), UNIFORM),
    ],
)
def test_order_on_a_gaussian(sampler, grid):
    steps = [40, 80, 160, 320] if sampler.order == 4 else [80, 160, 320, 640]
    errors = [law_error(sampler, GAUSS, grid(n)) for n in steps]
    slack = 0.05 if sampler.order == 1 else 0.1
    assert fitted_order(steps, errors) == pytest.approx(sampler.order, abs=slack)


def quantile_map(x: np.ndarray, t0: float, t1: float) -> np.ndarray:
    """The exact flow of the 1-D probability-flow ODE, without any ODE: F_t1^-1 (F_t0(x))."""
    w, m, v = (p.flatten().numpy() for p in (GM1.weights, GM1.means, GM1.covs))

    def cdf(y, t):
        time = torch.tensor(t)
        a, s2 = float(SDE.alpha(time)), float(SDE.sigma2(time))
        return float((w * norm.cdf((y - a * m) / np.sqrt(a * a * v + s2))).sum())

    flow = lambda p: brentq(lambda y: cdf(y, t1) - p, -12, 12, xtol=1e-14, rtol=1e-14)
    return np.array([flow(cdf(y, t0)) for y in x])


@pytest.mark.parametrize(
    ("sampler", "grid"),
    [
        (DDIM(), SNR),
        (PFEuler(), UNIFORM),
        (PFHeun(), UNIFORM),
        (PFHeun(), SNR),
        (PFRK4(), UNIFORM),
        (PFRK4(), SNR),
    ],
)
def test_order_of_the_flow_on_a_mixture(sampler, grid):
    # A path next to the separatrix of the two modes is not asymptotic at these N; these are not.
    start = torch.linspace(-2, 2, 11)[:, None]
    exact = torch.from_numpy(quantile_map(start[:, 0].numpy(), 1.0, 1e-3))[:, None]
    steps = [40, 80, 160, 320] if sampler.order == 4 else [80, 160, 320, 640]
    errors = [float((sampler(GM1, start, grid(n)) - exact).square().mean().sqrt()) for n in steps]
    slack = 0.05 if sampler.order == 1 else 0.1
    assert fitted_order(steps, errors) == pytest.approx(sampler.order, abs=slack), errors


def carried_law_error(sampler, n: int) -> float:
    """Error of E x, E x^2, E cos 2x of the samples, by the Kolmogorov backward equation.

    u <- E[u(a x + b x0_hat + c z)] row by row from the end, Gauss-Hermite over z and a cubic
    spline in x, then the integral against the exact law at the start.
    """
    x = torch.linspace(-9, 9, 3001)
    nodes, weights = np.polynomial.hermite_e.hermegauss(9)
    weights = weights / weights.sum()
    ts = SNR(n)
    table = sampler.table(SDE, ts)
    tests = lambda y: np.stack([y, y * y, np.cos(2 * y)], -1)
    u = tests(x.numpy())
    for row, t in reversed(list(zip(table.rows(), table.t, strict=True))):
        mean = (row.a * x + row.b[0] * GM1(x[:, None], t)[:, 0]).numpy()
        spline = CubicSpline(x.numpy(), u)
        arrive = (mean[:, None] + row.c * nodes).clip(-9, 9)
        u = np.einsum("xzk,z->xk", spline(arrive), weights)
    expect = lambda f, t: np.trapezoid(
        f * GM1.log_prob(x[:, None], t).exp().numpy()[:, None], x.numpy(), axis=0
    )
    return float(np.linalg.norm(expect(u, ts[0]) - expect(tests(x.numpy()), ts[-1])))


@pytest.mark.parametrize(
    "sampler",
    [EulerMaruyama(), ReverseDiffusion(), Ancestral(), Ancestral("beta"), DDIM(0.5)],
)
def test_weak_order_of_stochastic_samplers_on_a_mixture(sampler):
    steps = [160, 320, 640]
    errors = [carried_law_error(sampler, n) for n in steps]
    assert fitted_order(steps, errors) == pytest.approx(1, abs=0.05), errors


def variance_error(sampler, n: int) -> float:
    """N (V_N - c) on a uniform grid down to t = 0, from the exact law at t = 1."""
    return n * (float(moments(sampler, GAUSS, uniform(n, 1.0, 0.0))[1][-1]) - 0.25)


@pytest.mark.parametrize(
    ("sampler", "constant"),
    [
        (EulerMaruyama(), 0.3502908627312548),
        (PFEuler(), -0.23556028500195414),
        (Ancestral("beta"), 0.849412),
    ],
)
def test_constants_by_richardson(sampler, constant):
    f = [variance_error(sampler, n) for n in (1000, 2000, 4000)]
    assert (f[0] - 6 * f[1] + 8 * f[2]) / 3 == pytest.approx(constant, rel=1e-3)


@pytest.mark.parametrize(
    ("sampler", "n", "coefficient", "rel"),
    [
        (DDIM(), 1000, -0.1 / 4, 1e-2),
        (Ancestral(), 4000, -0.1, 5e-2),
        pytest.param(Ancestral(), 16000, -0.1, 1e-2, marks=pytest.mark.slow),
    ],
)
def test_logarithms_on_a_uniform_grid(sampler, n, coefficient, rel):
    """The error carries coefficient * log(N)/N with coefficient -beta(0)/4 and -beta(0)."""
    f = [variance_error(sampler, k * n) for k in (1, 2, 4)]
    d = [(f[1] - f[0]) / math.log(2), (f[2] - f[1]) / math.log(2)]
    assert 2 * d[1] - d[0] == pytest.approx(coefficient, rel=rel)


def test_predictor_corrector_converges_slower_on_a_uniform_grid():
    """The corrector holds the law at its own bias until it becomes too weak: order 1/2, or 1."""
    sampler, steps = PredictorCorrector(EulerMaruyama()), [2500, 5000, 10000]
    measured = lambda grid: fitted_order(
        steps, [law_error(sampler, GAUSS, grid(n)) for n in steps]
    )
    assert measured(UNIFORM) == pytest.approx(0.5, abs=0.06)
    assert measured(SNR) == pytest.approx(1.0, abs=0.2)


@pytest.mark.parametrize("r", [0.1, 0.3, 0.6])
def test_stationary_bias_of_the_corrector(r):
    """Iterated at one time, delta = 2 r^2 sigma^2 ends at v/(1 - r^2 sigma^2/v)."""
    t = torch.tensor([0.3])
    a, b, c = (float(v) for v in Langevin(r=r).row(SDE, t))
    alpha, sigma2 = float(SDE.alpha(t)), float(SDE.sigma2(t))
    v = alpha**2 * 0.25 + sigma2
    gain = a + b * alpha * 0.25 / v
    assert c**2 / (1 - gain**2) == pytest.approx(v / (1 - r**2 * sigma2 / v), rel=1e-12)


@pytest.mark.parametrize("r", [0.3, 0.5, 0.7])
def test_n10_song_rule_rests_at_v_one_plus_r_squared(r):
    """Iterated at one time in many dimensions: delta = 2 r^2 v^2/V, which ends at v (1 + r^2).

    A step adds -4 r^2 v (V - v (1 + r^2))/V to V, which leaves at most 0.67 of the distance: of
    60 steps, nothing.
    """
    d, n, steps = 400, 500, 60
    law = GaussianMixture([1.0], torch.zeros(1, d), torch.eye(d)[None], SDE)  # v = 1 at every time
    ts = torch.tensor([0.5, 0.5 - 1e-12])  # the predictor stands still
    walk = PredictorCorrector(DDIM(), Langevin(r=r, steps=steps, rule="song"))
    out = walk(law, law.sample(n, ts[0], seeded(0)), ts, seeded(1))
    assert float(out.var()) == pytest.approx(1 + r**2, rel=5 * (2 / (n * d)) ** 0.5)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0, 2.0])
def test_every_eta_has_the_same_limit(eta):
    """Richardson on a quadratic grid that ends above 0, so that eta = 2 is allowed."""
    ts = lambda n: quadratic(n, 1.0, 0.05)
    truth = GAUSS.marginal(torch.tensor(0.05))[1]
    v = [float(moments(DDIM(eta), GAUSS, ts(n))[1][-1]) for n in (2000, 4000, 8000)]
    limit = (v[0] - 6 * v[1] + 8 * v[2]) / 3
    assert limit == pytest.approx(float(truth), abs=1e-7)

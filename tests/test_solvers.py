"""Exponential, multistep and multi-stage solvers: fitted orders, identities, formulas, ends.

Orders by the moment recursion on N(0.8, 0.25) and against a fine solution on the mixture GM1, in
a narrow window (N = 80, 160, 320) on the quadratic grid: no Monte Carlo.
"""

import math

import pytest
import torch

from scoresde import (
    DDIM,
    DEIS,
    ERSDE,
    VPSDE,
    Adams,
    Ancestral,
    CosineVPSDE,
    DPMSolver,
    DPMSolverPP,
    EDMStochastic,
    EpsDenoiser,
    GaussianMixture,
    Guided,
    KarrasSDE,
    PFHeun,
    SASolver,
    UniPC,
    karras,
    log_snr,
    moments,
    quadratic,
    sample,
    uniform,
)
from scoresde.samplers import Exponential, Table
from scoresde.samplers.fixed.interpolation import exponential_adams, moments_of_decay
from scoresde.testing import fitted_order, law_error

SDE = VPSDE()
GAUSS = GaussianMixture([1.0], [[0.8]], [[[0.25]]], SDE)
GM1 = GaussianMixture([0.6, 0.4], [[1.5], [-1.0]], [[[0.09]], [[0.25]]], SDE)
STEPS = [80, 160, 320]
close = torch.testing.assert_close
seeded = lambda seed=0: torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def paths():
    """Starting points away from the separatrix of GM1, and where the flow takes them."""
    with torch.random.fork_rng():
        x = torch.linspace(-2, 2, 11, dtype=torch.float64)[:, None]
        return x, UniPC(3)(GM1, x, quadratic(4000))


@pytest.mark.parametrize(
    ("sampler", "order"),
    [
        (DPMSolverPP(1), 1),
        (DPMSolverPP(2), 2),
        (DPMSolverPP(3), 3),
        (UniPC(1, corrector=False), 1),
        (UniPC(2, corrector=False), 2),
        (UniPC(3, corrector=False), 3),
        (UniPC(1), 2),
        (UniPC(2), 3),
        (UniPC(3), 4),
        (UniPC(4), 5),
        (UniPC(1, "bh1"), 2),
        (UniPC(2, "bh1"), 3),
        (DEIS(2), 2),
        (DEIS(3), 3),
        (DPMSolver(1), 1),
        (DPMSolver(2), 2),
        (DPMSolver(3), 3),
        (EDMStochastic(), 2),
        (SASolver(1, 2, 0.0), 2),
        (SASolver(3, 2, 0.0), 2),
        (SASolver(2, 3, 0.0), 3),
    ],
)
def test_order_of_the_flow(sampler, order, paths):
    assert sampler.convergence == order
    x, exact = paths
    gauss = [law_error(sampler, GAUSS, quadratic(n)) for n in STEPS]
    mixture = [float((sampler(GM1, x, quadratic(n)) - exact).norm()) for n in STEPS]
    assert fitted_order(STEPS, gauss) == pytest.approx(order, abs=0.15), gauss
    assert fitted_order(STEPS, mixture) == pytest.approx(order, abs=0.15), mixture


@pytest.mark.parametrize(
    ("sampler", "order"),
    [
        (DPMSolverPP(1, 0.5), 1),
        (DPMSolverPP(1, 1.0), 1),
        (DPMSolverPP(2, 0.5), 2),
        (DPMSolverPP(2, 1.0), 2),
        (DPMSolverPP(3, 1.0), 2),
        (SASolver(3, 3, 1.0), 2),
        (SASolver(1, 2, 1.0), 2),
        (EDMStochastic(10.0), 2),
        (ERSDE(1), 1),
        (ERSDE(2), 2),
        (ERSDE(2, lambda y: y**2), 2),
    ],
)
def test_weak_order_with_noise(sampler, order):
    assert sampler.convergence == order and sampler.noise
    errors = [law_error(sampler, GAUSS, log_snr(SDE, n)) for n in STEPS]
    assert fitted_order(STEPS, errors) == pytest.approx(order, abs=0.15), errors


class Circulating(Exponential):
    """3M as it is found elsewhere: half of the J_2 term."""

    order, noise = 3, False

    def predict(self, lam, c):
        full, h = exponential_adams(lam, 3, c), lam.diff()
        j2 = moments_of_decay(c * h, 3)[2:, 2]
        r0, r1 = h[1:-1] / h[2:], h[:-2] / h[2:]
        term = j2 / (r0 + r1)  # times E0 - E1, with E0 = (D0 - D1)/r0 and E1 = (D1 - D2)/r1
        full[2:] -= 0.5 * torch.stack([term / r0, -term / r0 - term / r1, term / r1], 1)
        return full


def test_the_formula_of_3m_in_circulation_is_of_order_two(paths):
    """On the log-SNR grid, where it is asymptotic at these N; the true one has 3 or better."""
    x, exact = paths
    grid = lambda n: log_snr(SDE, n)
    for sampler, low, high in ((Circulating(), 1.85, 2.15), (DPMSolverPP(3), 2.85, 4.15)):
        gauss = [law_error(sampler, GAUSS, grid(n)) for n in STEPS]
        mixture = [float((sampler(GM1, x, grid(n)) - exact).norm()) for n in STEPS]
        assert low < fitted_order(STEPS, gauss) < high, gauss
        assert low < fitted_order(STEPS, mixture) < high, mixture


@pytest.mark.parametrize("sde", [SDE, CosineVPSDE(), KarrasSDE()])
def test_the_third_order_formula_written_out(sde):
    """3M in the divided differences of solvers' literature, row by row."""
    ts = karras(sde, 9)
    table, lam = DPMSolverPP(3).table(sde, ts), sde.lam(ts)
    k = 5
    h, r0, r1 = (float(v) for v in (lam[k + 1] - lam[k], 0, 0))
    r0, r1 = float(lam[k] - lam[k - 1]) / h, float(lam[k - 1] - lam[k - 2]) / h
    j0 = -math.expm1(-h)
    j1 = 1 - j0 / h
    j2 = 1 - 2 * j1 / h
    d = torch.randn(3)
    e0, e1 = (d[0] - d[1]) / r0, (d[1] - d[2]) / r1
    f1, f2 = e0 + r0 / (r0 + r1) * (e0 - e1), (e0 - e1) / (r0 + r1)
    expected = sde.alpha(ts[k + 1]) * (j0 * d[0] + j1 * f1 + j2 * f2)
    close(table.b[k] @ d, expected, rtol=1e-10, atol=1e-12)


def test_moments_of_decay():
    """Both branches against quadrature, and at their seam."""
    x = torch.tensor(
        [-9.0, -2.0, -1.0 - 1e-9, -1.0 + 1e-9, -1e-3, 1e-6, 0.3, 1 - 1e-9, 1 + 1e-9, 7]
    )
    r = (torch.arange(20000) + 0.5) / 20000
    for n in range(4):
        kernel = x[:, None] * (-x[:, None] * (1 - r)).exp() * r**n
        close(moments_of_decay(x, 4)[:, n], kernel.mean(1), rtol=1e-7, atol=1e-12)
    x = torch.tensor([1 - 1e-12, 1 + 1e-12])
    low, high = moments_of_decay(x, 5)
    close(low, high, rtol=1e-11, atol=0)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("ahead", [False, True])
def test_adams_weights_are_exact_for_polynomials(order, ahead):
    """x0_hat a polynomial in lam of degree < order: the weights give its integral."""
    lam = torch.tensor([-3.0, -2.2, -1.9, -0.7, 0.1, 0.15])
    c = 1.7
    w = exponential_adams(lam, order, c, ahead)
    fine = (torch.arange(4000) + 0.5) / 4000
    for k in range(order - 1, len(lam) - 1):
        h = lam[k + 1] - lam[k]
        nodes = lam[k + int(ahead) - torch.arange(order)]
        at = lam[k] + h * fine
        for p in range(order):
            integral = (c * h * (-c * (lam[k + 1] - at)).exp() * at**p).mean()
            close(w[k] @ nodes**p, integral, rtol=1e-6, atol=1e-7)
    assert bool((w[0, 1 + int(ahead) :] == 0).all())  # the first row has no more values


@pytest.mark.parametrize("sde", [SDE, CosineVPSDE(), KarrasSDE()])
@pytest.mark.parametrize(
    ("one", "other"),
    [
        (DPMSolverPP(1), DDIM(0.0)),
        (DPMSolverPP(1, 1.0), DDIM(1.0)),
        (DPMSolverPP(1, 1.0), Ancestral()),
        (UniPC(1, corrector=False), DDIM(0.0)),
        (UniPC(2, corrector=False), DPMSolverPP(2)),
        (DEIS(1), DDIM(0.0)),
        (DPMSolver(1), DDIM(0.0)),
        (SASolver(1, 0, 1.0), DDIM(1.0)),
        (SASolver(3, 0, 0.0), DPMSolverPP(3)),
        (SASolver(3, 0, lambda t: 0.5 + 0 * t), DPMSolverPP(3, 0.5)),
        (SASolver(3, 4, 0.0), SASolver(3, 4, lambda t: 0 * t)),
        (ERSDE(1, lambda y: y**2), DDIM(1.0)),
        (ERSDE(1, lambda y: y), DDIM(0.0)),
    ],
)
def test_identities(one, other, sde):
    law = GaussianMixture(GM1.weights, GM1.means, GM1.covs, sde)
    ts = karras(sde, 12)
    x = law.sample(20, ts[0], seeded())
    close(one(law, x, ts, seeded(1)), other(law, x, ts, seeded(1)), rtol=1e-10, atol=1e-10)


def test_the_variants_of_unipc_differ_where_there_are_two_values():
    one, other = (UniPC(3, v).table(SDE, quadratic(9)) for v in ("bh1", "bh2"))
    close(one.b[3:], other.b[3:], rtol=1e-12, atol=0)
    assert float((one.b[1] - other.b[1]).abs().max()) > 1e-2


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_a_step_of_ddim_is_a_master_step_with_its_tau(eta):
    """eta^2 (1 - e^{-2h}) = 1 - e^{-2 tau^2 h}, step by step."""
    ts = quadratic(20)
    ddim = DDIM(eta).table(SDE, ts)
    h = SDE.lam(ts).diff()
    tau = (-0.5 * torch.log1p(eta**2 * torch.expm1(-2 * h)) / h).sqrt()
    for k in range(20):
        row = DPMSolverPP(1, float(tau[k])).table(SDE, ts[k : k + 2])
        for mine, theirs in zip(row.columns, ddim.columns, strict=True):
            close(mine[0], theirs[k], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0])
def test_every_tau_has_the_same_limit(tau):
    truth = GAUSS.marginal(torch.tensor(1e-3))[1]
    v = [float(moments(DPMSolverPP(2, tau), GAUSS, quadratic(n))[1][-1]) for n in (2000, 4000)]
    assert (4 * v[1] - v[0]) / 3 == pytest.approx(float(truth), abs=1e-8)


def test_unipc_by_its_own_recursion():
    """Predict, evaluate, correct from the same base, with a second state kept by hand."""
    ts, x = log_snr(SDE, 8), torch.linspace(-1.5, 1.5, 7)[:, None]
    lam, alpha, sigma = SDE.lam(ts), SDE.alpha(ts), SDE.sigma(ts)
    d = [GM1(x, ts[0])]
    for k in range(8):
        h, base = lam[k + 1] - lam[k], sigma[k + 1] / sigma[k] * x
        p = min(3, k + 1)
        weights = lambda nodes, start=lam[k], h=h: torch.linalg.solve(
            torch.stack([((nodes - start) / h) ** n for n in range(len(nodes))]),
            moments_of_decay(h[None], len(nodes))[0],
        )
        w = weights(lam[k - torch.arange(p)])
        if p == 2:  # the paper's rho = 1/2
            one = -0.5 * -torch.expm1(-h) * h / (lam[k] - lam[k - 1])
            w = torch.stack([-torch.expm1(-h) - one, one])
        predicted = base + alpha[k + 1] * sum(wi * di for wi, di in zip(w, d, strict=False))
        if k == 7:
            x = predicted
            break
        d.insert(0, GM1(predicted, ts[k + 1]))
        w = weights(lam[k + 1 - torch.arange(p + 1)])
        if p == 1:
            w = -0.5 * torch.expm1(-h).expand(2)
        x = base + alpha[k + 1] * sum(wi * di for wi, di in zip(w, d, strict=False))
    start = torch.linspace(-1.5, 1.5, 7)[:, None]
    close(UniPC(3)(GM1, start, ts), x, rtol=1e-10, atol=1e-10)


def test_edm_by_its_own_algorithm():
    """Karras et al. 2022, algorithm 2, in y = sigma/alpha, the noise shared."""
    sampler, ts = EDMStochastic(4.0, 0.05, 3.0, 1.01), karras(SDE, 7)
    draws = torch.randn(7, 5, 1)
    y = (-SDE.lam(ts)).exp()
    x = torch.randn(5, 1)
    state, used = x / SDE.alpha(ts[0]), 0
    eps = lambda state, y: GM1.eps(SDE.alpha(time(y)) * state, time(y))
    time = lambda y: SDE.time_of_log_snr(-2 * y.log())
    for k in range(7):
        gamma = min(4.0 / 7, math.sqrt(2) - 1) if 0.05 <= float(y[k]) <= 3.0 else 0.0
        raised = y[k] * (1 + gamma)
        if gamma:
            state = state + 1.01 * (raised**2 - y[k] ** 2).sqrt() * draws[used]
            used += 1
        first = eps(state, raised)
        euler = state + (y[k + 1] - raised) * first
        state = state + (y[k + 1] - raised) * 0.5 * (first + eps(euler, y[k + 1]))
    queue = iter(draws)
    out = sampler(GM1, x, ts, noise=lambda *a: next(queue))
    close(out, SDE.alpha(ts[-1]) * state, rtol=1e-9, atol=1e-10)
    assert used == int(((y[:7] >= 0.05) & (y[:7] <= 3.0)).sum()) > 1


@pytest.mark.parametrize(
    "sampler",
    [
        DPMSolverPP(1),
        DPMSolverPP(3),
        DPMSolverPP(2, 1.0),
        UniPC(3),
        DEIS(3),
        DPMSolver(3),
        SASolver(2, 2, 1.0),
        ERSDE(2),
        EDMStochastic(3.0),
    ],
)
def test_the_last_row_to_zero_is_x0_hat(sampler):
    """Of a point mass it is the point, whatever came before; one interval alone as well."""
    point = GaussianMixture([1.0], [[0.7]], [[[0.0]]], SDE)
    for n in (1, 2, 6):
        out = sampler(point, torch.randn(5, 1), uniform(n, 1.0, 0.0), seeded())
        close(out, torch.full((5, 1), 0.7), rtol=0, atol=1e-12)


@pytest.mark.parametrize("sampler", [UniPC(3), DPMSolverPP(3), DEIS(3), DPMSolver(3), PFHeun()])
def test_a_network_and_its_law_give_the_same(sampler):
    """The coefficients bound to the grid are those of the parametrization."""
    net = torch.nn.Module()
    net.forward = GM1.eps
    x, ts = torch.linspace(-1, 1, 6)[:, None], log_snr(SDE, 10)
    close(sampler(EpsDenoiser(net, SDE), x, ts), sampler(GM1, x, ts), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("sampler", [DEIS(3), DPMSolver(2), PFHeun(), Adams(), UniPC(2)])
def test_guidance_in_what_is_remembered(sampler):
    """Exact guidance towards a class is that class's own law, whatever a row remembers."""
    guided = Guided(GM1, lambda x, t: GM1.posterior(x, t)[:, 0].log())
    x, ts = torch.linspace(-1, 2, 9)[:, None], quadratic(12)
    close(sampler(guided, x, ts), sampler(GM1.component(0), x, ts), rtol=1e-10, atol=1e-10)


def test_deis_with_a_network_of_eps_remembers_its_output():
    """No arithmetic between the network and the update."""
    given = []

    class Net(torch.nn.Module):
        def forward(self, x, t):
            given.append(torch.ones_like(x) * t)
            return given[-1]

    remembered = []

    class Spy(DEIS):
        def apply(self, x, past, row, z):
            remembered.append(past[0])
            return super().apply(x, past, row, z)

    Spy(3)(EpsDenoiser(Net(), SDE), torch.zeros(3, 2), log_snr(SDE, 4))
    assert all(a is b for a, b in zip(given, remembered, strict=True))


def test_a_network_that_returns_its_input_is_not_overwritten():
    class Same(torch.nn.Module):
        def forward(self, x, t):
            return x

    class Copy(torch.nn.Module):
        def forward(self, x, t):
            return x.clone()

    from scoresde import X0Denoiser

    x, ts = torch.randn(4, 2), log_snr(SDE, 6)
    for sampler in (DDIM(), UniPC(3), DPMSolverPP(3), PFHeun()):
        one, other = (sampler(X0Denoiser(net(), SDE), x, ts) for net in (Same, Copy))
        assert torch.equal(one, other)


def test_multistep_with_noise_by_monte_carlo():
    """Moments with a memory are those of the samples: 5 standard errors."""
    n, ts = 40_000, log_snr(SDE, 8)
    for sampler in (SASolver(3, 3, 1.0), DPMSolverPP(3, 0.7), ERSDE(2)):
        start = GAUSS.sample(n, ts[0], seeded())
        x = sampler(GAUSS, start, ts, seeded(1))
        means, covs = moments(sampler, GAUSS, ts)
        var = float(covs[-1])
        assert abs(float(x.mean() - means[-1])) < 5 * (var / n) ** 0.5
        assert abs(float(x.var()) - var) < 5 * var * (2 / n) ** 0.5


def test_few_steps_do_not_blow_up(float32):
    for sampler in (DPMSolverPP(2, 1.0), UniPC(3), DPMSolverPP(3), DEIS(3), SASolver(), ERSDE()):
        for n in (1, 2, 5, 10):
            out = sample(GM1, sampler, (500, 1), log_snr(SDE, n), seed=0)
            assert bool(torch.isfinite(out).all()) and float(out.abs().max()) < 20


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DPMSolverPP(4), "expected order among"),
        (lambda: DPMSolverPP(2, -1.0), "expected tau >= 0"),
        (lambda: UniPC(5), "expected order among"),
        (lambda: UniPC(2, "bh3"), "expected variant among"),
        (lambda: SASolver(0), "expected predictor among"),
        (lambda: SASolver(2, 5), "expected corrector among"),
        (lambda: SASolver(2, 2, -0.1), "expected tau >= 0"),
        (lambda: DEIS(0), "expected order among"),
        (lambda: DPMSolver(4), "expected order among"),
        (lambda: EDMStochastic(-1.0), "expected churn >= 0"),
        (lambda: ERSDE(3), "expected order among"),
        (lambda: ERSDE(2, lambda y: y**0.5).table(SDE, log_snr(SDE, 4)), "does not decrease"),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_table_of_one_step_rows():
    t = torch.tensor([1.0, 0.5])
    table = Table.one_step(t, t / 2, t, 2 * t, 0 * t)
    assert table.rows()[0] == (1.0, 0.5, 1.0, (2.0,), 0.0, 0.0, 1.0)

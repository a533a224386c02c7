"""Adams's methods without the Gaussian part, optimized grids, and what is recommended."""

import json
import math
from pathlib import Path

import pytest
import torch

from scoresde import (
    DDIM,
    DEIS,
    VESDE,
    VPSDE,
    Adams,
    CosineVPSDE,
    EpsDenoiser,
    GaussianMixture,
    KarrasSDE,
    StraightPath,
    UniPC,
    log_snr,
    optimized,
    quadratic,
    recommended,
    sample,
)
from scoresde.testing import check_sampler, fitted_order, law_error

SDE = VPSDE()
GAUSS = GaussianMixture([1.0], [[0.8]], [[[0.25]]], SDE)
GM1 = GaussianMixture([0.6, 0.4], [[1.5], [-1.0]], [[[0.09]], [[0.25]]], SDE)
STEPS = [80, 160, 320]
PEERS = Path(__file__).parent.parent / "benchmarks" / "reference" / "peers_strong_error.json"
close = torch.testing.assert_close


def exact_end(law, x, steps):
    """Where the flow takes x at t = 0, by another method: UniPC in lam, and the ending "half"."""
    ts = log_snr(SDE, steps, t_eps=1e-5)
    end = UniPC(3)(law, x, ts)
    return 0.5 * (end / SDE.alpha(ts[-1]) + law(end, ts[-1]))


@pytest.mark.parametrize(
    ("sampler", "order"),
    [
        (Adams(1, 0), 1),
        (Adams(2, 0), 2),
        (Adams(3, 0), 3),
        (Adams(1, 2), 2),
        (Adams(2, 3), 3),
        (Adams(2, 3, 0.5), 3),
        (Adams(3, 4), 4),
    ],
)
def test_order_in_xi(sampler, order):
    assert sampler.order == sampler.convergence == order
    x = torch.linspace(-2, 2, 11)[:, None]
    grid = lambda n: optimized(SDE, n, guard=1.0)  # down to t = 0, where lam is infinite
    exact = exact_end(GM1, x, 4000)
    gauss = [law_error(sampler, GAUSS, grid(n)) for n in STEPS]
    mixture = [float((sampler(GM1, x, grid(n)) - exact).norm()) for n in STEPS]
    assert fitted_order(STEPS, gauss) == pytest.approx(order, abs=0.15), gauss
    assert fitted_order(STEPS, mixture) == pytest.approx(order, abs=0.15), mixture


@pytest.mark.parametrize("sampler", [Adams(2, 3), Adams(3, 4), Adams(4, 4), Adams(4, 5)])
def test_full_order_down_to_zero(sampler):
    """At t = 0 itself, where lam is infinite, on the grid made for it: at least order 3."""
    x = torch.linspace(-2, 2, 11)[:, None]
    exact = exact_end(GM1, x, 4000)
    errors = [float((sampler(GM1, x, optimized(SDE, n)) - exact).norm()) for n in STEPS]
    assert fitted_order(STEPS, errors) > 2.9, errors
    assert errors[-1] < 1e-5


@pytest.mark.parametrize("sde", [SDE, CosineVPSDE(), VESDE(), KarrasSDE(), StraightPath()])
@pytest.mark.parametrize("d", [0.3, 1.0, 2.0])
def test_a_gaussian_of_that_width_is_exact_in_one_step(sde, d):
    law = GaussianMixture.isotropic([1.0], [[0.0]], d, sde)
    start = law.marginal(torch.tensor(sde.t_max))[1].sqrt()
    out = Adams(3, 4, d)(law, start, optimized(sde, 1, scale=d))
    close(out, torch.full((1, 1), d), rtol=1e-10, atol=1e-12)


def test_the_equation_in_xi():
    """d(x/m)/dxi = (alpha/sigma)(x0_G - x0_hat), two values by Adams-Bashforth, by hand."""
    d, ts, x = 0.7, quadratic(5), torch.linspace(-1, 1, 4)[:, None]
    alpha, sigma = SDE.alpha(ts), SDE.sigma(ts)
    m2, xi = alpha**2 * d**2 + sigma**2, torch.asinh(sigma / (alpha * d))
    state, slopes, end = x / m2[0].sqrt(), [], x
    for k in range(5):
        gaussian = alpha[k] * d**2 / m2[k] * end
        slopes.insert(0, alpha[k] / sigma[k] * (gaussian - GM1(end, ts[k])))
        h = xi[k + 1] - xi[k]
        r = h / (xi[k] - xi[k - 1]) if k else 0.0
        state = state + h * ((1 + r / 2) * slopes[0] - r / 2 * slopes[min(k, 1)])
        end = m2[k + 1].sqrt() * state
    close(Adams(2, 0, d)(GM1, x, ts), end, rtol=1e-10, atol=1e-11)


def test_a_wide_gaussian_leaves_the_noise():
    """As d grows what is remembered is eps, and Euler in xi is DDIM."""
    ts = quadratic(4)
    mine, theirs = Adams(1, 0, 1e6).table(SDE, ts), DDIM().table(SDE, ts)
    close(mine.u, 1 / SDE.sigma(ts[:-1]), rtol=1e-6, atol=0)
    close(mine.a + mine.b[:, 0] * mine.u, theirs.a, rtol=1e-5, atol=1e-6)
    close(mine.b[:, 0] * mine.w, theirs.b[:, 0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("nfe", [10, 20, 50])
def test_errors_of_a_network_are_not_carried_far(nfe):
    """A smooth error in eps, 150 times larger in x0_hat at t = 1: against its own exact flow."""
    wrong = torch.nn.Module()
    wrong.forward = lambda x, t: GM1.eps(x, t) + 0.03 * torch.sin(3 * x + 5 * t)
    net, x = EpsDenoiser(wrong, SDE), torch.linspace(-2, 2, 41)[:, None]
    truth = DEIS(3)(net, x, log_snr(SDE, 2000, t_eps=1e-7))
    error = lambda end: float((end - truth).square().mean().sqrt())
    sampler, ts = recommended(SDE, nfe)
    ours, ddim = error(sampler(net, x, ts)), error(DDIM()(net, x, log_snr(SDE, nfe, t_eps=1e-4)))
    assert ours < 0.4 * ddim
    if nfe > 20:
        assert ours < 0.8 * error(sampler(net, x, optimized(SDE, nfe, guard=0.0)))


def test_the_battery_takes_adams():
    check_sampler(Adams(2, 3))
    check_sampler(Adams(1, 0), KarrasSDE())


@pytest.mark.parametrize("sde", [SDE, CosineVPSDE(), VESDE(), KarrasSDE(), StraightPath()])
def test_optimized_grids(sde):
    for n in (1, 2, 7, 200):
        ts = optimized(sde, n)
        assert ts.shape == (n + 1,) and float(ts[0]) == sde.t_max and float(ts[-1]) == 0.0
        assert bool((ts.diff() < 0).all())
    ts = optimized(sde, 9, t_max=0.9 * sde.t_max, t_eps=sde.t_eps)
    assert (float(ts[0]), float(ts[-1])) == (0.9 * sde.t_max, sde.t_eps)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_optimized_minimises_its_bound(order):
    """Against the bound computed afresh by finite differences: no nearby grid does better."""
    xi = lambda ts: torch.asinh((-SDE.lam(ts.clamp(min=1e-12))).exp())
    widths = torch.logspace(math.log10(0.1), 0, 30)[:, None]
    flow = lambda at: ((widths**2 + at.sinh() ** 2) / (1 + at.sinh() ** 2)).sqrt()

    def derivative(at, h=2e-2):
        k = torch.arange(order + 2)
        binomials = torch.tensor([math.comb(order + 1, int(i)) * (-1.0) ** int(i) for i in k])
        values = torch.stack([flow(at + (0.5 * (order + 1) - i) * h) for i in k.tolist()])
        return torch.einsum("k,kwn->wn", binomials, values) / h ** (order + 1)

    def bound(edges):
        """sum of the integrals of h^p M over the steps: the limit of the sum for many steps."""
        total = 0.0
        for a, b in zip(edges[1:].tolist(), edges[:-1].tolist(), strict=True):
            at = torch.linspace(a, b, 41)
            size = derivative(at).abs().amax(0)
            total += (b - a) ** order * float(torch.trapezoid(size, at))
        return total

    edges = xi(optimized(SDE, 24, order, finest=0.1, guard=0.0))
    best = bound(edges)
    grids = [xi(quadratic(24, 1.0, 0.0)), edges[0] * torch.linspace(1, 0, 25)]
    grids += [edges[0] * (edges / edges[0]) ** p for p in (0.8, 0.9, 1.1, 1.25)]
    assert all(bound(grid) > best for grid in grids), (best, [bound(g) for g in grids])


@pytest.mark.parametrize("name", ["ring8", "aniso3"])
def test_recommended_against_the_best_of_the_peers(name):
    """On the laws and points of the reference: the mean ratio to the best of 111 of theirs."""
    reference = json.loads(PEERS.read_text(encoding="utf-8"))
    law = GaussianMixture(
        *(torch.tensor(reference["laws"][name][k]) for k in ("weights", "means", "covs")), SDE
    )
    x = torch.randn(4096, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    truth = exact_end(law, x, 600)
    logs = []
    for nfe in (5, 10, 20, 35, 50):
        sampler, ts = recommended(SDE, nfe)
        error = (sampler(law, x, ts) - truth).norm(dim=1)
        best = reference["best"][name][str(nfe)]
        median, rms = float(error.median()), float(error.square().mean().sqrt())
        logs.append([math.log(median / best["median"]["error"])])
        logs[-1].append(math.log(rms / best["rms"]["error"]))
    means = torch.tensor(logs).mean(0).exp().tolist()
    assert means[0] < 0.75 and means[1] < 0.75, (means, logs)


def test_few_evaluations_take_a_lower_order():
    kinds = {nfe: recommended(SDE, nfe).sampler for nfe in (3, 4, 5, 6, 23, 24, 200)}
    assert kinds[3] == Adams(1, 0) and kinds[4] == kinds[5] == Adams(1, 2)
    assert kinds[6] == kinds[23] == Adams(2, 3) and kinds[24] == kinds[200] == Adams(4, 4)
    assert recommended(SDE, 24, scale=2.0).sampler == Adams(4, 4, 2.0)


def test_recommended_counts_its_evaluations():
    for nfe in (1, 3, 4, 11, 12, 40):
        calls = []

        class Net(torch.nn.Module):
            def forward(self, x, t, calls=calls):
                calls.append(float(t))
                return torch.zeros_like(x)

        sampler, ts = recommended(SDE, nfe)
        sample(EpsDenoiser(Net(), SDE), sampler, (8, 2), ts, seed=0)
        assert len(calls) == nfe and min(calls) > 1e-5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Adams(5), "expected predictor among"),
        (lambda: Adams(2, 6), "expected corrector among"),
        (lambda: Adams(scale=0.0), "expected scale > 0"),
        (lambda: optimized(SDE, 5, order=5), "expected order 1, 2, 3 or 4"),
        (lambda: optimized(SDE, 5, finest=1.0), "finest"),
        (lambda: optimized(CosineVPSDE(), 5, t_max=1.0), "expected t_max <="),
        (lambda: optimized(SDE, 0), "expected a number of steps"),
        (lambda: recommended(SDE, 0), "expected a number of evaluations"),
        (lambda: Adams()(GM1, torch.zeros(2, 1), quadratic(5, 1.0, 0.0).flip(0)), "cannot start"),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()

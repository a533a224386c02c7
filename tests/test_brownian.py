"""One Brownian path for every walk: its law, that it is one, and the strong orders it shows.

Strong error: E|X_N - X|, both driven by the same path. X for Gaussian data is the solution of the
linear SDE in closed form, X_s = a_s m + K (X_t - a_t m) + int K(s, r) g(r) dB_r with
K(s, r) = v_s a_r/(v_r a_s); for a mixture, SRK on a grid four times finer than the finest.
"""

from itertools import pairwise

import pytest
import torch

from scoresde import (
    DDIM,
    VPSDE,
    Ancestral,
    DDPMChain,
    EulerMaruyama,
    GaussianMixture,
    Langevin,
    PredictorCorrector,
    ReverseDiffusion,
    moments,
    quadratic,
    uniform,
)
from scoresde.noise import BlockNoise, block_size
from scoresde.samplers import BrownianPath, TorchSDE
from scoresde.testing import fitted_order

CPU = torch.device("cpu")
SDE = VPSDE()
GAUSS = GaussianMixture([1.0], [[0.8]], [[[0.25]]], SDE)
GM1 = GaussianMixture([0.6, 0.4], [[1.5], [-1.0]], [[[0.09]], [[0.25]]], SDE)
N = 4096


def ask(path, k, t, s, dtype=torch.float64):
    return path(k, t, s, path.shape, CPU, dtype)


def test_increments_have_the_law_of_brownian_motion():
    """Means, variances and covariances of four steps, two of which overlap, to 5 errors."""
    path = BrownianPath(0, (N, 8))
    steps = [(1.0, 0.7), (0.7, 0.3), (0.8, 0.5), (0.01, 0.001)]
    z = torch.stack([ask(path, 0, *step).flatten() for step in steps])
    n = z.shape[1]
    overlap = lambda a, b: max(0.0, min(a[0], b[0]) - max(a[1], b[1]))
    length = lambda a: a[0] - a[1]
    truth = torch.tensor([[overlap(a, b) for b in steps] for a in steps])
    truth /= torch.tensor([[(length(a) * length(b)) ** 0.5 for b in steps] for a in steps])
    assert (z.mean(1).abs() < 5 / n**0.5).all()
    assert ((z @ z.T / n - truth).abs() < 5 * ((1 + truth**2) / n) ** 0.5).all()
    assert abs(float((z[0] ** 4).mean()) - 3) < 5 * (96 / n) ** 0.5


def test_z_is_the_increment_from_s_to_t():
    path = BrownianPath(1, (5, 2))
    z = ask(path, 0, 0.9, 0.4)
    torch.testing.assert_close(z, path.increment(0.9, 0.4) / 0.5**0.5, rtol=1e-14, atol=0)
    assert torch.equal(z, ask(path, 3, 0.9, 0.4))  # whoever asks
    assert torch.equal(z, ask(path, 3, 0.4, 0.9))  # forwards too: the later less the earlier


@pytest.mark.parametrize("order", ["fine first", "coarse first", "shuffled"])
def test_the_path_is_one_at_every_step_size(order):
    path, n = BrownianPath(2, (7, 3), cache=20 if order == "shuffled" else None), 48
    pieces = [(m, k) for m in (1, 3, 8, n) for k in range(m)]
    if order == "fine first":
        pieces.reverse()
    if order == "shuffled":
        pieces = [pieces[i] for i in torch.randperm(len(pieces)).tolist()]
    ts = lambda m, k: float(torch.linspace(1, 1e-3, m + 1)[k])
    found = {(m, k): path.increment(ts(m, k), ts(m, k + 1)) for m, k in pieces}
    for m in (1, 3, 8):
        for k in range(m):
            parts = [found[n, j] for j in range(k * n // m, (k + 1) * n // m)]
            torch.testing.assert_close(found[m, k], sum(parts), rtol=0, atol=1e-10)


def test_the_trap():
    """Two objects of one seed agree if asked the same, and not if asked otherwise: share one."""
    one, two, three = (BrownianPath(3, (50, 1)) for _ in range(3))
    first = one.increment(0.5, 0.0)
    assert torch.equal(first, two.increment(0.5, 0.0))
    three.increment(0.9, 0.3)
    assert float((first - three.increment(0.5, 0.0)).abs().max()) > 0.5


def test_the_area_adds_up_and_has_its_variance():
    """A(t, s) = sum_k [A_k + h_k (W_t - W_{t_k})]; var h^3/3, covariance with W h^2/2."""
    path = BrownianPath(4, (N, 8))
    t, s, ts = 0.9, 0.4, torch.linspace(0.9, 0.4, 11).tolist()
    w, area = path.area(t, s)
    gone = total = torch.zeros_like(w)
    for a, b in pairwise(ts):
        step, piece = path.area(a, b)
        total = total + piece + (a - b) * gone
        gone = gone + step
    torch.testing.assert_close(area, total, rtol=0, atol=1e-10)
    torch.testing.assert_close(w, path.increment(t, s), rtol=0, atol=1e-12)
    h, n = t - s, area.numel()
    assert abs(float(area.square().mean()) / (h**3 / 3) - 1) < 5 * (2 / n) ** 0.5
    spread = (h**2 / 4 + h / 3 * h) * h**2  # var(A W) = E A^2 E W^2 + (E A W)^2
    assert abs(float((area * w).mean()) - h**2 / 2) < 5 * (spread / n) ** 0.5


def test_correctors_draw_apart():
    path, n = BrownianPath(5, (N, 8)), 8 * N
    steps = [ask(path, 0, 1.0, 0.5), ask(path, 1, 0.5, 0.5), ask(path, 2, 0.5, 0.5)]
    z = torch.stack([step.flatten() for step in steps])
    truth = torch.eye(3)
    assert ((z @ z.T / n - truth).abs() < 5 * ((1 + truth) / n) ** 0.5).all()
    assert torch.equal(steps[1], ask(path, 1, 0.5, 0.5))  # fixed by k, not by how often one asks
    other = BrownianPath(6, (N, 8))
    assert abs(float((ask(other, 1, 0.5, 0.5) * steps[1]).mean())) < 5 / n**0.5


@pytest.mark.parametrize("event", [(), (2,), (1, 28, 28)])
def test_chunks_dtypes_and_seeds(event):
    size = block_size(event)
    whole = BrownianPath(7, (2 * size + 3, *event))
    steps = [(0, 1.0, 0.6), (1, 0.6, 0.1), (2, 0.1, 0.1)]
    z = [ask(whole, *step) for step in steps]
    for first, n in [(0, size), (size, size + 3), (2 * size, 3)]:
        part = BrownianPath(7, (n, *event), first=first)
        for step, full in zip(steps, z, strict=True):
            assert torch.equal(ask(part, *step), full[first : first + n])
    assert torch.equal(ask(whole, *steps[0], dtype=torch.float32), z[0].float())
    for step in z:  # blocks are independent
        assert (
            abs(float((step[:size] * step[size : 2 * size]).mean()))
            < 5 / step[:size].numel() ** 0.5
        )
    other = ask(BrownianPath(8, whole.shape), *steps[0])
    assert abs(float((other * z[0]).mean())) < 5 / other.numel() ** 0.5


def test_bad_input():
    path = BrownianPath(0, (5, 2))
    with pytest.raises(ValueError, match="make one path for each shape"):
        path(0, 1.0, 0.5, (4, 2), CPU, torch.float64)
    with pytest.raises(ValueError, match="multiple of the block of 4096"):
        BrownianPath(0, (5, 2), first=10)


def test_a_predictor_corrector_walks_on_a_path():
    """Its predictor takes the path's z, its corrector numbers of its own, both with variance 1."""
    n, ts = 20_000, torch.tensor([0.9, 0.6, 0.3])
    walk = PredictorCorrector(EulerMaruyama(), Langevin(r=0.2))
    law = GaussianMixture([1.0], [[0.0]], [[[1.0]]], SDE)  # p_t = N(0, 1) at every time
    x = law.sample(n, ts[0], torch.Generator().manual_seed(0))
    path = BrownianPath(9, (n, 1))
    out = walk(law, x, ts, noise=path)
    assert torch.equal(out, walk(law, x, ts, noise=path))
    var = float(moments(walk, law, ts)[1][-1])
    assert abs(float(out.var()) - var) < 5 * var * (2 / n) ** 0.5


def solution(x, ts, path):
    """The strong solution for the law GAUSS on a fine grid; K g linear in t within a step."""
    alpha, beta, m = SDE.alpha(ts), SDE.beta(ts), 0.8
    v = alpha**2 * 0.25 + SDE.sigma2(ts)
    states = [x]
    for k in range(len(ts) - 1):
        h = float(ts[k] - ts[k + 1])
        carry = v[k + 1] * alpha[k] / (v[k] * alpha[k + 1])
        start, end = carry * beta[k].sqrt(), beta[k + 1].sqrt()
        w, area = path.area(float(ts[k]), float(ts[k + 1]))
        fresh = end * w - (end - start) / h * area
        states.append(alpha[k + 1] * m + carry * (states[-1] - alpha[k] * m) + fresh)
    return states


@pytest.fixture(scope="module")
def gaussian():
    """A path, its start and the exact solution at 1e-3, on a quadratic grid."""
    with torch.random.fork_rng():
        path = BrownianPath(0, (N, 1))
        x = GAUSS.sample(N, torch.tensor(1.0).double(), torch.Generator().manual_seed(0))
        return path, x, solution(x, quadratic(1024), path)[-1]


@pytest.fixture(scope="module")
def mixture():
    """The same for GM1, by SRK."""
    path = BrownianPath(0, (N, 1))
    x = GM1.sample(N, torch.tensor(1.0).double(), torch.Generator().manual_seed(0))
    return path, x, TorchSDE("srk")(GM1, x, quadratic(1024), noise=path)


def strong_errors(sampler, law, case, steps):
    path, x, truth = case
    walks = (sampler(law, x, quadratic(n), noise=path) for n in steps)
    return [float((y - truth).abs().mean()) for y in walks]


def test_the_solution_has_the_exact_law(gaussian):
    x, (mean, var) = gaussian[2], GAUSS.marginal(torch.tensor(1e-3))
    assert abs(float(x.mean() - mean)) < 5 * float(var / N) ** 0.5
    assert abs(float(x.var() - var)) < 5 * float(var) * (2 / N) ** 0.5


@pytest.mark.parametrize(
    ("sampler", "order", "slack"),
    [
        (EulerMaruyama(), 1, 0.05),
        (ReverseDiffusion(), 1, 0.1),
        (Ancestral("beta"), 1, 0.05),
        (Ancestral(), 1, 0.1),
        (DDIM(1.0), 1, 0.1),
        # For a linear drift the terms that limit SRA1 to 1.5 (they hold f'') vanish.
        (TorchSDE("srk"), 2, 0.15),
    ],
)
def test_strong_order_on_a_gaussian(gaussian, sampler, order, slack):
    steps = [32, 64, 128, 256]
    errors = strong_errors(sampler, GAUSS, gaussian, steps)
    assert fitted_order(steps, errors) == pytest.approx(order, abs=slack), errors


@pytest.mark.parametrize(
    ("sampler", "order"),
    [(EulerMaruyama(), 1), (Ancestral(), 1), (Ancestral("beta"), 1), (TorchSDE("srk"), 1.5)],
)
def test_strong_order_on_a_mixture(mixture, sampler, order):
    steps = [64, 128, 256]
    errors = strong_errors(sampler, GM1, mixture, steps)
    assert fitted_order(steps, errors) == pytest.approx(order, abs=0.15), errors


@pytest.mark.parametrize("variance", ["posterior", "beta"])
def test_ddpm_tends_to_the_sde_path_by_path(variance):
    """The chain itself, on the noise of the SDE, at t = 0.2: order 1 in its number of steps."""
    path, steps = BrownianPath(1, (N, 1)), [40, 80, 160, 320]
    x = GAUSS.sample(N, torch.tensor(1.0), torch.Generator().manual_seed(0))
    fine = uniform(1280, 1.0, 0.2)
    truth, errors = solution(x, fine, path)[-1], []
    for n in steps:
        chain, y = DDPMChain.from_sde(SDE, n), x
        for i in range(n, n // 5, -1):
            z = path(n - i, i / n, (i - 1) / n, y.shape, CPU, y.dtype)
            mean, var = chain.posterior(y, GAUSS(y, torch.tensor(i / n)), i, variance)
            y = mean + var.sqrt() * z
        errors.append(float((y - truth).abs().mean()))
    assert fitted_order(steps, errors) == pytest.approx(1, abs=0.1), errors
    # Without the path they are strangers, at any number of steps.
    z = BlockNoise(0, N, (1,)).draw(CPU, y.dtype)
    assert float((y[z[:, 0].argsort()] - truth).abs().mean()) > 30 * errors[-1]


# x_T and the z of steps 0 and 1 for sample 4999 of 5000, seed 7, as drawn by release 0.1.
DRAWN = {
    torch.float32: [0.9689167737960815, 1.4803200960159302, -0.24985717236995697],
    torch.float64: [1.2098440912436268, 0.17870571478093022, -0.8219230670561599],
}


def test_blocks_give_the_numbers_they_always_gave():
    """A step's z is drawn into one buffer, with the numbers that new tensors had."""
    for dtype in (torch.float32, torch.float64):
        noise, size = BlockNoise(7, 5000, (2,)), block_size((2,))
        seen = [noise.draw(CPU, dtype)]
        seen += [noise(k, 1.0, 0.5, (5000, 2), CPU, dtype).clone() for k in range(2)]
        assert [float(z[4999, 1]) for z in seen] == pytest.approx(DRAWN[dtype], rel=1e-5)
        for first in (0, size):
            generator = BlockNoise(7, 1, (2,), first=first).generators[0]
            for z in seen:
                fresh = torch.empty(size, 2, dtype=dtype).normal_(generator=generator)
                assert torch.equal(z[first : first + size], fresh[: len(z) - first])


def test_the_buffer_of_a_step_is_reused():
    noise = BlockNoise(0, 10, (2,))
    start = noise.draw(CPU, torch.float32)
    kept = start.clone()
    with torch.inference_mode():
        first = noise(0, 1.0, 0.5, (10, 2), CPU, torch.float32)
    with torch.no_grad():  # and outside of inference mode
        again = noise(1, 0.5, 0.2, (10, 2), CPU, torch.float32)
    assert first.data_ptr() == again.data_ptr()
    assert torch.equal(start, kept)  # x_T is a tensor of its own
    wide = noise(2, 0.2, 0.1, (10, 2), CPU, torch.float64)
    assert wide.dtype == torch.float64

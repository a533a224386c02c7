"""torchsde's solvers on the reverse SDE: the same rows as ours, and the law they should have."""

from itertools import pairwise

import pytest
import torch

from scoresde import (
    VESDE,
    VPSDE,
    CosineVPSDE,
    EpsDenoiser,
    EulerMaruyama,
    GaussianMixture,
    KarrasSDE,
    SubVPSDE,
    log_snr,
    moments,
    quadratic,
    sample,
    uniform,
)
from scoresde.noise import BlockNoise
from scoresde.samplers import Counted
from scoresde.samplers.adaptive.bridge import BrownianPath, TorchSDE, _RowPath
from scoresde.testing import check_sampler, fitted_order

SDE = VPSDE()


def gaussian(sde):
    return GaussianMixture([1.0], [[0.8]], [[[0.25]]], sde)


def start(law, n, t=1.0, seed=0):
    return law.sample(n, torch.tensor(t), torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("method", ["euler", "milstein"])
@pytest.mark.parametrize("sde", [VPSDE(), SubVPSDE(), CosineVPSDE(), VESDE(), KarrasSDE()])
def test_euler_is_ours(sde, method):
    """torchsde's Euler-Maruyama, and Milstein (the noise is additive), to rounding."""
    law, ts = gaussian(sde), log_snr(sde, 12)
    x = start(law, 50, float(ts[0]))
    noise = lambda: BlockNoise(3, 50, (1,))
    ours = EulerMaruyama()(law, x, ts, noise=noise())
    theirs = TorchSDE(method)(law, x, ts, noise=noise())
    torch.testing.assert_close(theirs, ours, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("event", [(), (1,), (3,), (2, 3), (2, 2, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_any_shape(event, dtype):
    """Whatever the event, each coordinate goes as on its own, where the score is -x."""

    class Standard(torch.nn.Module):
        def forward(self, x, t):
            return SDE.sigma(t) * x  # eps of data N(0, I)

    law, ts = EpsDenoiser(Standard(), SDE), uniform(5)
    path = BrownianPath(0, (6, *event))
    x = torch.randn(6, *event, dtype=dtype)
    out = TorchSDE("euler")(law, x, ts, noise=path)
    assert out.shape == x.shape
    assert out.dtype == dtype
    expected = EulerMaruyama()(law, x, ts, noise=path)
    torch.testing.assert_close(
        out, expected, rtol=1e-5 if dtype == torch.float32 else 1e-12, atol=1e-6
    )


def test_srk_with_plain_noise_has_the_law_of_srk_on_a_path():
    """Weak order 2: mean and variance from 400 000 samples against the exact law, at 5 errors."""
    law, n, ts = gaussian(SDE), 400_000, quadratic(24)
    x = start(law, n)
    mean, var = law.marginal(ts[-1])
    out = TorchSDE("srk")(law, x, ts, torch.Generator().manual_seed(1))
    assert abs(float(out.mean() - mean)) < 5 * float(var / n) ** 0.5
    euler = moments(EulerMaruyama(), law, ts)[1][-1]
    bias = float(euler - var)  # what Euler gets wrong is many errors, and SRK is free of it
    error = float(var) * (2 / n) ** 0.5
    assert bias > 20 * error
    assert abs(float(out.var() - var)) < 5 * error


def law_of(sampler, law, ts):
    """Mean and variance at the end of the grid: each row is affine in x, z and z'."""
    mean, var = (float(v) for v in law.marginal(ts[0]))
    rows = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    given = lambda k, t, s, *_: rows[:, 1 if t > s else 2, None]
    for pair in pairwise(ts.tolist()):
        out = sampler(law, rows[:, :1], torch.tensor(pair), noise=given)[:, 0]
        shift, (linear, first, second) = float(out[0]), (out[1:] - out[0]).tolist()
        mean, var = linear * mean + shift, linear**2 * var + first**2 + second**2
    return mean, var


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("srk", 2)])
def test_weak_order(method, order):
    """From the exact law of the samples, without Monte Carlo."""
    law, steps, errors = gaussian(SDE), [80, 160, 320], []
    for n in steps:
        mean, var = law_of(TorchSDE(method), law, quadratic(n))
        truth = law.marginal(torch.tensor(1e-3))
        errors.append(abs(mean - float(truth[0])) + abs(var - float(truth[1])))
    assert fitted_order(steps, errors) == pytest.approx(order, abs=0.1), errors
    assert TorchSDE(method).order == order


def test_plain_noise_has_the_area_of_a_path():
    """In a row of unit time: var W = 1, var U = 1/3, cov = 1/2, to 5 errors."""
    n = 200_000
    x, noise = torch.zeros(n, 1), BlockNoise(0, n, (1,))  # which reuses its memory
    row = _RowPath(noise, x, 0, 0.9, 0.4)
    pair = torch.cat(row(torch.tensor(0.0), torch.tensor(1.0), return_U=True), 1)
    truth = torch.tensor([[1.0, 1 / 2], [1 / 2, 1 / 3]])
    spread = (truth.square() + truth.diagonal() * truth.diagonal()[:, None]) / n
    assert ((pair.T @ pair / n - truth).abs() < 5 * spread.sqrt()).all()


@pytest.mark.parametrize(("method", "cost"), [("euler", 1), ("milstein", 1), ("srk", 2)])
def test_evaluations(method, cost):
    """torchsde asks for its first drift up to three times; the denoiser is asked once."""
    counted = Counted(gaussian(SDE))
    TorchSDE(method)(counted, start(counted.denoiser, 4), uniform(10))
    assert counted.calls == 10 * cost


@pytest.mark.parametrize("method", ["euler", "srk"])
def test_adaptive_steps_follow_the_tolerance(method):
    """On one path the strong error falls with the tolerance, and stays near it."""
    law, n, ts = gaussian(SDE), 256, torch.tensor([1.0, 1e-3])
    path, x = BrownianPath(0, (n, 1)), start(law, n)
    fine = TorchSDE("srk")(law, x, quadratic(512), noise=path)
    errors, calls = [], []
    for tol in (1e-1, 1e-2) if method == "euler" else (1e-1, 1e-2, 1e-3):
        counted = Counted(law)
        out = TorchSDE(method, adaptive=True, rtol=tol, atol=tol)(counted, x, ts, noise=path)
        errors.append(float((out - fine).square().mean().sqrt()))
        calls.append(counted.calls)
    assert all(3 * fine < coarse for coarse, fine in pairwise(errors)), errors
    assert all(fine > coarse for coarse, fine in pairwise(calls)), calls
    assert errors[-1] < 3 * tol, errors


def test_adaptive_without_a_path_makes_its_own():
    law, ts = gaussian(SDE), torch.tensor([1.0, 1e-3])
    n = 20_000
    walk, x = TorchSDE("srk", adaptive=True, rtol=1e-2, atol=1e-2), start(law, n)
    run = lambda seed: walk(law, x, ts, torch.Generator().manual_seed(seed))
    out = run(0)
    assert torch.equal(out, run(0))
    mean, var = law.marginal(ts[-1])
    assert abs(float(out.mean() - mean)) < 5 * float(var / n) ** 0.5
    assert abs(float(out.var() - var)) < 5 * float(var) * (2 / n) ** 0.5
    joint = float(((out - mean) * (run(1) - mean)).mean() / var)
    forgotten = float(SDE.alpha(ts[0]) ** 2)  # what the SDE keeps of its start is next to nothing
    assert abs(joint) < 5 / n**0.5 + forgotten


def test_the_callback_sees_the_grid():
    law, ts = gaussian(SDE), quadratic(4)
    path, x = BrownianPath(0, (8, 1)), start(law, 8)
    seen = []
    out = TorchSDE("euler")(law, x, ts, noise=path, callback=lambda *row: seen.append(row))
    assert [(k, t) for k, t, _, _ in seen] == list(enumerate(ts.tolist()))
    torch.testing.assert_close(seen[-1][2], out)
    for (_, t, state, x0_hat), following in pairwise(seen):
        torch.testing.assert_close(x0_hat, law(state, torch.tensor(t)))
        pair = torch.tensor([t, following[1]])
        step = EulerMaruyama()(law, state, pair, noise=path)
        torch.testing.assert_close(step, following[2], rtol=1e-10, atol=1e-12)


def test_sample_walks_with_it():
    """A seeded run in chunks is that of one chunk; the law is right through the front door."""
    law, ts = gaussian(SDE), quadratic(30)
    whole = sample(law, TorchSDE("srk"), (8200, 1), ts, seed=1, chunk=8200, last="stop")
    parts = sample(law, TorchSDE("srk"), (8200, 1), ts, seed=1, chunk=4096, last="stop")
    torch.testing.assert_close(whole, parts, rtol=1e-10, atol=1e-12)
    mean, var = law.marginal(ts[-1])
    assert abs(float(whole.mean() - mean)) < 5 * float(var / 8200) ** 0.5
    assert abs(float(whole.var() - var)) < 5 * float(var) * (2 / 8200) ** 0.5


@pytest.mark.parametrize("sampler", [TorchSDE("euler"), TorchSDE("srk")])
def test_battery(sampler):
    check_sampler(sampler)


def test_bad_input():
    with pytest.raises(ValueError, match='expected method "euler", "milstein" or "srk"'):
        TorchSDE("midpoint")
    law = gaussian(SDE)
    with pytest.raises(ValueError, match="decreasing"):
        TorchSDE()(law, start(law, 4), quadratic(4).flip(0))
    with pytest.raises(TypeError, match="no moment recursion"):
        moments(TorchSDE(), law, quadratic(4))

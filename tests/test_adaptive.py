"""Solvers that choose their steps: the flow to its tolerance, the SDE's law to 5 errors."""

import json
import math
from pathlib import Path

import pytest
import torch
from scipy.optimize import brentq
from scipy.stats import norm
from torch.utils._python_dispatch import TorchDispatchMode

from scoresde import (
    DDIM,
    VESDE,
    VPSDE,
    BrownianPath,
    CosineVPSDE,
    EpsDenoiser,
    GaussianMixture,
    Given,
    KarrasSDE,
    StraightPath,
    SubVPSDE,
    VDenoiser,
    X0Denoiser,
    log_snr,
    moments,
    sample,
    uniform,
)
from scoresde.noise import block_size
from scoresde.samplers import Counted
from scoresde.samplers.adaptive.flow import PFAdaptive, _Angle, _embedded, _scipy, _torchdiffeq
from scoresde.samplers.adaptive.sde import CHECK, KNOWN, SDEAdaptive, _Path
from scoresde.testing import check_sampler

SDE = VPSDE()
GM1 = GaussianMixture([0.6, 0.4], [[1.5], [-1.0]], [[[0.09]], [[0.25]]], SDE)
SDES = [VPSDE(), CosineVPSDE(), SubVPSDE(), VESDE(), KarrasSDE(), StraightPath()]
METHODS = ["bosh3", "dopri5", "dopri8", "RK45", "DOP853"]
ONE = torch.tensor([1.0, 0.0])


def gaussian(sde=SDE, event=(1,)):
    d = math.prod(event)
    means, covs = torch.full((1, *event), 0.8), 0.25 * torch.eye(d)[None]
    return GaussianMixture(torch.ones(1), means, covs, sde)


def flow(law, x, t, s):
    """The flow of N(0.8, 0.25) in closed form: (x - a m)/std is constant along it."""
    mean = lambda t: 0.8 * float(law.sde.alpha(torch.tensor(t)))
    std = lambda t: float(law.marginal(torch.tensor(t))[1][0, 0]) ** 0.5
    return mean(s) + std(s) / std(t) * (x - mean(t))


# The probability-flow ODE


@pytest.mark.parametrize("sde", SDES)
def test_the_flow_of_a_gaussian(sde):
    """Every process, to and from the data themselves, of which nothing is cut off."""
    law, ends = gaussian(sde), torch.tensor([sde.t_max, 0.0])
    x = law.sample(50, ends[0], torch.Generator().manual_seed(0))
    walk, exact = PFAdaptive(1e-7, 1e-7), flow(law, x, sde.t_max, 0.0)
    torch.testing.assert_close(walk(law, x, ends), exact, rtol=0, atol=3e-6)
    back = walk(law, exact, ends.flip(0))
    torch.testing.assert_close(back, x, rtol=0, atol=3e-6 * float(x.std()))


@pytest.mark.parametrize("method", METHODS)
def test_the_flow_of_a_mixture_is_its_quantile_map(method):
    def quantile(p):
        w, m, v = (c.flatten().numpy() for c in (GM1.weights, GM1.means, GM1.covs))
        return brentq(lambda y: float((w * norm.cdf((y - m) / v**0.5)).sum()) - p, -9, 9)

    x = torch.linspace(-2, 2, 9)[:, None]
    a, s2 = float(SDE.alpha(ONE[0])), float(SDE.sigma2(ONE[0]))
    m, v = GM1.means[:, 0], GM1.covs[:, 0, 0]
    p = (GM1.weights * torch.special.ndtr((x - a * m) / (a * a * v + s2).sqrt())).sum(1)
    exact = torch.tensor([[quantile(float(q))] for q in p])
    out = PFAdaptive(1e-8, 1e-8, method)(GM1, x, ONE)
    torch.testing.assert_close(out, exact, rtol=0, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_the_error_follows_the_tolerance(method):
    law = gaussian(event=(2,))
    x = law.sample(100, ONE[0], torch.Generator().manual_seed(0))
    exact, calls = flow(law, x, 1.0, 0.0), []
    for tol in (1e-3, 1e-5, 1e-7):
        counted = Counted(law)
        out = PFAdaptive(tol, tol, method)(counted, x, ONE)
        assert float((out - exact).square().mean().sqrt()) < 10 * tol
        calls.append(counted.calls)
    assert calls == sorted(set(calls))


def test_a_higher_order_is_worth_it_at_a_tight_tolerance():
    law, calls = gaussian(event=(2,)), {}
    x = law.sample(20, ONE[0], torch.Generator().manual_seed(0))
    for method in METHODS:
        counted = Counted(law)
        PFAdaptive(1e-10, 1e-10, method)(counted, x, ONE)
        calls.setdefault(PFAdaptive(method=method).order, []).append(counted.calls)
    assert max(calls[8]) < min(calls[5])
    assert max(calls[5]) < min(calls[3])


PEERS = Path(__file__).parents[1] / "benchmarks" / "reference" / "peers_strong_error.json"


@pytest.mark.parametrize(
    ("name", "most", "median"), [("ring8", 50, 2.2e-4), ("aniso3", 50, 3.0e-4)]
)
def test_the_angle_beats_the_peers(name, most, median):
    """torchdiffeq's dopri5 in t takes 62 evaluations at 1e-3 for 5.9e-3 on ring8 (their figure).

    The same solver in t, landed on t = 0 exactly, takes 62 and 74 for 1.1e-4 and 1.6e-4; in the
    angle 50 and 50.
    """
    law = json.loads(PEERS.read_text(encoding="utf-8"))["laws"][name]
    law = GaussianMixture(*(torch.tensor(law[k]) for k in ("weights", "means", "covs")), SDE)
    x = torch.randn(4096, 2, generator=torch.Generator().manual_seed(0))
    truth = PFAdaptive(1e-8, 1e-8, "dopri8")(law, x, ONE)
    counted = Counted(law)
    error = (PFAdaptive()(counted, x, ONE) - truth).norm(dim=1)
    assert counted.calls <= most
    assert float(error.median()) < median


@pytest.mark.parametrize("event", [(), (3,), (2, 2, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", ["dopri5", "RK45"])
def test_shapes_and_dtypes(event, dtype, method):
    law = gaussian(event=event or (1,))
    x = law.sample(20, ONE[0], torch.Generator().manual_seed(0)).reshape(20, *event).to(dtype)

    class Flat(type(law)):
        def predict(self, quantity, x, t):
            return super().predict(quantity, x.reshape(20, *self.event), t).reshape(x.shape)

    if not event:
        law.__class__ = Flat
    out = PFAdaptive(1e-5, 1e-5, method)(law, x, ONE)
    assert out.dtype == dtype
    torch.testing.assert_close(out, flow(law, x, 1.0, 0.0), rtol=0, atol=1e-4)


def test_the_grid_is_shown_where_it_is():
    """States at inner times, by interpolation, and at the end exactly; one call for each shown."""
    law, ts = gaussian(), torch.tensor([1.0, 0.7, 0.3, 0.1, 0.0])
    x, seen = law.sample(50, ts[0], torch.Generator().manual_seed(0)), []
    counted, plain = Counted(law), Counted(law)
    walk = PFAdaptive(1e-7, 1e-7)
    out = walk(counted, x, ts, callback=lambda *row: seen.append(row))
    walk(plain, x, ts)
    assert counted.calls == plain.calls + 4
    assert [(k, t) for k, t, _, _ in seen] == list(enumerate(ts.tolist()))
    for _, t, state, x0_hat in seen:
        torch.testing.assert_close(state, flow(law, x, 1.0, t), rtol=0, atol=1e-5)
        if t:
            torch.testing.assert_close(x0_hat, law(state, torch.tensor(t)))
    assert torch.equal(seen[-1][2], out)
    back = walk(law, out, ts.flip(0), callback=lambda *row: seen.append(row))
    torch.testing.assert_close(back, x, rtol=0, atol=1e-5)
    assert torch.equal(seen[5][3], out)  # E[x0 | x_0] = x_0


@pytest.mark.parametrize("solve", [_embedded, _torchdiffeq, _scipy])
@pytest.mark.parametrize("ends", [(1.5, 0.1), (0.0, 1.2)])
def test_the_last_step_lands_on_the_end(solve, ends):
    """torchdiffeq steps past it and interpolates, unless told; what lies beyond has no meaning."""
    asked, angles = [], torch.tensor([ends[0], 0.7, ends[1]])
    slope = lambda phi, y: asked.append(phi) or -y * math.sin(phi)
    method = "RK45" if solve is _scipy else "dopri5"
    y = solve(slope, torch.ones(3, 2), angles, PFAdaptive(1e-6, 1e-6, method))
    assert (min(asked), max(asked)) == pytest.approx((min(ends), max(ends)), abs=1e-12)
    exact = (angles.cos() - math.cos(ends[0])).exp()[:, None, None].expand(3, 3, 2)
    torch.testing.assert_close(y[-1], exact[-1], rtol=0, atol=1e-5)
    torch.testing.assert_close(y, exact, rtol=0, atol=1e-4)  # between steps, interpolated


@pytest.mark.parametrize("method", ["bosh3", "dopri5"])
def test_the_steps_are_those_of_torchdiffeq(method):
    """Until the end comes near: where it steps beyond and we land on it, they part."""
    slope = lambda phi, y: -y * math.sin(phi) + math.cos(3 * phi)
    angles, y = torch.tensor([1.5, 0.05]), torch.linspace(-1, 1, 6).reshape(3, 2)
    asked = []
    for solve in (_embedded, _torchdiffeq):
        asked.append([])
        watched = lambda phi, y: asked[-1].append(phi) or slope(phi, y)
        solve(watched, y, angles, PFAdaptive(1e-6, 1e-6, method))
    common = min(map(len, asked)) - 8
    assert common > 30 and asked[0][:common] == pytest.approx(asked[1][:common], abs=1e-9)


def test_beyond_the_grid_the_slope_is_that_of_its_end():
    """A solver may try its first step there: a finite answer, which it will not use."""
    law, ts = gaussian(VESDE()), torch.tensor([0.9, 0.2])
    slope, y = _Angle(law, ts), torch.linspace(-1, 1, 5)[:, None]
    for t, beyond in ((0.9, 1.7), (0.2, -0.3)):
        time = torch.tensor(t)
        r = torch.hypot(law.sde.alpha(time), law.sde.sigma(time))
        torch.testing.assert_close(slope(beyond, y), law.v(y * r, time) / r)


@pytest.mark.parametrize("kind", [EpsDenoiser, X0Denoiser, VDenoiser])
def test_networks(kind):
    """Whatever a network predicts, the flow is that of its law; only t = 0 is refused."""
    law, predicts = gaussian(), {EpsDenoiser: "eps", X0Denoiser: "forward", VDenoiser: "v"}

    class Net(torch.nn.Module):
        def forward(self, x, t):
            return getattr(law, predicts[kind])(x, t)

    x = law.sample(50, ONE[0], torch.Generator().manual_seed(0))
    out = PFAdaptive(1e-8, 1e-8)(kind(Net(), SDE), x, torch.tensor([1.0, 1e-4]))
    torch.testing.assert_close(out, flow(law, x, 1.0, 1e-4), rtol=0, atol=1e-6)
    for ends in (ONE, ONE.flip(0)):
        for walk in (PFAdaptive(), SDEAdaptive()):
            with pytest.raises(ValueError, match=r"touches 0|decreasing"):
                walk(kind(Net(), SDE), x, ends)


def test_one_step_size_for_the_batch():
    """As documented: a sample's end depends on its neighbours, at the level of the tolerance."""
    x = GM1.sample(64, ONE[0], torch.Generator().manual_seed(0))
    walk = PFAdaptive(1e-4, 1e-4)
    gap = float((walk(GM1, x, ONE)[:8] - walk(GM1, x[:8], ONE)).abs().max())
    assert 0 < gap < 1e-2


def test_counted_counts_every_question_and_every_chunk():
    law = gaussian(event=(2,))
    counted = Counted(law)
    x, t = torch.zeros(3, 2), torch.tensor(0.5)
    for name in ("eps", "v", "score", "velocity"):
        torch.testing.assert_close(getattr(counted, name)(x, t), getattr(law, name)(x, t))
    torch.testing.assert_close(counted(x, t), law(x, t))
    assert counted.calls == 5

    class Net(torch.nn.Module):
        def forward(self, x, t, y):
            return x * y[:, None]

    bound = Counted(Given(X0Denoiser(Net(), SDE), y=torch.arange(9000)))
    sample(bound, DDIM(), (9000, 2), uniform(7), seed=0, chunk=4096, last="denoise")
    assert bound.calls == 3 * (7 + 1)


# The reverse SDE


@pytest.mark.parametrize("sde", [VPSDE(), KarrasSDE()])
def test_the_law_of_the_adaptive_sde(sde):
    """Where drift and noise may cancel in the estimate, KarrasSDE ends with twice the variance."""
    law, n = gaussian(sde), 10_000
    ts, walk = torch.tensor([sde.t_max, sde.t_eps]), SDEAdaptive()
    x = law.sample(n, ts[0], torch.Generator().manual_seed(0))
    out = walk(law, x, ts, torch.Generator().manual_seed(1))
    mean, var = law.marginal(ts[-1])
    assert abs(float(out.mean() - mean)) < 5 * float(var / n) ** 0.5
    assert abs(float(out.var() - var)) < 5 * float(var) * (2 / n) ** 0.5


def test_the_law_on_a_mixture():
    """E x, E x^2, E cos 2x, E sin 3x of GM1, to 5 errors."""
    n, ts = 8_000, torch.tensor([1.0, 1e-3])
    x = GM1.sample(n, ts[0], torch.Generator().manual_seed(0))
    out = SDEAdaptive()(GM1, x, ts, torch.Generator().manual_seed(2))
    nodes = torch.linspace(-6, 6, 4001)[:, None]
    density = GM1.log_prob(nodes, ts[1]).exp() * 12 / 4000
    for test in (lambda y: y, torch.square, lambda y: (2 * y).cos(), lambda y: (3 * y).sin()):
        values, truth = test(out[:, 0]), float((density * test(nodes[:, 0])).sum())
        assert abs(float(values.mean()) - truth) < 5 * float(values.std()) / n**0.5


def test_rejections_leave_the_law_of_the_path_alone():
    """Steps accepted only where W is small: their sum must still be N(0, T).

    Drawn anew after each rejection, as the paper does, its variance falls to a third.
    """
    n, total = 20_000, 1.0
    generator = torch.Generator().manual_seed(0)
    x = torch.zeros(n, 1)
    path, left, h, w_sum = _Path(x), torch.full((n,), total), torch.full((n,), 0.3), x
    rejected = 0
    while bool((left > 0).any()):
        step = torch.minimum(torch.minimum(h, left), path.known())
        w = path.reveal(step, torch.randn(n, 1, generator=generator))
        accept = (w[:, 0].abs() < 0.7 * step.sqrt()) | path.full() | (step < 1e-3)
        path.settle(accept, torch.zeros_like(accept))
        rejected += int((~accept).sum())
        w_sum = torch.where(accept[:, None], w_sum + w, w_sum)
        left = torch.where(accept, torch.where(step < left, left - step, 0.0), left)
        h = torch.where(accept, 0.3, 0.6 * step)
    assert rejected > n
    assert float(torch.where(path.depth > 0, path.known(), 0.0).max()) < 1e-12  # all was walked
    assert abs(float(w_sum.mean())) < 5 / n**0.5
    assert abs(float(w_sum.var()) - total) < 5 * (2 / n) ** 0.5
    assert abs(float((w_sum**4).mean()) - 3) < 5 * (96 / n) ** 0.5


def test_a_path_that_is_full_says_so():
    path = _Path(torch.zeros(2, 1))
    h = torch.tensor([1.0, 1.0])
    for k in range(KNOWN + 1):
        assert not bool(path.full().any())
        path.reveal(h * 0.5**k, torch.ones(2, 1))
        path.settle(torch.tensor([False, True]), torch.tensor([False, False]))
    assert path.full().tolist() == [True, False]
    assert path.known().tolist() == [0.5**KNOWN, math.inf]


def test_samples_do_not_know_of_each_other():
    """Alone or among others, a sample takes the same steps on the same noise."""
    x = GM1.sample(32, ONE[0], torch.Generator().manual_seed(0))
    z = torch.randn(4000, 32, 1, generator=torch.Generator().manual_seed(1))
    ts, walk = torch.tensor([1.0, 0.3, 1e-3]), SDEAdaptive(0.05, 0.05)
    whole = walk.solve(GM1, x, ts, noise=lambda k, *_: z[k])
    few = walk.solve(GM1, x[3:5], ts, noise=lambda k, *_: z[k, 3:5])
    # A time that is rounded differently by 1e-16 is a Brownian increment of 1e-8.
    torch.testing.assert_close(few.x, whole.x[3:5], rtol=0, atol=1e-7)
    assert torch.equal(few.evaluations, whole.evaluations[3:5])
    assert len(set(whole.evaluations.tolist())) > 8  # each has its own


def test_n12_a_sample_depends_on_the_seed_and_its_number_alone():
    """Through many times of the grid, whose slowest sample nobody waits for."""
    n, ts = block_size((1,)) + 300, torch.tensor([1.0, 0.6, 0.3, 0.1, 0.01, 1e-3])
    run = lambda n, **kw: sample(GM1, SDEAdaptive(0.1, 0.1), (n, 1), ts, seed=0, **kw)
    whole = run(n)
    torch.testing.assert_close(run(n, chunk=n), whole, rtol=0, atol=1e-7)
    for few in (1, 40):
        torch.testing.assert_close(run(few), whole[:few], rtol=0, atol=1e-7)


def test_n12_the_numbers_of_the_intervals_are_independent():
    """A path's own numbers by k: were k counted anew in each interval, they would be the same."""
    law, seen, ts = gaussian(), [], torch.tensor([1.0, 0.5, 1e-3])
    path = BrownianPath(0, (50, 1))
    source = lambda k, *rest: seen.append(k) or path(k, *rest)
    x = law.sample(50, ts[0], torch.Generator().manual_seed(0))
    SDEAdaptive(0.1, 0.1)(law, x, ts, noise=source)
    assert seen == list(range(len(seen)))


def test_evaluations_of_the_adaptive_sde():
    """The batch pays for its slowest sample, and up to a check more; tolerance buys accuracy."""
    law, ts, means = gaussian(), torch.tensor([1.0, 1e-3]), []
    x = law.sample(500, ts[0], torch.Generator().manual_seed(0))
    for tol in (0.1, 0.02):
        counted = Counted(law)
        out = SDEAdaptive(tol, tol).solve(counted, x, ts, torch.Generator().manual_seed(1))
        slowest = int(out.evaluations.max())
        assert slowest <= counted.calls < slowest + 2 * CHECK
        means.append(float(out.evaluations.double().mean()))
    assert means[1] > 1.5 * means[0]


class Reads(TorchDispatchMode):
    """Counts how often the host waits for the device."""

    def __init__(self):
        super().__init__()
        self.reads = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        aten, packet = torch.ops.aten, func.overloadpacket
        self.reads += packet in (aten._local_scalar_dense, aten.is_nonzero, aten.nonzero)
        return func(*args, **(kwargs or {}))


def test_the_host_asks_once_in_eight_steps():
    law, ts = gaussian(), torch.tensor([1.0, 1e-3])
    x = law.sample(10, ts[0], torch.Generator().manual_seed(0))
    counted, walk = Counted(law), SDEAdaptive()
    with Reads() as short:
        walk(counted, x, ts, torch.Generator().manual_seed(1))
    few = counted.calls
    with Reads() as long:
        SDEAdaptive(0.004, 0.004)(counted, x, ts, torch.Generator().manual_seed(1))
    many = counted.calls - few
    assert many > 2 * few
    assert long.reads - short.reads == (many - few) / 2 / CHECK


def test_the_adaptive_sde_shows_its_grid():
    law, ts, seen = gaussian(), torch.tensor([1.0, 0.5, 1e-3]), []
    n = 5_000
    x = law.sample(n, ts[0], torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(3)
    SDEAdaptive()(law, x, ts, generator, callback=lambda *row: seen.append(row))
    assert [(k, t) for k, t, _, _ in seen] == list(enumerate(ts.tolist()))
    for _, t, state, _ in seen:
        mean, var = law.marginal(torch.tensor(t))
        assert abs(float(state.mean() - mean)) < 5 * float(var / n) ** 0.5
        assert abs(float(state.var() - var)) < 5 * float(var) * (2 / n) ** 0.5
    torch.testing.assert_close(seen[1][3], law(seen[1][2], ts[1]))


def test_the_law_in_float32():
    law, n, ts = gaussian(), 10_000, torch.tensor([1.0, 1e-3])
    x = law.sample(n, ts[0], torch.Generator().manual_seed(4)).float()
    out = SDEAdaptive()(law, x, ts, torch.Generator().manual_seed(5))
    assert out.dtype == torch.float32
    mean, var = law.marginal(ts[-1])
    assert abs(float(out.mean() - mean)) < 5 * float(var / n) ** 0.5
    assert abs(float(out.var() - var)) < 5 * float(var) * (2 / n) ** 0.5


@pytest.mark.parametrize(
    "sampler", [PFAdaptive(), PFAdaptive(method="DOP853"), SDEAdaptive(0.1, 0.1)]
)
def test_battery(sampler):
    check_sampler(sampler)


@pytest.mark.parametrize("walk", [PFAdaptive, SDEAdaptive])
def test_bad_tolerances(walk):
    for pair in ((-1.0, 1.0), (0.0, 0.0)):
        with pytest.raises(ValueError, match="expected tolerances"):
            walk(*pair)
    with pytest.raises(TypeError, match="no moment recursion"):
        moments(walk(), gaussian(), log_snr(SDE, 4))


def test_bad_input():
    with pytest.raises(ValueError, match='expected method "bosh3"'):
        PFAdaptive(method="euler")
    with pytest.raises(ValueError, match="expected first > 0"):
        SDEAdaptive(first=0.0)

    class Broken(torch.nn.Module):
        def forward(self, x, t):
            return x * torch.nan

    net, x, ts = X0Denoiser(Broken(), SDE), torch.randn(4, 2), torch.tensor([1.0, 0.1])
    for method in ("dopri5", "RK45"):
        with pytest.raises(RuntimeError, match="could not meet its tolerance"):
            PFAdaptive(method=method)(net, x, ts)
    with pytest.raises(RuntimeError, match="but 4 did not"):
        SDEAdaptive(max_steps=40)(net, x, ts)

"""Weighted particles: the tilted law itself, with its mass, and no waiting."""

import copy
import math

import pytest
import torch

from scoresde.denoiser import Given
from scoresde.distributions import GaussianMixture
from scoresde.grids import quadratic, uniform
from scoresde.guidance import ClassifierFree, Guided, Tempered
from scoresde.samplers import DDIM, Ancestral, EulerMaruyama, Recorder, ReverseDiffusion, sample
from scoresde.samplers.particles import FeynmanKac, Particles
from scoresde.samplers.particles.weighted import _systematic
from scoresde.sde import VPSDE

SDE = VPSDE()
PAIR = GaussianMixture([0.5, 0.5], [[1.0], [-1.0]], [[[0.25]], [[0.25]]], SDE)
STEPS = [EulerMaruyama(), ReverseDiffusion(), Ancestral(), DDIM(1.0)]


def gaussian(variance):
    return GaussianMixture([1.0], [[0.0]], [[[variance]]], SDE)


def free(w, law=PAIR):
    return ClassifierFree(law.component(0), law, w)


def seeds(sampler, denoiser, ts, n, count=16, width=1.0):
    """Weighted mean, weighted mean square and log of the mass from several seeds, (3, seeds)."""
    rows = []
    for seed in range(count):
        generator = torch.Generator().manual_seed(seed)
        x = width * torch.randn(n, 1, generator=generator)
        out = sampler.solve(denoiser, x, ts, generator)
        rows.append(torch.stack([out.mean(out.x)[0], out.mean(out.x**2)[0], out.log_norm]))
    return torch.stack(rows, 1)


def spread(values):
    """Mean over seeds and its standard error."""
    return float(values.mean()), float(values.std() / len(values) ** 0.5)


def product_variance(steps, c, u, w, ts):
    """Of the end of prod_i P_i^{a_i} from N(0, 1): exp(-x^2/2 V) by every step, k_i = m_i/x."""
    variance, one = 1.0, torch.ones(1, 1)
    for row in steps.table(SDE, ts).rows():
        k_c, k_u = (row.a + row.b[0] * float(d(one, torch.tensor(row.t))) for d in (c, u))
        k = w * k_c + (1 - w) * k_u
        weight = (k**2 - w * k_c**2 - (1 - w) * k_u**2) / row.c**2
        variance = row.c**2 + k**2 / (1 / variance - weight)
    return variance


class TestTheLaw:
    @pytest.mark.parametrize(("w", "truth"), [(1.5, 1.022909), (2.0, 1.035517)])
    def test_theory_k(self, w, truth):
        """The tilted law's mean (by quadrature), within 3 standard errors over 16 seeds."""
        mean, error = spread(seeds(FeynmanKac(), free(w), uniform(250, t_eps=1e-3), 2000)[0])
        assert error < 0.03
        assert abs(mean - truth) < 3 * error
        assert w < 2 or abs(mean - 1.1666) > 5 * error

    def test_mass(self):
        """exp(log_norm) is unbiased for int p^{1-w} p_y^w: of P09's pair, by hand."""
        w, c, u = 2.0, gaussian(1.0), gaussian(2.0)
        variance = 1 / (w / 1.0 + (1 - w) / 2.0)
        mass = math.sqrt(variance / (1.0**w * 2.0 ** (1 - w)))
        found = seeds(FeynmanKac(threshold=0.9), ClassifierFree(c, u, w), quadratic(150), 500)
        mean, error = spread(found[2].exp())
        assert abs(mean - mass) < 3 * error and error < 0.02 * mass

    @pytest.mark.parametrize("steps", STEPS)
    def test_gaussians(self, steps):
        """The product of the paths of P09's pair, exactly, resampled at almost every step.

        With w = 2 it ends near the tilted variance 2/3, and the guided steps near 0.58.
        """
        c, u, ts = gaussian(1.0), gaussian(2.0), quadratic(100)
        truth = product_variance(steps, c, u, 2.0, ts)
        assert truth == pytest.approx(2 / 3, rel=0.12)
        sampler = FeynmanKac(steps, threshold=0.99)
        mean, error = spread(seeds(sampler, ClassifierFree(c, u, 2.0), ts, 1000)[1])
        assert abs(mean - truth) < 3 * error and error < 0.02

    def test_guided_by_a_likelihood(self):
        """Guided and ClassifierFree are two ways to say the same: the same particles."""
        log_h = lambda x, t: PAIR.component(0).log_prob(x, t) - PAIR.log_prob(x, t)
        x, ts = torch.randn(50, 1), quadratic(30)
        run = lambda d: FeynmanKac().solve(d, x, ts, torch.Generator().manual_seed(0))
        for a, b in zip(run(free(2.0)), run(Guided(PAIR, log_h, 2.0)), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)

    def test_temperature(self):
        """p^{1/T} of N(0, 1/2) from N(0, T): the variance T/2."""
        found = seeds(
            FeynmanKac(), Tempered(gaussian(0.5), 0.7), quadratic(200), 1000, width=0.7**0.5
        )
        mean, error = spread(found[1])
        assert abs(mean - 0.35) < 3 * error and error < 0.015

    def test_several_likelihoods(self):
        """p h1^w1 h2^w2, h_i = N(0, c_i)/N(0, 2): powers of three Gaussians."""
        laws = {v: gaussian(v) for v in (2.0, 1.0, 0.5)}
        h = lambda v: lambda x, t: laws[v].log_prob(x, t) - laws[2.0].log_prob(x, t)
        both = Guided(Guided(laws[2.0], h(1.0), 1.5), h(0.5), 0.5)
        truth = 1 / (1.5 / 1.0 + 0.5 / 0.5 - 1.0 / 2.0)
        mean, error = spread(seeds(FeynmanKac(), both, quadratic(100), 300)[1])
        assert abs(mean - truth) < 3 * error and error < 0.03


class TestTheSampler:
    @pytest.mark.parametrize("steps", STEPS)
    def test_nothing_to_correct(self, steps):
        """At w = 1 the plain sampler with the same noise: equal weights, none drawn anew."""
        noise = Fixed()
        x, ts = torch.randn(40, 1), quadratic(12)
        out = FeynmanKac(steps, threshold=1.0).solve(free(1.0), x, ts, noise=noise)
        torch.testing.assert_close(
            out.x, steps(PAIR.component(0), x, ts, noise=noise), rtol=1e-10, atol=1e-10
        )
        torch.testing.assert_close(out.weights, torch.full((40,), 1 / 40))
        assert not out.resampled.any() and float((out.ess - 40).abs().max()) < 1e-9

    def test_weights_are_those_of_the_steps(self):
        """Without resampling: the product of the steps' Gaussians, written out."""
        w, ts, x = 2.0, quadratic(12), torch.randn(30, 1)
        states = Recorder()
        sampler = FeynmanKac(Ancestral(), threshold=0.0)
        out = sampler.solve(free(w), x, ts, torch.Generator().manual_seed(0), callback=states)
        log_w = torch.zeros(30)
        for row, at, then in zip(
            Ancestral().table(SDE, ts).rows(), states.x, states.x[1:], strict=False
        ):
            u, c, g = (
                torch.distributions.Normal(
                    row.a * at + row.b[0] * d(at, torch.tensor(row.t)), row.c
                ).log_prob(then)[:, 0]
                for d in (PAIR, PAIR.component(0), free(w))
            )
            log_w += (1 - w) * u + w * c - g
        torch.testing.assert_close(out.log_weights, log_w.log_softmax(0), rtol=1e-9, atol=1e-9)
        assert float(out.log_norm) == pytest.approx(float(log_w.logsumexp(0)) - math.log(30))

    def test_those_drawn_anew_walk_their_own_step(self):
        """Every state is some particle's guided mean, and its own noise."""
        x, ts, noise, states = torch.randn(60, 1), quadratic(10), Fixed(), Recorder()
        out = FeynmanKac(threshold=1.0).solve(free(4.0), x, ts, noise=noise, callback=states)
        assert out.resampled.sum() > 5
        rows, moved = EulerMaruyama().table(SDE, ts).rows(), 0
        for k, (row, at, then) in enumerate(zip(rows, states.x, states.x[1:], strict=False)):
            mean = row.a * at + row.b[0] * free(4.0)(at, torch.tensor(row.t))
            apart = (then - row.c * noise.z[k] - mean.T).abs()
            assert float(apart.amin(1).max()) < 1e-10
            moved += int((apart.argmin(1) != torch.arange(60)).sum())
        assert moved > 30

    def test_resamples_where_the_weights_have_run_apart(self):
        x, ts = torch.randn(500, 1), quadratic(40)
        run = lambda share: FeynmanKac(threshold=share).solve(
            free(4.0), x, ts, torch.Generator().manual_seed(0)
        )
        never, half, always = run(0.0), run(0.5), run(1.0)
        assert not never.resampled.any() and always.resampled.sum() > 30
        assert torch.equal(half.resampled, half.ess < 250) and half.resampled.any()
        assert float(never.ess.min()) < 250

    def test_a_call_gives_equal_weights(self):
        """Its samples are those of solve, each about n W times."""
        noise, x, ts = Fixed(), torch.randn(400, 1), quadratic(40)
        out = FeynmanKac().solve(free(2.0), x, ts, noise=noise)
        plain = FeynmanKac()(free(2.0), x, ts, noise=noise)
        times = (plain == out.x.T).sum(0)
        assert int(times.sum()) == 400
        assert float((times - 400 * out.weights).abs().max()) < 1 + 1e-9

    def test_systematic_resampling(self):
        weights = torch.tensor([0.05, 0.4, 0.0, 0.55]).repeat_interleave(5) / 5
        u = torch.rand(2000, generator=torch.Generator().manual_seed(0))
        drawn = torch.stack([_systematic(weights, one) for one in u])
        counts = torch.nn.functional.one_hot(drawn, 20).sum(1)
        expected = 20 * weights
        assert float((counts - expected).abs().max()) < 1 + 1e-12
        assert float((counts.double().mean(0) - expected).abs().max()) < 5 * 0.5 / 2000**0.5

    def test_callback_and_end(self):
        x, ts, states = torch.randn(30, 1), quadratic(6), Recorder()
        out = FeynmanKac().solve(free(2.0), x, ts, callback=states)
        assert torch.equal(states.x[0], x) and torch.equal(states.x[-1], out.x)
        torch.testing.assert_close(states.times, ts)
        torch.testing.assert_close(states.x0_hat[0], free(2.0)(x, ts[0]))
        zero = torch.linspace(0.5, 0.0, 5)  # the last row of these has no noise, and no weight
        last = FeynmanKac(Ancestral()).solve(free(2.0), x, zero)
        assert torch.isfinite(last.x).all() and torch.isfinite(last.log_weights).all()

    def test_in_sample_by_chunks(self):
        """Every chunk is corrected by itself: another result than of all at once."""
        run = lambda chunk: sample(
            free(2.0), FeynmanKac(), (8192, 1), quadratic(20), seed=0, chunk=chunk
        )
        whole, parts = run(8192), run(4096)
        assert not torch.equal(whole, parts)
        assert abs(float(whole.mean() - parts.mean())) < 0.1
        assert torch.equal(run(4096), parts)

    def test_refused(self):
        with pytest.raises(ValueError, match="expected the steps of a reverse SDE"):
            FeynmanKac(DDIM(0.5))
        with pytest.raises(ValueError, match="expected a threshold"):
            FeynmanKac(threshold=1.5)
        for plain in (PAIR, Given(free(2.0))):
            with pytest.raises(TypeError, match="expected a guided denoiser"):
                FeynmanKac()(plain, torch.randn(3, 1), quadratic(4))

    def test_without_waiting(self, no_sync):
        x, ts = torch.randn(50, 1), quadratic(10)
        with no_sync(x):
            FeynmanKac()(free(4.0), x, ts)

    @pytest.mark.gpu
    def test_on_a_gpu(self, no_waiting):
        x, ts, law = torch.randn(500, 1), quadratic(20), copy.deepcopy(PAIR)
        noise = Fixed()
        expected = FeynmanKac().solve(free(2.0), x, ts, noise=noise)
        there = ClassifierFree(law.component(0).cuda(), law.cuda(), 2.0)
        x, z = x.cuda(), Fixed(noise, "cuda")
        with no_waiting():
            out = FeynmanKac().solve(there, x, ts, noise=z)
        for a, b in zip(out, expected, strict=True):
            torch.testing.assert_close(a.cpu(), b, rtol=1e-9, atol=1e-9)


class Fixed:
    """Noise of every step, drawn once and kept."""

    def __init__(self, like=None, device="cpu"):
        self.z = {} if like is None else {k: z.to(device) for k, z in like.z.items()}

    def __call__(self, k, t, s, shape, device, dtype):
        if k not in self.z:
            self.z[k] = torch.randn(tuple(shape), device=device, dtype=dtype)
        return self.z[k].clone()


def test_particles_are_a_tuple_of_what_the_docs_say():
    weights = torch.tensor([0.25, 0.75])
    one = Particles(torch.tensor([[0.0], [2.0]]), weights.log(), *[torch.zeros(())] * 3)
    assert float(one.mean(one.x)) == 1.5 and torch.allclose(one.weights, weights)

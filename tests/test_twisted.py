"""Twisted particles: the posterior itself, with its evidence, whatever guess steers them."""

import math
from functools import lru_cache
from itertools import pairwise

import pytest
import torch

from scoresde.distributions import GaussianMixture
from scoresde.grids import quadratic, uniform
from scoresde.guidance import ClassifierFree, Guided, on_denoised
from scoresde.inverse import (
    DPS,
    Mask,
    Matrix,
    Measurement,
    MomentMatching,
    Observed,
    PiGDM,
    log_evidence,
    posterior,
)
from scoresde.samplers import (
    DDIM,
    Ancestral,
    EulerMaruyama,
    FeynmanKac,
    Recorder,
    ReverseDiffusion,
    TwistedSMC,
    moments,
    sample,
)
from scoresde.sde import VPSDE

SDE = VPSDE()
STEPS = [EulerMaruyama(), ReverseDiffusion(), Ancestral(), DDIM(1.0)]
GUESSES = {
    "DPS": DPS,
    "DPS, norm, half": lambda d, m: DPS(d, m, 0.5, "norm"),
    "PiGDM": PiGDM,
    "MomentMatching": lambda d, m: MomentMatching(d, m, 2),
}


def two_numbers():
    cov = torch.tensor([[1.0, 0.6], [0.6, 0.8]])
    return GaussianMixture(torch.ones(1), torch.tensor([[0.3, -0.2]]), cov[None], SDE)


def measured(std=0.8, y=1.1):
    return Measurement(Matrix(torch.tensor([[1.0, 0.4]])), torch.tensor([[y]]), std)


def seeds(denoiser, ts, n, d, count=16, sampler=None):
    """Weighted mean, weighted mean of squares and mass from several seeds."""
    rows = []
    for seed in range(count):
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(n, d, generator=generator, dtype=torch.float64)
        out = (sampler or TwistedSMC()).solve(denoiser, x, ts, generator)
        rows.append(torch.cat([out.mean(out.x), out.mean(out.x**2), out.log_norm.exp()[None]]))
    return torch.stack(rows)


def off(rows, truth):
    """How many standard errors over seeds the mean over seeds is from the truth, each column."""
    return (rows.mean(0) - truth) / (rows.std(0) / len(rows) ** 0.5)


def summary(law, measurement):
    """Mean and mean of squares of the exact posterior, and its mass p(y)."""
    exact = posterior(law, measurement)
    mean, cov = exact.marginal()
    return torch.cat([mean, mean**2 + cov.diagonal(), log_evidence(law, measurement).exp()])


class TestGaussian:
    """The walk's own law at its own step size is Gaussian, so its posterior is exact."""

    def chain(self, steps, ts):
        means, covs = moments(steps, two_numbers(), ts, (torch.zeros(2), torch.eye(2)))
        return GaussianMixture(torch.ones(1), means[-1:], covs[-1:], SDE)

    @pytest.mark.parametrize("guess", GUESSES)
    def test_any_guess(self, guess):
        ts, measurement = quadratic(25, t_eps=0.0), measured()
        truth = summary(self.chain(EulerMaruyama(), ts), measurement)
        # 25 steps are few: a particle filter for the law itself would be told from it
        assert float((truth - summary(two_numbers(), measurement)).abs().max()) > 0.02
        rows = seeds(GUESSES[guess](two_numbers(), measurement), ts, 2000, 2)
        assert float(off(rows, truth).abs().max()) < 5
        assert float((rows.std(0) / 4).max()) < 0.02

    @pytest.mark.parametrize("steps", STEPS[1:])
    def test_any_steps(self, steps):
        """The last step of two of them has no noise, which nothing can be weighed against."""
        ts, measurement = quadratic(25, t_eps=0.0), measured()
        truth = summary(self.chain(steps, ts), measurement)
        sampler = TwistedSMC(steps, threshold=0.9)
        rows = seeds(PiGDM(two_numbers(), measurement), ts, 2000, 2, sampler=sampler)
        assert float(off(rows, truth).abs().max()) < 5
        assert float((rows.std(0) / 4).max()) < 0.02

    def test_a_grid_that_ends_before(self):
        """Weighed at x0_hat, an affine map of the state."""
        ts, law, measurement = quadratic(25, t_eps=0.2), two_numbers(), measured()
        before = self.chain(EulerMaruyama(), ts)
        basis = torch.cat([torch.zeros(1, 2), torch.eye(2)])
        out = law(basis, ts[-1])
        gain = (out[1:] - out[0]).T
        seen = Matrix(measurement.operator.matrix((2,)) @ gain)
        shifted = measurement.y - measurement.operator(out[:1])
        truth = summary(before, Measurement(seen, shifted, measurement.std))
        rows = seeds(MomentMatching(law, measurement, 1), ts, 2000, 2)
        assert float(off(rows, truth).abs().max()) < 5

    def test_the_true_twist_has_equal_weights(self):
        """Moment matching of a Gaussian prior: uneven only by the size of the steps."""
        guess, x = MomentMatching(two_numbers(), measured(), 1), torch.randn(400, 2)
        uneven = []
        for n in (50, 200, 800):
            generator = torch.Generator().manual_seed(0)
            out = TwistedSMC(threshold=0).solve(guess, x, quadratic(n, t_eps=0.0), generator)
            uneven.append(400 * float(out.weights.square().sum()) - 1)
        assert all(b < 0.4 * a for a, b in pairwise(uneven)) and uneven[-1] < 0.01
        assert float(out.ess.min()) > 0.97 * 400  # on the way too, by the guess


PAIR = GaussianMixture([0.5, 0.5], [[1.0], [-1.0]], [[[0.25]], [[0.25]]], SDE)
FIFTY = quadratic(50, t_eps=0.0)


@lru_cache
def chain_density(law, ts, half=4.5, cells=1200):
    """The density of Euler-Maruyama's samples from N(0, 1), by the kernels of its steps."""
    x = torch.linspace(-half, half, cells)[:, None]
    dx = 2 * half / (cells - 1)
    p = torch.exp(-x[:, 0].square() / 2) / math.sqrt(2 * math.pi)
    for row in EulerMaruyama().table(SDE, ts).rows():
        mean = row.a * x + row.b[0] * law(x, torch.tensor(row.t))
        assert row.c > 0.7 * dx  # else the sum over cells is no integral
        kernel = torch.exp(-0.5 * ((x.T - mean) / row.c).square())
        p = (p @ kernel) * dx / (row.c * math.sqrt(2 * math.pi))
    return x, p * dx


def tilted(law, ts, log_h):
    """Mean, mean of squares and mass of the walk's own law times h."""
    x, p = chain_density(law, ts)
    p = p * log_h(x).exp()
    mass = p.sum()
    return torch.stack([p @ x[:, 0] / mass, p @ x[:, 0] ** 2 / mass, mass])


@pytest.fixture(scope="module")
def errors(reference):
    """P10: rows of the summary for ever more particles, and the truth."""
    item = reference["P10"]["inputs"]
    tensor = lambda name: torch.tensor(item[name], dtype=torch.float64)
    law = GaussianMixture(tensor("weights"), tensor("means"), tensor("covs"), SDE)
    root = torch.linalg.cholesky(tensor("R"))
    operator = Matrix(torch.linalg.solve(root, tensor("H")))
    measurement = Measurement(operator, torch.linalg.solve(root, tensor("y"))[None], 1.0)
    guess, ts = MomentMatching(law, measurement, 2), quadratic(120, t_eps=0.0)
    rows = {n: seeds(guess, ts, n, 3) for n in (16, 80, 400)}
    return rows, summary(law, measurement)


class TestMixture:
    @pytest.mark.parametrize("guess", GUESSES)
    def test_two_modes(self, guess):
        """Both modes at their right weights, to 5 standard errors, for a y between them."""
        law, ts = PAIR, FIFTY
        measurement = Measurement(Mask(torch.tensor([True])), torch.tensor([[0.15]]), 0.8)
        truth = tilted(law, ts, measurement.log_likelihood)
        rows = seeds(GUESSES[guess](law, measurement), ts, 1500, 1)
        assert float(off(rows, truth).abs().max()) < 5
        assert float((rows.std(0) / 4).max()) < 0.02

    @pytest.mark.slow
    def test_the_reference_is_reached(self, errors):
        """Its posterior has two modes and no other method is right: 5 standard errors."""
        rows, truth = errors
        assert float(off(rows[400], truth).abs().max()) < 5
        assert float((rows[400].std(0) / 4).max()) < 0.04

    @pytest.mark.slow
    def test_more_particles_are_better(self, errors):
        """As 1/sqrt(n): in the means and in the evidence, at every fivefold."""
        rows, truth = errors
        for part in (slice(0, 6), slice(6, 7)):
            error = [float((rows[n] - truth)[:, part].square().sum(1).mean().sqrt()) for n in rows]
            assert all(b < 0.75 * a for a, b in pairwise(error))  # 0.45, but for chance


class TestGuided:
    """The same walk for energies, rewards and classes."""

    def test_an_energy(self):
        """That is no likelihood of the noisy state, where FeynmanKac has no right to be used."""
        law, ts = PAIR, FIFTY
        energy = lambda x, t: -0.8 * (x[:, 0] - 0.3).abs()
        truth = tilted(law, ts, lambda x: energy(x, None))
        rows = seeds(Guided(law, energy), ts, 1500, 1)
        assert float(off(rows, truth).abs().max()) < 5
        assert float((rows.std(0) / 4).max()) < 0.02

    def test_a_reward_twice(self):
        """Of x0_hat, with scales, one around the other: the product of both at the end."""
        law, ts = PAIR, FIFTY
        reward = lambda x0: -(x0[:, 0] - 0.5).square()
        inner = Guided(law, on_denoised(law, reward), 1.5)
        both = Guided(inner, lambda x, t: 0.5 * x[:, 0], 0.8)
        truth = tilted(law, ts, lambda x: 1.5 * reward(x) + 0.4 * x[:, 0])
        rows = seeds(both, ts, 1500, 1)
        assert float(off(rows, truth).abs().max()) < 5
        assert float((rows.std(0) / 4).max()) < 0.02

    def test_the_guess_is_the_sum_of_all_around_the_law(self):
        first, second = (lambda x, t: -x.square().sum(1)), (lambda x, t: x[:, 0])
        both = Guided(Guided(PAIR, first, 0.5), second, 2.0)
        x, t = torch.randn(6, 1), torch.tensor(0.4)
        x0_hat, pull, log_h = both.twist(x, t)
        torch.testing.assert_close(log_h, 0.5 * first(x, t) + 2 * second(x, t))
        torch.testing.assert_close(pull, 2 - x)
        torch.testing.assert_close(x0_hat, PAIR(x, t))

    def test_a_network_that_is_guided_is_a_prior(self):
        """Around what says nothing of a twist, that is multiplied which it samples."""
        law, ts = PAIR, FIFTY
        free = ClassifierFree(law.component(0), law, 2.0)
        truth = tilted(free, ts, lambda x: 0.7 * x[:, 0])
        rows = seeds(Guided(free, lambda x, t: 0.7 * x[:, 0]), ts, 1500, 1)
        assert float(off(rows, truth).abs().max()) < 5

    def test_a_power_of_a_likelihood_is_weighed_as_feynman_kac(self):
        """Ito's formula: the same weights of the same paths, as the steps get small."""
        law, x = PAIR, torch.randn(200, 1)
        log_h = lambda x, t: law.component(0).log_prob(x, t) - law.log_prob(x, t)
        guided, apart = Guided(law, log_h, 2.0), []
        for n in (50, 200, 800):
            ts = uniform(n, t_eps=0.0)
            run = lambda kind, ts=ts: kind(threshold=0.0).solve(
                guided, x, ts, torch.Generator().manual_seed(0)
            )
            twisted, other = run(TwistedSMC), run(FeynmanKac)
            torch.testing.assert_close(twisted.x, other.x, rtol=1e-9, atol=1e-9)
            start = 2 * log_h(x, ts[0])  # which the other takes for nothing
            gap = twisted.log_weights - start - other.log_weights
            gap = gap - gap.mean()  # normalised by one sum and by another
            apart.append(float(gap.square().mean().sqrt()))
        assert all(b < 0.65 * a for a, b in pairwise(apart))  # order 1/2: a path's


class TestTheWalk:
    def test_weights_are_ratios_of_densities(self):
        """Without resampling: model over proposal, times the likelihood, written out."""
        law, measurement, ts = two_numbers(), measured(), quadratic(12, t_eps=0.0)
        guess, states, x = MomentMatching(law, measurement, 1), Recorder(), torch.randn(30, 2)
        sampler = TwistedSMC(threshold=0.0)
        out = sampler.solve(guess, x, ts, torch.Generator().manual_seed(0), callback=states)
        log_w, table = torch.zeros(30), EulerMaruyama().table(SDE, ts).rows()
        for row, at, then in zip(table, states.x, states.x[1:], strict=False):
            t = torch.tensor(row.t)
            x0_hat, pull = guess.resolve(at, t)
            mean = row.a * at + row.b[0] * x0_hat
            density = lambda m, row=row, then=then: torch.distributions.Normal(m, row.c).log_prob(
                then
            )
            log_w += (density(mean) - density(mean + row.c**2 * pull)).sum(1)
        log_w += measurement.log_likelihood(out.x)
        torch.testing.assert_close(out.log_weights, log_w.log_softmax(0), rtol=1e-9, atol=1e-9)
        assert float(out.log_norm) == pytest.approx(float(log_w.logsumexp(0)) - math.log(30))

    def test_nothing_to_weigh(self):
        """A reward that is a constant: the plain sampler with the same noise, and its mass."""
        x, ts = torch.randn(40, 1), quadratic(12)
        constant = Guided(PAIR, lambda x, t: 0.0 * x[:, 0] + 0.5, 3.0)
        noise = Fixed()
        out = TwistedSMC(Ancestral(), threshold=1.0).solve(constant, x, ts, noise=noise)
        plain = Ancestral()(PAIR, x, ts, noise=noise)
        torch.testing.assert_close(out.x, plain, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(out.weights, torch.full((40,), 1 / 40))
        assert float(out.log_norm) == pytest.approx(1.5, abs=1e-12)
        assert not out.resampled.any()

    def test_those_drawn_anew_take_their_own_step(self):
        """Every state is some particle's shifted mean, and its own noise."""
        guess, noise, states = DPS(two_numbers(), measured(0.2)), Fixed(), Recorder()
        x, ts, moved = torch.randn(60, 2), quadratic(10, t_eps=1e-3), 0
        out = TwistedSMC(threshold=1.0).solve(guess, x, ts, noise=noise, callback=states)
        assert bool(out.resampled.all())
        rows = EulerMaruyama().table(SDE, ts).rows()
        for k, (row, at, then) in enumerate(zip(rows, states.x, states.x[1:], strict=False)):
            x0_hat, pull = guess.resolve(at, torch.tensor(row.t))
            mean = row.a * at + row.b[0] * x0_hat + row.c**2 * pull
            apart = ((then - row.c * noise.z[k])[:, None] - mean).norm(dim=2)
            assert float((apart.amin(1) / (1 + mean.norm(dim=1).max())).max()) < 1e-10
            moved += int((apart.argmin(1) != torch.arange(60)).sum())
            torch.testing.assert_close(states.x0_hat[k], guess(at, torch.tensor(row.t)))
        assert moved > 100

    def test_in_sample(self):
        """Equal weights, in chunks; and in the user's units."""
        guess = PiGDM(two_numbers(), measured(), 1.0)
        x = sample(guess, TwistedSMC(), (3000, 2), quadratic(60, t_eps=0.0), seed=0, chunk=4096)
        mean, cov = posterior(two_numbers(), measured()).marginal()
        # independent samples would err by sqrt(tr C/n); these come of as many, drawn anew
        assert float((x.mean(0) - mean).norm()) < 8 * float(cov.trace() / 3000) ** 0.5

    def test_refused(self):
        law, x, ts = two_numbers(), torch.randn(3, 2), quadratic(4)
        many = Measurement(Mask(torch.tensor([True, False])), torch.zeros(3, 1), 0.1)
        exact = Measurement(Mask(torch.tensor([True, False])), torch.zeros(1, 1), 0.0)
        for denoiser, error, message in (
            (law, TypeError, "with twist"),
            (Observed(law, measured()), TypeError, "with twist"),
            (PiGDM(law, many), ValueError, "expected one y for all particles, got 3"),
            (PiGDM(law, exact), ValueError, "expected a measurement with std > 0"),
        ):
            with pytest.raises(error, match=message):
                TwistedSMC()(denoiser, x, ts)
        with pytest.raises(ValueError, match="expected the steps of a reverse SDE"):
            TwistedSMC(DDIM(0.5))

    @pytest.mark.parametrize("guess", [*GUESSES, "Guided"])
    def test_without_waiting(self, no_sync, guess):
        x, ts, law = torch.randn(50, 2), quadratic(10), two_numbers()
        if guess == "Guided":
            denoiser = Guided(law, lambda x, t: -x.square().sum(1))
        else:
            denoiser = GUESSES[guess](law, measured())
        with no_sync(x):
            TwistedSMC()(denoiser, x, ts)

    @pytest.mark.gpu
    @pytest.mark.parametrize("guess", GUESSES)
    def test_on_a_gpu(self, guess, no_waiting):
        x, ts, noise = torch.randn(500, 2), quadratic(20), Fixed()
        build = lambda: GUESSES[guess](two_numbers(), measured())
        expected = TwistedSMC().solve(build(), x, ts, noise=noise)
        there, x, z = build().cuda(), x.cuda(), Fixed(noise, "cuda")
        TwistedSMC().solve(there, x, ts, noise=z)  # warm
        with no_waiting():
            out = TwistedSMC().solve(there, x, ts, noise=z)
        for a, b in zip(out, expected, strict=True):
            torch.testing.assert_close(a.cpu(), b, rtol=1e-8, atol=1e-8)


class Fixed:
    """Noise of every step, drawn once and kept."""

    def __init__(self, like=None, device="cpu"):
        self.z = {} if like is None else {k: z.to(device) for k, z in like.z.items()}

    def __call__(self, k, t, s, shape, device, dtype):
        if k not in self.z:
            self.z[k] = torch.randn(tuple(shape), device=device, dtype=dtype)
        return self.z[k].clone()

"""The laws that methods for inverse problems really sample, for Gaussian priors, without chance.

With a Gaussian prior every method here is an affine map of the numbers that it is given, so its
law follows exactly from its answer to each of them.
"""

import math
from itertools import pairwise

import pytest
import torch

from scoresde.distributions import GaussianMixture
from scoresde.grids import quadratic
from scoresde.inverse import (
    DDRM,
    DPS,
    Mask,
    Matrix,
    Measurement,
    MomentMatching,
    Observed,
    PiGDM,
    RePaint,
    Replacement,
    posterior,
    sdedit,
)
from scoresde.samplers import DDIM, Ancestral, EulerMaruyama, PFHeun
from scoresde.sde import VPSDE

SDE = VPSDE()
SAME = dict(rtol=1e-10, atol=1e-12)


def gaussian(cov):
    cov = torch.tensor(cov)
    return GaussianMixture(torch.ones(1), torch.zeros(1, len(cov)), cov[None], SDE)


class Impulses:
    """Noise that is zero but for one number in each sample; zero everywhere if rows is 0."""

    def __init__(self, d, rows=0):
        self.d, self.rows, self.calls = d, rows, 0

    def __call__(self, k, t, s, shape, device, dtype):
        assert k == self.calls
        z, first = torch.zeros(shape), 1 + self.d * (1 + self.calls)
        if self.rows:
            z[first : first + self.d] = torch.eye(self.d)
        self.calls += 1
        return z


def exact_law(sampler, denoiser, ts, d):
    """Mean (d,) and covariance (d, d) of the samples from N(0, I)."""
    silent = Impulses(d)
    sampler(denoiser, torch.zeros(1, d), ts, noise=silent)
    rows = 1 + d * (1 + silent.calls)
    x = torch.zeros(rows, d)
    x[1 : 1 + d] = torch.eye(d)
    out = sampler(denoiser, x, ts, noise=Impulses(d, rows))
    response = out[1:] - out[0]
    return out[0], response.T @ response


def limit(sampler, denoiser, d, n=250):
    """Mean and covariance for ever smaller steps: those of n and 2n, extrapolated at order 1."""
    coarse, fine = (exact_law(sampler, denoiser, quadratic(m, t_eps=0.0), d) for m in (n, 2 * n))
    return [2 * b - a for a, b in zip(coarse, fine, strict=True)]


class TestOneNumber:
    """Prior N(0, c), y = x0 + sqrt(R) n."""

    C, R, Y = 1.5, 0.2, 1.0

    @pytest.fixture
    def law(self):
        return gaussian([[self.C]])

    @pytest.fixture
    def measurement(self):
        y = torch.tensor([[self.Y]])
        return Measurement(Mask(torch.tensor([True])), y, math.sqrt(self.R))

    def test_dps_by_the_sde(self, law, measurement):
        """y (1 - e^{-c/R}) and R (1 - e^{-2c/R})/2: half the noise, and none of the prior."""
        mean, var = limit(EulerMaruyama(), DPS(law, measurement), 1)
        c, r, y = self.C, self.R, self.Y
        assert float(mean) == pytest.approx(y * (1 - math.exp(-c / r)), abs=1e-4)
        assert float(var) == pytest.approx(r / 2 * (1 - math.exp(-2 * c / r)), abs=2e-5)
        exact = posterior(law, measurement).marginal()
        assert abs(float(var) / float(exact[1]) - 0.56666) < 1e-3

    def test_dps_by_the_ode(self, law, measurement):
        """c e^{-c/R}: all samples in one place, which is not the posterior's mean either."""
        mean, var = exact_law(PFHeun(), DPS(law, measurement), quadratic(800, t_eps=0.0), 1)
        assert float(var) == pytest.approx(self.C * math.exp(-self.C / self.R), abs=2e-6)
        assert float(mean) == pytest.approx(1.2179, abs=1e-4)

    def test_pigdm(self, law, measurement):
        """Not exact where c is not the data's variance; exact where it is."""
        mean, var = limit(EulerMaruyama(), PiGDM(law, measurement), 1)
        assert float(mean) == pytest.approx(0.9093, abs=1e-4)
        assert float(var) == pytest.approx(0.1677, abs=1e-4)
        mean, var = limit(EulerMaruyama(), PiGDM(law, measurement, data_var=self.C), 1)
        total = self.C + self.R
        assert float(mean) == pytest.approx(self.C * self.Y / total, abs=1e-4)
        assert float(var) == pytest.approx(self.C * self.R / total, abs=1e-4)


class TestTwoNumbers:
    """Prior of unit variances and correlation rho; x_1 = y is known, without noise."""

    def observed(self, rho, y=1.0):
        law = gaussian([[1.0, rho], [rho, 1.0]])
        known = Mask(torch.tensor([True, False]))
        return Observed(law, Measurement(known, torch.tensor([[y]]), 0.0))

    @pytest.mark.parametrize("rho, y", [(0.5, 1.0), (0.9, 1.0), (0.9, -0.7)])
    @pytest.mark.parametrize("predictor", [EulerMaruyama(), Ancestral()])
    def test_replacement(self, rho, y, predictor):
        """y (1 - sqrt(1 - rho^2))/rho and (1 - rho^2) artanh(rho)/rho."""
        mean, cov = limit(Replacement(predictor), self.observed(rho, y), 2)
        root = math.sqrt(1 - rho**2)
        # order 1 up to a logarithm for "posterior", whose extrapolation is less accurate
        atol = 1e-4 if isinstance(predictor, EulerMaruyama) else 2e-3
        assert float(mean[1]) == pytest.approx(y * (1 - root) / rho, abs=atol)
        assert float(cov[1, 1]) == pytest.approx(root**2 * math.atanh(rho) / rho, abs=atol)
        assert float(mean[0]) == y and not cov[0].any()

    @pytest.mark.parametrize("rho", [0.5, 0.9])
    def test_repaint_moves_to_the_truth(self, rho):
        """Its bias in the mean falls with every repetition, in the end by more than 8."""
        observed, ts = self.observed(rho), quadratic(60, t_eps=0.0)
        bias = []
        for resamples in (1, 2, 4, 8, 16):
            mean, cov = exact_law(RePaint(resamples=resamples), observed, ts, 2)
            bias.append(abs(float(mean[1]) - rho))
            assert float(mean[0]) == 1 and not cov[0].any()
        assert all(b < 0.75 * a for a, b in pairwise(bias))
        assert bias[-1] < bias[0] / 8

    @pytest.mark.parametrize("jump", [1, 3, 4, 20])
    def test_repaint_by_its_recursion(self, jump):
        """Mean and covariance, step by step and back: no sampler but the rows is asked."""
        rho, y, r, ts = 0.8, -0.7, 3, quadratic(10, t_eps=0.0)
        mean, cov = exact_law(RePaint(resamples=r, jump=jump), self.observed(rho, y), ts, 2)
        expected = repaint_law(rho, y, r, jump, ts)
        torch.testing.assert_close(mean, expected[0], **SAME)
        torch.testing.assert_close(cov, expected[1], **SAME)

    @pytest.mark.parametrize("jump", [2, 6])
    def test_longer_jumps_move_to_the_truth_too(self, jump):
        observed, ts, bias = self.observed(0.9), quadratic(60, t_eps=0.0), []
        for resamples in (1, 2, 4, 8):
            mean, _ = exact_law(RePaint(resamples=resamples, jump=jump), observed, ts, 2)
            bias.append(abs(float(mean[1]) - 0.9))
        assert all(b < 0.75 * a for a, b in pairwise(bias))
        assert bias[-1] < bias[0] / 8

    def test_a_jump_over_everything_starts_again(self):
        """And again: from the start, where nothing is left of what was; it cures nothing."""
        observed, ts = self.observed(0.9), quadratic(12, t_eps=0.0)
        once = exact_law(RePaint(resamples=1), observed, ts, 2)
        often = exact_law(RePaint(resamples=6, jump=12), observed, ts, 2)
        assert abs(float(often[0][1] - once[0][1])) < 2 * float(SDE.alpha(ts[0]))

    def test_repetitions_leave_the_unknown_alone(self):
        """For data N(0, I) each step and each way back are exact: x_2 stays N(0, 1)."""
        walk = RePaint(Ancestral("beta"), resamples=4)
        mean, cov = exact_law(walk, self.observed(0.0), quadratic(10, t_eps=1e-3), 2)
        assert abs(float(mean[1])) < 1e-12
        assert float(cov[1, 1]) == pytest.approx(1, abs=1e-10)

    def test_one_repetition_is_replacement(self):
        observed, ts = self.observed(0.5), quadratic(20, t_eps=0.0)
        one = exact_law(RePaint(resamples=1), observed, ts, 2)
        for a, b in zip(one, exact_law(Replacement(), observed, ts, 2), strict=True):
            assert torch.equal(a, b)


def repaint_law(rho, y, r, jump, ts):
    """The law of RePaint's samples from N(0, I), by mean and covariance alone."""
    data = torch.tensor([[1.0, rho], [rho, 1.0]])
    mean, cov, eye = torch.zeros(2), torch.eye(2), torch.eye(2)
    rows, free = Ancestral().table(SDE, ts).rows(), torch.diag(torch.tensor([0.0, 1.0]))
    known = torch.eye(2) - free
    blocks = [rows[max(0, end - jump) : end] for end in range(len(rows), 0, -jump)][::-1]
    for block in blocks:
        for repeat in range(r):
            if repeat:
                scale, std = SDE.transition(torch.tensor(block[-1].s), torch.tensor(block[0].t))
                mean, cov = scale * mean, scale**2 * cov + std**2 * eye
            for row in block:
                t, s = torch.tensor(row.t), torch.tensor(row.s)
                alpha = SDE.alpha(t)
                total = alpha**2 * data + SDE.sigma2(t) * eye
                step = row.a * eye + row.b[0] * alpha * data @ torch.linalg.inv(total)
                mean, cov = step @ mean, step @ cov @ step.T + row.c**2 * eye
                mean = free @ mean + SDE.alpha(s) * y * known.diagonal()
                cov = free @ cov @ free + SDE.sigma2(s) * known
    return mean, cov


class TestNoisy:
    def test_replacement_keeps_the_noise_of_y(self):
        """What is known ends as N(y, 0) but passes no time with less noise than y has."""
        law, std = gaussian([[1.0, 0.0], [0.0, 1.0]]), 0.5
        y = torch.tensor([[0.8]])
        known = Observed(law, Measurement(Mask(torch.tensor([True, False])), y, std))
        ts = torch.tensor([1.0, 0.6, 0.3])
        mean, cov = exact_law(Replacement(), known, ts, 2)
        alpha, sigma2 = SDE.alpha(ts[-1]), SDE.sigma2(ts[-1])
        assert sigma2 > (alpha * std) ** 2
        torch.testing.assert_close(mean[0], alpha * 0.8, rtol=1e-12, atol=0)
        torch.testing.assert_close(cov[0, 0], sigma2 - (alpha * std) ** 2, rtol=1e-12, atol=0)

    @pytest.mark.parametrize("eta, eta_b", [(0.85, 1.0), (0.3, 0.6)])
    @pytest.mark.parametrize("s", [0.0, 0.05, 0.2, 0.5])
    def test_one_step_of_ddrm(self, eta, eta_b, s):
        """Kawar et al., eq. 7 and 8, direction by direction."""
        rotation = torch.linalg.qr(torch.randn(3, 3))[0]
        values, std = torch.tensor([2.0, 0.4]), 0.15
        law = gaussian([[1.0, 0.3, 0.1], [0.3, 0.8, 0.2], [0.1, 0.2, 0.5]])
        y, x, t = torch.randn(1, 2), torch.randn(1, 3), torch.tensor(0.7)
        operator = Matrix(values[:, None] * rotation[:2])
        observed = Observed(law, Measurement(operator, y, std))
        ts, z = torch.tensor([0.7, s]), [torch.randn(1, 3), torch.randn(1, 3)]
        noise = lambda k, *_: z[k].clone()
        out = DDRM(eta, eta_b)(observed, x, ts, noise=noise) / SDE.alpha(ts[1])
        r = float(SDE.sigma(ts[1]) / SDE.alpha(ts[1]))
        clean, state = law(x, t) @ rotation.T, x / SDE.alpha(t) @ rotation.T
        eps = (state - clean) / (SDE.sigma(t) / SDE.alpha(t))
        keep, fresh = math.sqrt(1 - eta**2), [draw @ rotation.T for draw in z]
        expected = clean + r * (keep * eps + eta * fresh[0])
        for i in range(2):
            n, target = std / float(values[i]), y[:, i] / values[i]
            if r < n:
                pulled = keep * r * (target - clean[:, i]) / n
                expected[:, i] = clean[:, i] + pulled + eta * r * fresh[1][:, i]
            else:
                rest = math.sqrt(r**2 - (eta_b * n) ** 2) * fresh[1][:, i]
                expected[:, i] = (1 - eta_b) * clean[:, i] + eta_b * target + rest
        torch.testing.assert_close(out @ rotation.T, expected, rtol=1e-10, atol=1e-10)


class TestSDEdit:
    """Prior N(0, c), guide g: the law of what comes out, in closed form."""

    C, T = 1.5, 0.4

    def rates(self):
        alpha, sigma2 = SDE.alpha(torch.tensor(self.T)), SDE.sigma2(torch.tensor(self.T))
        return float(alpha), float(sigma2), float(alpha**2 * self.C + sigma2)

    def run(self, sampler, guide):
        law, n = gaussian([[self.C]]), 60_000
        grid = torch.linspace(self.T, 0, 9) if sampler.noise else torch.linspace(self.T, 0, 101)
        return sdedit(law, sampler, torch.full((n, 1), guide), grid, seed=1)

    def test_by_the_sde(self):
        """The posterior of x0 given the noised guide; the optimal variance makes it exact."""
        alpha, sigma2, total = self.rates()
        x = self.run(Ancestral("optimal", gaussian([[self.C]]).mmse), 2.0)
        share = alpha * self.C / total
        var = share**2 * sigma2 + sigma2 * self.C / total
        assert abs(float(x.mean()) - share * alpha * 2) < 5 * math.sqrt(var / len(x))
        assert abs(float(x.var()) / var - 1) < 5 * math.sqrt(2 / len(x))

    def test_by_the_ode(self):
        """A stretch by sqrt(c/(alpha^2 c + sigma^2))."""
        alpha, sigma2, total = self.rates()
        x, stretch = self.run(PFHeun(), 2.0), math.sqrt(self.C / total)
        var = stretch**2 * sigma2
        assert abs(float(x.mean()) - stretch * alpha * 2) < 5 * math.sqrt(var / len(x))
        assert abs(float(x.var()) / var - 1) < 5 * math.sqrt(2 / len(x))


@pytest.mark.parametrize("sampler", [EulerMaruyama(), Ancestral(), DDIM(), PFHeun()])
def test_moment_matching_is_exact(sampler):
    """For a Gaussian prior its samples are those of the exact posterior, whatever the sampler."""
    law = gaussian([[1.0, 0.6, 0.1], [0.6, 0.8, 0.3], [0.1, 0.3, 0.5]])
    operator = Matrix(torch.tensor([[1.0, 0.5, 0.0], [0.0, 1.0, -1.0]]))
    measurement = Measurement(operator, torch.tensor([[0.7, -0.4]]), 0.3)
    ts = quadratic(30, t_eps=1e-3)
    truth = exact_law(sampler, posterior(law, measurement), ts, 3)
    found = exact_law(sampler, MomentMatching(law, measurement, 2), ts, 3)
    for a, b in zip(found, truth, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)

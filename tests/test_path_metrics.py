"""Metrics of paths against closed forms, Chen's identity, and their own noise floor."""

import math
from functools import cache, partial

import pytest
import scipy.stats
import torch

from scoresde import metrics
from scoresde.data import Kepler, Lissajous, OrnsteinUhlenbeck
from scoresde.distributions import GaussianMixture
from scoresde.grids import log_snr
from scoresde.metrics import PATH_METRICS, judge, noise_floor, signature
from scoresde.metrics.signatures import signature_levels
from scoresde.samplers import PFHeun, sample
from scoresde.sde import VPSDE

SDE = VPSDE()
OU = OrnsteinUhlenbeck(length=32)


def paths(n=50, length=20, channels=2):
    return torch.randn(n, length, channels).cumsum(1)


def chen(a, b, channels, depth):
    """S(a) (x) S(b) level by level, from flattened signatures (n, ...)."""
    sizes = [channels**k for k in range(1, depth + 1)]
    left, right = ([torch.ones(len(s), 1), *s.split(sizes, 1)] for s in (a, b))
    outer = lambda u, v: (u[:, :, None] * v[:, None, :]).flatten(1)
    levels = [sum(outer(left[j], right[k - j]) for j in range(k + 1)) for k in range(1, depth + 1)]
    return torch.cat(levels, 1)


class TestSignature:
    @pytest.mark.parametrize("pieces", [1, 7])
    def test_a_straight_line_is_an_exponential(self, pieces):
        d = torch.randn(3, 1, 2)
        share = torch.linspace(0, 1, pieces + 1)[:, None] ** 2  # speed does not count
        levels = signature_levels(5 + share * d, 5)
        power = torch.ones(3, 1)
        for k, level in enumerate(levels, 1):
            power = (power[:, :, None] * d.expand(-1, 1, -1)).flatten(1)
            torch.testing.assert_close(level, power / math.factorial(k), rtol=1e-10, atol=1e-12)

    def test_chens_identity(self):
        x = paths(300, 12, 3)  # more than one block of rows
        whole, parts = signature(x, 4), (signature(x[:, :5], 4), signature(x[:, 4:], 4))
        torch.testing.assert_close(whole, chen(*parts, 3, 4), rtol=1e-9, atol=1e-9)

    def test_there_and_back_is_nothing(self):
        x = paths(4, 9)
        loop = torch.cat((x, x.flip(1)), 1)
        torch.testing.assert_close(signature(loop, 4), torch.zeros(4, 30), rtol=0, atol=1e-10)

    def test_level_two_is_the_area(self):
        angle = torch.linspace(0, 2 * math.pi, 2001)
        circle = torch.stack((angle.cos(), angle.sin()), 1)[None]
        level = signature_levels(circle, 2)[1][0]
        assert float(level[1] - level[2]) / 2 == pytest.approx(math.pi, rel=1e-5)

    def test_clear_errors(self):
        with pytest.raises(ValueError, match="depth >= 1"):
            signature(paths(), 0)
        with pytest.raises(ValueError, match=r"expected paths \(n, L, C\)"):
            signature(paths()[0], 2)


class TestMotion:
    def test_curves_by_their_definition(self):
        x = paths(30, 12) + 3
        msd, vacf = metrics.mean_squared_displacement(x), metrics.velocity_autocorrelation(x)
        u = x.diff(dim=1)
        for k in range(11):
            late, early = x[:, k:], x[:, : 12 - k]
            truth = (late - early).square().sum(2).mean()
            torch.testing.assert_close(msd[k], truth, rtol=1e-10, atol=1e-12)
            truth = (u[:, k:] * u[:, : 11 - k]).sum(2).mean()
            torch.testing.assert_close(vacf[k], truth, rtol=1e-10, atol=1e-12)

    def test_displacement_far_from_the_origin(self):
        x = paths()
        near, far = (metrics.mean_squared_displacement(x + c) for c in (0.0, 1e6))
        torch.testing.assert_close(far, near, rtol=1e-8, atol=1e-8)

    def test_power_of_white_noise_is_flat_and_its_variance(self):
        power = torch.stack([metrics.power_spectrum(torch.randn(400, 64, 2)) for _ in range(50)])
        error = power.std(0) / math.sqrt(50)
        # per coordinate 1; two of them. The lowest two bins feel the mean taken out
        assert power.shape == (50, 32)
        assert ((power.mean(0) - 2).abs() < 5 * error)[2:].all()

    def test_power_of_a_tone(self):
        t = torch.arange(64.0)
        tone = (2 * math.pi * 8 * t / 64).cos()[None, :, None]
        power = metrics.power_spectrum(tone)
        assert int(power.argmax()) == 7  # 8 periods
        away = power[[0, 1, 2, 3, 14, 20, 31]]
        assert float(away.max() / power.max()) < 1e-3  # Hann leaks little

    def test_length_and_turning_of_a_polygon(self):
        angle = torch.linspace(0, 2 * math.pi, 9)  # an octagon: seven inner corners of pi/4
        x = 2 * torch.stack((angle.cos(), angle.sin()), 1)[None]
        assert float(metrics.arc_length(x)) == pytest.approx(8 * 4 * math.sin(math.pi / 8))
        assert float(metrics.turning(x)) == pytest.approx(7 * math.pi / 4)
        resting = x.repeat_interleave(2, 1)  # each point twice
        assert float(metrics.arc_length(resting)) == pytest.approx(float(metrics.arc_length(x)))
        assert float(metrics.turning(resting)) == 0  # no corner between two moves

    def test_turning_of_small_and_full_turns(self):
        x = torch.tensor(
            [[[0.0, 0.0], [1.0, 0.0], [2.0, 1e-9]], [[0.0, 0.0], [1.0, 0.0], [0.0, 0.0]]]
        )
        torch.testing.assert_close(
            metrics.turning(x), torch.tensor([1e-9, math.pi]), rtol=1e-9, atol=0
        )

    def test_spread(self):
        values = torch.tensor([[1.0, 3.0], [-4.0, -4.0]])
        torch.testing.assert_close(metrics.spread(values), torch.tensor([0.5, 0.0]))

    def test_covariance_of_the_family(self):
        n = 50_000
        cov = metrics.two_time_covariance(OU(n))
        truth = OU.covariance.reshape(64, 64)
        assert (cov - truth).abs().max() < 6 * math.sqrt(2 / n)


class TestMetrics:
    def test_marginals_against_scipy(self):
        x, y = paths(40), 1.2 * paths(30)
        truth = [
            scipy.stats.wasserstein_distance(x[:, i, c].numpy(), y[:, i, c].numpy())
            for i in range(20)
            for c in range(2)
        ]
        assert float(metrics.marginal_w1(x, y)) == pytest.approx(sum(truth) / 40, rel=1e-10)

    def test_a_shift(self):
        x, shift = paths(), torch.tensor([0.3, -0.4])
        assert float(metrics.marginal_w1(x + shift, x)) == pytest.approx(0.35)
        scale = float(x.var(0, correction=0).max().sqrt())
        shifted = metrics.mean_error(x + shift, x)
        assert float(shifted) == pytest.approx(math.sqrt(0.125) / scale)
        for name in ("two-time covariance", "mean squared displacement", "arc length W1"):
            assert float(PATH_METRICS[name](x + shift, x)) < 1e-12
        assert float(metrics.signature_mmd(x + shift, x)) > 0.01  # its place counts

    def test_a_scale(self):
        # everything is known when x = c y
        y, c = paths(), 1.1
        x = c * y
        cov = metrics.two_time_covariance(y)
        truth = (c**2 - 1) * cov.square().mean().sqrt() / cov.diagonal().max()
        torch.testing.assert_close(metrics.covariance_error(x, y), truth)
        assert float(metrics.spectrum_error(x, y)) == pytest.approx(2 * math.log(c))
        msd = metrics.mean_squared_displacement(y)
        truth = (c**2 - 1) * msd.square().mean().sqrt() / msd.max()
        torch.testing.assert_close(metrics.displacement_error(x, y), truth)
        vacf = metrics.velocity_autocorrelation(y)
        truth = (c**2 - 1) * vacf.square().mean().sqrt() / vacf[0]
        torch.testing.assert_close(metrics.autocorrelation_error(x, y), truth)
        truth = (c - 1) * metrics.arc_length(y).mean()
        torch.testing.assert_close(metrics.arc_length_w1(x, y), truth)
        assert float(metrics.turning_w1(x, y)) < 1e-12

    def test_turning_is_compared_in_radians(self):
        line = torch.arange(4.0)[:, None] * torch.tensor([1.0, 0.0])
        corner = torch.tensor([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0], [2.0, 1.0]])
        assert float(metrics.turning_w1(corner[None], line[None])) == pytest.approx(math.pi / 2)

    def test_path_mmd_is_the_mmd_of_whitened_paths(self):
        x, y = paths(60, 6), 1.3 * paths(70, 6)
        flat = y.flatten(1)
        values, vectors = torch.linalg.eigh(flat.T.cov(correction=0))
        root = vectors / (values + 1e-3 * values[-1]).sqrt()
        a, b = ((z.flatten(1) - flat.mean(0)) @ root for z in (x, y))
        truth = metrics.mmd(a, b, unbiased=False).sqrt()
        torch.testing.assert_close(metrics.path_mmd(x, y), truth, rtol=1e-9, atol=0)

    def test_path_mmd_takes_directions_without_variance(self):
        family = Lissajous()  # four dimensions of 128
        x, y = family(200), family(200)
        noisy = x + 0.1 * torch.randn_like(x)
        assert metrics.path_mmd(noisy, y) > 3 * metrics.path_mmd(x, y)

    def test_signature_mmd_of_straight_lines(self):
        # lines from 0 with end points: level 1 and 2 are known; time and basepoint fill in
        x, y = torch.randn(90, 1, 1), 1.5 * torch.randn(80, 1, 1) + 0.2
        ladder = torch.linspace(0, 1, 5)[:, None]
        x, y = x * ladder, y * ladder
        mean, scale = y.mean((0, 1)), y.std((0, 1), correction=0)
        z = [(part - mean) / scale for part in (x, y)]

        def levels(part):  # (time, value) from 0: a jump to the start at time 0, then a line
            start, d = part[:, 0], part[:, -1] - part[:, 0]
            jump = torch.cat((torch.zeros_like(start), start), 1)
            line = torch.cat((torch.ones_like(d), d), 1)
            outer = lambda u, v: (u[:, :, None] * v[:, None, :]).flatten(1)
            two = outer(jump, jump) / 2 + outer(jump, line) + outer(line, line) / 2
            return jump + line, two

        terms = [
            (a.mean(0) - b.mean(0)).square().sum() / b.var(0, correction=0).sum()
            for a, b in zip(*map(levels, z), strict=True)
        ]
        truth = sum(terms).sqrt()
        value = metrics.signature_mmd(x, y, depth=2)
        torch.testing.assert_close(value, truth, rtol=1e-9, atol=0)

    def test_third_moments_are_seen_by_the_signature(self):
        # three signs, independent in pairs; in x their product is one: all covariances agree
        t, n = torch.linspace(0, 1, 12)[:, None] ** torch.arange(1, 4), 2000
        free = lambda: (torch.rand(n, 1, 3) < 0.5) * 2.0 - 1
        tied = free()
        tied[..., 2] = tied[..., 0] * tied[..., 1]
        x, y, z = tied * t, free() * t, free() * t
        assert metrics.covariance_error(x, y) < 2 * metrics.covariance_error(z, y)
        assert metrics.signature_mmd(x, y, depth=2) < 2 * metrics.signature_mmd(z, y, depth=2)
        assert metrics.signature_mmd(x, y, depth=3) > 4 * metrics.signature_mmd(z, y, depth=3)

    def test_conservation(self):
        family = Kepler()
        x, y = family(500), family(500)
        table = metrics.conservation_metrics(family.conserved)
        assert list(table) == ["spread of energy", "spread of angular momentum"]
        for name, quantity in family.conserved.items():
            noisy = x + 1e-3 * torch.randn_like(x)
            value = table[f"spread of {name}"](noisy, y)
            truth = metrics.spread(quantity(noisy)).median() - metrics.spread(quantity(y)).median()
            torch.testing.assert_close(value, truth)
            assert 2e-3 < float(value) < 0.1


@pytest.mark.parametrize("metric", PATH_METRICS.values(), ids=PATH_METRICS)
class TestEveryMetric:
    def test_zero_between_equals_and_a_number(self, metric):
        x = paths()
        assert float(metric(x, x)) < 1e-7
        value = metric(x.float(), paths().float())
        assert value.shape == () and value.dtype == torch.float32 and value > 0

    def test_float32_agrees(self, metric):
        x, y = paths(), 1.2 * paths()
        torch.testing.assert_close(
            metric(x.float(), y.float()).double(), metric(x, y), rtol=1e-3, atol=1e-5
        )

    def test_order_of_paths_does_not_count(self, metric):
        x, y = paths(40), paths(40)
        torch.testing.assert_close(metric(x.flip(0), y[torch.randperm(40)]), metric(x, y))

    def test_serves_floor(self, metric):
        mean, sd = metrics.floor(metric, OrnsteinUhlenbeck(length=6).law(SDE), 30, repeats=3)
        assert mean > 0 and sd > 0

    def test_the_floor_falls_as_the_root_of_n(self, metric):
        family = OrnsteinUhlenbeck(length=8)
        few, many = (
            noise_floor(family, (n, n), {"": metric}, repeats=40).mean() for n in (50, 800)
        )
        assert 3 < float(few / many) < 5.5  # 4, but for terms of higher order at n = 50

    def test_one_coordinate(self, metric):
        x, y = paths(40, 16, 1), 2 * paths(40, 16, 1)
        assert metric(x, y) > 0

    def test_the_door(self, metric):
        with pytest.raises(ValueError, match=r"need a last axis"):
            metric(paths()[..., 0], paths()[..., 0])
        with pytest.raises(ValueError, match="L >= 4"):
            metric(paths(length=3), paths(length=3))
        bad = paths()
        bad[3, 2, 0] = math.nan
        with pytest.raises(ValueError, match=r"x: expected finite .* in 1 of 50"):
            metric(bad, paths())

    @pytest.mark.gpu
    def test_agrees_on_a_gpu(self, metric):
        x, y = paths(300), 1.2 * paths(300)
        torch.testing.assert_close(
            metric(x.cuda(), y.cuda()).cpu(), metric(x, y), rtol=1e-6, atol=1e-8
        )


FAMILIES = {
    "all equal": lambda n: paths(1).expand(n, -1, -1) + 0.1,
    "each at rest": lambda n: (paths(n, 1) + 0.1).expand(-1, 20, -1).clone(),
    "all at rest at one place": lambda n: torch.full((n, 20, 2), 0.1),
    "all at rest at 0": lambda n: torch.zeros(n, 20, 2),
    "one coordinate constant": lambda n: torch.cat(
        (paths(n, 20, 1), torch.full((n, 20, 1), 0.3)), 2
    ),
    "one coordinate at rest": lambda n: torch.cat(
        (paths(n, 20, 1), paths(n, 1, 1).expand(-1, 20, 1)), 2
    ),
}
MOTION = {"spread of speed": partial(metrics.conservation_error, quantity=lambda x: x.norm(dim=2))}
MOVED = {  # what a shift of one path of two by 1 is in units of a truth that does not vary
    "marginal W1": 0.25,
    "mean path": math.inf,
    "two-time covariance": math.inf,
    "mean squared displacement": 0.0,
    "velocity autocorrelation": 0.0,
    "power spectrum": 0.0,
    "arc length W1": 0.0,
    "turning W1": 0.0,
    "path MMD": math.sqrt(0.5 * (1 - math.exp(-0.5))),
    "signature MMD": math.inf,
}


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("metric", [*PATH_METRICS.values(), *MOTION.values()])
class TestN16WhatDoesNotVary:
    def test_n16_equal_sets(self, metric, family, dtype):
        """Zero, though sums over 40 and over 80 equal paths are rounded apart."""
        y = family(40).to(dtype)
        near = 1e-3 if dtype == torch.float32 else 1e-7  # roots of rounding, as everywhere
        assert 0 <= float(metric(y, y)) < near
        assert 0 <= float(metric(torch.cat((y, y)), y)) < near


@pytest.mark.parametrize("name", MOVED)
def test_n16_off_a_truth_that_does_not_vary(name):
    y = torch.full((3, 20, 2), 0.1)
    x = torch.full((2, 20, 2), 0.1)
    x[1, :, 0] += 1
    assert float(PATH_METRICS[name](x, y)) == pytest.approx(MOVED[name], abs=1e-12)


def test_n16_judge_where_nothing_moves():
    y = torch.full((30, 20, 2), 0.1)
    table = judge(y[:10], y[:10], y, repeats=3)
    assert table.below and all(row[1:] == (0, 0, 0, 0) for row in table)


@pytest.mark.parametrize("metric", PATH_METRICS.values(), ids=PATH_METRICS)
def test_n09_dtypes_and_arrays(metric):
    x, y = paths().half(), paths()
    expected = metric(x.double(), y)
    assert torch.equal(metric(x, y), expected)
    assert torch.equal(metric(x.numpy(), y.numpy()), expected)
    assert metric(x, y.half()).dtype == torch.float32


def test_n09_what_describes_one_set():
    x = paths().half()
    for describe in (
        metrics.two_time_covariance,
        metrics.mean_squared_displacement,
        metrics.velocity_autocorrelation,
        metrics.power_spectrum,
        metrics.arc_length,
        metrics.turning,
        metrics.signature,
    ):
        assert torch.equal(describe(x), describe(x.float().numpy()))
        with pytest.raises(ValueError, match=r"expected paths \(n, L, C\)"):
            describe(x[0])
    table = judge(x.numpy(), x.numpy(), OU(100)[:, :20].numpy(), TWO, repeats=2)
    assert [row.value for row in table] == [0, 0]


TWO = {name: PATH_METRICS[name] for name in ("marginal W1", "two-time covariance")}


class TestJudge:
    def test_true_paths_pass_and_others_do_not(self):
        judged = partial(judge, floor_from=OU, repeats=50, level=0.999)
        truth = OU(500)
        assert judged(OU(500), truth, metrics=TWO).below
        wide = judged(1.15 * OU(500), truth, metrics=TWO)
        assert not wide.below and not wide["two-time covariance"].below

    def test_rows(self):
        x, truth, held = OU(100), OU(200), OU(300)
        table = judge(x, truth, held, TWO, repeats=20, level=0.9, seed=4)
        values = noise_floor(held, (100, 200), TWO, repeats=20, seed=4)
        for column, row in zip(values.T, table, strict=True):
            assert row.value == float(PATH_METRICS[row.name](x, truth))
            assert row[2:4] == pytest.approx((float(column.mean()), float(column.std())))
            assert (column <= row.quantile).sum() == 18
        lines = str(table).splitlines()
        assert len(lines) == 3 and "0.9 quantile" in lines[0]
        assert lines[1].startswith("marginal W1")
        again = judge(x, truth, held, TWO, repeats=20, level=0.9, seed=4)
        assert again == table

    def test_floors_from_paths_and_from_a_family_agree(self):
        names = {"two-time covariance": PATH_METRICS["two-time covariance"]}
        held, fresh = (
            noise_floor(source, (100, 100), names, repeats=60) for source in (OU(6000), OU)
        )
        error = math.hypot(held.std(), fresh.std()) / math.sqrt(60)
        assert abs(held.mean() - fresh.mean()) < 5 * error

    def test_parts_of_the_held_out_paths_are_disjoint(self):
        same = lambda a, b: (a[:, None] == b).flatten(2).all(2).any().double()
        assert noise_floor(OU(30), (15, 15), {"": same}, repeats=5).sum() == 0

    def test_clear_errors(self):
        with pytest.raises(ValueError, match=r"at least 20 \+ 30 held-out paths, got 40"):
            judge(OU(20), OU(30), OU(40))
        with pytest.raises(ValueError, match="repeats >= 2"):
            noise_floor(OU, (5, 5), repeats=1)


ALL = PATH_METRICS | {"signature MMD": partial(metrics.signature_mmd, depth=3)}


@pytest.mark.slow
class TestTheExactDenoiser:
    """Ornstein-Uhlenbeck paths generated with the exact denoiser cannot be told from true ones.

    Bonferroni over the metrics: each below the 1 - 0.01/M quantile between 200 pairs of exact
    sets of the same n.
    """

    n = 3000

    @staticmethod
    @cache
    def exact(n):
        """A true set, and every metric between 200 pairs of them."""
        floor = noise_floor(OU, (n, n), ALL, repeats=200, seed=2)
        return OU(n, torch.Generator().manual_seed(1)), floor

    def generate(self, law, steps):
        event = (self.n, *law.event)
        return sample(law, PFHeun(), event, log_snr(SDE, steps), seed=3, dtype=torch.float64)

    def values(self, x, truth):
        return torch.stack([metric(x, truth) for metric in ALL.values()])

    def seen(self, values, floor):
        return values > floor.quantile(1 - 0.01 / len(ALL), 0)

    def test_below_every_floor(self):
        truth, floor = self.exact(self.n)
        fine, half = (self.values(self.generate(OU.law(SDE), k), truth) for k in (128, 64))
        assert not self.seen(fine, floor).any()
        # and the solver is fine enough: half of the steps change nothing that could be seen
        assert ((fine - half).abs() < 0.1 * floor.mean(0)).all()

    def test_three_per_cent_of_the_covariance_are_seen(self):
        truth, floor = self.exact(self.n)
        law = OU.law(SDE)
        wrong = GaussianMixture(law.weights, law.means, 1.03 * law.covs, SDE)
        assert self.seen(self.values(self.generate(wrong, 128), truth), floor).any()

    def test_a_coarse_solver_is_seen(self):
        truth, floor = self.exact(self.n)
        assert self.seen(self.values(self.generate(OU.law(SDE), 8), truth), floor).any()

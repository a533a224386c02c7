"""Every metric against a closed form: exact identities to rounding, Monte Carlo to 5 sigma."""

import math

import pytest
import scipy.stats
import torch

from scoresde import losses, metrics
from scoresde.distributions import GaussianMixture
from scoresde.metrics.transport import directions
from scoresde.sde import VPSDE

SDE = VPSDE()
PAIRED = [
    metrics.wasserstein,
    metrics.sliced_wasserstein,
    metrics.energy_distance,
    metrics.mmd,
    metrics.kl_knn,
]


def normal(n, d=1, mean=0.0, std=1.0):
    return mean + std * torch.randn(n, d)


def gaussian(mean, cov):
    mean, cov = torch.tensor(mean), torch.tensor(cov)
    return GaussianMixture(torch.ones(1), mean[None], cov[None], SDE)


def gaussian_kl(mean1, cov1, mean2, cov2):
    inverse, gap = torch.linalg.inv(cov2), mean2 - mean1
    trace, quadratic = (inverse @ cov1).trace(), gap @ inverse @ gap
    return 0.5 * (trace + quadratic - len(gap) + torch.logdet(cov2) - torch.logdet(cov1))


def assert_mean(draw, truth, repeats=16, bias=0.0):
    """The mean of independent draws meets the truth within 5 standard errors."""
    values = torch.stack([draw() for _ in range(repeats)])
    error = values.std() / math.sqrt(repeats)
    assert (values.mean() - truth).abs() < 5 * error + bias, (values.mean(), truth, error)


MEAN1, COV1 = [0.3, -0.2], [[1.0, 0.3], [0.3, 0.5]]
MEAN2, COV2 = [-0.4, 0.5], [[0.8, -0.2], [-0.2, 1.2]]


def kl_truth():
    return gaussian_kl(*(torch.tensor(a) for a in (MEAN1, COV1, MEAN2, COV2)))


def harmonic(n):
    return sum(1 / k for k in range(1, n + 1))


def log_seen(p, n):
    """What n points can tell of log p: -sum_{k=1}^n (1 - p)^k/k."""
    return -sum((1 - p) ** k / k for k in range(1, n + 1))


class TestDivergence:
    def test_exact_by_sampling(self):
        value, error = metrics.kl_exact(gaussian(MEAN1, COV1), gaussian(MEAN2, COV2), n=20_000)
        assert (value - kl_truth()).abs() < 5 * error < 0.1

    def test_error_is_a_standard_error(self):
        p, q = gaussian(MEAN1, COV1), gaussian(MEAN2, COV2)
        values = [metrics.kl_exact(p, q, n=500, seed=s) for s in range(200)]
        spread = torch.stack([v.value for v in values]).std()
        claimed = torch.stack([v.stderr for v in values]).mean()
        torch.testing.assert_close(spread, claimed, rtol=5 / math.sqrt(400), atol=0)

    def test_quadrature(self):
        p, q = gaussian(MEAN1, COV1), gaussian(MEAN2, COV2)
        value = metrics.kl_quadrature(p.log_prob, q.log_prob, (-9, 9), d=2, points=128)
        torch.testing.assert_close(value, kl_truth(), rtol=1e-11, atol=0)

    def test_prior_mismatch_of_gm1(self):
        law = GaussianMixture(
            torch.tensor([0.6, 0.4]),
            torch.tensor([[1.5], [-1.0]]),
            torch.tensor([[[0.09]], [[0.25]]]),
            SDE,
        )
        t = torch.tensor(1.0)
        value = metrics.kl_quadrature(lambda x: law.log_prob(x, t), SDE.prior_log_prob, (-9, 9))
        alpha2 = float(SDE.alpha(t) ** 2)  # theory G2: KL -> alpha^2 |E x0|^2/2, ratio 1.00004
        assert abs(float(value) / (0.5 * alpha2 * 0.5**2) - 1.00004) < 1e-4

    def test_knn(self):
        p, q = gaussian(MEAN1, COV1), gaussian(MEAN2, COV2)
        assert_mean(lambda: metrics.kl_knn(p.sample(4000), q.sample(6000)), kl_truth())

    def test_knn_by_hand(self):
        x, y = torch.tensor([[0.0], [1.0], [3.0]]), torch.tensor([[-0.5], [6.0]])
        nearest = math.log(0.5 / 1 * 1.5 / 1 * 3 / 2) / 3 + math.log(2 / 2)
        assert float(metrics.kl_knn(x, y, k=1)) == pytest.approx(nearest, rel=1e-12)
        plane = [torch.cat((a, torch.zeros_like(a)), 1) for a in (x, y)]
        second = 2 * math.log(6 / 3 * 5 / 2 * 3.5 / 3) / 3 + math.log(2 / 2)
        assert float(metrics.kl_knn(*plane, k=2)) == pytest.approx(second, rel=1e-12)

    def test_knn_in_one_dimension_is_not_symmetric(self):
        truth = 0.5 * (0.25 - 1 - math.log(0.25))
        assert_mean(lambda: metrics.kl_knn(normal(4000, std=0.5), normal(4000)), truth)
        truth = 0.5 * (0.64 + 0.36 - 1 - math.log(0.64))
        assert_mean(lambda: metrics.kl_knn(normal(4000), normal(4000, 1, 0.75, 1.25)), truth)

    @pytest.mark.parametrize("d", [1, 2])
    def test_histogram_by_hand(self, d):
        # all points in two cells; Q uniform on [0, 2]^d, of which the grid sees [0, 1]^d
        x = torch.full((10, d), 0.1)
        x[7:, -1] = 0.6
        log_q = lambda x: torch.full((len(x),), -d * math.log(2.0))
        value = metrics.kl_histogram(x, log_q, bins=4, limits=(0, 1))
        own = 0.7 * harmonic(6) + 0.3 * harmonic(2) - harmonic(9)
        truth = own - log_seen(1 / 8**d, 9)
        assert float(value) == pytest.approx(truth, abs=1 / (24 * 9**2))

    def test_histogram_counts_what_lies_outside(self):
        x = torch.tensor([[0.5], [5.0], [-5.0], [1.0]])
        uniform = lambda x: torch.full((len(x),), -math.log(2.0))  # half of it in [0, 1]
        value = metrics.kl_histogram(x, uniform, bins=1, limits=(0, 1))
        truth = harmonic(1) - harmonic(3) - log_seen(0.5, 3)
        assert float(value) == pytest.approx(truth, abs=1 / (24 * 3**2))

    def test_histogram_of_samples_by_hand(self):
        x, y = torch.tensor([[0.0], [0.1], [1.0]]), torch.tensor([[0.2], [0.9], [0.8], [0.7]])
        # draws of two of (1, 3) points: none of the cell's one has chance 1/2, of its three 0
        log_p = [harmonic(1) - harmonic(2), -harmonic(2)]
        log_q = [1 / 2 - harmonic(2), 1 / 2 + (1 - 1 / 6) / 2 + 1 / 3 - harmonic(2)]
        truth = 2 / 3 * (log_p[0] - log_q[0]) + 1 / 3 * (log_p[1] - log_q[1])
        assert float(metrics.kl_histogram(x, y, bins=2)) == pytest.approx(truth, rel=1e-12)

    @pytest.mark.parametrize(("n", "m"), [(4, 3), (6, 3), (3, 5), (2, 1)])
    def test_n13_mean_of_the_histogram(self, n, m):
        """All outcomes of two cells, each with its probability: no bias, to rounding."""
        p, q = 0.3, 0.6
        chance = lambda n, p: [math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1)]
        points = lambda n, k: torch.tensor([[0.25]] * k + [[0.75]] * (n - k))
        mean = sum(
            u * v * float(metrics.kl_histogram(points(n, i), points(m, j), 2, (0, 1)))
            for i, u in enumerate(chance(n, p))
            for j, v in enumerate(chance(m, q))
        )
        least = min(n - 1, m)
        cells = ((p, q), (1 - p, 1 - q))
        truth = sum(a * (log_seen(a, least) - log_seen(b, least)) for a, b in cells)
        assert mean == pytest.approx(truth, rel=1e-12)

    @pytest.mark.parametrize(("n", "m"), [(200, 500), (500, 60), (200, None)])
    def test_n13_histogram_of_one_law(self, n, m):
        """Zero on average with far more cells than points; half a count in each gave 1.8 nats."""
        law = gaussian([0.0, 0.0], [[1.0, 0.0], [0.0, 1.0]])
        other = lambda: law.log_prob if m is None else normal(m, 2)
        values = [metrics.kl_histogram(normal(n, 2), other(), limits=(-3, 3)) for _ in range(200)]
        values = torch.stack(values)
        error = values.std() / math.sqrt(200)
        assert values.mean().abs() < 5 * error < 0.05

    def test_histogram_separates_the_axes(self):
        p, q = gaussian(MEAN1, COV1), gaussian(MEAN2, COV2)
        x = p.sample(200_000)
        against_law = metrics.kl_histogram(x, q.log_prob, bins=40)
        against_sample = metrics.kl_histogram(x, q.sample(200_000), bins=40)
        error = metrics.kl_exact(p, q, n=200_000).stderr
        assert (against_law - kl_truth()).abs() < 5 * error + 0.01  # width of the cells
        assert (against_sample - kl_truth()).abs() < 8 * error + 0.01

    def test_nll_gap(self):
        law = gaussian(MEAN1, COV1)
        entropy = float(0.5 * torch.logdet(2 * math.pi * math.e * torch.tensor(COV1)))
        x = law.sample(20_000)
        exact, sampled = metrics.nll_gap(x, law, entropy=entropy), metrics.nll_gap(x, law)
        assert exact.value.abs() < 5 * exact.stderr
        assert sampled.value.abs() < 5 * sampled.stderr
        assert sampled.stderr > exact.stderr
        tight = torch.tensor(MEAN1) + 0.9 * (x - torch.tensor(MEAN1))  # over-concentrated
        gap = metrics.nll_gap(tight, law, entropy=entropy)
        assert (gap.value - (0.81 - 1)).abs() < 5 * gap.stderr

    def test_nll_gap_at_a_time(self):
        law, t = gaussian(MEAN1, COV1), torch.tensor(0.3)
        gap = metrics.nll_gap(law.sample(20_000, t), law, t)
        assert gap.value.abs() < 5 * gap.stderr


class TestTransport:
    @pytest.mark.parametrize("p", [1, 2])
    @pytest.mark.parametrize("d", [1, 2, 5])
    def test_translation_costs_its_length(self, p, d):
        x, shift = normal(60, d), torch.linspace(0.5, 1, d)
        value = metrics.wasserstein(x, x + shift, p)
        torch.testing.assert_close(value, shift.norm(), rtol=1e-12, atol=0)

    @pytest.mark.parametrize("p", [1, 2])
    @pytest.mark.parametrize(("n", "m"), [(40, 40), (40, 60), (30, 7)])
    def test_sorting_is_the_linear_program(self, p, n, m):
        x, y = normal(n), normal(m, mean=0.5, std=2.0)
        line = metrics.wasserstein(x, y, p)
        flat = [torch.cat((a, torch.zeros_like(a)), 1) for a in (x, y)]
        torch.testing.assert_close(line, metrics.wasserstein(*flat, p), rtol=1e-12, atol=0)
        if p == 1:
            scipys = scipy.stats.wasserstein_distance(x[:, 0].numpy(), y[:, 0].numpy())
            assert float(line) == pytest.approx(scipys, rel=1e-12)

    def test_convex_map_is_optimal_and_meets_the_gaussian_form(self):
        # between x and A x + m, A positive definite, W2 is that of the Gaussians of same moments
        x, a = normal(100, 3), normal(3, 3)
        y = x @ (a @ a.T + 0.1 * torch.eye(3)) + torch.tensor([1.0, -2.0, 0.5])
        moments = [m for s in (x, y) for m in (s.mean(0), s.T.cov(correction=0))]
        value = metrics.wasserstein(x, y, 2)
        torch.testing.assert_close(
            value, (x - y).square().sum(1).mean().sqrt(), rtol=1e-12, atol=0
        )
        torch.testing.assert_close(value, metrics.gaussian_w2(*moments), rtol=1e-10, atol=0)

    def test_gaussian_commuting(self):
        v1, v2 = torch.tensor([1.0, 0.25]), torch.tensor([0.49, 4.0])
        m1, m2 = torch.tensor([0.0, 1.0]), torch.tensor([3.0, 1.0])
        value = metrics.gaussian_w2(m1, v1.diag(), m2, v2.diag())
        assert float(value) == pytest.approx(math.sqrt(9 + 0.3**2 + 1.5**2), rel=1e-14)

    def test_gaussian_keeps_its_digits_near_equality(self):
        cov, mean = torch.tensor(COV1), torch.zeros(2)
        value = metrics.gaussian_w2(mean, cov, mean, cov * (1 + 1e-9) ** 2)
        assert float(value) == pytest.approx(1e-9 * math.sqrt(1.5), rel=1e-5)
        assert float(metrics.gaussian_w2(mean, cov, mean, cov)) < 1e-14

    def test_gaussian_may_be_a_point(self):
        zero, point = torch.zeros(2, 2), torch.zeros(2)
        value = metrics.gaussian_w2(point, zero, point, torch.tensor(COV1))
        assert float(value) == pytest.approx(math.sqrt(1.5), rel=1e-12)

    @pytest.mark.parametrize("d", [1, 2, 3, 8])
    def test_sliced_of_a_scaling_is_exact(self, d):
        # every projection of x -> s x + m is monotone, and orthonormal directions add up
        x, shift = normal(50, d), torch.linspace(0.5, 1, d)
        value = metrics.sliced_wasserstein(x, 1.7 * x + shift, 2, projections=8 * d)
        truth = (0.7 * x + shift).square().sum(1).mean().div(d).sqrt()
        torch.testing.assert_close(value, truth, rtol=1e-12, atol=0)

    def test_sliced_of_gaussians(self):
        x, y = normal(2000, 3, 0.5, 1.0), normal(3000, 3, 0.0, 1.6)
        draw = lambda: metrics.sliced_wasserstein(
            normal(2000, 3, 0.5), normal(3000, 3, 0.0, 1.6), projections=12
        ).square()
        assert_mean(draw, 0.5**2 + 0.6**2, bias=10 / 2000)
        swapped = metrics.sliced_wasserstein(y, x)
        torch.testing.assert_close(metrics.sliced_wasserstein(x, y), swapped, rtol=1e-12, atol=0)

    def test_sliced_mean_of_unit_projections(self):
        # W1 of a translation: E|<u, v>| = 2/pi |v| in the plane, to the error of the directions
        x, shift = normal(10, 2), torch.tensor([2.0, 0.0])
        value = metrics.sliced_wasserstein(x, x + shift, 1, projections=4000)
        assert float(value) == pytest.approx(4 / math.pi, abs=5 * 0.62 / math.sqrt(4000))

    @pytest.mark.parametrize(("d", "count"), [(2, 6), (3, 4), (8, 3), (1, 5)])
    def test_directions_are_orthonormal_in_sets(self, d, count):
        u = directions(d, count, seed=0)
        assert u.shape == (1 if d == 1 else count, d)
        for part in u.split(d):
            torch.testing.assert_close(part @ part.T, torch.eye(len(part)))

    def test_sliced_depends_on_its_seed_alone(self):
        x, y = normal(50, 2), normal(50, 2)
        first = metrics.sliced_wasserstein(x, y, seed=3)
        torch.manual_seed(99)
        assert metrics.sliced_wasserstein(x, y, seed=3) == first
        assert metrics.sliced_wasserstein(x, y, seed=4) != first

    @pytest.mark.parametrize("m", [64, 48])
    def test_sliced_never_waits_for_the_device(self, no_sync, m):
        x, y = normal(64, 2), normal(m, 2)
        with no_sync(x, y):
            metrics.sliced_wasserstein(x, y)


class TestKernels:
    def test_energy_of_gaussians(self):
        def mean_abs(mean, std):  # E |N(mean, std^2)|
            folded = std * math.sqrt(2 / math.pi) * math.exp(-0.5 * (mean / std) ** 2)
            return folded + mean * math.erf(mean / std / math.sqrt(2))

        truth = 2 * mean_abs(0.7, math.hypot(1, 1.5)) - 2 * (1 + 1.5) / math.sqrt(math.pi)
        assert_mean(lambda: metrics.energy_distance(normal(500), normal(700, 1, 0.7, 1.5)), truth)

    def test_energy_is_the_square_of_scipys(self):
        x, y = normal(40), normal(30, mean=0.3)
        value = metrics.energy_distance(x, y, unbiased=False)
        root = scipy.stats.energy_distance(x[:, 0].numpy(), y[:, 0].numpy())
        assert float(value) == pytest.approx(root**2, rel=1e-10)

    def test_mmd_of_gaussians(self):
        h2, gap2 = 0.8**2, 2 * 0.4**2
        mean_k = lambda v, gap2: h2 / (h2 + v) * math.exp(-0.5 * gap2 / (h2 + v))  # d = 2
        truth = mean_k(2, 0) + mean_k(2 * 1.44, 0) - 2 * mean_k(2.44, gap2)
        draw = lambda: metrics.mmd(normal(500, 2), normal(400, 2, 0.4, 1.2), bandwidth=0.8)
        assert_mean(draw, truth)

    @pytest.mark.parametrize("metric", [metrics.energy_distance, metrics.mmd])
    def test_unbiased_is_zero_on_average_and_biased_is_not(self, metric):
        assert_mean(lambda: metric(normal(50, 2), normal(40, 2)), 0.0, repeats=64)
        biased = torch.stack([metric(normal(50), normal(40), unbiased=False) for _ in range(64)])
        assert (biased > 0).all()

    def test_median_heuristic(self):
        x, y = torch.tensor([[0.0], [1.0]]), torch.tensor([[3.0], [7.0]])  # distances 1 2 3 4 6 7
        torch.testing.assert_close(metrics.mmd(x, y), metrics.mmd(x, y, bandwidth=3.0))

    def test_blocks_change_nothing(self, monkeypatch):
        x, y = normal(50, 2), normal(30, 2)
        whole = metrics.energy_distance(x, y)
        monkeypatch.setattr("scoresde.metrics.kernels.BLOCK", 70)
        torch.testing.assert_close(metrics.energy_distance(x, y), whole, rtol=1e-12, atol=0)

    @pytest.mark.parametrize("copies", [0, 30, 59, 60])
    def test_n16_mmd_of_copies(self, copies):
        """More than half of the points in one place: the bandwidth is that of the others."""
        x = normal(60, 2)
        x[:copies] = 0.3
        y = x.flip(0)[:40]
        both = torch.cat((x, y))
        apart = torch.pdist(both)
        apart = apart[apart > 0]
        h = float(apart.median()) if len(apart) else 7.0
        for unbiased in (True, False):
            value = metrics.mmd(x, y, unbiased=unbiased)
            expected = metrics.mmd(x, y, h, unbiased)
            torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-15)
        assert float(metrics.mmd(x, x, unbiased=False)) == pytest.approx(0, abs=1e-14)


class TestModes:
    def mixture(self):
        means = torch.tensor([[-1.0, 0.0], [1.0, 0.0], [0.0, 2.0], [3.0, 3.0]])
        return GaussianMixture.isotropic(torch.tensor([0.4, 0.3, 0.2, 0.1]), means, 0.3, SDE)

    @pytest.mark.parametrize("t", [None, 0.2])
    def test_weights_of_exact_samples(self, t):
        law, time = self.mixture(), None if t is None else torch.tensor(t)
        weights = metrics.mode_weights(law.sample(10_000, time), law, time)
        error = (law.weights * (1 - law.weights) / 10_000).sqrt()
        assert ((weights - law.weights).abs() < 5 * error).all()

    def test_hard_weights_count_points(self):
        law = self.mixture()
        x = torch.tensor([[-1.0, 0.0], [-1.1, 0.1], [3.0, 3.1], [0.1, 2.0]])
        expected = torch.tensor([0.5, 0.0, 0.25, 0.25])
        torch.testing.assert_close(metrics.mode_weights(x, law, hard=True), expected)

    def test_coverage(self):
        law = self.mixture()
        x = torch.tensor([[-1.0, 0.89], [1.0, 0.91], [3.0, 3.0], [3.0, 3.1]])
        assert float(metrics.mode_coverage(x, law)) == 0.5  # 0.9 is three standard deviations
        assert float(metrics.mode_coverage(x, law, radius=4.0)) == 0.75
        assert float(metrics.mode_coverage(x, law, at_least=2)) == 0.25

    def test_coverage_measures_along_each_axis(self):
        cov = [[1.0, 0.5, 0.1], [0.5, 0.4, 0.1], [0.1, 0.1, 0.6]]  # d = 3: no symmetric basis
        law = gaussian([1.0, 2.0, 3.0], cov)
        values, axes = torch.linalg.eigh(law.covs[0])
        for axis in (axes * values.sqrt()).T:  # one standard deviation long
            for length, covered in ((2.9, 1), (-2.9, 1), (3.1, 0), (-3.1, 0)):
                assert float(metrics.mode_coverage(law.means + length * axis, law)) == covered


class TestFloor:
    def test_two_independent_samples(self):
        law = gaussian([0.0], [[4.0]])
        mean, sd = metrics.floor(lambda x, y: x.mean() - y.mean(), law, 100, 300, repeats=400)
        truth = 2 * math.sqrt(1 / 100 + 1 / 300)
        assert abs(float(mean)) < 5 * truth / 20
        assert float(sd) == pytest.approx(truth, rel=5 / math.sqrt(800))

    def test_serves_every_kind_of_metric(self):
        law = gaussian(MEAN1, COV1)
        for metric in (
            *PAIRED,
            lambda x, _: metrics.nll_gap(x, law, n=100),
            lambda x, _: metrics.kl_histogram(x, law.log_prob, bins=8),
            lambda x, _: metrics.mode_weights(x, law),
        ):
            mean, sd = metrics.floor(metric, law, 50, repeats=3)
            assert mean.isfinite().all() and sd.isfinite().all()

    def test_depends_on_its_seed_alone(self):
        law, metric = gaussian(MEAN1, COV1), metrics.energy_distance
        first = metrics.floor(metric, law, 20, seed=1)
        torch.manual_seed(5)
        assert metrics.floor(metric, law, 20, seed=1) == first
        assert metrics.floor(metric, law, 20, seed=2) != first


@pytest.mark.parametrize("metric", PAIRED)
class TestDoor:
    def test_shapes_are_flattened(self, metric):
        x, y = normal(40, 4), normal(50, 4)
        torch.testing.assert_close(metric(x.view(40, 2, 2), y.view(50, 1, 4)), metric(x, y))
        torch.testing.assert_close(metric(x[:, 0], y[:, 0]), metric(x[:, :1], y[:, :1]))

    def test_result_is_a_number_like_x(self, metric):
        value = metric(normal(40, 2).float(), normal(50, 2).float())
        assert value.shape == () and value.dtype == torch.float32

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_n09_sixteen_bits(self, metric, dtype):
        x, y = normal(40, 2).to(dtype), normal(50, 2).to(dtype)
        value = metric(x, y)
        assert value.dtype == torch.float32
        assert torch.equal(value, metric(x.float(), y.float()))

    def test_n09_two_dtypes_and_arrays(self, metric):
        x, y = normal(40, 2).float(), normal(50, 2)
        expected = metric(x.double(), y)
        for a, b in ((x, y), (x.numpy(), y.numpy()), (x, y.numpy())):
            assert torch.equal(metric(a, b), expected)
            assert metric(b, a).dtype == torch.float64

    def test_other_dimension(self, metric):
        with pytest.raises(ValueError, match="d = 2 for x and 3 for y"):
            metric(normal(9, 2), normal(9, 3))

    def test_empty_and_integer(self, metric):
        with pytest.raises(ValueError, match=r"x: expected a sample of shape .* got \(0, 2\)"):
            metric(normal(0, 2), normal(9, 2))
        with pytest.raises(ValueError, match=r"y: expected floating-point .* use .double\(\)"):
            metric(normal(9, 2), torch.ones(9, 2, dtype=torch.long))

    def test_nan(self, metric):
        bad = normal(9, 2)
        bad[3, 1] = math.nan
        if metric is metrics.sliced_wasserstein:  # it does not look at the values
            assert metric(normal(9, 2), bad).isnan()
            return
        with pytest.raises(ValueError, match=r"y: expected finite .* in 1 of 9 points"):
            metric(normal(9, 2), bad)


def test_n09_against_a_law():
    law = gaussian(MEAN1, COV1)
    x = law.sample(50)
    for given in (x.half(), x.float().numpy()):
        z = torch.as_tensor(given).float()
        for metric in (metrics.mode_weights, metrics.mode_coverage):
            assert torch.equal(metric(given, law), metric(z, law))
        assert metrics.nll_gap(given, law) == metrics.nll_gap(z, law)
        assert torch.equal(
            metrics.kl_histogram(given, law.log_prob, 8), metrics.kl_histogram(z, law.log_prob, 8)
        )
    mean, cov = torch.tensor(MEAN1), torch.tensor(COV1)
    mixed = metrics.gaussian_w2(mean.half(), cov.numpy(), mean.float(), 4 * cov)
    assert mixed.dtype == torch.float64
    assert float(mixed) == pytest.approx(math.sqrt(1.5), rel=1e-3)


def test_one_estimate():
    """One class under both names; its former ``error`` warns for one version."""
    assert metrics.Estimate is losses.Estimate
    found = metrics.Estimate(torch.tensor(1.0), torch.tensor(0.5))
    with pytest.warns(DeprecationWarning, match="stderr"):
        assert found.error is found.stderr


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: metrics.wasserstein(x, x, p=3), "p = 1 or 2, got 3"),
        (lambda x: metrics.sliced_wasserstein(x, x, projections=0), "at least one projection"),
        (lambda x: metrics.kl_knn(x, x + 1, k=9), "k = 9, n = 9"),
        (lambda x: metrics.kl_knn(torch.zeros(9, 2), x, k=2), "without repetition"),
        (lambda x: metrics.kl_histogram(torch.ones(9, 3), torch.ones(9, 3)), "use kl_knn"),
        (lambda x: metrics.kl_histogram(x, x, limits=(1, 0)), "limits low < high"),
        (lambda x: metrics.kl_histogram(x[:1], x), "n >= 2 points of P"),
        (lambda x: metrics.energy_distance(x[:1], x), "at least two points"),
        (lambda x: metrics.mmd(x, x, bandwidth=-1.0), "bandwidth > 0, got -1.0"),
        (lambda x: metrics.kl_quadrature(None, None, (0, 1), d=3), "use kl_exact"),
        (lambda x: metrics.nll_gap(x * math.inf, gaussian(MEAN1, COV1)), "expected finite"),
        (lambda x: metrics.mode_coverage(x[:, :1], gaussian(MEAN1, COV1)), "dimension 2, got 1"),
        (lambda x: metrics.floor(metrics.mmd, None, 9, repeats=1), "repeats >= 2"),
    ],
)
def test_clear_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call(normal(9, 2))


@pytest.mark.gpu
class TestGpu:
    @pytest.mark.parametrize("metric", PAIRED)
    def test_agrees_with_the_cpu(self, metric):
        x, y = normal(300, 2).float(), normal(200, 2, 0.3).float()
        value = metric(x.cuda(), y.cuda())
        assert value.device.type == "cuda"
        torch.testing.assert_close(value.cpu(), metric(x, y), rtol=1e-4, atol=1e-5)

    def test_sliced_does_not_synchronise(self, no_waiting):
        x, y = normal(300, 2).cuda(), normal(200, 2).cuda()
        with no_waiting():
            metrics.sliced_wasserstein(x, y)

    def test_laws_draw_where_they_live(self):
        law = gaussian(MEAN1, COV1).cuda()
        assert metrics.floor(metrics.sliced_wasserstein, law, 50).mean.device.type == "cuda"
        value, error = metrics.kl_exact(law, gaussian(MEAN2, COV2).cuda(), n=20_000)
        assert (value.cpu() - kl_truth()).abs() < 5 * error.cpu()

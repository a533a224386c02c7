"""The named laws against quadrature and autograd; files of points, and what is wrong with them."""

import math

import numpy as np
import pytest
import torch

from scoresde import data
from scoresde.data import LAWS, load_points
from scoresde.distributions import Boxes
from scoresde.distributions.boxes import truncated_normal
from scoresde.sde import VESDE, VPSDE, CosineVPSDE

SDE = VPSDE()
BOXES = Boxes(
    torch.tensor([[-1.5, 0.2], [0.5, -1.0], [0.5, 1.0]], dtype=torch.float64),
    torch.tensor([[-0.5, 0.8], [0.7, 1.0], [2.0, 1.5]], dtype=torch.float64),
    torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64),
    SDE,
)


@pytest.fixture(params=LAWS)
def law(request):
    return LAWS[request.param](SDE)


def midpoints(d, low=-7.0, high=7.0, step=0.04):
    axis = torch.arange(low + step / 2, high, step)
    return torch.cartesian_prod(*[axis] * d).reshape(-1, d), step**d


def density(law, nodes, t=None):
    return torch.cat([law.log_prob(part, t) for part in nodes.split(8192)]).exp()


def integrals(law, t, functions):
    """Integrals of functions (n, d) -> (n, m) over p_t; edges of boxes fall between the nodes."""
    d = law.sample(1).shape[1]
    nodes, weight = midpoints(d, step=0.04 if t is None else 0.1)
    return (density(law, nodes, t)[:, None] * functions(nodes)).sum(0) * weight


class TestLaws:
    @pytest.mark.parametrize("t", [None, 0.3])
    def test_density_is_normalised(self, law, t):
        time = None if t is None else torch.tensor(t)
        total = integrals(law, time, lambda x: torch.ones(len(x), 1))
        torch.testing.assert_close(total, torch.ones(1), rtol=1e-8, atol=0)

    @pytest.mark.parametrize("t", [None, 0.3])
    def test_samples_follow_the_density(self, law, t):
        # the characteristic function at 40 frequencies, each to 5 standard errors
        time, n = None if t is None else torch.tensor(t), 10_000
        x = law.sample(n, time)
        frequencies, phases = 3 * torch.randn(x.shape[1], 40), 2 * math.pi * torch.rand(40)
        waves = lambda x: torch.cos(x @ frequencies + phases)
        values, truth = waves(x), integrals(law, time, waves)
        error = values.std(0) / math.sqrt(n)
        assert ((values.mean(0) - truth).abs() < 5 * error).all()

    def test_samples_depend_on_the_generator_alone(self, law):
        draw = lambda: law.sample(5, torch.tensor(0.1), torch.Generator().manual_seed(3))
        first = draw()
        torch.manual_seed(8)
        assert (draw() == first).all()

    @pytest.mark.parametrize("t", [1e-3, 0.05, 0.3, 1.0])
    def test_score_and_denoiser(self, law, t):
        time = torch.tensor(t)
        x = torch.cat((law.sample(40, time), law.sample(1).repeat(10, 1) + torch.randn(10, 1)))
        x = x.requires_grad_()
        (gradient,) = torch.autograd.grad(law.log_prob(x, time).sum(), x)
        scale = 1 / SDE.sigma(time)
        torch.testing.assert_close(law.score(x, time), gradient, rtol=1e-9, atol=1e-9 * scale)
        tweedie = (x + SDE.sigma2(time) * gradient) / SDE.alpha(time)
        atol = 1e-9 * scale * SDE.sigma2(time) / SDE.alpha(time)
        torch.testing.assert_close(law(x, time), tweedie, rtol=1e-9, atol=atol)
        eps = -SDE.sigma(time) * gradient
        torch.testing.assert_close(law.eps(x, time), eps, rtol=1e-9, atol=1e-9)

    def test_one_time_for_each_sample(self, law):
        x, t = law.sample(4), torch.tensor([1e-3, 0.1, 0.5, 1.0])
        for function in (law, law.score, law.eps, law.log_prob):
            alone = torch.stack([function(x[i : i + 1], t[i])[0] for i in range(4)])
            torch.testing.assert_close(function(x, t), alone, rtol=1e-10, atol=1e-12)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("t", [0.0, 1e-5, 1e-2, 1.0])
    def test_far_away_nothing_breaks(self, law, t, dtype):
        d = law.sample(1).shape[1]
        far = torch.tensor([-1e4, -30.0, 0.0, 7.0, 1e3], dtype=dtype)[:, None].expand(-1, d)
        time = torch.tensor(t, dtype=dtype)
        x0_hat, log_p = law(far, time), law.log_prob(far, time)
        assert x0_hat.dtype == log_p.dtype == dtype
        assert x0_hat.isfinite().all() and law.eps(far, time).isfinite().all()
        assert not log_p.isnan().any() and (log_p < 10).all()
        if t > 0:
            assert log_p.isfinite().all() and law.score(far, time).isfinite().all()

    def test_coordinates_are_of_order_one(self, law):
        x = law.sample(20_000)
        assert 0.5 < float(x.var(0).mean().sqrt()) < 1.6
        assert (x.mean(0).abs() < 0.6).all()

    def test_works_in_float32(self, law):
        x, t = law.sample(50, torch.tensor(0.2)), torch.tensor(0.2)
        wide, narrow = law.score(x, t), law.score(x.float(), t.float())
        torch.testing.assert_close(narrow.double(), wide, rtol=2e-4, atol=2e-4)


class TestNamedLaws:
    def test_parameters_of_the_theory(self):
        law = data.gm1(SDE)
        assert law.weights.tolist() == pytest.approx([0.6, 0.4])
        assert law.means.flatten().tolist() == [1.5, -1.0]
        assert law.covs.flatten().tolist() == pytest.approx([0.09, 0.25])

    def test_parameters_of_the_benchmarks(self):
        # shared with other libraries: reference/peers_strong_error.json
        torch.testing.assert_close(
            data.gauss(SDE).covs[0],
            torch.tensor([[0.3465304947572515, 0.2097087943426259],
                          [0.2097087943426259, 0.18346950524274844]]),
            rtol=1e-13, atol=0,
        )  # fmt: skip
        torch.testing.assert_close(
            data.aniso3(SDE).covs[:, 0],
            torch.tensor([[0.2787254476774871, 0.1487720701140361],
                          [0.09957360800313757, -0.07174074034315991],
                          [0.011645162603744265, -0.026768782728743952]]),
            rtol=1e-13, atol=0,
        )  # fmt: skip
        assert data.ring(SDE).means[1].tolist() == pytest.approx([1.0606601717798214] * 2)

    def test_sizes_are_arguments(self):
        assert len(data.ring(SDE, k=5).weights) == 5
        assert len(data.grid(SDE, k=3).weights) == 9
        assert len(data.checkerboard(SDE, k=6).weights) == 18
        assert len(data.spiral(SDE, arms=3, k=60).weights) == 60

    @pytest.mark.parametrize("radius", [0.8, 1.4, 2.0])
    def test_the_density_is_even_along_a_curve(self, radius):
        angle = torch.linspace(0, 2 * math.pi, 500)
        circle = radius * torch.stack((angle.cos(), angle.sin()), 1)
        p = data.rings(SDE).log_prob(circle).exp()
        assert (p.max() - p.min()) / p.mean() < 0.04

    def test_the_spiral_winds_where_it_should(self):
        x = data.spiral(SDE).sample(5000)
        radius, angle = x.norm(dim=1), torch.atan2(x[:, 1], x[:, 0])
        turns = (radius - 0.3) / 1.7 * 2 - angle / (2 * math.pi)  # whole numbers on the curve
        off = (turns - turns.round()).abs() * 0.85  # in the units of x, across the curve
        assert off.square().mean().sqrt() < 0.08 and off.quantile(0.99) < 0.25

    def test_unlike_laws_differ(self):
        grid = midpoints(2, -2, 2, 0.2)[0]
        plane = [law(SDE) for law in LAWS.values() if law(SDE).sample(1).shape[1] == 2]
        values = torch.stack([density(law, grid) for law in plane])
        assert torch.pdist(values).min() > 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: data.ring(SDE, k=0), "one mean or more"),
        (lambda: data.grid(SDE, std=-0.1), "std >= 0, got 25 and -0.1"),
        (lambda: data.two_modes(SDE, std=-0.1), "deviations >= 0"),
        (lambda: data.spiral(SDE, arms=0), "got 0, 64 and 0.06"),
        (lambda: data.moons(SDE, k=0), "k >= 1"),
        (lambda: data.swiss_roll(SDE, width=-0.1), "width >= 0"),
        (lambda: data.rings(SDE, radii=(0.0, 1.0)), "radii > 0"),
        (lambda: data.checkerboard(SDE, k=0), "one box or more"),
    ],
)
def test_n14_what_is_no_distribution_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


class TestBoxes:
    @pytest.mark.parametrize("t", [1e-4, 0.02, 0.2, 1.0])
    def test_against_quadrature(self, t):
        # p_t(x) = int N(x; alpha x0, sigma^2) p(x0) dx0, box by box and coordinate by coordinate
        time = torch.tensor(t)
        alpha, sigma = SDE.alpha(time), SDE.sigma(time)
        x = BOXES.sample(20, time)
        nodes, weights = map(torch.tensor, np.polynomial.legendre.leggauss(1000))
        centre, half = 0.5 * (BOXES.lo + BOXES.hi), 0.5 * (BOXES.hi - BOXES.lo)
        x0 = centre[..., None] + half[..., None] * nodes  # (K, d, nodes)
        z = (x[:, None, :, None] - alpha * x0) / sigma
        kernel = (-0.5 * z.square()).exp() / (sigma * math.sqrt(2 * math.pi)) * weights / 2
        mass, first = kernel.sum(-1), (kernel * x0).sum(-1)  # (n, K, d)
        joint = BOXES.weights * mass.prod(2)
        torch.testing.assert_close(
            BOXES.log_prob(x, time), joint.sum(1).log(), rtol=1e-9, atol=1e-9
        )
        posterior = joint / joint.sum(1, keepdim=True)
        torch.testing.assert_close(BOXES.posterior(x, time), posterior, rtol=1e-8, atol=1e-12)
        x0_hat = (posterior[..., None] * first / mass.clamp(min=1e-300)).sum(1)
        torch.testing.assert_close(BOXES(x, time), x0_hat, rtol=1e-9, atol=1e-9)

    def test_truncated_normal_in_all_its_forms(self):
        from mpmath import erfc, exp, log, mp, mpf, pi, sqrt

        mp.dps = 60
        cases = [
            (c, h) for c in (0.0, 1e-9, 0.3, -2.0, 9.0, -60.0) for h in (1e-6, 0.1, 1.2, 40.0)
        ]
        centre, half = torch.tensor(cases).T
        log_mass, mean = truncated_normal(centre, half)
        for (c, h), got_mass, got_mean in zip(cases, log_mass, mean, strict=True):
            a, b = mpf(abs(c)) - mpf(h), mpf(abs(c)) + mpf(h)
            mass = (erfc(a / sqrt(2)) - erfc(b / sqrt(2))) / 2
            moment = (exp(-a * a / 2) - exp(-b * b / 2)) / sqrt(2 * pi) / mass
            moment = math.copysign(float(moment), c)
            assert float(got_mass) == pytest.approx(float(log(mass)), rel=1e-13, abs=1e-13)
            assert float(got_mean) == pytest.approx(moment, rel=1e-11, abs=1e-13)

    def test_float32_keeps_its_digits(self):
        for t in (1e-4, 0.02, 0.2, 1.0):
            time = torch.tensor(t)
            x = BOXES.sample(200, time)
            wide, narrow = BOXES(x, time), BOXES(x.float(), time.float()).double()
            spacing = 1e-6 / SDE.alpha(time)  # what rounding of x itself does to x0_hat
            torch.testing.assert_close(narrow, wide, rtol=1e-5, atol=float(5 * spacing))

    def test_the_denoiser_stays_in_the_hull(self):
        for t in (0.0, 1e-4, 0.1, 0.5):
            x0_hat = BOXES(30 * torch.randn(200, 2), torch.tensor(t))
            assert (x0_hat >= BOXES.lo.amin(0) - 1e-9).all()
            assert (x0_hat <= BOXES.hi.amax(0) + 1e-9).all()

    def test_the_clean_end(self):
        x, zero = (
            torch.tensor([[-1.0, 0.5], [0.6, 0.0], [3.0, 1.2], [0.0, 0.0]]),
            torch.tensor(0.0),
        )
        expected = torch.tensor([0.5 / 0.6, 0.3 / 0.4, 0.0, 0.0]).log()
        torch.testing.assert_close(BOXES.log_prob(x, zero), expected)
        torch.testing.assert_close(BOXES.log_prob(x), expected)
        x0_hat = torch.tensor([[-1.0, 0.5], [0.6, 0.0], [2.0, 1.2]])  # the nearest point
        torch.testing.assert_close(BOXES(x[:3], zero), x0_hat)
        torch.testing.assert_close(BOXES.score(x[:2], zero), torch.zeros(2, 2))

    def test_derivatives_are_finite_everywhere(self):
        x = torch.cat((BOXES.lo, BOXES.hi, 0.5 * (BOXES.lo + BOXES.hi), torch.full((1, 2), 40.0)))
        for t in (1e-6, 1e-3, 0.1, 1.0):
            score = lambda row, t=t: BOXES.score(row[None], torch.tensor(t))[0]
            jacobian = torch.func.vmap(torch.func.jacfwd(score))(x)
            assert jacobian.isfinite().all()
            torch.testing.assert_close(jacobian, jacobian.mT, rtol=1e-6, atol=1e-6)

    @pytest.mark.parametrize("sde", [CosineVPSDE(), VESDE()])
    def test_any_process(self, sde):
        law, t = data.checkerboard(sde), torch.tensor(0.2)
        x = law.sample(50, t).requires_grad_()
        (gradient,) = torch.autograd.grad(law.log_prob(x, t).sum(), x)
        torch.testing.assert_close(law.score(x, t), gradient, rtol=1e-9, atol=1e-9)

    def test_never_waits_for_the_device(self, no_sync):
        x, t = BOXES.sample(8), torch.tensor(0.3)
        with no_sync(x):
            BOXES(x, t), BOXES.score(x, t), BOXES.velocity(x, t), BOXES.log_prob(x, t)

    @pytest.mark.parametrize(
        ("lo", "hi", "weights", "message"),
        [
            ([[0.0]], [[1.0, 2.0]], [1.0], "expected corners"),
            ([[0.0]], [[1.0]], [1.0, 2.0], "expected corners"),
            ([[0.0]], [[0.0]], [1.0], "lo < hi"),
            ([[0.0]], [[1.0]], [0.0], "positive weights"),
        ],
    )
    def test_clear_errors(self, lo, hi, weights, message):
        with pytest.raises(ValueError, match=message):
            Boxes(torch.tensor(lo), torch.tensor(hi), torch.tensor(weights), SDE)


TABLE = np.array([[1000.5, 2.0], [-3.25, 4e-3], [7.0, 1e6]])


class TestLoadPoints:
    def assert_table(self, path, **options):
        points = load_points(path, **options)
        assert points.dtype == torch.float64 and points.shape == (3, 2)
        assert (points.numpy() == TABLE).all()

    def test_npy(self, tmp_path):
        np.save(tmp_path / "a.npy", TABLE)
        self.assert_table(tmp_path / "a.npy")
        self.assert_table(str(tmp_path / "a.npy"))

    @pytest.mark.parametrize("dtype", [np.float16, np.float32, np.int32, np.uint8, ">f8"])
    def test_npy_of_any_number(self, tmp_path, dtype):
        np.save(tmp_path / "a.npy", np.array([[1, 2], [3, 4]], dtype=dtype))
        assert load_points(tmp_path / "a.npy").tolist() == [[1, 2], [3, 4]]

    def test_npz(self, tmp_path):
        np.savez(tmp_path / "one.npz", points=TABLE)
        np.savez(tmp_path / "two.npz", points=TABLE, labels=np.arange(3))
        self.assert_table(tmp_path / "one.npz")
        self.assert_table(tmp_path / "two.npz", key="points")
        with pytest.raises(ValueError, match=r"one array, got \['points', 'labels'\]"):
            load_points(tmp_path / "two.npz")
        with pytest.raises(ValueError, match=r"named 'x', got \['points', 'labels'\]"):
            load_points(tmp_path / "two.npz", key="x")

    @pytest.mark.parametrize("mark", [",", ";", "\t", " ", ", ", "   "])
    @pytest.mark.parametrize("head", ["", "x{}y\n", "# made by hand, in 2024; see x\ty\n\n"])
    def test_csv(self, tmp_path, mark, head):
        rows = "\n".join(mark.join(map(repr, row)) for row in TABLE.tolist())
        (tmp_path / "a.csv").write_text(head.format(mark) + rows + "\n\n", encoding="utf-8")
        self.assert_table(tmp_path / "a.csv")

    def test_csv_as_others_write_it(self, tmp_path):
        path = tmp_path / "a.CSV"
        path.write_bytes(b'\xef\xbb\xbf"x","y, in m"\r\n' + b'"1000.5","2"\r\n-3.25,4e-3\r\n7,1E6')
        self.assert_table(path)
        np.savetxt(tmp_path / "b.txt", TABLE, header="x y")
        self.assert_table(tmp_path / "b.txt")

    def test_one_column(self, tmp_path):
        (tmp_path / "a.csv").write_text("x\n1\n2.5\n")
        assert load_points(tmp_path / "a.csv").tolist() == [[1.0], [2.5]]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "got an empty file"),
            ("# only a comment\n", "got an empty file"),
            ("x,y\n", "at least two points"),
            ("1,2\n", "at least two points"),
            ("x,y\n1,2\n3\n", "line 3: expected 2 numbers as in the rows above, got 1"),
            ("1,2\n3,4,5\n", "line 2: expected 2 numbers as in the rows above, got 3"),
            ("1,2\n3,b\n", "line 2, column 2: expected a number such as 1.5, got 'b'"),
            ("1,2\n,4\n", "line 2, column 1: expected a number such as 1.5, got ''"),
            ("1,5;2\n3;4\n", "line 1, column 1: .* got '1,5'"),
            (
                "1,2\n3,nan\n5,inf\n",
                "got 2 that are NaN or infinite, the first in row 2, column 2",
            ),
            ("1,2,3\n4,2,3\n", r"a single value in column\(s\) \[2, 3\]"),
        ],
    )
    def test_what_is_wrong_with_a_text(self, tmp_path, text, message):
        (tmp_path / "a.csv").write_text(text)
        with pytest.raises(ValueError, match=f"a.csv: .*{message}"):
            load_points(tmp_path / "a.csv")

    @pytest.mark.parametrize(
        ("array", "message"),
        [
            (np.ones(5), r"got shape \(5,\)"),
            (np.ones((2, 3, 4)), r"got shape \(2, 3, 4\)"),
            (np.ones((0, 3)), "at least two points"),
            (np.ones((3, 0)), "at least two points"),
            (np.array([["a", "b"]]), "real numbers, got an array of <U1"),
            (np.ones((3, 2), dtype=complex), "real numbers, got an array of complex128"),
            (np.ones((3, 2), dtype=bool), "real numbers, got an array of bool"),
            (np.array([[None, 1], [2, 3]]), "allow_pickle=False"),
        ],
    )
    def test_what_is_wrong_with_an_array(self, tmp_path, array, message):
        np.save(tmp_path / "a.npy", array)
        with pytest.raises(ValueError, match=message):
            load_points(tmp_path / "a.npy")

    def test_unreadable(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="nothing at"):
            load_points(tmp_path / "none.csv")
        for name in ("a.npy", "a.npz", "a.csv", "a.xlsx"):
            (tmp_path / name).write_bytes(b"PK\x03\x04\xff\xfe garbage")
            with pytest.raises(ValueError, match=name):
                load_points(tmp_path / name)
        (tmp_path / "empty.npy").write_bytes(b"")
        with pytest.raises(ValueError, match=r"empty\.npy"):
            load_points(tmp_path / "empty.npy")
        with pytest.raises(ValueError, match=r"ending in \.npy, \.npz or \.csv, got '\.xlsx'"):
            load_points(tmp_path / "a.xlsx")

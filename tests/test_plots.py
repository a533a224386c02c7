"""What the figures show is what they were given: the numbers are read back from the artists."""

import errno
import math
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from PIL import Image

from scoresde import DDIM, PFRK4, VPSDE, Ancestral, EpsDenoiser, EulerMaruyama, PFHeun, plots
from scoresde.data import LAWS, gm1, gm2, ring
from scoresde.metrics import mode_weights
from scoresde.plots.density import density_columns
from scoresde.plots.learning import smooth
from scoresde.plots.panels import density_levels, plane_density
from scoresde.plots.style import ACCENTS, THEMES, VIEWS

SDE = VPSDE()


def texts(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def dots(axes):
    """Positions of the points of all scatters of a panel."""
    return [
        c.get_offsets().data
        for c in axes.collections
        if hasattr(c, "set_sizes") and len(c.get_offsets())
    ]


# ---- the palette ------------------------------------------------------------------------------

# Machado, Oliveira and Fernandes 2009, severity 1, for linear RGB.
BLINDNESS = {
    "none": np.eye(3),
    "protan": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deutan": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritan": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


def linear(color):
    c = np.array(to_rgb(color))
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def contrast(a, b):
    """WCAG 2.1."""
    low, high = sorted(0.05 + linear(c) @ [0.2126, 0.7152, 0.0722] for c in (a, b))
    return high / low


def oklab(rgb):
    """Ottosson 2020: Euclidean distances are roughly as large as they look."""
    lms = (
        np.array(
            [
                [0.4122214708, 0.5363325363, 0.0514459929],
                [0.2119034982, 0.6806995451, 0.1073969566],
                [0.0883024619, 0.2817188376, 0.6299787005],
            ]
        )
        @ rgb
    )
    return np.array(
        [
            [0.2104542553, 0.7936177850, -0.0040720468],
            [1.9779984951, -2.4285922050, 0.4505937099],
            [0.0259040371, 0.7827717662, -0.8086757660],
        ]
    ) @ np.cbrt(lms)


@pytest.mark.parametrize("theme", THEMES.values(), ids=THEMES)
def test_colors_stand_out_on_both_backgrounds(theme):
    for color in (*ACCENTS, *(view.color for view in VIEWS.values())):
        assert contrast(color, theme.face) >= 3
    assert contrast(theme.ink, theme.face) >= 7
    assert contrast(theme.muted, theme.face) >= 4.5


@pytest.mark.parametrize("kind", BLINDNESS)
def test_views_differ_for_colour_blind_readers(kind):
    seen = [oklab(np.clip(BLINDNESS[kind] @ linear(v.color), 0, 1)) for v in VIEWS.values()]
    for i in range(3):
        assert np.linalg.norm(seen[i] - seen[i - 1]) > 0.14  # a just noticeable one is 0.02


def test_view_of():
    samplers = (Ancestral(), DDIM(1.0), EulerMaruyama(), DDIM(), PFHeun(), PFRK4())
    assert [plots.view_of(s) for s in samplers] == ["chain", "chain", "sde", "ode", "ode", "ode"]


# ---- errors against evaluations ---------------------------------------------------------------


@pytest.mark.parametrize("order", [0.5, 1, 2, 4])
def test_fit_order_of_a_power_law(order):
    n = 10 * 2.0 ** np.arange(6)
    assert plots.fit_order(n, 3 * n**-order) == pytest.approx(order, abs=1e-12)
    # early points, where the leading term does not rule yet, are not used
    assert plots.fit_order(n, 3 * n**-order * np.where(n < 50, 7, 1)) == pytest.approx(order)


def test_fit_order_leaves_out_the_floor():
    n = 10 * 2.0 ** np.arange(8)
    errors = np.maximum(n**-2.0, 1e-4)
    assert plots.fit_order(n, errors, 1e-4) == pytest.approx(2)
    assert plots.fit_order(n, errors) < 1
    assert math.isnan(plots.fit_order(n[:2], errors[:2]))


def test_convergence_shows_the_data_and_their_orders():
    n = torch.tensor([10.0, 20, 40, 80])
    curves = {"ode": (n, n**-2), "Euler": (n.tolist(), (5 / n).tolist()), "DDPM": (n, 3 / n)}
    figure = plots.convergence(
        curves,
        views={"DDPM": "chain"},
        floor=(1e-5, 1e-6),
        guides={"3/N": (n, 3 / n)},
        constants={"DDPM": 3.0},
    )
    above, below = figure.axes
    lines = {line.get_label().split(":")[0]: line for line in above.lines}
    for name, (x, y) in curves.items():
        np.testing.assert_allclose(lines[name].get_xdata(), np.asarray(x))
        np.testing.assert_allclose(lines[name].get_ydata(), np.asarray(y))
    assert lines["ode"].get_color() == VIEWS["ode"].color
    assert lines["DDPM"].get_color() == VIEWS["chain"].color
    assert lines["Euler"].get_color() in ACCENTS
    assert {"ode: order 2.00", "Euler: order 1.00", "DDPM: order 1.00", "3/N"} <= set(
        texts(figure)
    )
    band = above.patches[0]
    assert (band.get_y(), band.get_y() + band.get_height()) == pytest.approx((0.8e-5, 1.2e-5))
    assert above.get_xscale() == above.get_yscale() == "log"
    np.testing.assert_allclose(below.lines[0].get_ydata(), 3)
    assert above.get_title("left") == VIEWS["chain"].label and not above.get_title("center")


def test_convergence_leaves_out_errors_of_zero():
    figure = plots.convergence({"a": ([1, 2, 4], [0.1, 0.0, 0.01])})
    assert figure.axes[0].lines[0].get_xdata().tolist() == [1, 4]


# ---- the x-t picture --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def paths():
    return plots.walks(gm1(SDE), n=3000, steps=60)


def test_every_column_of_the_heat_map_is_a_density(paths):
    law = gm1(SDE)
    main = plots.density_xt(law, paths, cells=400, limits=(-6, 6)).axes[1]
    image = main.images[0]
    left, right, low, high = image.get_extent()
    columns = image.get_array()
    assert (left, right, low, high) == (0, 1, -6, 6) and image.origin == "lower"
    np.testing.assert_allclose(columns.sum(0) * (high - low) / 400, 1, atol=1e-8)
    t = torch.tensor(0.5 / 400)  # the first column is the law at the middle of its cell
    x = torch.linspace(-6, 6, 801)[1::2, None]
    np.testing.assert_allclose(columns[:, 0], law.log_prob(x, t).exp(), rtol=1e-6, atol=1e-30)


def test_paths_and_histograms_are_those_given(paths):
    figure = plots.density_xt(gm1(SDE), paths, show=4, limits=(-6, 6))
    assert len(figure.axes) == 12
    for row, (name, (times, states)) in enumerate(paths.items()):
        left, main, right = figure.axes[3 * row : 3 * row + 3]
        assert len(main.lines) == 4
        np.testing.assert_allclose(main.lines[2].get_xdata(), times)
        np.testing.assert_allclose(main.lines[2].get_ydata(), states[:, 2, 0])
        wanted = VIEWS[name].color if name in VIEWS else THEMES["light"].ink
        assert to_hex(main.lines[0].get_color()) == wanted
        for axes, at in ((left, times.argmin()), (right, times.argmax())):
            values, edges, _ = axes.patches[0].get_data()
            counts, _ = np.histogram(states[at, :, 0], edges)
            np.testing.assert_allclose(values, counts / (3000 * np.diff(edges)))
            assert float(values @ np.diff(edges)) == pytest.approx(1)  # none is beyond the limits


def test_histograms_know_of_what_lies_beyond():
    """Half of the states are outside: the half that is seen has an area of 1/2."""
    times, states = torch.tensor([1.0, 0.0]), torch.tensor([[0.0, 1.0, 9.0, -9.0]] * 2)
    left = plots.density_xt(gm1(SDE), {"sde": (times, states)}, limits=(-3, 3)).axes[0]
    values, edges, _ = left.patches[0].get_data()
    assert float(values @ np.diff(edges)) == pytest.approx(0.5)


def test_errors_row():
    t = [0.2, 0.6]
    errors = {"sde": (t, [1.0, 2.0]), "mmse": (torch.tensor(t), torch.tensor([0.5, 1.0]))}
    figure = plots.density_xt(gm1(SDE), {"sde": _two_points()}, errors)
    lines = {line.get_label(): line for line in figure.axes[-1].lines}
    assert lines["SDE"].get_ydata().tolist() == [1, 2] and lines["SDE"].get_linestyle() == "None"
    assert lines["mmse"].get_ydata().tolist() == [0.5, 1]


def _two_points():
    return torch.tensor([1.0, 0.0]), torch.tensor([[0.0, 1.0], [1.0, 2.0]])


def test_walks_go_there_and_back(paths):
    """All turn at the same points, which follow p_1, and return to the law of the data."""
    law, n = gm1(SDE), 3000
    turn = paths["forward"][1][-1]
    for name, (times, states) in paths.items():
        assert states.shape == (61, n, 1)
        if name != "forward":
            assert (float(times[0]), float(times[-1])) == (1, 0)
            assert torch.equal(states[0], turn)
    for states, t in (
        (turn, torch.tensor(1.0)),
        (paths["forward"][1][30], paths["forward"][0][30]),
    ):
        mean, cov = law.marginal(t)
        assert abs(float(states.mean() - mean)) < 4 * float(cov.sqrt()) / n**0.5
        assert abs(float(states.var() - cov)) < 4 * float(cov) * (2 / n) ** 0.5
    # the bias of 60 steps is below 0.06 (theory.md F); the weight of a mode has sd 0.009
    for name in VIEWS:
        weights = mode_weights(paths[name][1][-1], law)
        assert abs(float(weights[0] - 0.6)) < 0.04, name


def test_density_xt_wants_the_line():
    with pytest.raises(ValueError, match="law on the line"):
        plots.density_xt(ring(SDE))


def test_density_columns_of_two_times():
    x, t = torch.tensor([0.0, 1.0]), torch.tensor([0.1, 0.9])
    law = gm1(SDE)
    for j in range(2):
        expected = law.log_prob(x[:, None], t[j]).exp()
        torch.testing.assert_close(density_columns(law, x, t)[:, j], expected)


# ---- the plane --------------------------------------------------------------------------------


def test_levels_hold_their_share_of_a_gaussian():
    """{p > c} of N(0, I_2) holds 1 - 2 pi c."""
    axis = np.linspace(-7, 7, 701)
    density = np.exp(-0.5 * (axis[:, None] ** 2 + axis**2)) / (2 * np.pi)
    masses = (0.99, 0.9, 0.5)
    expected = [(1 - mass) / (2 * np.pi) for mass in masses]
    np.testing.assert_allclose(density_levels(density, masses), expected, rtol=0.01)


@pytest.mark.parametrize(
    "name", [n for n, law in LAWS.items() if law(SDE).sample(1).shape[1] == 2]
)
def test_contours_of_every_law(name):
    """Flat densities too: a checkerboard has an edge, and no level within."""
    law = LAWS[name](SDE)
    (axes,) = plots.compare_points(law.sample(50), law).axes
    lines = [c for c in axes.collections if hasattr(c, "levels") and not c.filled]
    assert len(lines[0].levels) == (1 if name == "checkerboard" else 3)


def test_plane_density_has_rows_along_y():
    law = gm2(SDE)
    xs, ys, density = plane_density(law, (-4, 4, -3, 5), torch.tensor(0.1), cells=50)
    expected = law.log_prob(torch.tensor([[xs[7], ys[31]]]), torch.tensor(0.1)).exp()
    assert density[31, 7] == pytest.approx(float(expected))
    assert (xs[0], ys[0]) == (-3.92, -2.92)


def test_particles_are_those_given():
    times = [1.0, 0.3, 0.0]
    states = {name: torch.randn(3, 40, 2) for name in VIEWS}
    figure = plots.particles(states, times, law=ring(SDE), show=30)
    panels = np.reshape(figure.axes, (3, 3))
    for row, (name, x) in zip(panels, states.items(), strict=True):
        assert row[0].get_ylabel() == VIEWS[name].short
        for axes, points in zip(row, x, strict=True):
            np.testing.assert_allclose(dots(axes)[0], points[:30])
    assert [axes.get_title() for axes in panels[0]] == ["$t$ = 1", "$t$ = 0.3", "$t$ = 0"]
    with pytest.raises(ValueError, match=r"expected states \(2, n, 2\)"):
        plots.particles(states, times[:2])


def test_score_field_is_minus_eps_up_to_three():
    law, t = gm2(SDE), 0.2
    (axes,) = plots.score_field(law, t, arrows=9, limits=(-8, 8, -8, 8)).axes
    (quiver,) = (c for c in axes.collections if hasattr(c, "U"))
    shown = np.stack([quiver.U, quiver.V], 1)
    push = -law.eps(torch.tensor(quiver.XY), torch.tensor(t)).numpy()
    size = np.linalg.norm(push, axis=1, keepdims=True)
    assert (size > 3).any() and (size < 3).any()
    np.testing.assert_allclose(shown, push * np.minimum(1, 3 / size), rtol=1e-10)


class Same(torch.nn.Module):
    """A network that takes everything for noise."""

    def forward(self, x, t):
        return x


def test_score_field_of_a_network():
    denoiser = EpsDenoiser(Same(), SDE)
    (axes,) = plots.score_field(denoiser, 0.2, arrows=5, limits=(-2, 2, -2, 2)).axes
    (quiver,) = (c for c in axes.collections if hasattr(c, "U"))
    np.testing.assert_allclose(np.stack([quiver.U, quiver.V], 1), -quiver.XY)
    assert not axes.images  # nothing is known of its density
    with pytest.raises(ValueError, match="expected limits"):
        plots.score_field(denoiser, 0.2)


def test_compare_points_with_a_law_and_with_data():
    x, data = torch.randn(50, 2), torch.randn(60, 2)
    figure = plots.compare_points({"ode": x, "mine": x + 1}, data, show=20)
    for axes, points in zip(figure.axes, (x, x + 1), strict=True):
        truth, generated = dots(axes)
        np.testing.assert_allclose(truth, data[:20])
        np.testing.assert_allclose(generated, points[:20])
    (axes,) = plots.compare_points(x, ring(SDE)).axes
    np.testing.assert_allclose(dots(axes)[-1], x)


def test_guidance_bars_are_mode_weights():
    law = ring(SDE)
    samples = {"without": law.sample(400), "with": law.component(3).sample(300)}
    figure = plots.guidance(samples, law, target=3)
    panels = np.reshape(figure.axes, (2, 2))
    for axes, bars, x in zip(*panels, samples.values(), strict=True):
        heights = [bar.get_height() for bar in bars.patches]
        np.testing.assert_allclose(heights, mode_weights(x, law))
        hits = int((law.posterior(x).argmax(1) == 3).sum())
        assert len(dots(axes)[-1]) == hits
        assert to_hex(bars.patches[3].get_facecolor()) == ACCENTS[0]


# ---- what a network has learned ---------------------------------------------------------------


def test_loss_by_time_subtracts_the_floor():
    t = np.linspace(0.1, 1, 5)
    figure = plots.loss_by_time(t, {"a": 2 - t, "b": 3 - t}, floor=1 - t)
    above, below = figure.axes
    np.testing.assert_allclose([line.get_ydata() for line in below.lines], [[1] * 5, [2] * 5])
    np.testing.assert_allclose(above.lines[0].get_ydata(), 1 - t)
    assert len(plots.loss_by_time(t, t).axes) == 1


def test_accuracy_by_time():
    t = [0.1, 0.5, 0.9]
    figure = plots.accuracy_by_time(t, {"noisy": [0.9, 0.5, 0.2]}, best=[1, 0.6, 0.3], classes=8)
    lines = {line.get_label(): line.get_ydata() for line in figure.axes[0].lines}
    assert list(lines["noisy"]) == [0.9, 0.5, 0.2] and list(lines["best possible"]) == [
        1,
        0.6,
        0.3,
    ]
    assert lines["guessing"][0] == 1 / 8


def test_training_curve_smooths_long_histories():
    n = np.arange(400)
    history = {"loss": (n, 2 + (-1.0) ** n), "sliced W2": ([0, 200, 399], [1.0, 0.5, 0.1])}
    loss, distance = plots.training_curve(history, floors={"sliced W2": 0.05}).axes
    np.testing.assert_allclose(loss.lines[0].get_ydata(), history["loss"][1])
    np.testing.assert_allclose(loss.lines[1].get_ydata()[4:-4], 2, atol=0.12)  # 1/9 of 9
    assert distance.lines[1].get_ydata()[0] == 0.05
    np.testing.assert_allclose(smooth(3.0 + n)[20:-20], 3.0 + n[20:-20])


def test_training_curve_of_rows():
    """Rows as ``fit`` returns them: not every quantity in every row, the first loss unknown."""
    rows = [
        {"step": 0.0, "loss": math.nan, "lr": 0.0, "seconds": 0.0, "w2": 0.9},
        {"step": 10.0, "loss": 1.0, "lr": 0.1, "seconds": 0.2},
        {"step": 20.0, "loss": 0.5, "lr": 0.1, "seconds": 0.4, "w2": 0.2},
    ]
    loss, distance = plots.training_curve(rows).axes
    assert loss.lines[0].get_xydata().tolist() == [[10, 1], [20, 0.5]]
    assert distance.lines[0].get_xydata().tolist() == [[0, 0.9], [20, 0.2]]
    assert distance.get_ylabel() == "w2"


# ---- files ------------------------------------------------------------------------------------


def test_animation_moves_and_pauses(tmp_path):
    """One panel in the chain's orange: a cloud that goes from left to right."""
    times = torch.linspace(1, 0, 25)
    x = torch.stack((torch.linspace(-2, 2, 25), torch.zeros(25)), 1)[:, None]
    states = {"chain": x + 0.2 * torch.randn(1, 200, 2), "sde": torch.randn(25, 200, 2)}
    path = plots.animation(states, times, tmp_path / "a.gif", ring(SDE), frames=12, pause=2.0)
    orange, centres, delays = 255 * np.array(to_rgb(VIEWS["chain"].color)), [], []
    with Image.open(path) as gif:
        assert gif.n_frames == 12 and gif.info["loop"] == 0
        for k in range(gif.n_frames):
            gif.seek(k)
            delays.append(gif.info["duration"])
            pixels = np.asarray(gif.convert("RGB"), float)[40:-60]  # below the title
            near = np.abs(pixels - orange).sum(2) < 60
            centres.append(np.nonzero(near)[1].mean())
    assert (np.diff(centres) > 1).all()
    assert delays[-1] == delays[0] + 2000
    assert path.stat().st_size < 300_000


def test_a_full_animation_is_small(tmp_path):
    x = torch.randn(60, 500, 2)
    states = {name: x + torch.randn(60, 500, 2) * 0.1 for name in VIEWS}
    path = plots.animation(states, torch.linspace(1, 0, 60), tmp_path / "a.gif")
    assert path.stat().st_size < 1_600_000  # nothing but change: the worst there is
    with Image.open(path) as gif:
        assert gif.n_frames == 60 and gif.width == 720


def test_animation_refuses_other_shapes(tmp_path):
    with pytest.raises(ValueError, match=r"\(5, n, 2\)"):
        plots.animation({"sde": torch.randn(4, 10, 2)}, [1, 2, 3, 4, 5], tmp_path / "a.gif")


@pytest.mark.parametrize("theme", THEMES)
def test_save(tmp_path, theme):
    figure = plots.training_curve({"loss": ([1, 2, 3], [3, 2, 1])}, theme=theme)
    first = plots.save(figure, tmp_path / "a.png").read_bytes()
    with Image.open(tmp_path / "a.png") as image:
        assert image.width == 960
        corner = image.convert("RGB").getpixel((2, 2))
        assert bytes(corner).hex() == THEMES[theme].face[1:]
    assert plots.save(figure, str(tmp_path / "b.png")).read_bytes() == first
    assert plots.save(figure, tmp_path / "a.svg").read_text().startswith("<?xml")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "a.svg", "b.png"]


def test_a_failed_save_leaves_the_earlier_file(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(b"earlier")

    def full(self, target, **_):
        target.write_bytes(b"half a fig")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", full)
    with pytest.raises(OSError, match="No space"):
        plots.save(Figure(), path)
    assert path.read_bytes() == b"earlier" and list(tmp_path.iterdir()) == [path]


def test_a_failed_animation_leaves_the_earlier_file(tmp_path, monkeypatch):
    path = tmp_path / "a.gif"
    path.write_bytes(b"earlier")

    def full(self, target, *_, **__):
        target.write_bytes(b"GIF89a")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OSError, match="No space"):
        plots.animation({"sde": torch.randn(2, 5, 2)}, [1, 0], path)
    assert path.read_bytes() == b"earlier" and list(tmp_path.iterdir()) == [path]


def test_no_global_state():
    before = dict(matplotlib.rcParams)
    plots.convergence({"a": ([1, 2], [1, 2])}, theme="dark")
    assert dict(matplotlib.rcParams) == before
    with pytest.raises(ValueError, match='"light" or "dark"'):
        plots.convergence({}, theme="solarized")
    with pytest.raises(ZeroDivisionError), plots.style.page(1.0):
        raise ZeroDivisionError
    assert dict(matplotlib.rcParams) == before


def test_pyplot_is_never_loaded(tmp_path):
    script = f"""
import sys, torch
from scoresde import VPSDE, plots
from scoresde.data import ring
assert "matplotlib" not in sys.modules
law = ring(VPSDE())
plots.save(plots.compare_points(law.sample(9), law), r"{tmp_path / "a.png"}")
plots.animation({{"sde": torch.randn(2, 5, 2)}}, [1, 0], r"{tmp_path / "a.gif"}")
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)

"""``scoresde diagnose``: a model whose error is known is found to have it, and no other."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from scoresde import DDIM, VPSDE, EpsDenoiser, log_snr, optimized, plots
from scoresde.cli import diagnose as command
from scoresde.cli import main
from scoresde.data import gauss, ring
from scoresde.diagnosis import CAUSES
from scoresde.runs import Run

SDE, SHIFT = VPSDE(), 0.5
pytestmark = pytest.mark.usefixtures("float32")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run on one Gaussian of the plane, hardly trained."""
    out = tmp_path_factory.mktemp("runs") / "gauss"
    torch.set_default_dtype(torch.float32)
    words = ["train", "--law", "gauss", "--out", str(out), "--steps", "5", "--width", "8"]
    assert main([*words, "--device", "cpu"]) == 0
    return out


class Shifted(EpsDenoiser):
    """The exact law but for its score, off by SHIFT alpha in the first coordinate."""

    def __init__(self, law):
        net = torch.nn.Module()
        away = torch.tensor([SHIFT, 0.0], dtype=torch.float64)
        net.forward = lambda x, t: law.eps(x, t) - SDE.alpha(t) * SDE.sigma(t) * away
        net.unit = torch.nn.Parameter(torch.ones((), dtype=torch.float64))
        super().__init__(net, SDE)


@pytest.fixture
def shifted(folder, monkeypatch):
    """The same run, as if that had been learned."""
    run = dataclasses.replace(Run.open(folder), denoiser=Shifted(gauss(SDE)))
    monkeypatch.setattr(command.Run, "open", lambda *_: run)
    return folder


def area(start, stop):
    """int |eps error|^2 d lam = SHIFT^2/2 (sigma^2 at the end - sigma^2 at the start)."""
    return float(SHIFT**2 / 2 * SDE.sigma2(torch.tensor([start, stop]).double()).diff())


def diagnose(folder, *words):
    tiny = ["--n", "200", "--repeats", "3", "--fine", "200", "--steps", "16", "--device", "cpu"]
    assert main(["diagnose", str(folder), *tiny, *words]) == 0
    return json.loads((folder / "diagnosis.json").read_text())


def test_a_known_error_is_found_where_it_is(shifted, capsys):
    found, out = diagnose(shifted), capsys.readouterr().out
    # eps is off by SHIFT alpha sigma: half of its square on average over two dimensions
    t = torch.tensor(found["learning"]["t"], dtype=torch.float64)
    excess = 0.5 * (SHIFT * SDE.alpha(t) * SDE.sigma(t)) ** 2
    np.testing.assert_allclose(found["learning"]["excess"], excess, rtol=1e-9)
    bound = area(SDE.t_eps, SDE.t_max)
    assert found["path KL"]["score"]["value"] == pytest.approx(bound, rel=1e-5)
    # the flow is linear: where a fine grid ends is known
    law, ts, moved = gauss(SDE), optimized(SDE, 2000), torch.zeros(2).double()
    for row in DDIM().table(SDE, ts).rows():
        t = torch.tensor(row.t).double()
        v = SDE.alpha(t) ** 2 * law.covs[0] + SDE.sigma2(t) * torch.eye(2)
        gain = SDE.alpha(t) * law.covs[0] @ torch.linalg.inv(v.double())
        push = gain @ moved + SDE.sigma2(t) * torch.tensor([SHIFT, 0.0]).double()
        moved = row.a * moved + row.b[0] * push
    for name, expected in zip(("E[x1]", "E[x2]"), moved.tolist(), strict=True):
        learned = found["contributions"][name]["learning"]["value"]
        assert learned == pytest.approx(expected, rel=0.02)
    check_sums(found)
    mean = found["contributions"]["E[x1]"]
    assert mean["truncation"]["value"] == mean["truncation"]["error"] == 0  # down to t = 0
    assert found["sliced W2"]["truncation"] == 0
    for name in (*CAUSES, "squared sliced W2", "bounds the model's reverse SDE only", "written:"):
        assert name in out


def check_sums(found):
    """What holds by construction, whatever the model."""
    for split in found["contributions"].values():
        parts = sum(split[cause]["value"] for cause in CAUSES)
        assert parts == pytest.approx(split["total"]["value"], abs=1e-9)
    near = found["sliced W2"]
    assert near["total"] <= near["sum"] == pytest.approx(sum(near[cause] for cause in CAUSES))
    squared = found["contributions"]["squared sliced W2"]["total"]["value"]
    assert squared == pytest.approx(near["total"] ** 2, rel=1e-6)


@pytest.mark.slow
def test_a_sampler_with_noise_is_compared_with_independent_data(shifted, capsys):
    found = diagnose(shifted, "--sampler", "euler-maruyama")
    check_sums(found)
    assert found["contributions"]["E[x1]"]["truncation"]["error"] > 0.01
    assert "compared with independent data" in capsys.readouterr().out


@pytest.mark.slow
def test_what_it_writes(folder):
    found = diagnose(folder)  # the network itself, which has learned nothing
    assert max(found["learning"]["excess"]) > 0.3
    page = (folder / "diagnosis.html").read_text()
    assert "http" not in page and "triangle inequality" in page and "Girsanov" in page
    names = {path.name for path in (folder / "figures").glob("diagnosis-*.png")}
    assert names == {
        f"diagnosis-{kind}-{theme}.png"
        for kind in ("ladder", "learning", "score")
        for theme in ("light", "dark")
    }


def test_points_of_a_file_have_no_exact_score(tmp_path, capsys):
    np.savetxt(tmp_path / "mine.csv", np.random.default_rng(0).normal(size=(60, 2)), delimiter=",")
    out = tmp_path / "run"
    words = ["train", "--data", str(tmp_path / "mine.csv"), "--out", str(out), "--steps", "3"]
    assert main([*words, "--width", "8", "--device", "cpu"]) == 0
    capsys.readouterr()
    assert main(["diagnose", str(out)]) == 1
    error = capsys.readouterr().err
    assert "expected a run on a named law, got one on the points of" in error
    assert "scoresde evaluate" in error and len(error.splitlines()) == 1


def test_an_error_takes_two(folder, capsys):
    assert main(["diagnose", str(folder), "--repeats", "1"]) == 1
    assert "expected --n and --repeats >= 2, got 4096 and 1" in capsys.readouterr().err


def test_an_unknown_sampler(folder, capsys):
    assert main(["diagnose", str(folder), "--sampler", "leapfrog"]) == 1
    assert "expected --sampler among recommended, ancestral" in capsys.readouterr().err


# ---- the figures show what they were given ------------------------------------------------------
def test_the_ladder_figure():
    near = dict(zip(CAUSES, (0.0, 0.1, 0.3, 0.2), strict=True))
    parts = {cause: (0.1 * k, 0.02) for k, cause in enumerate((*CAUSES, "total"))}
    figure = plots.error_ladder(near, {"the mean": parts}, 0.5, (0.2, 0.05))
    top, low = figure.axes
    assert [bar.get_width() for bar in top.patches[1:]] == [0.0, 0.1, 0.3, 0.2, 0.5]
    assert top.patches[0].get_width() == pytest.approx(0.3)  # the floor and two of its deviations
    assert "0.6" in top.get_title(loc="left") and "the mean" in low.get_title(loc="left")
    assert [bar.get_width() for bar in low.patches] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])


def test_the_area_under_the_excess_is_the_path_kl():
    t = log_snr(SDE, 2000)
    excess = (SHIFT * SDE.alpha(t) * SDE.sigma(t)) ** 2
    figure = plots.learning_by_time(SDE, t, excess, torch.ones_like(t), 1.0)
    lam, drawn = figure.axes[1].lines[0].get_data()
    assert np.trapezoid(drawn, lam) == pytest.approx(area(SDE.t_eps, SDE.t_max), rel=1e-4)


def test_the_score_error_figure():
    figure = plots.score_error(Shifted(gauss(SDE)), gauss(SDE), [0.5, 0.1])
    for axes, t in zip(figure.axes[:2], (0.5, 0.1), strict=True):
        error = SHIFT * float(SDE.alpha(torch.tensor(t)) * SDE.sigma(torch.tensor(t)))
        image = axes.images[0].get_array()
        np.testing.assert_allclose(image[~np.isnan(image)], max(error, 3e-3), rtol=1e-5)
        assert f"rms {error:.2g}" in axes.get_title()
        arrows = next(c for c in axes.collections if hasattr(c, "U"))
        np.testing.assert_allclose(arrows.U, 1, rtol=1e-9)  # towards the first axis
    with_nothing_wrong = plots.score_error(Exact(ring(SDE)), ring(SDE), [0.3])
    assert "rms 0" in with_nothing_wrong.axes[0].get_title()


class Exact(EpsDenoiser):
    """A law behind a network."""

    def __init__(self, law):
        net = torch.nn.Module()
        net.forward = law.eps
        net.unit = torch.nn.Parameter(torch.ones((), dtype=torch.float64))
        super().__init__(net, SDE)

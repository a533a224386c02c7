"""The demonstration on paths, made small; and runs about paths by the command line."""

import json
import re

import numpy as np
import pytest
import torch

from scoresde.cli import main
from scoresde.data import Kepler, OrnsteinUhlenbeck
from scoresde.data.trajectories import holds_trajectories
from scoresde.demos import trajectories
from scoresde.runs import Run, TrajectoryData
from scoresde.sde import VPSDE

pytestmark = pytest.mark.usefixtures("float32")


def _demo(folder, *words):
    options = ["--out", str(folder), "--steps", "4", "--samples", "24"]
    assert main(["demo", "trajectories", *options, *words]) == 0
    return (folder / "report.html").read_text(), json.loads((folder / "scores.json").read_text())


def _check(page, scores):
    for heading in ("Can they be told", "The other time", "From A to B", "Forecast", "Learning"):
        assert heading in page
    assert page.count("<img") == 6 and page.count("data:image/gif") == 1
    assert page.count("<source") == 5  # a dark version of every figure but the animation
    assert not re.search(r"(src|href|srcset)=\"(?!data:)", page) and "://" not in page
    assert len(page) < 8 * 2**20
    assert {"marginal W1", "path MMD"} <= {row["name"] for row in scores["metrics"]}


@pytest.mark.slow
def test_of_a_family(tmp_path, capsys):
    page, scores = _demo(tmp_path / "demo", "--device", "cpu")
    _check(page, scores)
    made, true = scores["conserved"]["energy"]
    assert true < 1e-4 < made  # four steps do not make an orbit
    assert "report.html" in capsys.readouterr().out


@pytest.mark.slow
def test_of_a_file(tmp_path):
    np.savez(tmp_path / "mine.npz", x=Kepler(length=16)(100).numpy())
    page, scores = _demo(tmp_path / "demo", "--data", str(tmp_path / "mine.npz"))
    _check(page, scores)
    assert not scores["conserved"]


@pytest.mark.gpu
@pytest.mark.slow
def test_on_a_gpu(tmp_path, monkeypatch):
    monkeypatch.setattr(trajectories, "EVALUATIONS", 12)
    _check(*_demo(tmp_path / "demo", "--device", "cuda"))


@pytest.mark.parametrize("net", ["unet", "transformer", "mlp"])
def test_a_run_about_a_family(tmp_path, net):
    folder, options = tmp_path / net, ["--steps", "2", "--width", "8", "--depth", "2"]
    words = ["train", "--family", "lissajous", "--net", net, "--out", str(folder)]
    assert main([*words, *options, "--batch", "8", "--device", "cpu"]) == 0
    run = Run.open(folder)
    assert run.config.data == TrajectoryData("lissajous")
    assert run.event == (64, 2) and run.law.event == (64, 2)
    assert main(["sample", str(folder), "--n", "3", "--steps", "2", "--device", "cpu"]) == 0
    assert np.load(folder / "samples.npy").shape == (3, 64, 2)


def test_of_points_no_unet(tmp_path, capsys):
    words = ["train", "--law", "ring", "--net", "unet", "--out", str(tmp_path)]
    assert main(words) != 0
    assert "trajectories" in capsys.readouterr().err


def test_inpainting_a_run_about_paths(tmp_path):
    words = ["train", "--family", "lissajous", "--net", "unet", "--out", str(tmp_path / "run")]
    options = ["--steps", "2", "--width", "8", "--depth", "1", "--batch", "8", "--device", "cpu"]
    assert main([*words, *options]) == 0
    out = str(tmp_path / "bridge.npz")
    known = ["--inpaint", "0=0.5,1=0.2,126=-0.5", "--steps", "8", "--n", "4", "--out", out]
    assert main(["sample", str(tmp_path / "run"), *known, "--device", "cpu"]) == 0
    assert np.load(out)["x"].shape == (4, 64, 2)


def test_what_holds_trajectories(tmp_path):
    np.save(tmp_path / "paths.npy", np.random.default_rng(0).normal(size=(30, 5, 2)))
    np.save(tmp_path / "points.npy", np.zeros((30, 2)))
    (tmp_path / "points.csv").write_text("1,2\n3,4\n")
    found = [
        holds_trajectories(tmp_path / name) for name in ("paths.npy", "points.npy", "points.csv")
    ]
    assert found == [True, False, False]
    assert not holds_trajectories(tmp_path / "nothing.npy")


class TestTrajectoryData:
    def test_draws_are_apart_and_repeatable(self):
        data = TrajectoryData("kepler", 16)
        train, held_out = data.paths(3, 20, 10)
        again, _ = data.paths(3, 20, 10)
        assert torch.equal(train, again) and train.shape == (20, 16, 2)
        assert held_out.shape == (10, 16, 2)
        assert torch.cdist(train.flatten(1), held_out.flatten(1)).min() > 1e-3

    def test_the_law_where_it_is_gaussian(self):
        law = TrajectoryData("ornstein_uhlenbeck", 8).law(VPSDE())
        expected = OrnsteinUhlenbeck(length=8).covariance.reshape(16, 16)
        torch.testing.assert_close(law.covs[0], expected)
        assert TrajectoryData("kepler").law(VPSDE()) is None

    def test_each_has_a_length_of_its_own(self):
        assert TrajectoryData("chirp").family().length == 128

    def test_refusals(self):
        with pytest.raises(ValueError, match="kepler"):
            TrajectoryData("comet")
        with pytest.raises(ValueError, match="length >= 2"):
            TrajectoryData("kepler", 1)

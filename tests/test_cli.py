"""The command line, as a user types it: runs, files, and one line for what goes wrong."""

import csv
import json
import re
import shutil

import numpy as np
import pytest
import torch

from scoresde import DDIM, log_snr, recommended, sample
from scoresde.cli import main
from scoresde.comparison import Entry, Truth, chain_entry, measure
from scoresde.data import ring
from scoresde.metrics import sliced_wasserstein
from scoresde.runs import FileData, LawData, Run, pick_device, save_points
from scoresde.sde import VPSDE

pytestmark = pytest.mark.usefixtures("float32")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on points of a csv file with mean (1000, -5) and spread (300, 0.1), barely trained."""
    folder = tmp_path_factory.mktemp("run")
    generator = np.random.default_rng(0)
    points = generator.normal([1000, -5], [300, 0.1], size=(600, 2))
    np.savetxt(folder / "mine.csv", points, delimiter=",", header="energy,width", comments="")
    torch.set_default_dtype(torch.float32)
    out = folder / "out"
    words = ["train", "--data", str(folder / "mine.csv"), "--out", str(out)]
    assert main([*words, "--steps", "150", "--width", "32", "--device", "cpu"]) == 0
    return out


def test_a_run_holds_what_was_asked_and_learned(run):
    names = {p.name for p in run.iterdir()}
    expected = {"config.json", "model.pt", "training.csv", "report.html", "held-out.npy"}
    assert expected <= names
    opened = Run.open(run)
    assert isinstance(opened.config.data, FileData) and opened.config.data.rows == 600
    assert opened.config.model.net.width == 32 and opened.config.training.steps == 150
    held_out = np.load(run / "held-out.npy", allow_pickle=False)
    assert held_out.shape == (60, 2) and abs(held_out[:, 0].mean() - 1000) < 5 * 300 / 60**0.5
    assert "http" not in (run / "report.html").read_text()


@pytest.mark.parametrize("ending", ["npy", "npz", "csv"])
def test_sample_writes_the_users_units(run, tmp_path, ending):
    path = tmp_path / f"new.{ending}"
    assert main(["sample", str(run), "--n", "300", "--out", str(path), "--device", "cpu"]) == 0
    if ending == "csv":
        x = np.loadtxt(path, delimiter=",")
    else:
        x = np.load(path, allow_pickle=False)
        x = x["x"] if ending == "npz" else x
    assert x.shape == (300, 2)
    # barely trained: the location and the order of the spread are already those of the data
    assert abs(x[:, 0].mean() - 1000) < 150 and 100 < x[:, 0].std() < 600
    assert abs(x[:, 1].mean() + 5) < 0.05 and 0.03 < x[:, 1].std() < 0.2
    opened = Run.open(run)
    sampler, ts = recommended(VPSDE(), 50)
    again = sample(opened.denoiser, sampler, (300, 2), ts, seed=0)
    np.testing.assert_allclose(x, again.numpy(), rtol=1e-5)
    assert main(["sample", str(run), "--n", "9", "--sampler", "ddim", "--out", str(path)]) == 0
    data = np.loadtxt(path, delimiter=",") if ending == "csv" else np.load(path)
    again = sample(opened.denoiser, DDIM(), (9, 2), log_snr(VPSDE(), 50), seed=0)
    np.testing.assert_allclose(data["x"] if ending == "npz" else data, again.numpy(), rtol=1e-5)


def test_compare(run, capsys):
    words = ["compare", str(run), "--steps", "8", "--chain", "10", "--n", "60", "--device", "cpu"]
    assert main(words) == 0
    out = capsys.readouterr().out
    rows = json.loads((run / "compare.json").read_text())
    assert {r["view"] for r in rows} == {"chain", "sde", "ode"} and len(rows) == 15
    for row in rows:
        assert row["sampler"] in out and row["sliced_w2"] > 0
    evaluations = {row["sampler"]: row["evaluations"] for row in rows}
    assert evaluations["DDPM chain, β"] == 10  # down to t = 0: nothing to add
    assert evaluations["DDIM, η = 0"] == 8  # seven steps, and x0_hat at the end
    assert evaluations["Heun"] == 7  # three steps of two
    assert evaluations["Adams (recommended)"] == 8  # down to t = 0 itself
    assert (run / "compare.html").exists()


def test_evaluate_against_a_file(run, tmp_path):
    path = tmp_path / "truth.npy"
    generator = torch.Generator().manual_seed(1)
    spread = torch.tensor([300.0, 0.1])
    save_points(
        path, torch.tensor([1000.0, -5]) + spread * torch.randn(400, 2, generator=generator)
    )
    words = ["evaluate", str(run), "--against", str(path), "--n", "150", "--device", "cpu"]
    assert main(words) == 0
    results = json.loads((run / "evaluation-truth.json").read_text())
    # one-dimensional W2 over the wide axis: a floor of that order, and a value not far above
    assert 5 < results["sliced W2"]["floor"] < 100
    assert results["sliced W2"]["value"] < 300
    wrong = tmp_path / "wrong.npy"
    save_points(wrong, torch.randn(40, 3))
    assert main(["evaluate", str(run), "--against", str(wrong)]) == 1


def test_a_named_law_is_compared_with_the_exact_one(tmp_path):
    out = tmp_path / "r"
    words = ["train", "--law", "two_gaussians", "--out", str(out), "--steps", "60"]
    assert main([*words, "--width", "16", "--discrete", "50", "--device", "cpu"]) == 0
    opened = Run.open(out)
    assert opened.config.data == LawData("two_gaussians") and opened.config.training.discrete == 50
    assert main(["evaluate", str(out), "--n", "200", "--device", "cpu"]) == 0
    results = json.loads((out / "evaluation.json").read_text())
    assert {"NLL gap (nats)", "modes found", "W2"} <= results.keys()
    with (out / "training.csv").open() as file:
        assert int(float(list(csv.DictReader(file))[-1]["step"])) == 60


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], None),
        (["train"], "one of --law NAME, --family NAME and --data FILE"),
        (["train", "--law", "circle"], "expected a law among"),
        (["train", "--data", "nowhere.csv"], "nothing at nowhere.csv"),
        (["train", "--law", "ring", "--device", "cuda:99"], "expected a device that is there"),
        (["train", "--law", "ring", "--discrete", "-3"], "expected --discrete >= 0"),
        (["train", "--law", "ring", "--steps", "0"], "expected --steps >= 1"),
        (["sample", "nowhere"], "expected a run in nowhere"),
        (["info", "nowhere"], "expected a run in nowhere"),
    ],
)
def test_one_line_for_what_goes_wrong(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status = main(words)
    streams = capsys.readouterr()
    if message is None:
        assert status == 0 and "usage: scoresde" in streams.out
    else:
        assert status == 1 and message in streams.err and len(streams.err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_unknown_commands(capsys):
    assert main(["fly"]) == 2 and "unknown command 'fly'" in capsys.readouterr().err
    assert main(["demo", "cats"]) == 2 and "'demo cats'" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        main(["train", "--speed", "3"])
    assert stop.value.code == 2


def test_a_bad_output_name_is_refused_before_the_work(run, capsys):
    assert main(["sample", str(run), "--out", "points.xlsx"]) == 1
    assert ".npy, .npz or .csv" in capsys.readouterr().err


def test_a_damaged_run_says_so(run, tmp_path, capsys):
    for name in ("config.json", "model.pt"):
        folder = tmp_path / name
        folder.mkdir()
        for other in ("config.json", "model.pt"):
            data = (run / other).read_bytes()
            (folder / other).write_bytes(data[: len(data) // 2] if other == name else data)
        assert main(["sample", str(folder)]) == 1
        assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_run_is_not_replaced_unless_asked(run, capsys):
    before = (run / "model.pt").read_bytes()
    words = ["train", "--data", str(run.parent / "mine.csv"), "--out", str(run), "--steps", "5"]
    assert main(words) == 1 and "--replace" in capsys.readouterr().err
    assert (run / "model.pt").read_bytes() == before


def test_replacing_drops_old_measurements_only_once_it_is_done(run, tmp_path, monkeypatch):
    folder = tmp_path / "copy"
    shutil.copytree(run, folder)
    for name in ("compare.json", "evaluation-truth.json"):
        (folder / name).write_text("{}")
    before = (folder / "model.pt").read_bytes()
    words = ["train", "--data", str(run.parent / "mine.csv"), "--out", str(folder), "--replace"]
    words += ["--steps", "5", "--width", "8", "--device", "cpu"]
    with monkeypatch.context() as patch:
        patch.setattr("scoresde.cli.train.fit", lambda *a, **k: _interrupt())
        assert main(words) == 130
    assert (folder / "model.pt").read_bytes() == before and (folder / "compare.json").exists()
    assert main(words) == 0
    assert (folder / "model.pt").read_bytes() != before
    assert not (folder / "compare.json").exists()
    assert not (folder / "evaluation-truth.json").exists()


def _interrupt():
    raise KeyboardInterrupt


def test_both_sides_of_a_comparison_have_the_same_size():
    """Points against points of the same law lie at the floor, whatever n was asked for."""
    points = torch.randn(400, 2, generator=torch.Generator().manual_seed(0))
    more = torch.randn(400, 2, generator=torch.Generator().manual_seed(1))
    for n in (50, 200, 1000):
        truth = Truth.of_points(points, n)
        assert truth.size == min(n, 200)
        value = truth.distance(sliced_wasserstein, more)
        assert abs(value - float(truth.floor.mean)) < 4 * float(truth.floor.sd)


def test_info(run, capsys):
    assert main(["info", str(run)]) == 0
    out = capsys.readouterr().out
    assert re.search(r"scoresde \d+\.\d+", out) and "model.pt" in out and "VPSDE" in out


def test_device_names():
    assert pick_device("cpu").type == "cpu"
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_scores_of_exact_samples_are_at_the_floor():
    """The exact denoiser walked finely cannot be told from the truth; a poor walk can."""
    law = ring(VPSDE())
    truth = Truth.of_law(law, 2000)
    limit = float(truth.floor.mean + 3 * truth.floor.sd)
    fine = measure(law, Entry("", "ode", DDIM(), log_snr(VPSDE(), 200)), truth)
    poor = measure(law, Entry("", "ode", DDIM(), log_snr(VPSDE(), 4)), truth)
    assert fine.sliced_w2 < limit < poor.sliced_w2
    assert fine.coverage == 1 and fine.imbalance < 8 * 0.5 * (0.11 / 2000) ** 0.5 * 5
    # DDIM narrows the modes at first order: the gap is negative, and small at 200 steps
    assert -0.2 < fine.nll_gap < 5 * fine.nll_error
    assert fine.evaluations == 201 and chain_entry(10).ts[-1] == 0


def test_sample_given_some_coordinates(run, tmp_path, capsys):
    path = tmp_path / "given.npy"
    words = ["sample", str(run), "--n", "200", "--out", str(path), "--device", "cpu"]
    assert main([*words, "--inpaint", "0=1200", "--inpaint-std", "1"]) == 0
    x = np.load(path)
    # what is known is held, to its own error; the other coordinate is still that of the data
    assert abs(x[:, 0].mean() - 1200) < 1 and x[:, 0].std() < 2
    low, middle, high = np.quantile(x[:, 1], [0.16, 0.5, 0.84])
    assert abs(middle + 5) < 0.1 and 0.05 < high - low < 0.6
    for wrong in ("0", "0=a", "2=1", "0=1,0=2"):
        assert main([*words, "--inpaint", wrong]) == 1
        assert "expected" in capsys.readouterr().err

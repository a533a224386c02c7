"""Labelled runs, as a user types them: trained with classes, and samples of the one asked for."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from scoresde.cli import main
from scoresde.cli.labels import lesson_of_file
from scoresde.data import load_trajectories, two_gaussians
from scoresde.data.trajectories import holds_trajectories
from scoresde.denoiser import EDMDenoiser
from scoresde.nets import UNet1dConfig
from scoresde.runs import Run, TrajectoryData, save_points
from scoresde.sde import VPSDE

pytestmark = pytest.mark.usefixtures("float32")
LAW = two_gaussians(VPSDE())
SHORT = ["--width", "32", "--depth", "1", "--batch", "256", "--device", "cpu"]


def train(out, *words, steps=400):
    torch.set_default_dtype(torch.float32)
    words = ["train", "--out", out, *SHORT, "--steps", steps, *words]
    assert main([str(word) for word in words]) == 0
    return out


def points(run, *words):
    assert main(["sample", str(run), "--n", "600", "--device", "cpu", *words]) == 0
    return torch.from_numpy(np.load(run / "samples.npy", allow_pickle=False)).double()


def share(run, label, *words):
    """Of the samples guided to a component of the law, those that are of it."""
    x = points(run, "--guide", str(label), *words)
    return float((LAW.posterior(x).argmax(1) == label).double().mean())


def table(n=900, seed=0):
    """Three classes at 10, 14 and 18 with spread 0.3 beside a column of another scale."""
    generator = np.random.default_rng(seed)
    y = generator.integers(0, 3, n)
    x = np.stack([10 + 4 * y + 0.3 * generator.normal(size=n), 1000 * generator.normal(size=n)], 1)
    return x, y


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The same points with labels as three files."""
    folder = tmp_path_factory.mktemp("files")
    x, y = table()
    np.savez(folder / "mine.npz", x=x, y=y)
    np.savetxt(folder / "last.csv", np.c_[x, y], delimiter=",", header="a,b,class", comments="")
    np.save(folder / "first.npy", np.c_[y, x])
    return folder


@pytest.fixture(scope="module")
def conditional(tmp_path_factory):
    return train(tmp_path_factory.mktemp("law") / "c", "--law", "two_gaussians", "--labels")


class TestNamedLaws:
    def test_by_the_network(self, conditional):
        """Its classes, dropped at the rate that is asked for, are kept with the run."""
        opened = Run.open(conditional)
        assert opened.config.model.net.classes == 2 and not opened.config.training.classifier
        assert opened.config.training.label_dropout == 0.1
        assert not (conditional / "classifier.pt").exists()
        for label in (0, 1):
            assert share(conditional, label, "--scale", "1.5") > 0.97

    def test_without_a_label_all_classes(self, conditional):
        """What label dropout is for: their weights, within 5 standard errors and the training."""
        found = LAW.posterior(points(conditional)).argmax(1).double().mean()
        expected = float(LAW.weights[1])
        assert abs(float(found) - expected) < 5 * (expected * (1 - expected) / 600) ** 0.5 + 0.05

    def test_labels_are_dropped_as_asked(self, tmp_path, monkeypatch):
        asked = {}

        def stop(*args, **options):
            asked.update(options)
            raise KeyboardInterrupt

        monkeypatch.setattr("scoresde.cli.train.fit", stop)
        words = ["train", "--law", "ring", "--out", str(tmp_path / "r"), "--device", "cpu"]
        assert main([*words, "--labels", "--label-dropout", "0.25"]) == 130
        assert asked["label_dropout"] == 0.25
        assert main([*words, "--classifier", "--replace"]) == 130 and asked["label_dropout"] == 0

    def test_by_a_classifier(self, tmp_path):
        run = train(tmp_path / "k", "--law", "two_gaussians", "--classifier")
        opened = Run.open(run)
        assert opened.config.model.net.classes == 0 and opened.config.training.classifier
        assert min(share(run, label) for label in (0, 1)) > 0.95
        # a run that replaces it must not be guided by what was learned for another
        train(run, "--law", "two_gaussians", "--replace", steps=5)
        assert not (run / "classifier.pt").exists()

    def test_old_runs_are_read(self, conditional, tmp_path):
        """Written before runs knew of labels: format 1 without these entries."""
        old = tmp_path / "old"
        shutil.copytree(conditional, old)
        config = json.loads((old / "config.json").read_text())
        for name in ("label_dropout", "classifier"):
            del config["training"][name]
        (old / "config.json").write_text(json.dumps(config))
        assert Run.open(old).config.training.label_dropout == 0.0


class TestFiles:
    @pytest.mark.parametrize(
        ("name", "words"),
        [
            ("mine.npz", ["--labels"]),
            ("last.csv", ["--classifier"]),
            ("first.npy", ["--labels", "--label-column", "0"]),
        ],
    )
    def test_each_class_in_the_users_units(self, folder, tmp_path, name, words):
        run = train(tmp_path / "r", "--data", folder / name, *words)
        assert Run.open(run).event == (2,)
        held_out = np.load(run / "held-out.npy", allow_pickle=False)
        assert held_out.shape == (90, 2)  # the labels are no coordinate
        for label in range(3):
            x = points(run, "--guide", str(label), "--scale", "1.5")
            nearest = ((x[:, 0] - 10) / 4).round().clamp(0, 2)
            assert float((nearest == label).double().mean()) > 0.9

    def test_the_split_keeps_labels_with_their_points(self, folder):
        x, y, _, source = lesson_of_file(folder / "mine.npz", -1, seed=3)
        assert len(x) == len(y) == 810 and source.rows == 900
        assert float((x[:, 0] - 10 - 4 * y).abs().max()) < 0.3 * 5


WRONG = {
    "both": (["--law", "ring", "--labels", "--classifier"], "got both"),
    "dropout": (["--law", "ring", "--labels", "--label-dropout", "1"], "0 < --label-dropout < 1"),
    "no mixture": (["--law", "checkerboard", "--labels"], "expected a law of several components"),
    "one component": (["--law", "gauss", "--classifier"], "expected a law of several components"),
    "no y": (["--data", "only-x.npz", "--labels"], "expected an array named 'y'"),
    "no file": (["--data", "nowhere.npz", "--labels"], "nothing at nowhere.npz"),
    "one column": (["--data", "thin.csv", "--labels"], "expected a column -1 of labels beside"),
    "beyond": (["--data", "table.csv", "--labels", "--label-column", "7"], "got 3 column(s)"),
    "not numbers": (["--data", "table.csv", "--labels", "--label-column", "0"], "K-1 with each"),
    "from one": (["--data", "from-one.npz", "--classifier"], "got 3 values (1, 2, 3)"),
    "a gap": (["--data", "gap.npz", "--labels"], "got 2 values (0, 2)"),
    "lengths": (["--data", "short.npz", "--labels"], "expected 900 labels (n,)"),
    "column alone": (
        ["--data", "table.csv", "--label-column", "2"],
        "expected --label-column with",
    ),
    "column of a law": (
        ["--law", "ring", "--labels", "--label-column", "2"],
        "expected --label-column with --data",
    ),
    "column of an npz": (
        ["--data", "gap.npz", "--labels", "--label-column", "2"],
        "expected --label-column with --data",
    ),
    "dropout alone": (
        ["--law", "ring", "--label-dropout", "0.2"],
        "expected --labels with --label-dropout 0.2",
    ),
    "names": (["--data", "named.npz", "--labels"], "are text (a, b, ...): number them 0, 1, 2"),
    "names in csv": (["--data", "named.csv", "--labels"], "number them 0, 1, 2"),
    "paths in npy": (
        ["--data", "paths.npy", "--labels"],
        "labels of trajectories lie in an .npz: x (n, L, C), y (n,)",
    ),
    "paths in csv": (
        ["--data", "paths.csv", "--labels"],
        "labels of trajectories lie in an .npz: x (n, L, C), y (n,)",
    ),
    "no x": (["--data", "no-x.npz"], "name the one to read 'x'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_one_line_for_what_goes_wrong(case, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    x, y = table()
    np.savez("only-x.npz", x=x)
    np.savez("from-one.npz", x=x, y=y + 1)
    np.savez("gap.npz", x=x[y != 1], y=y[y != 1])
    np.savez("short.npz", x=x, y=y[:-1])
    np.savetxt("table.csv", np.c_[x, y], delimiter=",")
    np.savetxt("thin.csv", y, delimiter=",")
    np.savez("named.npz", x=x, y=np.array(["a", "b"])[y % 2])
    Path("named.csv").write_text("1,2,cat\n2,3,dog\n", encoding="utf-8")
    np.save("paths.npy", np.random.default_rng(0).normal(size=(30, 8, 2)))
    save_points(Path("paths.csv"), torch.from_numpy(np.load("paths.npy")))
    np.savez("no-x.npz", a=x, b=y)
    before = sorted(tmp_path.iterdir())
    words, message = WRONG[case]
    assert main(["train", *words, "--device", "cpu"]) == 1
    streams = capsys.readouterr()
    assert message in streams.err and len(streams.err.splitlines()) == 1
    assert sorted(tmp_path.iterdir()) == before


def lines(n=60, length=16, seed=0):
    """Paths (n, L, 2) of two classes: lines up and lines down, at 1000 with spread 1."""
    generator = np.random.default_rng(seed)
    y = generator.integers(0, 2, n)
    slope = (2 * y - 1)[:, None, None] * np.linspace(0, 4, length)[:, None]
    return 1000 + slope + generator.normal(size=(n, 1, 2)), y


@pytest.fixture(scope="module")
def pathsy(tmp_path_factory):
    """A run on labelled paths, its file beside it."""
    folder = tmp_path_factory.mktemp("paths")
    x, y = lines()
    np.savez(folder / "pathsy.npz", x=x, y=y)
    return train(folder / "run", "--data", folder / "pathsy.npz", "--labels", steps=3)


def refused(capsys, *words):
    capsys.readouterr()
    assert main([*map(str, words), "--device", "cpu"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    return line


class TestPaths:
    def test_labels_go_to_what_is_proved_for_paths(self, pathsy):
        """The settings of ``fit_paths``, and a network that knows the classes."""
        opened = Run.open(pathsy)
        assert opened.config.model.net == UNet1dConfig(2, width=32, piece=2, classes=2)
        assert isinstance(opened.denoiser, EDMDenoiser) and opened.event == (16, 2)
        assert opened.config.training.label_dropout == 0.1
        assert opened.config.training.batch == 64

    def test_labels_and_dropout_are_taught(self, pathsy, tmp_path, monkeypatch):
        asked = {}

        def stop(x, net, **options):
            asked.update(options, x=x)
            raise KeyboardInterrupt

        monkeypatch.setattr("scoresde.cli.train.fit_paths", stop)
        words = ["train", "--data", str(pathsy.parent / "pathsy.npz"), "--out", str(tmp_path)]
        assert main([*words, "--labels", "--label-dropout", "0.3", "--device", "cpu"]) == 130
        up = asked["x"][:, -1] > asked["x"][:, 0]
        assert (up.all(1).long() == asked["labels"]).all() and asked["label_dropout"] == 0.3

    def test_a_classifier_beside(self, pathsy, tmp_path):
        data = pathsy.parent / "pathsy.npz"
        run = train(tmp_path / "k", "--data", data, "--classifier", steps=3)
        config = Run.open(run).config
        assert config.model.net == UNet1dConfig(2, width=32, piece=2)
        assert config.training.classifier and config.training.label_dropout == 0
        words = ["--n", "4", "--guide", "1", "--scale", "2", "--steps", "3", "--device", "cpu"]
        assert main(["sample", str(run), *words]) == 0
        assert np.load(run / "samples.npy").shape == (4, 16, 2)

    def test_samples_in_csv_are_read_back(self, pathsy, tmp_path, capsys):
        """As the library's own table; a header is enough to learn from it as paths."""
        words = ["sample", pathsy, "--n", 24, "--guide", 0, "--scale", 2, "--steps", 3]
        for name in ("p.csv", "p.npy"):
            command = [*words, "--out", tmp_path / name, "--device", "cpu"]
            assert main([str(word) for word in command]) == 0
            assert "24 samples of label 0 at scale 2 by" in capsys.readouterr().out
        assert (tmp_path / "p.csv").read_text().startswith("trajectory,time,x,y\n0,0,")
        expected = torch.from_numpy(np.load(tmp_path / "p.npy")).double()
        back = load_trajectories(tmp_path / "p.csv")
        torch.testing.assert_close(back, expected, rtol=1e-8, atol=0)
        run = train(tmp_path / "again", "--data", tmp_path / "p.csv", steps=3)
        assert Run.open(run).event == (16, 2) and Run.open(run).config.data.rows == 24

    @pytest.mark.parametrize(
        ("head", "found"),
        [
            ("trajectory,time,x,y", True),
            ("# two balls\n# Trajectory time x y", True),
            ('"trajectory"; "time"; "x"; "y"', True),
            ("time,trajectory,x,y", False),
            ("# two balls", False),
        ],
    )
    def test_a_csv_says_by_its_header_that_it_holds_paths(self, tmp_path, head, found):
        (tmp_path / "a.csv").write_text(f"{head}\n0,0,1,2\n0,1,3,4\n", encoding="utf-8")
        assert holds_trajectories(tmp_path / "a.csv") == found

    def test_the_times_of_a_family(self, tmp_path):
        run = train(tmp_path / "f", "--family", "kepler", steps=3)
        out = tmp_path / "f.csv"
        words = ["sample", str(run), "--n", "2", "--steps", "3", "--out", str(out)]
        assert main([*words, "--device", "cpu"]) == 0
        times = np.loadtxt(out, delimiter=",", skiprows=1)[:, 1]
        np.testing.assert_allclose(times, 2 * list(TrajectoryData("kepler").family().times), 1e-8)

    def test_evaluated_against_files(self, pathsy, tmp_path, capsys):
        """Paths, or the same flat: the same numbers; other shapes are refused."""
        x = lines(40, seed=1)[0]
        np.save(tmp_path / "paths.npy", x)
        np.save(tmp_path / "flat.npy", x.reshape(40, -1))
        for name in ("paths", "flat"):
            words = ["--against", str(tmp_path / f"{name}.npy"), "--n", "20", "--steps", "3"]
            assert main(["evaluate", str(pathsy), *words, "--device", "cpu"]) == 0
        results = [
            json.loads((pathsy / f"evaluation-{n}.json").read_text()) for n in ("paths", "flat")
        ]
        assert results[0] == results[1]
        np.save(tmp_path / "short.npy", x[:, :8])
        line = refused(capsys, "evaluate", pathsy, "--against", tmp_path / "short.npy")
        assert "expected samples of shape (16, 2), as the run's, got (8, 2)" in line

    def test_an_npz_with_labels_is_read_without_them(self, pathsy, tmp_path, folder):
        run = train(tmp_path / "p", "--data", pathsy.parent / "pathsy.npz", steps=3)
        assert Run.open(run).event == (16, 2) and Run.open(run).config.model.net.classes == 0
        run = train(tmp_path / "x", "--data", folder / "mine.npz", steps=3)
        assert Run.open(run).event == (2,)


def test_a_run_with_labels_says_how_to_ask_for_them(tmp_path, capsys):
    for k, words in enumerate((["--labels"], ["--classifier"])):
        run = train(tmp_path / str(k), "--law", "ring", *words, steps=3)
        last = capsys.readouterr().out.splitlines()[-1]
        assert last == f"labels 0..7: scoresde sample {run} --guide 3 --scale 2"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--guide", "0", "--scale", "nan"], "expected a finite --scale, got nan"),
        (["--guide", "0", "--scale", "inf"], "expected a finite --scale, got inf"),
        (["--scale", "2"], "expected --guide with --scale 2"),
    ],
)
def test_a_scale_that_cannot_be(conditional, tmp_path, capsys, words, message):
    out = tmp_path / "s.npy"
    assert message in refused(capsys, "sample", conditional, *words, "--out", out)
    assert not out.exists()

"""Labelled runs, as a user types them: trained with classes, and samples of the one asked for."""

import json
import shutil

import numpy as np
import pytest
import torch

from scoresde.cli import main
from scoresde.cli.labels import lesson_of_file
from scoresde.data import two_gaussians
from scoresde.runs import Run
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
    before = sorted(tmp_path.iterdir())
    words, message = WRONG[case]
    assert main(["train", *words, "--device", "cpu"]) == 1
    streams = capsys.readouterr()
    assert message in streams.err and len(streams.err.splitlines()) == 1
    assert sorted(tmp_path.iterdir()) == before

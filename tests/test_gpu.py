"""Every room on a CUDA device: the numbers of the CPU, on the device, and where the host waits."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import emulated
from exercises import EXERCISES, SDE, pair, points, there
from scoresde import (
    DDIM,
    Adams,
    Ancestral,
    Counted,
    PFAdaptive,
    PFHeun,
    SDEAdaptive,
    UniPC,
    log_likelihood,
    log_snr,
)
from scoresde.cli import main
from scoresde.denoiser import anchor
from scoresde.likelihood import Adaptive, Fixed

PACKAGE = Path(__file__).parents[1] / "scoresde"
REAL = torch.cuda.is_available()


def compare(found, expected, room):
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name].cpu(),
            value,
            rtol=1e-6,
            atol=1e-8,
            check_dtype=True,
            msg=lambda text, name=name: f"{room}: {name}: {text}",
        )


@pytest.mark.gpu
@pytest.mark.parametrize("room", EXERCISES)
def test_the_numbers_of_the_cpu(room):
    same, drawn = EXERCISES[room]("cpu")
    found, own = EXERCISES[room]("cuda")
    compare(found, same, room)
    assert own.keys() == drawn.keys() and all(bool(v.isfinite().all()) for v in own.values())
    if not REAL:  # the generators of real devices have streams of their own
        compare(own, drawn, room)


# ---- planted faults -----------------------------------------------------------------------------


def folders():
    """The folders of the package that hold torch; pictures and the command line only show."""
    found = {}
    for folder in sorted(p.parent for p in PACKAGE.glob("*/__init__.py")):
        text = "".join(p.read_text(encoding="utf-8") for p in folder.rglob("*.py"))
        if "import torch" in text or "from torch" in text:
            found[folder.name] = folder
    return {name: path for name, path in found.items() if name not in ("plots", "cli")}


def mixes(x):
    x.reshape(-1)[:1] + torch.ones(2, dtype=x.dtype)


def reads(x):
    x.detach().numpy()


def draws(x):
    torch.rand(2, device=x.device, generator=torch.Generator())


FAULTS = {mixes: "same device", reads: "convert cuda", draws: "device type for generator"}


class Watch:
    """Sees functions of a folder that are given a tensor or a model, and may plant a fault."""

    def __init__(self, folder, target=None, fault=None):
        self.folder, self.target, self.fault = str(folder), target, fault
        self.reached = {}  # (file, line) -> how often

    def __call__(self, frame, event, argument):
        code = frame.f_code
        outside = not code.co_filename.startswith(self.folder)
        if event != "call" or outside or code.co_name == "__init__":
            return
        given = [frame.f_locals.get(name) for name in code.co_varnames[: code.co_argcount]]
        given = [anchor(x) if isinstance(x, torch.nn.Module) else x for x in given]
        given = [x for x in given if isinstance(x, torch.Tensor) and x.is_floating_point()]
        given = [x for x in given if x.device.type == self.device and x.numel()]
        if not given:
            return
        at = (code.co_filename, code.co_firstlineno)
        self.reached[at] = self.reached.get(at, 0) + 1
        if at == self.target and not torch._C._functorch.is_functorch_wrapped_tensor(given[0]):
            self.fault(given[0])

    def run(self, room, device):
        self.device = device
        sys.setprofile(self)
        try:
            EXERCISES[room](device)
        finally:
            sys.setprofile(None)


@pytest.fixture(scope="module")
def reached():
    """Three functions of a room that are given a tensor in its exercise: first, middle, last."""
    found = {}

    def of(room):
        if room not in found:
            watch = Watch(folders()[room])
            with emulated.device():
                watch.run(room, "cuda")
            at = list(watch.reached)
            assert len(at) >= 3, f"{room}: its exercise reaches {at} alone"
            found[room] = at[0], at[len(at) // 2], at[-1]
        return found[room]

    return of


@pytest.mark.skipif(REAL, reason="about the emulated device")
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("room", folders())
def test_planted_faults_are_found(room, fault, reached):
    """On the device the exercise of the room raises; on a CPU nobody would see it."""
    target = reached(room)[list(FAULTS).index(fault)]
    folder = folders()[room]
    with emulated.device(), pytest.raises((RuntimeError, TypeError), match=FAULTS[fault]):
        Watch(folder, target, fault).run(room, "cuda")
    Watch(folder, target, fault).run(room, "cpu")


# ---- the command line ---------------------------------------------------------------------------


@pytest.mark.gpu
class TestCommandLine:
    """Every command on the card; what it writes is read on the host as well."""

    @pytest.fixture
    def points(self, tmp_path, float32):
        x = torch.randn(300, 2, generator=torch.Generator().manual_seed(0))
        y = (x[:, 0] > 0).long()
        np.savez(tmp_path / "mine.npz", x=(10 + 3 * x).numpy(), y=y.numpy())
        return tmp_path

    def run(self, *words):
        assert main([*map(str, words), "--device", "cuda"]) == 0

    def test_own_points(self, points):
        out, new = points / "run", points / "new.npy"
        small = "--steps", 4, "--batch", 32, "--width", 8
        self.run("train", "--data", points / "mine.npz", "--labels", "--out", out, *small)
        self.run("sample", out, "--n", 20, "--steps", 4, "--guide", 1, "--out", new)
        there = np.load(new)
        assert main(["sample", str(out), "--n", "20", "--steps", "4", "--guide", "1",
                     "--out", str(new), "--device", "cpu"]) == 0  # fmt: skip
        if not REAL:  # the same stream of numbers
            np.testing.assert_allclose(there, np.load(new), rtol=1e-4)
        self.run("sample", out, "--n", 8, "--steps", 4, "--inpaint", "0=9.5", "--out", new)
        assert np.load(new).shape == (8, 2)
        self.run("evaluate", out)
        self.run("compare", out, "--steps", 2, "--chain", 3, "--n", 20)
        assert len(json.loads((out / "compare.json").read_text())) == 15

    def test_a_distribution_and_whose_error_it_is(self, points):
        out = points / "ring"
        small = "--steps", 4, "--batch", 32, "--width", 8
        self.run("train", "--law", "ring", "--classifier", "--out", out, *small)
        self.run("diagnose", out, "--n", 64, "--steps", 3, "--fine", 6, "--repeats", 3)
        assert json.loads((out / "diagnosis.json").read_text())

    def test_paths(self, points):
        out, new = points / "paths", points / "paths.npy"
        small = "--steps", 2, "--batch", 8, "--width", 8, "--depth", 1
        self.run("train", "--family", "lissajous", "--net", "unet", "--out", out, *small)
        self.run("sample", out, "--n", 3, "--steps", 3, "--out", new)
        assert np.load(new).shape == (3, 64, 2)


# ---- where the host waits -----------------------------------------------------------------------


@pytest.mark.skipif(REAL, reason="counted by the emulated device")
class TestWaits:
    """A loop of fixed steps never waits; an adaptive one at most once a step that it tries."""

    @pytest.fixture
    def counted(self):
        """(waits, evaluations) of a function of a counted denoiser."""
        with emulated.device() as state:

            def count(function):
                model, x = Counted(pair("cuda")), points("cuda", 30, 2)
                function(model, x)
                before = model.calls
                state.log.clear()
                function(model, x)
                return sum(emulated.counts("wait").values()), model.calls - before

            yield count

    def test_fixed_steps(self, counted):
        for sampler in (DDIM(), Ancestral(), UniPC(3), PFHeun(), Adams()):
            found = counted(lambda m, x, s=sampler: s(m, x, log_snr(SDE, 12), there("cuda")))
            assert found[0] == 0, sampler
        waits, calls = counted(lambda m, x: log_likelihood(m, x, Fixed(16)))
        assert waits == 0 and calls > 16

    def test_the_likelihood_looks_once_a_step(self, counted):
        """Six evaluations a step, and one before the first."""
        waits, calls = counted(lambda m, x: log_likelihood(m, x, Adaptive(1e-3, 1e-3)))
        assert 0 < waits <= (calls - 1) / 6

    @pytest.mark.parametrize(("method", "stages"), [("bosh3", 3), ("dopri5", 6)])
    def test_the_adaptive_ode_looks_once_a_step(self, counted, method, stages):
        """And twice for the first step's size, once for the grid."""
        ends = torch.tensor([1.0, 1e-3])
        waits, calls = counted(lambda m, x: PFAdaptive(method=method)(m, x, ends))
        assert 0 < waits <= (calls - 2) / stages + 3

    def test_the_adaptive_sde_looks_every_eighth_step(self, counted):
        """Two evaluations a step; and it reads the ends of the grid."""
        ends = torch.tensor([1.0, 1e-3])
        waits, calls = counted(lambda m, x: SDEAdaptive()(m, x, ends, there("cuda")))
        assert 0 < waits <= 2 + calls / 2 / 8 + 1

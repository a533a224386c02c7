"""A run is a folder: what was asked, what was learned, what was measured.

    config.json    one tree of frozen dataclasses: data, model, training
    model.pt       weights, units, and the model's recipe (``scoresde.training.load`` reads it)
    classifier.pt  of noisy points, if one was trained: what `sample --guide` may use
    held-out.npy   points that were not trained on, if the data came from a file
    training.csv   the loss and what was measured on the way
    report.html    the page about it; figures/ holds its pictures

A new kind of data is one more dataclass in the union ``RunData``, nothing else.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .comparison import Truth
from .data import LAWS, TRAJECTORIES, Family, GaussianFamily, load_points, load_trajectories
from .data.trajectories import holds_trajectories
from .data.trajectories.recorded import write_table
from .denoiser import Denoiser
from .distributions import Distribution
from .files import atomically
from .sde import SDE
from .training import DenoiserConfig, from_json, load, save, to_json

__all__ = [
    "FileData",
    "LawData",
    "Run",
    "RunConfig",
    "RunData",
    "TrainingConfig",
    "TrajectoryData",
    "check_counts",
    "make_way",
    "pick_device",
    "save_points",
    "use_one_thread",
]

HELD_OUT = "held-out.npy"
CLASSIFIER = "classifier.pt"


@dataclass(frozen=True)
class LawData:
    """Samples of a named law: as many as training asks for, all fresh.

    Args:
        name: a key of ``scoresde.data.LAWS``.
    """

    name: str

    def __post_init__(self) -> None:
        """Refuse an unknown name."""
        if self.name not in LAWS:
            raise ValueError(f"expected a law among {', '.join(LAWS)}, got {self.name!r}")

    def law(self, sde: SDE) -> Distribution:
        """The exact law."""
        return LAWS[self.name](sde)


@dataclass(frozen=True)
class FileData:
    """The user's own points, one tenth of them (at most 10 000) kept out of training.

    Args:
        path: of the file they came from.
        rows: how many there were.
    """

    path: str
    rows: int


@dataclass(frozen=True)
class TrajectoryData:
    """Paths of a named family, drawn anew: a pool to train on, and others to judge by.

    Args:
        name: a key of ``scoresde.data.TRAJECTORIES``.
        length: number of times L; 0 for the family's own.
    """

    name: str
    length: int = 0

    def __post_init__(self) -> None:
        """Refuse an unknown name, and what is no length."""
        if self.name not in TRAJECTORIES:
            known = ", ".join(TRAJECTORIES)
            raise ValueError(f"expected a family among {known}, got {self.name!r}")
        self.family()

    def family(self) -> Family:
        """The family, at its default parameters."""
        family = TRAJECTORIES[self.name]
        return family(length=self.length) if self.length else family()

    def law(self, sde: SDE) -> Distribution | None:
        """The exact law of the paths where they are Gaussian, else None."""
        family = self.family()
        return family.law(sde) if isinstance(family, GaussianFamily) else None

    def paths(self, seed: int, n: int = 50_000, held_out: int = 10_000) -> tuple[Tensor, Tensor]:
        """Paths to train on, and others to judge by: (n, L, C) and (held_out, L, C)."""
        family, generator = self.family(), torch.Generator().manual_seed(seed)
        return family(n, generator), family(held_out, generator)


RunData = LawData | FileData | TrajectoryData
"""The kinds of data a run can be about."""


@dataclass(frozen=True)
class TrainingConfig:
    """How a run was trained.

    Args:
        steps: of the optimizer.
        batch: points in each.
        lr: largest learning rate.
        discrete: 0 for continuous time; N for the times i/N of a chain alone.
        seed: of everything random.
        label_dropout: share of labels shown as "no label"; of a network with classes.
        classifier: whether one was trained beside it.
    """

    steps: int
    batch: int
    lr: float
    discrete: int
    seed: int
    label_dropout: float = 0.0
    classifier: bool = False


@dataclass(frozen=True)
class RunConfig:
    """All that was asked of a run.

    Args:
        data: what to learn.
        model: process, network, parametrization.
        training: how.
        format: number of this layout.
    """

    data: RunData
    model: DenoiserConfig
    training: TrainingConfig
    format: int = 1


@dataclass(frozen=True)
class Run:
    """A trained run, opened.

    Args:
        folder: where it lies.
        config: what was asked.
        denoiser: what was learned.
    """

    folder: Path
    config: RunConfig
    denoiser: Denoiser

    @classmethod
    def open(cls, folder: Path, device: torch.device | str = "cpu") -> "Run":
        """Read a run.

        Raises:
            FileNotFoundError: if there is none in this folder.
            ValueError: if one of its files is foreign or damaged.
        """
        if not (folder / "config.json").is_file():
            raise FileNotFoundError(
                f"expected a run in {folder} (a folder with config.json), got none: "
                "make one with `scoresde train`"
            )
        text = (folder / "config.json").read_text(encoding="utf-8")
        return cls(folder, from_json(RunConfig, text), load(folder / "model.pt", device))

    def write(self) -> None:
        """Write config and model, and drop what was measured on an earlier model of this folder.

        Held-out points are written by whoever splits them off.
        """
        text = to_json(self.config)
        atomically(
            self.folder / "config.json", lambda part: part.write_text(text, encoding="utf-8")
        )
        save(self.folder / "model.pt", self.denoiser, self.config.model)
        kinds = ("compare.*", "diagnosis.*", "exact.*", "evaluation*.json", CLASSIFIER)
        for old in [path for kind in kinds for path in self.folder.glob(kind)]:
            old.unlink()

    @property
    def law(self) -> Distribution | None:
        """The exact law, where the data have a name and it is known."""
        data = self.config.data
        return None if isinstance(data, FileData) else data.law(self.denoiser.sde)

    @property
    def event(self) -> torch.Size:
        """Shape of one sample: (d,) of points, (L, C) of paths."""
        if self.denoiser.affine is not None:
            return self.denoiser.affine.mean.shape
        return torch.Size([getattr(self.config.model.net, "dim", 0)])

    def truth(self, n: int, device: torch.device) -> Truth:
        """What samples of this run are compared with: exact ones, or the held-out points."""
        if self.law is not None:
            return Truth.of_law(self.law.to(device), n)
        points = torch.from_numpy(np.load(self.folder / HELD_OUT, allow_pickle=False))
        return Truth.of_points(points.to(device), n)


def split(points: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Points to train on, and one tenth of them (at least 2, at most 10 000) to judge by."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(points), generator=generator)
    size = min(10_000, max(2, len(points) // 10))
    return points[order[size:]], points[order[:size]]


def save_points(path: Path, points: Tensor, times: Tensor | None = None) -> Path:
    """Write points (n, d) or paths (n, L, C) as .npy, .npz (array "x") or .csv, or not at all.

    The csv of paths has the columns trajectory, time, x, ... that ``load_trajectories`` reads,
    with these times (L,); 0, 1, ... if not given.
    """
    check_points_path(path)
    array = points.detach().cpu().numpy()

    def write(part: Path) -> None:
        with part.open("wb") as file:
            if path.suffix == ".npy":
                np.save(file, array, allow_pickle=False)
            elif path.suffix == ".npz":
                np.savez(file, x=array)
            elif array.ndim == 3:
                write_table(file, array, None if times is None else times.cpu().numpy())
            else:
                np.savetxt(file, array, delimiter=",", fmt="%.9g")

    return atomically(path, write)


def check_points_path(path: Path) -> None:
    """Refuse a name that says no format, before any work is done."""
    if path.suffix not in (".npy", ".npz", ".csv"):
        raise ValueError(f"expected a file ending in .npy, .npz or .csv, got {path.name!r}")


def read_points(path: Path, seed: int) -> tuple[Tensor, Tensor, FileData]:
    """Points (n, d) or paths (n, L, C) of a file: to train on, to judge by, what to remember."""
    points = load_trajectories(path) if holds_trajectories(path) else load_points(path)
    if len(points) < 20:
        raise ValueError(f"expected at least 20 points to learn from, got {len(points)} in {path}")
    train, held_out = split(points, seed)
    return train, held_out, FileData(str(path), len(points))


def pick_device(name: str = "auto") -> torch.device:
    """The device of a name; "auto" is a CUDA GPU when there is one, else the CPU."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"expected a device that is there, got {name!r} ({reason}): use auto or cpu"
        ) from None
    return device


def use_one_thread(device: torch.device) -> None:
    """Let torch work with one CPU thread, for the small networks of points.

    A second thread gains a quarter at best on operations of this size; and where another program
    wants its core, threads that wait for each other make a step ten times slower.
    """
    if device.type == "cpu":
        torch.set_num_threads(1)


def check_counts(**counts: int) -> None:
    """Refuse options that must be positive integers and are not."""
    for name, value in counts.items():
        if value < 1:
            raise ValueError(f"expected --{name} >= 1, got {value}")


def make_way(folder: Path, replace: bool) -> None:
    """Make the folder of a new run; refuse one that holds a run, unless it may be replaced."""
    if (folder / "config.json").exists() and not replace:
        raise ValueError(
            f"expected a folder without a run, got {folder}: "
            "choose another with --out, or say --replace"
        )
    folder.mkdir(parents=True, exist_ok=True)

"""Labels: which sample is of which class, as a law or a file says it, and a classifier of them.

A mixture is labelled by its components: x ~ p, then k ~ p(k | x), the joint law of both. A file
holds its labels, whole numbers 0, 1, ..., K-1, in an array y beside x (.npz) or in a column.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..data import load_points, load_trajectories
from ..data.points import read_array
from ..data.trajectories import holds_trajectories
from ..denoiser import anchor
from ..distributions import Distribution, GaussianMixture
from ..nets import Classifier
from ..runs import CLASSIFIER, FileData, Run, split
from ..training import ClassifierFit, fit_classifier, save_classifier
from ..training.config import Process

__all__ = ["Lesson", "check_asked", "lesson_of_file", "lesson_of_law", "teach_classifier"]

Draw = Callable[[int, torch.Generator], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Lesson:
    """Data with a class for each sample, as ``fit`` takes them.

    Attributes:
        data: (n, *event), or a function (n, generator) -> (x0, y) that draws them anew.
        labels: (n,) long; None where the function gives them.
        classes: how many there are.
    """

    data: Tensor | Draw
    labels: Tensor | None
    classes: int


def check_asked(
    data: Path | None, labels: bool, classifier: bool, column: int | None, dropout: float | None
) -> None:
    """Refuse options about labels that contradict each other or would do nothing."""
    if labels and classifier:
        raise ValueError(
            "expected --labels or --classifier, got both: a network with labels guides itself"
        )
    table = data is not None and data.suffix.lower() != ".npz"
    if column is not None and not (table and (labels or classifier)):
        raise ValueError(
            "expected --label-column with --data FILE.csv (or .npy) and --labels or "
            f"--classifier, got --label-column {column} without"
        )
    if dropout is not None and not labels:
        raise ValueError(f"expected --labels with --label-dropout {dropout:g}, got none")
    if dropout is not None and not 0 < dropout < 1:
        raise ValueError(f"expected 0 < --label-dropout < 1, got {dropout}")


def lesson_of_law(law: Distribution, name: str) -> Lesson:
    """Samples of a mixture with the component they are of."""
    if not isinstance(law, GaussianMixture) or len(law.weights) < 2:
        raise ValueError(
            f"expected a law of several components for --labels or --classifier, got {name}: "
            "of others nobody knows the classes"
        )

    def draw(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        x = law.to(generator.device).sample(n, generator=generator)
        return x, torch.multinomial(law.posterior(x), 1, generator=generator)[:, 0]

    return Lesson(draw, None, len(law.weights))


def lesson_of_file(path: Path, column: int, seed: int) -> tuple[Tensor, Tensor, Tensor, FileData]:
    """Samples of a file to train on, their labels, samples to judge by, and what to remember.

    Raises:
        ValueError: if the labels are missing, or no whole numbers 0, 1, ..., K-1, all in use.
    """
    x, y = _read(path, column)
    labels = _checked(y, len(x), path)
    if len(x) < 20:
        raise ValueError(f"expected at least 20 points to learn from, got {len(x)} in {path}")
    (points, held_out), (kept, _) = split(x, seed), split(labels, seed)
    return points, kept, held_out, FileData(str(path), len(x))


def _read(path: Path, column: int) -> tuple[Tensor, Tensor]:
    """Samples and their numbers, as the file has them."""
    if path.suffix.lower() != ".npz":
        if holds_trajectories(path):
            raise ValueError(
                f"expected points with a column of labels, got trajectories in {path}: labels of "
                "trajectories lie in an .npz: x (n, L, C), y (n,)"
            )
        try:
            table = load_points(path)
        except ValueError as error:
            if "expected a number" not in str(error):
                raise
            raise ValueError(f"{error} (labels that are text: number them 0, 1, 2)") from None
        if table.shape[1] < 2 or not -table.shape[1] <= column < table.shape[1]:
            raise ValueError(
                f"expected a column {column} of labels beside others, got {table.shape[1]} "
                f"column(s) in {path}: --label-column counts from 0, or from -1 for the last"
            )
        kept = [i for i in range(table.shape[1]) if i != column % table.shape[1]]
        return table[:, kept], table[:, column]
    try:
        paths = path.is_file() and read_array(path, "x").ndim == 3
        y = read_array(path, "y") if path.is_file() else np.empty(0)
    except ValueError as error:
        raise ValueError(f"{path}: {error} (x are the samples, y their labels 0, 1, 2)") from None
    if y.dtype.kind in "US":
        raise ValueError(
            f"expected labels 0, 1, ..., K-1: labels in {path} are text "
            f"({', '.join(map(str, np.unique(y)[:3]))}, ...): number them 0, 1, 2"
        )
    return load_trajectories(path, "x") if paths else load_points(path, "x"), torch.as_tensor(y)


def _checked(y: Tensor, n: int, path: Path) -> Tensor:
    """Labels 0..K-1 long, or one clear error."""
    if y.shape != (n,):
        raise ValueError(f"expected {n} labels (n,), one a sample, got {tuple(y.shape)} in {path}")
    values = y.unique()
    if len(values) < 2 or not torch.equal(values, torch.arange(len(values)).to(values)):
        shown = ", ".join(f"{v:g}" for v in values[:6].tolist())
        raise ValueError(
            f"expected labels 0, 1, ..., K-1 with each in use and K >= 2, got {len(values)} "
            f"values ({shown}{', ...' if len(values) > 6 else ''}) in {path}: number the classes "
            "from 0"
        )
    return y.long()


def teach_classifier(
    run: Run, lesson: Lesson, sde: Process, steps: int, batch: int, seed: int
) -> ClassifierFit:
    """Train a classifier of noisy samples in the model's units, and keep it with the run."""
    denoiser, data = run.denoiser, lesson.data
    like = anchor(denoiser)
    if isinstance(data, Tensor):
        data = data if denoiser.affine is None else denoiser.affine(data)
        dim = data[0].numel()
    else:
        dim = run.event.numel()
    net = Classifier(dim, lesson.classes).to(like)
    fitted = fit_classifier(
        net, sde, data, lesson.labels, steps=steps, batch=batch, seed=seed, progress="classifier"
    )
    assert isinstance(fitted.classifier, Classifier)
    save_classifier(run.folder / CLASSIFIER, fitted.classifier, sde)
    return fitted

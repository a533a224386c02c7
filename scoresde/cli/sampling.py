"""Draw samples from a run: ``scoresde sample``; of one class: ``--guide``."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro
from torch import Tensor

from ..denoiser import Denoiser, Given, anchor
from ..distributions import GaussianMixture
from ..grids import log_snr
from ..guidance import ClassifierFree, Guided, classifier_log_prob
from ..inverse import Mask, Measurement, MomentMatching
from ..runs import (
    CLASSIFIER,
    Run,
    TrajectoryData,
    check_counts,
    check_points_path,
    pick_device,
    save_points,
)
from ..samplers import Listing, Sampler, listings, sample
from ..sde import SDE
from ..training import load_classifier

__all__ = ["Sample", "choices", "plan_of"]


def choices() -> dict[str, Listing]:
    """What --sampler may say: the catalogue, those that bring their own grid first."""
    found = sorted(listings(), key=lambda one: one.plan is None)
    return {one.command: one for one in found}


def plan_of(word: str, sde: SDE, steps: int) -> tuple[Sampler, Tensor]:
    """The sampler of a word, and its own grid or one equal in log-SNR.

    Raises:
        ValueError: for a word that no sampler has.
    """
    found = choices()
    if word not in found:
        raise ValueError(f"expected --sampler among {', '.join(found)}, got {word!r}")
    own = found[word].plan
    return own(sde, steps) if own else (found[word].sampler, log_snr(sde, steps))


@dataclass(frozen=True)
class Sample:
    """Draw samples from a trained run, in the units of its data."""

    folder: Annotated[Path, tyro.conf.Positional]
    """Folder of the run."""
    n: int = 10_000
    """How many."""
    sampler: Annotated[str, tyro.conf.arg(metavar="{" + ",".join(choices()) + "}")] = "recommended"
    """How to walk; "recommended" is the most accurate for its evaluations."""
    steps: int = 50
    """Steps: evaluations of the network where recommended, else equal in log-SNR."""
    guide: int | None = None
    """A label to guide to: by the network itself if it was trained with labels, by the run's
    classifier.pt, or by the exact class probabilities where the law is a named mixture."""
    scale: float | None = None
    """Strength of the guidance: 1, if not given, is the conditional law, more sharpens it."""
    inpaint: str | None = None
    """Known coordinates, "0=1.5,3=-2" (counted from 0, in the units of the data): the others are
    drawn given these."""
    inpaint_std: float = 0.05
    """Standard deviation of what is known, in the same units."""
    seed: int = 0
    """Of the noise: sample i depends on it and on i alone."""
    out: Path | None = None
    """A .npy, .npz or .csv file; samples.npy in the run if not given."""
    device: str = "auto"
    """cpu, cuda, or auto."""

    def run(self) -> Path:
        """Sample; write the file; return its path."""
        check_counts(n=self.n, steps=self.steps)
        scale = self._scale()
        run = Run.open(self.folder, pick_device(self.device))
        path = self.out or self.folder / "samples.npy"
        check_points_path(path)
        denoiser = run.denoiser if self.guide is None else guided(run, self.guide, scale)
        sde, shape = denoiser.sde, (self.n, *run.event)
        if self.inpaint is not None:
            denoiser = inpainted(denoiser, run.event, self.inpaint, self.inpaint_std)
        sampler, grid = plan_of(self.sampler, sde, self.steps)
        x = sample(denoiser, sampler, shape, grid, seed=self.seed)
        data = run.config.data
        save_points(path, x, data.family().times if isinstance(data, TrajectoryData) else None)
        what = "" if self.guide is None else f"of label {self.guide} at scale {scale:g} "
        print(f"{self.n} samples {what}by {self.sampler} in {self.steps} steps: {path}")
        return path

    def _scale(self) -> float:
        """The strength that is asked for, checked."""
        if self.scale is None:
            return 1.0
        if self.guide is None:
            raise ValueError(
                f"expected --guide with --scale {self.scale:g}, got no label to guide to"
            )
        if not math.isfinite(self.scale):
            raise ValueError(f"expected a finite --scale, got {self.scale}: 1 to 3, say")
        return self.scale


def inpainted(denoiser: Denoiser, event: torch.Size, known: str, std: float) -> Denoiser:
    """The denoiser given some coordinates, by moment matching.

    Those of a path (L, C) are counted point by point: coordinate c at time l is number l C + c.

    Raises:
        ValueError: if "i=value,..." cannot be read, or names a coordinate twice or beyond dim.
    """
    try:
        pairs = [piece.split("=") for piece in known.split(",")]
        values = {int(index): float(value) for index, value in pairs}
    except ValueError as error:
        raise ValueError(f'expected known coordinates as "0=1.5,3=-2", got {known!r}') from error
    dim = math.prod(event)
    if len(values) < len(pairs) or not all(0 <= i < dim for i in values):
        raise ValueError(f"expected different coordinates from 0 to {dim - 1}, got {known!r}")
    device = anchor(denoiser).device
    mask = torch.tensor([i in values for i in range(dim)], device=device).reshape(event)
    y = torch.tensor([[values[i] for i in sorted(values)]], device=device)
    measurement = Measurement(Mask(mask), y, std)
    return MomentMatching(denoiser, measurement, iterations=min(len(values), 20))


def guided(run: Run, label: int, scale: float) -> Denoiser:
    """The denoiser of a run guided to a label, in whichever way the run allows.

    Raises:
        ValueError: if it allows none, or there is no such label.
    """
    model, device = run.denoiser, anchor(run.denoiser).device
    classes = getattr(run.config.model.net, "classes", 0)
    if classes:
        check_label(label, classes)
        return ClassifierFree(Given(model, y=label), Given(model, y=classes), scale)
    if (run.folder / CLASSIFIER).is_file():
        classifier = load_classifier(run.folder / CLASSIFIER, model.sde, device)
        check_label(label, classifier.classes)
        return Guided(model, classifier_log_prob(classifier, label), scale)
    law = run.law
    if not isinstance(law, GaussianMixture):
        raise ValueError(
            f"expected labels to guide to in {run.folder}, but its network was trained without, "
            f"there is no {CLASSIFIER} (scoresde train --labels, or --classifier, makes them), "
            "and its data are no named mixture"
        )
    check_label(label, len(law.weights))
    law = law.to(device)
    mode = law.component(label)
    return Guided(model, lambda x, t: mode.log_prob(x, t) - law.log_prob(x, t), scale)


def check_label(label: int, classes: int) -> None:
    """Refuse a label that does not exist."""
    if not 0 <= label < classes:
        raise ValueError(f"expected --guide 0..{classes - 1}, got {label}")

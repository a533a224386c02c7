"""Samplers compared: the same network walked as a chain, as an SDE and as an ODE, and measured.

The truth is an exact law, or points that were kept out of training. Every number stands beside
its noise floor: what the same measure gives between two exact samples of the same sizes.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from .denoiser import Denoiser, anchor
from .distributions import Distribution, GaussianMixture
from .grids import log_snr, uniform
from .metrics import Floor, floor, mode_coverage, mode_weights, nll_gap, sliced_wasserstein
from .samplers import VIEW_NAMES, Counted, Listing, Sampler, listing, listings, sample
from .samplers.sampling import Ending
from .sde import SDE, VPSDE

__all__ = [
    "Entry",
    "Score",
    "Truth",
    "chain_entry",
    "entry_of",
    "measure",
    "mode_imbalance",
    "print_table",
    "score_table",
    "view_entries",
]

Metric = Callable[[Tensor, Tensor], Tensor]
"""Distance of two samples."""


@dataclass(frozen=True)
class Entry:
    """One row of a comparison: a sampler with its grid and its ending.

    Args:
        label: its name in tables.
        view: "chain", "sde" or "ode".
        sampler: how to walk.
        ts: the grid.
        last: see ``sample``.
    """

    label: str
    view: str
    sampler: Sampler
    ts: Tensor
    last: Ending = "denoise"


@dataclass(frozen=True)
class Truth:
    """What samples are compared with: an exact law, or points never trained on.

    Both sides of every comparison have ``size`` samples, and so have both sides of its floor:
    exact against exact for a law, one half of the points against the other for points.

    Args:
        points: the reference, (m, d), in the user's units.
        law: the exact law, where it is known.
        size: samples on each side.
    """

    points: Tensor
    law: Distribution | None
    size: int

    @classmethod
    def of_law(cls, law: Distribution, n: int) -> "Truth":
        """The law, by n exact samples."""
        generator = torch.Generator(anchor(law).device).manual_seed(10_000)
        return cls(law.sample(n, generator=generator), law, n)

    @classmethod
    def of_points(cls, points: Tensor, n: int) -> "Truth":
        """Given points, compared n at a time, or half of them at a time if there are fewer."""
        return cls(points, None, max(1, min(n, len(points) // 2)))

    @cached_property
    def floor(self) -> Floor:
        """Of the sliced W2."""
        return self.floor_of(sliced_wasserstein)

    def distance(self, metric: Metric, x: Tensor, repeats: int = 4) -> float:
        """The metric between x and the truth: for points, the mean over random halves of them."""
        if self.law is not None:
            return float(metric(x[: self.size], self.points))
        values = [metric(x[: self.size], one) for one, _ in self._halves(repeats)]
        return float(torch.stack(values).mean())

    def floor_of(self, metric: Metric, repeats: int = 12) -> Floor:
        """What the metric gives between two independent sets of true points of this size."""
        if self.law is not None:
            return floor(metric, self.law, self.size, repeats=repeats, seed=10_001)
        values = torch.stack([metric(one, other) for one, other in self._halves(repeats)])
        return Floor(values.mean(), values.std())

    def _halves(self, repeats: int) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(10_000)
        for _ in range(repeats):
            order = torch.randperm(len(self.points), generator=generator).to(self.points.device)
            yield self.points[order[: self.size]], self.points[order[-self.size :]]


@dataclass(frozen=True)
class Score:
    """What a sampler achieved.

    Attributes:
        entry: the row.
        evaluations: of the denoiser for each sample.
        seconds: for all samples.
        sliced_w2: distance from the truth, in the user's units.
        nll_gap: mean negative log-likelihood minus the entropy, nats; NaN without a law.
        nll_error: its standard error.
        coverage: share of the modes that are visited; NaN unless the law is a mixture.
        imbalance: total variation between the modes' shares and their weights; NaN likewise.
    """

    entry: Entry
    evaluations: int
    seconds: float
    sliced_w2: float
    nll_gap: float = math.nan
    nll_error: float = math.nan
    coverage: float = math.nan
    imbalance: float = math.nan

    def as_dict(self) -> dict[str, Any]:
        """The numbers, for JSON and CSV."""
        numbers = {k: v for k, v in vars(self).items() if k != "entry"}
        return {"sampler": self.entry.label, "view": self.entry.view, **numbers}


def measure(denoiser: Denoiser, entry: Entry, truth: Truth, seed: int = 0) -> Score:
    """Draw ``truth.size`` samples with one sampler and measure how far they are from the truth.

    Args:
        denoiser: the model.
        entry: the sampler, its grid and its ending.
        truth: what to compare with.
        seed: of x_T and of all noise: the same for every entry.
    """
    event = truth.points.shape[1:]
    counted = Counted(denoiser)
    sample(counted, entry.sampler, (1, *event), entry.ts, seed=seed, last=entry.last)
    evaluations = counted.calls
    device = truth.points.device
    _wait(device)
    start = time.perf_counter()
    shape = (truth.size, *event)
    x = sample(denoiser, entry.sampler, shape, entry.ts, seed=seed, device=device, last=entry.last)
    _wait(device)
    seconds = time.perf_counter() - start
    numbers: dict[str, float] = {}
    x = x.to(truth.points.dtype)
    if truth.law is not None:
        gap = nll_gap(x, truth.law)
        numbers.update(nll_gap=float(gap.value), nll_error=float(gap.stderr))
    if isinstance(truth.law, GaussianMixture):
        numbers["coverage"] = float(mode_coverage(x, truth.law))
        numbers["imbalance"] = mode_imbalance(x, truth.law)
    distance = truth.distance(sliced_wasserstein, x)
    return Score(entry, evaluations, seconds, distance, **numbers)


def entry_of(found: Listing, sde: SDE, n: int, last: Ending = "denoise") -> Entry:
    """A sampler of the catalogue with n evaluations at most, on the grid that its view has here.

    A chain walks its own times i/n down to 0; what brings its own grid walks that; the others walk
    times equal in log-SNR down to t_eps.

    Args:
        found: the sampler.
        sde: the process.
        n: evaluations of the denoiser for each sample.
        last: the ending of those that stop above t = 0; "denoise" and "half" are one evaluation.
    """
    if found.plan is not None:
        return Entry(found.name, found.view, *found.plan(sde, n), "stop")
    if found.view == "chain":
        grid = uniform(max(1, n // found.cost), 1.0, 0.0)
        return Entry(found.name, "chain", found.sampler, grid, "stop")
    steps = max(1, (n - (last != "stop")) // found.cost)
    return Entry(found.name, found.view, found.sampler, log_snr(sde, steps), last)


def chain_entry(n: int, variance: str = "posterior") -> Entry:
    """The DDPM chain of n steps on its own grid i/n, down to i = 0."""
    word = "ancestral-beta" if variance == "beta" else "ancestral"
    return entry_of(listing(word), VPSDE(), n)


def view_entries(sde: SDE, steps: Sequence[int], chain_steps: Sequence[int]) -> list[Entry]:
    """The common samplers of the catalogue, at several numbers of evaluations.

    Args:
        sde: the process.
        steps: evaluations for the SDE and the ODE, at most (a step of Heun takes two).
        chain_steps: lengths of the chain.
    """
    common = [one for one in listings() if one.common]
    chains = [one for one in common if one.view == "chain" and sde.t_max == 1]
    others = [one for one in common if one.view != "chain"]
    return [
        *(entry_of(one, sde, n) for one in chains for n in chain_steps),
        *(entry_of(one, sde, n) for n in steps for one in others),
    ]


def mode_imbalance(x: Tensor, law: GaussianMixture) -> float:
    """Total variation between the shares of the modes in a sample and their weights."""
    return 0.5 * float((mode_weights(x, law) - law.weights.to(x)).abs().sum())


def _wait(device: torch.device) -> None:
    """A clock around work on a GPU must wait for it (outside of every loop)."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def score_table(truth: Truth, scores: Sequence[Score]) -> tuple[list[str], list[list[str]]]:
    """Columns and cells of a comparison, first those of exact samples; no empty column.

    Args:
        truth: gives the first row, what no sampler can improve upon (one standard deviation).
        scores: the other rows.
    """
    exact = "exact samples" if truth.law else "held-out points"
    first = {
        "sampler": f"{exact} (the floor)",
        "sliced W2": f"{float(truth.floor.mean):.3g} ± {float(truth.floor.sd):.2g}",
        "NLL gap / nats": "0" if truth.law else "",
    }
    rows = [first, *(_cells(score) for score in scores)]
    columns = [c for c in _cells(scores[0]) if any(row.get(c) for row in rows)]
    return columns, [[row.get(column, "") for column in columns] for row in rows]


def _cells(score: Score) -> dict[str, str]:
    gap = f"{score.nll_gap:+.3f} ± {score.nll_error:.3f}"
    return {
        "sampler": score.entry.label,
        "sliced W2": f"{score.sliced_w2:.3g}",
        "evaluations": str(score.evaluations),
        "view": VIEW_NAMES[score.entry.view].short,
        "NLL gap / nats": "" if math.isnan(score.nll_gap) else gap,
        "modes found": _percent(score.coverage),
        "weights off by": _percent(score.imbalance),
        "seconds": f"{score.seconds:.2f}",
    }


def _percent(share: float) -> str:
    return "" if math.isnan(share) else f"{100 * share:.1f} %"


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on the terminal, columns aligned."""
    widths = [max(len(r[k]) for r in (columns, *rows)) for k in range(len(columns))]
    for row in (columns, *rows):
        print("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip())

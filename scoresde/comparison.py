"""Samplers compared: the same network walked as a chain, as an SDE and as an ODE, and measured.

The truth is an exact law, or points that were kept out of training. Every number stands beside
its noise floor: what the same measure gives between two exact samples of the same sizes.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .denoiser import Denoiser, Wrapper
from .grids import log_snr, uniform
from .metrics import Floor, floor, mode_coverage, mode_weights, nll_gap, sliced_wasserstein
from .mixture import GaussianMixture, Law
from .samplers import (
    DDIM,
    PFRK4,
    Ancestral,
    EulerMaruyama,
    Langevin,
    PFEuler,
    PFHeun,
    PredictorCorrector,
    ReverseDiffusion,
    Sampler,
    sample,
)
from .samplers.sampling import Ending
from .sde import SDE

__all__ = [
    "SCORE_COLUMNS",
    "Entry",
    "Score",
    "Truth",
    "chain_entry",
    "floor_row",
    "measure",
    "mode_imbalance",
    "print_table",
    "score_row",
    "view_entries",
]

VIEW_NAMES = {"chain": "chain", "sde": "SDE", "ode": "ODE"}


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

    Args:
        points: the reference, (m, d), in the user's units.
        law: the exact law, where it is known.
        floor: of the sliced W2 between samples of size n and these points.
    """

    points: Tensor
    law: Law | None
    floor: Floor

    @classmethod
    def of_law(cls, law: Law, n: int, seed: int = 10_000) -> "Truth":
        """n exact samples, and the floor of sliced W2 between two such sets."""
        generator = torch.Generator(_device(law)).manual_seed(seed)
        points = law.sample(n, generator=generator)
        return cls(points, law, floor(sliced_wasserstein, law, n, repeats=12, seed=seed + 1))

    @classmethod
    def of_points(cls, points: Tensor, n: int, seed: int = 10_000) -> "Truth":
        """Given points; the floor is that between two disjoint halves of them, as many as n."""
        generator = torch.Generator().manual_seed(seed)
        size = min(n, len(points) // 2)
        values = []
        for _ in range(12):
            order = torch.randperm(len(points), generator=generator).to(points.device)
            one, other = points[order[:size]], points[order[size : 2 * size]]
            values.append(sliced_wasserstein(one, other))
        stack = torch.stack(values)
        return cls(points, None, Floor(stack.mean(), stack.std()))


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
        samples: (n, d), in the user's units.
    """

    entry: Entry
    evaluations: int
    seconds: float
    sliced_w2: float
    nll_gap: float = math.nan
    nll_error: float = math.nan
    coverage: float = math.nan
    imbalance: float = math.nan
    samples: Tensor = field(default_factory=lambda: torch.empty(0), repr=False)

    def as_dict(self) -> dict[str, Any]:
        """The numbers, for JSON and CSV."""
        numbers = {k: v for k, v in vars(self).items() if k not in ("entry", "samples")}
        return {"sampler": self.entry.label, "view": self.entry.view, **numbers}


class _Counted(Wrapper):
    """Counts the calls of a denoiser, whichever of its answers is asked for."""

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__(denoiser)
        self.calls = 0

    def forward(self, x: Tensor, t: Tensor, **cond: Any) -> Tensor:
        self.calls += 1
        return self.denoiser(x, t, **cond)

    def velocity(self, x: Tensor, t: Tensor, **cond: Any) -> Tensor:
        self.calls += 1
        return self.denoiser.velocity(x, t, **cond)


def measure(
    denoiser: Denoiser, entry: Entry, truth: Truth, n: int, seed: int = 0, keep: bool = False
) -> Score:
    """Draw n samples with one sampler and measure how far they are from the truth.

    Args:
        denoiser: the model.
        entry: the sampler, its grid and its ending.
        truth: what to compare with.
        n: number of samples.
        seed: of x_T and of all noise: the same for every entry.
        keep: whether the score holds the samples.
    """
    event = truth.points.shape[1:]
    counted = _Counted(denoiser)
    sample(counted, entry.sampler, (1, *event), entry.ts, seed, last=entry.last)
    evaluations = counted.calls
    device = truth.points.device
    _wait(device)
    start = time.perf_counter()
    x = sample(
        denoiser, entry.sampler, (n, *event), entry.ts, seed, device=device, last=entry.last
    )
    _wait(device)
    seconds = time.perf_counter() - start
    numbers: dict[str, float] = {}
    x = x.to(truth.points.dtype)
    if truth.law is not None:
        gap = nll_gap(x, truth.law)
        numbers.update(nll_gap=float(gap.value), nll_error=float(gap.error))
    if isinstance(truth.law, GaussianMixture):
        numbers["coverage"] = float(mode_coverage(x, truth.law))
        numbers["imbalance"] = mode_imbalance(x, truth.law)
    distance = float(sliced_wasserstein(x, truth.points))
    samples = x if keep else torch.empty(0)
    return Score(entry, evaluations, seconds, distance, samples=samples, **numbers)


def chain_entry(n: int, variance: str = "posterior") -> Entry:
    """The DDPM chain of n steps on its own grid i/n, down to i = 0."""
    sampler = Ancestral("beta" if variance == "beta" else "posterior")
    name = "β" if variance == "beta" else "β̃"
    return Entry(f"DDPM chain, {name}", "chain", sampler, uniform(n, 1.0, 0.0), "stop")


def view_entries(sde: SDE, steps: Sequence[int], chain_steps: Sequence[int]) -> list[Entry]:
    """Every sampler of one evaluation or more a step, at several numbers of evaluations.

    Args:
        sde: the process.
        steps: evaluations for the SDE and the ODE, each at least 4.
        chain_steps: lengths of the chain.
    """
    entries = []
    if sde.t_max == 1:
        entries += [chain_entry(n, v) for v in ("posterior", "beta") for n in chain_steps]
    grid: Callable[[int], Tensor] = lambda n: log_snr(sde, max(1, n))
    for n in steps:
        langevin = Langevin()
        entries += [
            Entry("Euler-Maruyama", "sde", EulerMaruyama(), grid(n)),
            Entry("reverse diffusion", "sde", ReverseDiffusion(), grid(n)),
            Entry(
                "predictor-corrector",
                "sde",
                PredictorCorrector(ReverseDiffusion(), langevin),
                grid(n // 2),
            ),
            Entry("DDIM, η = 1", "sde", DDIM(1.0), grid(n)),
            Entry("DDIM, η = 0.5", "sde", DDIM(0.5), grid(n)),
            Entry("DDIM, η = 0", "ode", DDIM(0.0), grid(n)),
            Entry("Euler", "ode", PFEuler(), grid(n)),
            Entry("Heun", "ode", PFHeun(), grid(n // 2)),
            Entry("Runge-Kutta 4", "ode", PFRK4(), grid(n // 4)),
        ]
    return entries


def mode_imbalance(x: Tensor, law: GaussianMixture) -> float:
    """Total variation between the shares of the modes in a sample and their weights."""
    return 0.5 * float((mode_weights(x, law) - law.weights.to(x)).abs().sum())


def _wait(device: torch.device) -> None:
    """A clock around work on a GPU must wait for it (outside of every loop)."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _device(law: Law) -> torch.device:
    return next(law.buffers(), torch.empty(0)).device


SCORE_COLUMNS = [
    "sampler",
    "view",
    "evaluations",
    "sliced W2",
    "NLL gap / nats",
    "modes found",
    "weights off by",
    "seconds",
]


def score_row(score: Score) -> list[str]:
    """The cells of one sampler."""
    gap = "" if math.isnan(score.nll_gap) else f"{score.nll_gap:+.3f} ± {score.nll_error:.3f}"
    return [
        score.entry.label,
        VIEW_NAMES[score.entry.view],
        str(score.evaluations),
        f"{score.sliced_w2:.4f}",
        gap,
        _percent(score.coverage),
        _percent(score.imbalance),
        f"{score.seconds:.2f}",
    ]


def floor_row(truth: Truth) -> list[str]:
    """The cells of exact samples: what no sampler can improve upon."""
    distance = f"{float(truth.floor.mean):.4f} ± {float(truth.floor.sd):.4f}"
    return ["exact samples (the floor)", "", "", distance, "0" if truth.law else "", "", "", ""]


def _percent(share: float) -> str:
    return "" if math.isnan(share) else f"{100 * share:.1f} %"


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on the terminal, columns aligned."""
    widths = [max(len(r[k]) for r in (columns, *rows)) for k in range(len(columns))]
    for row in (columns, *rows):
        print("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip())

"""Measure a run: ``scoresde compare`` and ``scoresde evaluate``."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro
from torch import Tensor

from .. import plots
from ..comparison import (
    Metric,
    Score,
    Truth,
    measure,
    mode_imbalance,
    print_table,
    score_table,
    view_entries,
)
from ..data import load_points, load_trajectories
from ..data.trajectories import holds_trajectories
from ..distributions import GaussianMixture
from ..files import atomically
from ..metrics import (
    energy_distance,
    kl_knn,
    mmd,
    mode_coverage,
    nll_gap,
    sliced_wasserstein,
    wasserstein,
)
from ..report import Report
from ..runs import (
    Run,
    check_counts,
    pick_device,
)
from ..samplers import recommended, sample
from .exact import BiasRow, compare_exact

__all__ = ["Compare", "Evaluate"]

METRICS: dict[str, Metric] = {
    "sliced W2": sliced_wasserstein,
    "W1": lambda x, y: wasserstein(x, y, p=1),
    "W2": lambda x, y: wasserstein(x, y, p=2),
    "energy distance": energy_distance,
    "MMD^2 (RBF)": mmd,
    "KL, 5 nearest neighbours (nats)": kl_knn,
}


@dataclass(frozen=True)
class Compare:
    """Every sampler at several numbers of steps: one table, one figure."""

    folder: Annotated[Path | None, tyro.conf.Positional] = None
    """Folder of the run; with --exact it may be left out."""
    exact: bool = False
    """Judge the samplers alone: W2 and KL without samples and without a network, on the Gaussian
    with the mean and covariance of the run's data (or of --law)."""
    law: str | None = None
    """With --exact and no run: a named law, gauss if not given."""
    out: Path | None = None
    """With --exact and no run: where to write; runs/exact-LAW if not given."""
    temperature: float | None = None
    """With --exact: the score divided by T, against p^(1/T)."""
    guidance: float | None = None
    """With --exact, for a mixture of Gaussians: classifier-free guidance of weight w (1 is the
    conditional one) towards its first component, against p^(1 - w) p(.|y)^w."""
    steps: tuple[int, ...] = ()
    """Evaluations for the SDE and the ODE; with --exact, of all. 10 20 50 100 if not given, and
    10 20 40 ... 640 with --exact, where they cost nothing."""
    chain: tuple[int, ...] = (100, 1000)
    """Lengths of the chain."""
    n: int = 4096
    """Samples with each."""
    seed: int = 0
    """Of the noise, the same for all."""
    device: str = "auto"
    """cpu, cuda, or auto."""

    def run(self) -> list[Score] | list[BiasRow]:
        """Measure; print the table; write compare.json and compare.html (or exact.*)."""
        from tqdm.auto import tqdm

        if self.exact:
            return compare_exact(
                self.folder, self.law, self.out, self.steps, self.temperature, self.guidance
            )
        alone = (self.law, self.out, self.temperature, self.guidance)
        if self.folder is None or any(option is not None for option in alone):
            raise ValueError(
                "expected the folder of a run, and --law, --out, --temperature or --guidance "
                "with --exact alone: "
                "scoresde compare RUN, or scoresde compare --exact [--law NAME]"
            )
        device = pick_device(self.device)
        steps = self.steps or (10, 20, 50, 100)
        check_counts(n=self.n, **{"steps": min(steps), "chain": min(self.chain, default=1)})
        run = Run.open(self.folder, device)
        truth = run.truth(self.n, device)
        entries = view_entries(run.denoiser.sde, steps, self.chain)
        bar = tqdm(entries, desc="samplers", unit="sampler")
        scores = [measure(run.denoiser, entry, truth, self.seed) for entry in bar]
        print(f"{truth.size} samples with each, against as many {_reference(truth)}")
        print_table(*score_table(truth, scores))
        page = self._write(run, truth, scores)
        print(f"written: {page}, and compare.json beside it")
        return scores

    def _write(self, run: Run, truth: Truth, scores: list[Score]) -> Path:
        text = json.dumps([score.as_dict() for score in scores], indent=2)
        atomically(run.folder / "compare.json", lambda p: p.write_text(text, encoding="utf-8"))
        curves: dict[str, tuple[list[float], list[float]]] = {}
        views = {}
        for score in scores:
            label = score.entry.label
            x, y = curves.setdefault(label, ([], []))
            x.append(float(score.evaluations))
            y.append(score.sliced_w2)
            views[label] = score.entry.view
        floor = (float(truth.floor.mean), float(truth.floor.sd))
        labels = ("denoiser evaluations", "sliced W2", "")
        pair = plots.save_themes(
            run.folder / "figures" / "compare",
            lambda theme: plots.convergence(curves, views, floor, labels=labels, theme=theme),
        )
        report = Report(
            f"Samplers of {run.folder.name}",
            f"{truth.size} samples with each, against as many {_reference(truth)}.",
        )
        report.figure(
            pair[0],
            "Error against evaluations; the band is its floor, two standard deviations wide.",
            dark=pair[1],
        )
        report.table(*score_table(truth, scores), rules=[1])
        return report.write(run.folder / "compare.html", f"Made by scoresde, seed {self.seed}.")


@dataclass(frozen=True)
class Evaluate:
    """Distances of a run's samples from the truth, each beside its noise floor."""

    folder: Annotated[Path, tyro.conf.Positional]
    """Folder of the run."""
    against: Path | None = None
    """Points, or trajectories, to compare with; the exact law, or what was held out, if not
    given."""
    n: int = 2000
    """Samples drawn; exact transport costs n^2."""
    steps: int = 100
    """Evaluations of the network for each sample, by the recommended sampler."""
    seed: int = 0
    """Of the noise."""
    device: str = "auto"
    """cpu, cuda, or auto."""

    def run(self) -> dict[str, dict[str, float]]:
        """Measure; print; write evaluation.json; return name -> value and floor."""
        device = pick_device(self.device)
        check_counts(n=self.n, steps=self.steps)
        run = Run.open(self.folder, device)
        truth = self._truth(run, device)
        shape = (truth.size, *truth.points.shape[1:])
        plan = recommended(run.denoiser.sde, self.steps)
        x = sample(run.denoiser, plan.sampler, shape, plan.ts, seed=self.seed, device=device)
        x = x.to(truth.points)
        results = {name: _with_floor(metric, x, truth) for name, metric in METRICS.items()}
        results |= _by_law(x, truth)
        print(
            f"{truth.size} samples ({self.steps} evaluations each) against as many "
            f"{self.against or _reference(truth)}; unbiased estimates may be negative"
        )
        print_table(
            ["metric", "value", "floor (true against true)"],
            [_line(name, entry) for name, entry in results.items()],
        )
        suffix = f"-{self.against.stem}" if self.against else ""
        path = self.folder / f"evaluation{suffix}.json"
        text = json.dumps({"size": truth.size, **results}, indent=2)
        atomically(path, lambda part: part.write_text(text, encoding="utf-8"))
        print(f"written: {path}")
        return results

    def _truth(self, run: Run, device: torch.device) -> Truth:
        if self.against is None:
            return run.truth(self.n, device)
        load = load_trajectories if holds_trajectories(self.against) else load_points
        points, event = load(self.against), run.event
        if points.shape[1:] not in (event, (event.numel(),)):
            raise ValueError(
                f"expected samples of shape {tuple(event)}, as the run's, got "
                f"{tuple(points.shape[1:])} in {self.against}"
            )
        return Truth.of_points(points.reshape(-1, *event).to(device), self.n)


def _reference(truth: Truth) -> str:
    return "exact samples" if truth.law else f"of {len(truth.points)} held-out points"


def _with_floor(metric: Metric, x: Tensor, truth: Truth) -> dict[str, float]:
    limit = truth.floor_of(metric, repeats=5)
    value = truth.distance(metric, x)
    return {"value": value, "floor": float(limit.mean), "floor_sd": float(limit.sd)}


def _by_law(x: Tensor, truth: Truth) -> dict[str, dict[str, float]]:
    """What can be said only where the law is known; the exact values are 0, 1 and 0."""
    if truth.law is None:
        return {}
    gap = nll_gap(x, truth.law)
    results = {
        "NLL gap (nats)": {"value": float(gap.value), "floor": 0.0, "floor_sd": float(gap.stderr)}
    }
    if isinstance(truth.law, GaussianMixture):
        both = x, truth.points[: len(x)]
        found = [float(mode_coverage(v, truth.law)) for v in both]
        off = [mode_imbalance(v, truth.law) for v in both]
        for name, (value, exact) in (("modes found", found), ("mode weights off by", off)):
            results[name] = {"value": value, "floor": exact, "floor_sd": 0.0}
    return results


def _line(name: str, entry: Mapping[str, float]) -> list[str]:
    return [name, f"{entry['value']:.4g}", f"{entry['floor']:.4g} ± {entry['floor_sd']:.2g}"]

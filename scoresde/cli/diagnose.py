"""Which error is whose: ``scoresde diagnose``."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
import tyro
from torch import Tensor

from .. import plots
from ..comparison import Truth, print_table
from ..denoiser import Denoiser
from ..diagnosis import CAUSES, Split, climb, contributions, distances
from ..distributions import Distribution
from ..estimate import Estimate
from ..files import atomically
from ..grids import log_snr
from ..losses import excess_loss, irreducible_loss
from ..metrics import Floor
from ..physics import PathKL, path_kl
from ..report import Report
from ..runs import FileData, LawData, Run, check_counts, pick_device
from ..samplers import Sampler
from .sampling import choices, plan_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Diagnose", "Findings"]

FIELD_TIMES = (0.7, 0.3, 0.1, 0.02)
ORDER = (
    "The ladder, in this order: exact data; the exact score on a fine grid, stopped where the "
    "user's grid stops (truncation); the same from the prior (prior mismatch); the network on the "
    "fine grid (learning); the network on the user's grid (discretisation). Another order would "
    "share the same total differently."
)
BOUND = (
    "Girsanov: KL(p || the SDE's samples) at t_eps is at most KL(p_T || prior) + 1/2 int g^2 "
    "E|s - s_m|^2 dt. It bounds the model's reverse SDE only, in continuous time; the "
    "probability-flow ODE carries the same error of the score further and can exceed it."
)


@dataclass(frozen=True)
class Findings:
    """What was found about one run and one sampler.

    Attributes:
        splits: observable -> its parts.
        near: sliced W2 between neighbouring laws, (4,).
        whole: sliced W2 from the data to the last law, ().
        floor: sliced W2 between exact samples of the same size.
        ts: times of the learning error, (T,), from noise to data.
        least: the irreducible eps loss per dimension at these times.
        excess: the network's, over it.
        bound: path KL of the SDE.
    """

    splits: dict[str, Split]
    near: Tensor
    whole: Tensor
    floor: Floor
    ts: Tensor
    least: Estimate
    excess: Estimate
    bound: PathKL

    def as_dict(self) -> dict[str, Any]:
        """All numbers, for JSON."""
        return {
            "contributions": {
                name: {"data": float(split.data)}
                | {cause: _pair(part) for cause, part in _named(split).items()}
                for name, split in self.splits.items()
            },
            "sliced W2": dict(zip(CAUSES, self.near.tolist(), strict=True))
            | {"sum": float(self.near.sum()), "total": float(self.whole)},
            "floor": {"mean": float(self.floor.mean), "sd": float(self.floor.sd)},
            "learning": {
                "t": self.ts.tolist(),
                "least": self.least.value.tolist(),
                "excess": self.excess.value.tolist(),
                "excess_error": self.excess.stderr.tolist(),
            },
            "path KL": {
                "prior": _pair(self.bound.prior),
                "score": _pair(self.bound.score),
                "total": _pair(self.bound.total),
            },
        }


@dataclass(frozen=True)
class Diagnose:
    """Whose error is it: the grid's end, the prior's, the network's or the sampler's?"""

    folder: Annotated[Path, tyro.conf.Positional]
    """Folder of a run on a named law (scoresde train --law NAME)."""
    sampler: Annotated[str, tyro.conf.arg(metavar="{" + ",".join(choices()) + "}")] = "recommended"
    """How to walk."""
    steps: int = 50
    """Steps: evaluations of the network where recommended, else equal in log-SNR."""
    n: int = 4096
    """Samples of each law, at least 2."""
    fine: int = 500
    """Steps of the fine grid, which stands for no discretisation."""
    repeats: int = 50
    """Resamplings of the bootstrap, at least 2."""
    seed: int = 0
    """Of the samples, the noise and the bootstrap."""
    device: str = "auto"
    """cpu, cuda, or auto."""

    def run(self) -> Findings:
        """Measure; print the tables; write diagnosis.json, diagnosis.html and figures."""
        device = pick_device(self.device)
        check_counts(steps=self.steps, fine=self.fine)
        if self.fine < 2 * self.steps:
            raise ValueError(
                f"expected --fine of at least twice --steps, since it stands for no "
                f"discretisation, got {self.fine} and {self.steps}"
            )
        if min(self.n, self.repeats) < 2:
            raise ValueError(f"expected --n and --repeats >= 2, got {self.n} and {self.repeats}")
        run = Run.open(self.folder, device)
        law = exact_law(run).to(device)
        sampler, ts = plan_of(self.sampler, run.denoiser.sde, self.steps)
        found = self._measure(run.denoiser, law, sampler, ts)
        head = (
            f"{self.folder.name}: {self.sampler}, {len(ts) - 1} steps from t = {float(ts[0]):.3g} "
            f"to {float(ts[-1]):.3g}; {self.n} samples of each law"
        )
        _print(head, found, sampler.noise)
        page = self._write(run, law.cpu(), found, head)
        print(f"written: {page}, diagnosis.json beside it, figures/diagnosis-*.png")
        return found

    def _measure(
        self, model: Denoiser, law: Distribution, sampler: Sampler, ts: Tensor
    ) -> Findings:
        walks = 5 - sampler.noise  # without noise the data are walked to as well
        with _progress(walks + 4) as watch:
            ladder = climb(model, law, sampler, ts, self.n, self.fine, self.seed, watch=watch)
            watch("bootstrap")
            splits = contributions(ladder, self.repeats, self.seed)
            near, whole = distances(ladder)
            watch("noise floor")
            floor = Truth.of_law(law, self.n).floor
            watch("learning, by time")
            g = torch.Generator(ladder.rungs[0].device).manual_seed(self.seed)
            times = log_snr(law.sde, 40)
            least = irreducible_loss(law, times, self.n, g)
            excess = excess_loss(model, law, times, self.n, g)
            watch("path KL")
            bound = path_kl(model, law, generator=g)
        return Findings(splits, near, whole, floor, times, least, excess, bound)

    def _write(self, run: Run, law: Distribution, found: Findings, head: str) -> Path:
        text = json.dumps({"what": head, **found.as_dict()}, indent=2)
        atomically(run.folder / "diagnosis.json", lambda p: p.write_text(text, encoding="utf-8"))
        stem = run.folder / "figures" / "diagnosis"
        report = Report(f"Errors of {run.folder.name}, told apart", head + ".")
        report.section("What each cause adds", ORDER)
        pair = plots.save_themes(f"{stem}-ladder", lambda theme: _ladder_figure(found, theme))
        caption = "Distances from law to law, and signed contributions to two observables."
        report.figure(pair[0], caption, dark=pair[1])
        report.table(*contribution_table(found), rules=[len(found.splits) - 1])
        report.text("Distances do not cancel: their sum bounds the total (triangle inequality).")
        report.table(*distance_table(found))
        report.section("What is not yet learned", BOUND)
        dim = law.event.numel()
        area = float(found.bound.score.value)
        over, least = found.excess.value * dim, found.least.value * dim
        pair = plots.save_themes(
            f"{stem}-learning",
            lambda theme: plots.learning_by_time(law.sde, found.ts, over, least, area, theme),
        )
        report.figure(pair[0], "Excess loss by time; its area is in nats.", dark=pair[1])
        report.table(*bound_table(found))
        report.table(*learning_table(found))
        if law.event == (2,):
            model = run.denoiser
            pair = plots.save_themes(
                f"{stem}-score",
                lambda theme: plots.score_error(model, law, FIELD_TIMES, theme=theme),
            )
            caption = "Where the score is wrong: size (colour) and direction (arrows) of it."
            report.figure(pair[0], caption, dark=pair[1])
        return report.write(run.folder / "diagnosis.html", f"Made by scoresde, seed {self.seed}.")


def exact_law(run: Run) -> Distribution:
    """The law a run was trained on.

    Raises:
        ValueError: if its data came from a file, or are trajectories.
    """
    law, data = run.law, run.config.data
    if law is None or not isinstance(data, LawData):
        source = f"points of {data.path}" if isinstance(data, FileData) else data.name
        raise ValueError(
            f"expected a run on a named law, got one on the {source}, in units of its own: "
            "train with --law NAME, or measure this run with `scoresde evaluate`"
        )
    return law


@contextmanager
def _progress(stages: int) -> Iterator[Callable[[str], None]]:
    """A bar that names the stage being worked on."""
    from tqdm.auto import tqdm

    with tqdm(total=stages, unit="stage") as bar:

        def watch(name: str) -> None:
            if bar.desc:
                bar.update()
            bar.set_description(name)

        yield watch
        bar.update()


def _pair(estimate: tuple[Tensor, Tensor]) -> dict[str, float]:
    return {"value": float(estimate[0]), "error": float(estimate[1])}


def _named(split: Split) -> dict[str, tuple[Tensor, Tensor]]:
    return dict(zip((*CAUSES, "total"), (*split.parts, split.total), strict=True))


def contribution_table(found: Findings) -> tuple[list[str], list[list[str]]]:
    """Observable, its value on exact data, what each cause adds, and the sum."""
    rows = [
        [name, f"{float(split.data):.4g}"]
        + [f"{float(part[0]):+.2g} ± {float(part[1]):.1g}" for part in _named(split).values()]
        for name, split in found.splits.items()
    ]
    return ["observable", "exact data", *CAUSES, "total"], rows


def distance_table(found: Findings) -> tuple[list[str], list[list[str]]]:
    """Sliced W2 between neighbouring laws, their sum, and what it bounds."""
    values = [*found.near.tolist(), float(found.near.sum()), float(found.whole)]
    floor = f"{float(found.floor.mean):.2g} ± {float(found.floor.sd):.1g}"
    row = ["sliced W2", *(f"{value:.3g}" for value in values), floor]
    return ["distance", *CAUSES, "sum", "from the data (≤ sum)", "noise floor"], [row]


def bound_table(found: Findings) -> tuple[list[str], list[list[str]]]:
    """The two parts of the path KL."""
    parts = [found.bound.prior, found.bound.score, found.bound.total]
    cells = [
        f"{float(e.value):.3g}" + (f" ± {float(e.stderr):.1g}" if e.stderr else "") for e in parts
    ]
    return ["nats", "prior", "score", "path KL"], [["bound on the SDE model", *cells]]


def learning_table(found: Findings) -> tuple[list[str], list[list[str]]]:
    """A few times: the least loss, and the excess over it."""
    rows = []
    for k in range(0, len(found.ts), 5):
        least, over = float(found.least.value[k]), float(found.excess.value[k])
        error = float(found.excess.stderr[k])
        rows.append([f"{float(found.ts[k]):.3g}", f"{least:.4g}", f"{over:.2g} ± {error:.1g}"])
    return ["t", "least eps loss", "excess of the network"], rows


def _print(head: str, found: Findings, noisy: bool) -> None:
    print(f"{head}\n{ORDER}\n")
    print_table(*contribution_table(found))
    print()
    print_table(*distance_table(found))
    if noisy:
        print("(a sampler with noise is compared with independent data: truncation has the floor)")
    print(f"\n{BOUND}")
    print_table(*bound_table(found))
    print()
    print_table(*learning_table(found))


def _ladder_figure(found: Findings, theme: str) -> "Figure":
    near = dict(zip(CAUSES, found.near.tolist(), strict=True))
    shown = {
        label: {k: (float(v[0]), float(v[1])) for k, v in _named(found.splits[key]).items()}
        for key, label in (
            ("squared sliced W2", "squared sliced W2"),
            ("-log p (nats)", "E[-log p] in nats"),
        )
        if key in found.splits
    }
    floor = float(found.floor.mean), float(found.floor.sd)
    return plots.error_ladder(near, shown, float(found.whole), floor, theme=theme)

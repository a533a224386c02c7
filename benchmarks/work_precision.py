"""Strong error against evaluations: our solvers and grids beside the peers, on exact scores.

    python benchmarks/work_precision.py [--out DIR] [--quick] [--laws ring8 aniso3 ...]

Every sampler starts from the same 4096 points x_T and is compared with the probability-flow ODE
at t = 0 from the same points (see common.py). Prints the table, the ratios to the best peer at
every number of evaluations (the least error among the peers run here and, on ring8 and aniso3, the
111 configurations of reference/peers_strong_error.json) and the targets of the strong error;
writes work_precision.csv, .json and .png.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import common
import torch
from common import NFES, SDE, Counted, errors, geometric_mean
from peers import peers
from torch import Tensor
from tqdm import tqdm

from scoresde import (
    DDIM,
    PFRK4,
    GaussianMixture,
    PFEuler,
    PFHeun,
    karras,
    log_snr,
    optimized,
    quadratic,
    uniform,
)
from scoresde.plots import VIEWS, save
from scoresde.plots.style import ACCENTS, page
from scoresde.samplers import (
    DEIS,
    Adams,
    DPMSolver,
    DPMSolverPP,
    EDMStochastic,
    Sampler,
    UniPC,
    recommended,
)

Grid = Callable[[int], Tensor]
Row = dict[str, Any]
MEASURES = "median", "rms"


@dataclass(frozen=True)
class Recipe:
    """A sampler of ours with a grid and an ending.

    Args:
        name: in tables.
        plan: steps -> sampler and times.
        per_step: evaluations a step.
        last: the ending, see ``sample``; all but "stop" cost one evaluation.
    """

    name: str
    plan: Callable[[int], tuple[Sampler, Tensor]]
    per_step: int = 1
    last: str = "half"

    def run(self, law: GaussianMixture, x: Tensor, nfe: int) -> tuple[Tensor, int]:
        """End points with at most nfe evaluations, and how many it took."""
        steps = (nfe - (self.last != "stop")) // self.per_step
        counted = Counted(law)
        sampler, ts = self.plan(max(1, steps))
        x = sampler(counted, x, ts)
        return common.finish(counted, x, ts, self.last), counted.calls


def cubic(n: int, t_eps: float = 2e-3) -> Tensor:
    """Equal steps in the cube root of t."""
    ts = torch.linspace(1, t_eps ** (1 / 3), n + 1, dtype=torch.float64) ** 3
    ts[-1] = t_eps
    return ts


GRIDS: dict[str, Grid] = {
    "log-SNR": partial(log_snr, SDE),
    "cubic": cubic,
    "quadratic": quadratic,
    "optimized": partial(optimized, SDE),
    "Karras": partial(karras, SDE),
    "uniform": uniform,
}
MAIN = "log-SNR", "cubic", "quadratic"
SOLVERS: dict[str, tuple[Sampler, int, tuple[str, ...]]] = {  # sampler, evaluations a step, grids
    "DDIM": (DDIM(), 1, (*MAIN, "Karras", "uniform")),
    "DPM++2M": (DPMSolverPP(2), 1, (*MAIN, "Karras", "uniform")),
    "DPM++3M": (DPMSolverPP(3), 1, MAIN),
    "UniPC2": (UniPC(2), 1, MAIN),
    "UniPC3": (UniPC(3), 1, (*MAIN, "Karras")),
    "UniPC4": (UniPC(4), 1, ("cubic",)),
    "DEIS2": (DEIS(2), 1, MAIN),
    "DEIS3": (DEIS(3), 1, (*MAIN, "Karras")),
    "DEIS4": (DEIS(4), 1, ("cubic",)),
    "Adams2": (Adams(2, 3), 1, ("optimized",)),
    "Adams3": (Adams(3, 4), 1, ("optimized",)),
    "Adams4": (Adams(4, 5), 1, ("optimized",)),
    "DPM-Solver-2": (DPMSolver(2), 2, ("log-SNR",)),
    "DPM-Solver-3": (DPMSolver(3), 3, ("log-SNR",)),
    "EDM Heun": (EDMStochastic(), 2, ("Karras",)),
    "Euler": (PFEuler(), 1, ("quadratic",)),
    "Heun": (PFHeun(), 2, ("quadratic",)),
    "RK4": (PFRK4(), 4, ("quadratic",)),
}
"""A new solver is one line here."""
DRAWN = "DDIM, log-SNR", "DPM++2M, log-SNR", "UniPC3, cubic", "DEIS3, log-SNR"


def recipes() -> list[Recipe]:
    """All of ours; the ending is "half" where a grid stops above t = 0."""

    def recipe(name: str, sampler: Sampler, per_step: int, kind: str) -> Recipe:
        plan = lambda n: (sampler, GRIDS[kind](n))
        return Recipe(f"{name}, {kind}", plan, per_step, "stop" if kind == "optimized" else "half")

    return [Recipe("recommended", partial(recommended, SDE), last="stop")] + [
        recipe(name, sampler, per_step, kind)
        for name, (sampler, per_step, kinds) in SOLVERS.items()
        for kind in kinds
    ]


def measure(law_name: str, nfes: Sequence[int], points: int, alone: bool) -> list[Row]:
    """One row for each sampler and number of evaluations."""
    law = common.laws()[law_name]
    x = common.start(law, points)
    exact = common.truth(law, x)
    runs = [(recipe.name, "scoresde", recipe.run) for recipe in recipes()]
    beside = [] if alone else peers(noise=False)
    runs += [(peer.label, "peer", partial(_run_peer, peer)) for peer in beside]
    rows = []
    for name, who, run in tqdm(runs, law_name, leave=False):
        for nfe in nfes:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # some peers warn at every call
                end, calls = run(law, x, nfe)
            rows.append(
                {"law": law_name, "sampler": name, "of": who, "budget": nfe, "calls": calls}
                | errors(end, exact)
            )
    return rows


def _run_peer(peer: Any, law: GaussianMixture, x: Tensor, nfe: int) -> tuple[Tensor, int]:
    counted = Counted(law)
    return peer.make(nfe)(counted.eps, x.clone()), counted.calls


# What the rows say


def value(rows: Sequence[Row], law: str, nfe: int, name: str, measure: str) -> float:
    """The error of one sampler."""
    found = [
        float(row[measure])
        for row in rows
        if (row["law"], row["budget"], row["sampler"]) == (law, nfe, name)
    ]
    return found[0] if found else math.nan


def best_peer(rows: Sequence[Row], law: str, nfe: int, measure: str) -> tuple[float, str]:
    """The least error of a peer with at most that many evaluations, and whose it is."""
    here = [
        (float(row[measure]), str(row["sampler"]))
        for row in rows
        if row["law"] == law and row["of"] == "peer" and row["calls"] <= nfe
    ]
    listed = common.reference()["best"].get(law, {}).get(str(nfe))
    if listed:
        here.append((listed[measure]["error"], listed[measure]["peer"] + " (listed)"))
    return min(here, default=(math.nan, "none"))


def ratios(rows: Sequence[Row], name: str, measure: str) -> dict[tuple[str, int], float]:
    """Error over that of the best peer, for each law and number of evaluations."""
    cases = sorted({(str(row["law"]), int(row["budget"])) for row in rows})
    return {
        (law, nfe): value(rows, law, nfe, name, measure) / best_peer(rows, law, nfe, measure)[0]
        for law, nfe in cases
    }


def ranking(rows: Sequence[Row]) -> list[Row]:
    """Geometric means of the ratio over all laws, for every sampler: the best first."""
    table = []
    for name in dict.fromkeys(str(row["sampler"]) for row in rows):
        line: Row = {"sampler": name}
        for which in MEASURES:
            found = ratios(rows, name, which)
            for label, low, high in (("5-20", 5, 20), ("35-200", 35, 200), ("all", 5, 200)):
                part = [r for (_, nfe), r in found.items() if low <= nfe <= high]
                line[f"{which} {label}"] = geometric_mean(part)
        table.append(line)
    return sorted(table, key=lambda line: (line["median all"] * line["rms all"], line["sampler"]))


def by_budget(rows: Sequence[Row], name: str) -> list[Row]:
    """One sampler beside the best peer at every number of evaluations."""
    table = []
    for law, nfe in sorted({(str(row["law"]), int(row["budget"])) for row in rows}):
        line: Row = {"law": law, "evaluations": nfe}
        for which in MEASURES:
            ours = value(rows, law, nfe, name, which)
            theirs, peer = best_peer(rows, law, nfe, which)
            line |= {which: ours, f"best {which}": theirs, "ratio " + which: ours / theirs}
            line |= {f"peer {which}": peer}
        table.append(line)
    return table


def envelope(rows: Sequence[Row], count: int = 3) -> list[Row]:
    """Our best samplers at each number of evaluations: geometric mean over laws and measures."""
    mine = dict.fromkeys(str(row["sampler"]) for row in rows if row["of"] == "scoresde")
    found = {(name, which): ratios(rows, name, which) for name in mine for which in MEASURES}
    table = []
    for nfe in sorted({int(row["budget"]) for row in rows}):
        means = [
            (
                geometric_mean(
                    r for m in MEASURES for (_, n), r in found[name, m].items() if n == nfe
                ),
                name,
            )
            for name in mine
        ]
        first = sorted(means)[:count]
        table.append(
            {"evaluations": nfe}
            | {f"#{i}": f"{name} ({r:.2f})" for i, (r, name) in enumerate(first, 1)}
        )
    return table


def third_order(steps: Sequence[int] = (80, 160, 320)) -> dict[int, float]:
    """Rms of 3M at t = 1e-3 on one Gaussian, log-SNR grid, no ending, against the exact flow."""
    law = common.laws()["gauss"]
    x = common.start(law)
    (mean_1, cov_1), (mean_0, cov_0) = (law.marginal(common.double(t)) for t in (1.0, 1e-3))
    spectrum_1, basis = torch.linalg.eigh(cov_1)  # all times share the basis
    factor = ((basis.T @ cov_0 @ basis).diagonal() / spectrum_1).sqrt()
    exact = mean_0 + ((x - mean_1) @ basis * factor) @ basis.T
    ends = {n: DPMSolverPP(3)(law, x, log_snr(SDE, n)) for n in steps}
    return {n: errors(end, exact)["rms"] for n, end in ends.items()}


def targets(rows: Sequence[Row], name: str) -> list[Row]:
    """Targets 1, 2 and 3: what was asked, what was found."""
    table = []

    def add(what: str, found: float, limit: float) -> None:
        if math.isfinite(found):
            verdict = "PASS" if found <= limit else f"{found / limit:.2f} x the limit"
            table.append({"target": what, "found": found, "at most": limit, "": verdict})

    part = lambda which, low, high: geometric_mean(
        r
        for (law, nfe), r in ratios(rows, name, which).items()
        if low <= nfe <= high and law in common.reference()["best"]
    )
    for which, grade in (("median", 2.76), ("rms", 1.53)):
        add(f"1  {which}, 5-200: of the best peer", part(which, 5, 200), 1.0)
        add(f"1  {which}, 5-200: passing grade", part(which, 5, 200), grade)
    add("1  median, 5-20", part("median", 5, 20), 1.18)
    add("1  median, 35-200", part("median", 35, 200), 2.0)
    default = "diffusers DPM++2M, linspace (default)"
    for law, nfe, factor in (
        ("ring8", 20, 5), ("aniso3", 20, 1.8), ("ring8", 50, 20), ("aniso3", 50, 20)
    ):  # fmt: skip
        ratio = value(rows, law, nfe, name, "rms") / value(rows, law, nfe, default, "rms")
        add(f"2  rms of diffusers' default, {law}, {nfe}", ratio, 1 / factor)
    third = third_order()
    add("3  3M, Gaussian, 80 steps: rms", third[80], 8e-6)
    add("3  3 / measured order", 3 / math.log2(third[160] / third[320]), 1.0)
    return table


# Figure


def figure(rows: Sequence[Row], name: str, theme: str = "light") -> Any:
    """Error against evaluations, both logarithmic; grey where some peer has been."""
    laws = list(dict.fromkeys(str(row["law"]) for row in rows))
    nfes = sorted({int(row["budget"]) for row in rows})
    colors = dict(zip(DRAWN, ACCENTS, strict=True))
    with page(1.1 + 2.3 * len(laws), theme) as (made, look):
        axes = made.subplots(len(laws), 2, sharex=True, squeeze=False)
        for row_of_axes, law in zip(axes, laws, strict=True):
            for ax, which in zip(row_of_axes, MEASURES, strict=True):
                curve = lambda who, law=law, which=which: [
                    value(rows, law, n, who, which) for n in nfes
                ]
                least = [best_peer(rows, law, n, which)[0] for n in nfes]
                top = 3.0
                ax.fill_between(nfes, least, top, color=look.grid, lw=0, label="reached by a peer")
                ax.plot(nfes, least, color=look.muted, lw=1, label="best peer of each budget")
                for other in DRAWN:
                    ax.plot(nfes, curve(other), color=colors[other], lw=1.2, label=other)
                view = VIEWS["ode"]
                ax.plot(nfes, curve(name), color=view.color, lw=2.2, marker="o", ms=4, label=name)
                ax.set(xscale="log", yscale="log", title=f"{law}: {which}", ylim=(None, top))
                ax.set_xticks(nfes, [str(n) if n not in (15, 35) else "" for n in nfes])
                ax.minorticks_off()
        for ax in axes[-1]:
            ax.set_xlabel("evaluations")
        for ax in axes[:, 0]:
            ax.set_ylabel("strong error")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        made.legend(handles, labels, loc="outside lower left", ncols=2)
    return made


def main(argv: Sequence[str] | None = None) -> None:
    options = common.arguments(
        __doc__,
        argv,
        laws={"nargs": "+", "default": ["ring8", "aniso3"], "choices": list(common.laws())},
        alone={"action": "store_true", "help": "no peers but those of the reference"},
        points={"type": int, "default": common.POINTS, "help": "the first so many of the 4096"},
    )
    torch.set_num_threads(1)
    nfes, points = ((5, 10), 64) if options.quick else (NFES, options.points)
    rows = [row for law in options.laws for row in measure(law, nfes, points, options.alone)]
    name = "recommended"
    common.show(ranking(rows), "Geometric mean of error / best peer of that budget")
    common.show(by_budget(rows, name), f"{name} beside the best peer")
    common.show(envelope(rows), "Our best at each budget (ratio to the best peer)")
    common.show(targets(rows, name), f"Targets, of {name}")
    common.write(options.out, "work_precision", rows, targets=targets(rows, name))
    print(f"wrote {save(figure(rows, name), options.out / 'work_precision.png')}")


if __name__ == "__main__":
    main()

"""Samplers without samples: ``scoresde compare --exact``."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from .. import plots
from ..comparison import Entry, print_table
from ..data import LAWS
from ..denoiser import Denoiser
from ..diagnosis import bias_entries, exact_bias, power_product
from ..distributions import Distribution, GaussianMixture
from ..files import atomically
from ..guidance import ClassifierFree, Tempered
from ..plots import fit_order
from ..report import Report
from ..runs import HELD_OUT, Run, check_counts
from ..samplers import VIEW_NAMES, Counted, PredictorCorrector
from ..sde import VPSDE

__all__ = [
    "BiasRow",
    "Case",
    "bias_table",
    "case_of",
    "compare_exact",
    "curves_of",
    "exact_rows",
    "gaussian_of",
]

STEPS = (10, 20, 40, 80, 160, 320, 640)
WHAT = (
    "Discretisation bias alone: the exact law of every sampler with the exact score, started at "
    "p of t_max, against p where its grid ends. No samples and no network are involved; "
    "`order` is fitted over the finer half."
)
GUIDED = (
    "The exact law of every sampler with the exact score, guided, started at the prior, against "
    "{meant} where its grid ends. What is left with many evaluations is what guidance itself "
    "does; ODE and SDE differ. No samples and no network are involved."
)


@dataclass(frozen=True)
class BiasRow:
    """One sampler at one number of evaluations.

    Attributes:
        entry: the sampler and its grid.
        evaluations: of the denoiser, counted.
        w2: Wasserstein distance from the truth, in the units of x.
        kl: KL(truth || sampler) in nats.
    """

    entry: Entry
    evaluations: int
    w2: float
    kl: float

    def as_dict(self) -> dict[str, object]:
        """The numbers, for JSON; no KL where there is none, as beside a singular covariance."""
        kl = self.kl if math.isfinite(self.kl) else None
        numbers = {"evaluations": self.evaluations, "W2": self.w2, "KL": kl}
        return {"sampler": self.entry.label, "view": self.entry.view, **numbers}


@dataclass(frozen=True)
class Case:
    """What is judged: a denoiser against the Gaussian that is meant.

    Attributes:
        gaussian: the data.
        denoiser: these, or with guidance around them.
        reference: what the samples should follow.
        what: a sentence for the head of the table.
        stem: of the files.
    """

    gaussian: GaussianMixture
    denoiser: Denoiser
    reference: GaussianMixture
    what: str = WHAT
    stem: str = "exact"


def compare_exact(
    folder: Path | None,
    law: str | None,
    out: Path | None,
    steps: Sequence[int],
    temperature: float | None = None,
    guidance: float | None = None,
) -> list[BiasRow]:
    """Compute; print the table; write exact.json, exact.html and two figures.

    Args:
        folder: of a run, whose process and data are taken; none for a named law.
        law: a key of ``LAWS``, for no run; "gauss" if not given.
        out: folder to write to, for no run.
        steps: evaluations; 10 to 640 if empty.
        temperature: T, for ``Tempered`` against p^{1/T}.
        guidance: w, for ``ClassifierFree`` of the mixture's first component and of all of it.

    Raises:
        ValueError: if both a run and a law or folder are given, for a law that is unknown or no
            mixture of Gaussians, or for steps below 1.
    """
    if folder is not None and (law is not None or out is not None):
        raise ValueError("expected a run, or --law and --out without one, got both")
    steps = sorted(set(steps or STEPS))  # a column for each, the coarsest first
    check_counts(steps=steps[0])
    if folder is not None:
        run, name = Run.open(folder), folder.name
        gaussian, known = gaussian_of(run), run.law
    else:
        name = law or "gauss"
        known = _named(name)
        gaussian = _gaussian(*known.marginal(), known)
    case = case_of(gaussian, known, temperature, guidance)
    folder = folder or out or Path("runs") / f"exact-{name}"
    rows = exact_rows(gaussian, steps, case)
    spread = gaussian.spectrum.sqrt().flatten().tolist()
    stds = ", ".join(f"{s:.3g}" for s in reversed(spread[-6:]))
    head = (
        f"{gaussian.sde} on the Gaussian with the mean and covariance of {name}, standard "
        f"deviations {stds}{' ...' if len(spread) > 6 else ''}"
    )
    print(f"{head}\n{case.what}")
    print_table(*bias_table(rows))
    page = _write(folder, name, head, rows, case)
    print(f"written: {page}, {case.stem}.json beside it, figures/{case.stem}-*.png")
    return rows


def case_of(
    gaussian: GaussianMixture,
    law: Distribution | None = None,
    temperature: float | None = None,
    guidance: float | None = None,
) -> Case:
    """The Gaussian itself, or with a temperature or classifier-free guidance around it.

    Args:
        gaussian: the data.
        law: the mixture it stands for, whose first component is the condition.
        temperature: T.
        guidance: w.
    """
    if temperature is not None and guidance is not None:
        raise ValueError("expected --temperature or --guidance, got both: one after the other")
    if temperature is not None:
        meant = power_product([gaussian], [1 / temperature])
        what = GUIDED.format(meant=f"p^(1/T), T = {temperature:g},")
        return Case(gaussian, Tempered(gaussian, temperature), meant, what, "exact-tempered")
    if guidance is not None:
        if not isinstance(law, GaussianMixture) or len(law.weights) < 2:
            raise ValueError(
                "expected a mixture of several Gaussians for --guidance, whose first one is the "
                "condition, got none: --law gm1, say"
            )
        one, w = law.component(0), guidance
        meant = power_product([one, gaussian], [w, 1 - w])
        what = GUIDED.format(meant=f"p^(1 - w) p(.|y)^w, w = {w:g} and y the first component,")
        return Case(gaussian, ClassifierFree(one, gaussian, w), meant, what, "exact-guided")
    return Case(gaussian, gaussian, gaussian)


def exact_rows(
    gaussian: GaussianMixture, steps: Sequence[int], case: Case | None = None
) -> list[BiasRow]:
    """The bias of every sampler at every number of evaluations, which rise."""
    from tqdm.auto import tqdm

    rows, case = [], case or case_of(gaussian)
    for entry in tqdm(bias_entries(gaussian, steps), desc="samplers", unit="sampler"):
        found = exact_bias(entry.sampler, case.denoiser, entry.ts, reference=case.reference)
        counted = Counted(gaussian)
        entry.sampler(counted, torch.zeros(1, *gaussian.event).double(), entry.ts)
        rows.append(BiasRow(entry, counted.calls, float(found.w2), float(found.kl)))
    return rows


def gaussian_of(run: Run) -> GaussianMixture:
    """The Gaussian with the mean and covariance of a run's data, in the network's units."""
    law, sde = run.law, run.denoiser.sde
    if isinstance(law, GaussianMixture):
        return _gaussian(*law.marginal(), law)
    if law is not None:
        points = law.sample(2**16, generator=torch.Generator().manual_seed(0))
    else:
        points = torch.from_numpy(np.load(run.folder / HELD_OUT, allow_pickle=False)).double()
        affine = run.denoiser.affine
        points = points if affine is None else affine.double()(points)
    flat = points.flatten(1).double()
    cov = torch.atleast_2d(flat.T.cov())
    return GaussianMixture(torch.ones(1), flat.mean(0)[None], cov[None], sde)


def _named(name: str) -> GaussianMixture:
    if name not in LAWS:
        raise ValueError(f"expected --law among {', '.join(LAWS)}, got {name!r}")
    law = LAWS[name](VPSDE())
    if not isinstance(law, GaussianMixture):
        raise ValueError(f"expected a law that is a mixture of Gaussians, got {name!r}")
    return law


def _gaussian(mean: torch.Tensor, cov: torch.Tensor, law: GaussianMixture) -> GaussianMixture:
    return GaussianMixture(torch.ones(1), mean[None], cov[None], law.sde)


def curves_of(rows: Sequence[BiasRow]) -> dict[str, list[BiasRow]]:
    """Sampler -> its rows, in the order of the table."""
    found: dict[str, list[BiasRow]] = {}
    for row in rows:
        found.setdefault(row.entry.label, []).append(row)
    return found


def bias_table(rows: Sequence[BiasRow]) -> tuple[list[str], list[list[str]]]:
    """Sampler, view, W2 at each number of evaluations asked for, the order, and KL at the last.

    A sampler with several evaluations a step uses at most those of its column.
    """
    curves = curves_of(rows)
    widest = max(curves.values(), key=len)
    columns = [str(row.evaluations) for row in widest]
    table = []
    for label, own in curves.items():
        order = fit_order([r.evaluations for r in own], [r.w2 for r in own], 1e-13)
        cells = [""] * (len(columns) - len(own)) + [f"{row.w2:.1e}" for row in own]
        last = [
            "" if math.isnan(order) else f"{order:.2f}",
            f"{own[-1].kl:.1e}" if math.isfinite(own[-1].kl) else "none",
        ]
        table.append([label, VIEW_NAMES[own[0].entry.view].short, *cells, *last])
    heads = ["sampler", "view", *(f"W2 at {n}" for n in columns), "order", f"KL at {columns[-1]}"]
    return heads, table


def _write(folder: Path, name: str, head: str, rows: list[BiasRow], case: Case) -> Path:
    text = json.dumps({"what": head, "rows": [row.as_dict() for row in rows]}, indent=2)
    folder.mkdir(parents=True, exist_ok=True)
    atomically(folder / f"{case.stem}.json", lambda p: p.write_text(text, encoding="utf-8"))
    report = Report(f"Every sampler's exact bias on {name}", head + ".")
    report.text(case.what)
    for number, (title, shown) in enumerate(_figures_of(rows).items(), 1):
        pair = _figure(folder / "figures" / f"{case.stem}-{number}", shown)
        report.figure(pair[0], f"W2 against evaluations: {title}.", dark=pair[1])
    report.table(*bias_table(rows))
    return report.write(folder / f"{case.stem}.html", "Made by scoresde, without random numbers.")


def _figures_of(rows: Sequence[BiasRow]) -> dict[str, dict[str, list[BiasRow]]]:
    """No figure with more curves than the eye can follow: title -> sampler -> its rows."""
    found: dict[str, dict[str, list[BiasRow]]] = {}
    for label, own in curves_of(rows).items():
        sampler = own[0].entry.sampler
        title = "with noise, one step after the other"
        if not sampler.noise:
            title = "without noise"
        elif sampler.order > 1 or isinstance(sampler, PredictorCorrector):
            title = "with noise, correctors and higher orders"
        found.setdefault(title, {})[label] = own
    return found


def _figure(stem: Path, curves: Mapping[str, Sequence[BiasRow]]) -> plots.Pair:
    points: dict[str, tuple[list[float], list[float]]] = {
        label: ([float(r.evaluations) for r in rows], [r.w2 for r in rows])
        for label, rows in curves.items()
    }
    views = {label: rows[0].entry.view for label, rows in curves.items()}
    labels = ("denoiser evaluations", "W2 from the exact law", "")
    return plots.save_themes(
        stem, lambda theme: plots.convergence(points, views, labels=labels, theme=theme)
    )

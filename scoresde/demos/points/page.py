"""The report of the demonstration: what each figure and each number says, in one sentence."""

import copy
import platform
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from ... import plots
from ...comparison import score_table
from ...report import Report
from .figures import (
    convergence_of_network,
    exact_convergence,
    film,
    first_axis,
    paths,
    prior_mismatch,
)
from .guidance import guidance, show

if TYPE_CHECKING:
    from . import Results

__all__ = ["fill"]


def fill(report: Report, results: "Results", start: float) -> None:
    """All sections, from the animation to the machine.

    Args:
        report: to be filled.
        results: what to show.
        start: when the demonstration began, by time.perf_counter.
    """
    # Figures are drawn on the CPU; moving a module moves it for all, hence the copy.
    results = replace(results, law=copy.deepcopy(results.law).cpu())
    _walks(report, results)
    _table(report, results)
    _learning(report, results)
    _convergence(report, results)
    guidance(report, results)
    _ends(report, results, start)


def _walks(report: Report, results: "Results") -> None:
    options, law = results.options, results.law
    folder = options.out / "figures"
    walked = paths(results.a.denoiser, 700, options.seed, results.truth.points.device)
    gif = film(walked, law, folder / "three-walks.gif")
    report.figure(
        gif,
        "One network, one x_T, three walks from noise to data: the Markov chain of DDPM, the "
        "reverse SDE and the probability-flow ODE. The paths differ, the law does not.",
        wide=True,
    )
    line = {name: (times, x[..., :1]) for name, (times, x) in walked.items()}
    pair = plots.save_themes(
        folder / "x-t", lambda theme: plots.density_xt(first_axis(law), line, theme=theme)
    )
    report.section("The same walks against time")
    show(
        report,
        pair,
        "First coordinate of the network's paths over the exact density: noisy paths "
        "for the chain and the SDE, smooth ones that never cross for the ODE of a line (here they "
        "may, being projections).",
    )


def _table(report: Report, results: "Results") -> None:
    floor = results.truth.floor
    limit = float(floor.mean + 2 * floor.sd)
    at_floor = [s for s in results.scores if s.sliced_w2 <= limit]
    sharp = sum(abs(s.nll_gap) <= 3 * s.nll_error for s in results.scores)
    report.section(
        "How far is each from the truth?",
        f"Network A, {len(results.truth.points)} samples with every sampler, against exact "
        f"samples: {len(at_floor)} of {len(results.scores)} rows cannot be told from the truth by "
        f"sliced W2 (at most {limit:.3f}, its floor plus two standard deviations). The NLL gap is "
        f"sharper: it is zero within three standard errors in {sharp} of them; positive where "
        "samples stray, negative where they crowd.",
    )
    ordered = sorted(results.scores, key=lambda s: ("chain", "sde", "ode").index(s.entry.view))
    views = [s.entry.view for s in ordered]
    rules = [1, *(k + 1 for k in range(1, len(views)) if views[k] != views[k - 1])]
    report.table(*score_table(results.truth, ordered), rules)
    report.section(
        "Does discrete training matter?",
        "Network B has seen only the thousand times of the chain; A any time. The same samplers, "
        "and with the exact score in place of a network, which tells the error of the walk from "
        "that of the learning.",
    )
    wanted = [(s.entry.label, s.evaluations) for s in results.discrete]
    same = [s for s in results.scores if (s.entry.label, s.evaluations) in wanted]
    groups = {"A": same, "B": results.discrete, "exact score": results.exact}
    columns, rows = score_table(results.truth, [s for scores in groups.values() for s in scores])
    names = ["", *(name for name, scores in groups.items() for _ in scores)]
    breaks = [k for k in range(1, len(names)) if names[k] != names[k - 1]]
    report.table(
        ["network", *columns], [[n, *r] for n, r in zip(names, rows, strict=True)], breaks
    )


def _learning(report: Report, results: "Results") -> None:
    folder = results.options.out / "figures"
    fits = {"A, continuous": results.a, "B, discrete": results.b}
    by_time = {name: fit.by_time for name, fit in fits.items() if fit.by_time is not None}
    first = next(iter(by_time.values()))
    times, floor = first.t, first.floor
    losses = {name: curve.loss for name, curve in by_time.items()}
    pair = plots.save_themes(
        folder / "loss", lambda theme: plots.loss_by_time(times, losses, floor, theme=theme)
    )
    worst = {name: float(curve.excess.max()) for name, curve in by_time.items()}
    report.section("What was learned")
    show(
        report,
        pair,
        "Loss of eps per dimension against time, above the least that any network can reach: "
        f"the excess is at most {worst['A, continuous']:.3f} (A) and {worst['B, discrete']:.3f} "
        "(B).",
    )
    key = "sliced W2"
    curves: dict[str, tuple[list[float], list[float]]] = {}
    for name, fitted in fits.items():
        rows = [row for row in fitted.history if key in row]
        curves[f"{key}, {name[0]}"] = [r["step"] for r in rows], [r[key] for r in rows]
    limit = float(results.truth.floor.mean + 2 * results.truth.floor.sd)
    pair = plots.save_themes(
        folder / "training", lambda theme: plots.training_curve(curves, theme=theme)
    )
    reached = " and ".join(
        f"{_when(fit.seconds_to(key, limit))} by {name[0]}" for name, fit in fits.items()
    )
    show(
        report,
        pair,
        "Sliced W2 of samples from fixed noise during training. The noise floor (mean plus two "
        f"standard deviations, {limit:.3f}) was {reached}.",
    )


def _when(seconds: float | None) -> str:
    return "not reached" if seconds is None else f"reached after {seconds:.0f} s"


def _convergence(report: Report, results: "Results") -> None:
    folder, floor = results.options.out / "figures", results.truth.floor
    limit = float(floor.mean + 2 * floor.sd)
    curves, views = convergence_of_network(results.a.denoiser, results.truth, results.options.seed)
    labels = ("denoiser evaluations", "sliced W2", "")
    pair = plots.save_themes(
        folder / "convergence",
        lambda theme: plots.convergence(
            curves, views, (float(floor.mean), float(floor.sd)), labels=labels, theme=theme
        ),
    )
    report.section("Error against evaluations")
    show(
        report,
        pair,
        "Network A. Evaluations at which sliced W2 is first below its floor plus two standard "
        f"deviations: {_reached(curves, limit)}. With this many samples it cannot rank what lies "
        "deeper; the next figure can.",
    )
    exact, kinds = exact_convergence(results.law)
    labels = ("denoiser evaluations", "W2 of the exact output law", "")
    pair = plots.save_themes(
        folder / "convergence-exact",
        lambda theme: plots.convergence(exact, kinds, labels=labels, theme=theme),
    )
    show(
        report,
        pair,
        "The same without a network and without samples, on Gaussian data of the same mean and "
        "covariance, started from N(0, I): discretisation alone. What remains of the ODE is the "
        "prior's mismatch, which the SDE forgets. DDPM with its classical linear betas converges "
        "like the chain of the SDE, though its alpha_bar is another.",
    )


def _reached(curves: Mapping[str, tuple[list[float], list[float]]], limit: float) -> str:
    """At how many evaluations each curve first lies below the limit."""
    said = []
    for name, (evaluations, errors) in curves.items():
        below = [n for n, error in zip(evaluations, errors, strict=True) if error <= limit]
        said.append(f"{name} {below[0]:.0f}" if below else f"{name} never")
    return ", ".join(said)


def _ends(report: Report, results: "Results", start: float) -> None:
    law, sde = results.law, results.law.sde
    eps = torch.tensor(sde.t_eps, dtype=torch.float64)
    mean, cov = law.marginal()
    second = float(cov.trace() + mean.square().sum())
    moved = ((1 - sde.alpha(eps)).square() * second + law.dim * sde.sigma2(eps)).sqrt()
    report.section(
        "Both ends of time",
        "What no sampler can mend: the walk starts from N(0, I) instead of the law at t = 1, and "
        "the SDE and the ODE stop at a small t.",
    )
    report.facts(
        {
            "KL(p₁ || prior), nats": f"{prior_mismatch(law, sde):.1e}",
            "t at which SDE and ODE stop": f"{sde.t_eps:g}",
            "root mean square distance of x at that t from x₀": f"{float(moved):.4f}",
            "ending there": "x₀ estimated (one evaluation)",
        }
    )
    a, b = results.a.seconds, results.b.seconds
    report.text(
        f"{results.options.steps} steps of 512 points each: {a:.0f} s (A) and {b:.0f} s (B); the "
        f"whole demonstration took {time.perf_counter() - start:.0f} s on "
        f"{results.truth.points.device.type} ({platform.machine()}, torch {torch.__version__}, "
        f"{torch.get_num_threads()} threads). "
        "Times beside the samplers were taken once, on a machine that may have been busy."
    )

"""The page of the demonstration on paths."""

import platform
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ... import plots
from ...report import Report

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from . import Answer, Outcome

__all__ = ["fill"]


def fill(report: Report, results: "Outcome", start: float) -> None:
    """All sections, from the animation to the machine.

    Args:
        report: to be filled.
        results: what to show.
        start: when the demonstration began, by time.perf_counter.
    """
    plane = results.truth.shape[2] == 2
    if plane:
        _motion(report, results)
    _judgement(report, results)
    if plane:
        _stages(report, results)
        _plan(report, results)
        _forecast(report, results)
    _learning(report, results, start)


def _show(
    report: Report, results: "Outcome", name: str, draw: Callable[[str], "Figure"], caption: str
) -> None:
    """A figure in both themes, kept in the folder and put on the page."""
    light, dark = plots.save_themes(results.options.out / "figures" / name, draw)
    report.figure(light, caption, dark=dark)


def _motion(report: Report, results: "Outcome") -> None:
    pair = {"held out": results.truth, "generated": results.paths}
    gif = plots.film(pair, results.options.out / "figures" / "film.gif")
    caption = (
        "Left, paths that were kept out of training; right, paths that the network made from "
        "noise. A body's colour has no meaning."
    )
    report.figure(gif, caption, wide=True)
    draw = lambda theme: plots.paths(pair, show=10, columns=2, theme=theme)
    _show(report, results, "paths", draw, "Ten of each; a dot where the path begins.")


def _judgement(report: Report, results: "Outcome") -> None:
    judgement, n = results.judgement, len(results.paths)
    below = sum(row.below for row in judgement)
    report.section(
        "Can they be told from true ones?",
        f"{n} generated paths against {n} held out: {below} of {len(judgement.rows)} metrics lie "
        f"below the {judgement.level:.3g} quantile of the same metric between two true sets.",
    )
    rows = [
        [
            r.name,
            f"{r.value:.3g}",
            f"{r.mean:.3g} ± {r.sd:.2g}",
            f"{r.quantile:.3g}",
            f"{r.value / r.mean:.1f}" if r.mean > 0 else "",
        ]
        for r in judgement
    ]
    report.table(["metric", "generated", "floor", "quantile", "times the floor"], rows)
    if results.conserved:
        report.text(
            "What the physics conserves: the relative spread along a path, median over paths. "
            "Beside it that of the held-out paths, which is the error of the velocities read off "
            "the positions."
        )
        facts = {
            f"{name} (held out: {true:.1e})": f"{100 * made:.2f} %"
            for name, (made, true) in results.conserved.items()
        }
        report.facts(facts)


def _stages(report: Report, results: "Outcome") -> None:
    report.section(
        "The other time",
        "A path is one sample, and the time of diffusion is not the time of motion: three whole "
        "paths on their way from noise, by the reverse SDE.",
    )
    draw = lambda theme: plots.paths(results.stages, show=3, theme=theme)
    caption = "The same three paths at six times t of the diffusion. Noise has the smoothness of "
    _show(report, results, "stages", draw, caption + "the data, because the units are whitened.")


def _plan(report: Report, results: "Outcome") -> None:
    answer = results.plan
    report.section(
        "From A to B",
        "Where the body is at the start and at half time is given, with noise; the network was "
        "not trained for this. A guess of the gradient of log p(y | x_t) is added to its score, "
        "and particles with weights correct what the guess has wrong.",
    )
    pair = {"without": results.paths[:40], "through A and B": answer.paths}
    draw = lambda theme: plots.paths(
        pair, show=12, points=answer.y, spread=answer.std, columns=2, theme=theme
    )
    _show(report, results, "plan", draw, "Rings: the positions asked for.")
    report.facts(_facts(answer))


def _forecast(report: Report, results: "Outcome") -> None:
    answer = results.forecast
    report.section(
        "Forecast",
        f"The first third of a held-out path, {len(answer.at)} noisy positions, and what may "
        "follow.",
    )
    first = answer.source[None] if answer.exact is None else answer.exact
    name = "the held-out path" if answer.exact is None else "exact posterior"
    sets = {name: first, "network": answer.paths}
    draw = lambda theme: plots.paths_against_time(
        results.times, sets, answer.at, answer.y, answer.std, theme=theme
    )
    caption = "Thin lines: single forecasts; thick: their median; dashed: the middle 90 %."
    _show(report, results, "forecast", draw, caption)
    report.facts(_facts(answer))


def _facts(answer: "Answer") -> dict[str, str]:
    facts = {
        "noise of the positions": f"{answer.std:.3g}",
        "miss of the positions over that noise, median": f"{answer.miss:.2f}",
    }
    if answer.exact is None:
        return facts
    spread, exact = (_spread(x) for x in (answer.paths, answer.exact))
    return facts | {"spread of the paths, over the exact one": f"{spread / exact:.3f}"}


def _spread(x: Tensor) -> float:
    """Root mean square standard deviation over all times and coordinates."""
    return float(x.var(0).mean().sqrt())


def _learning(report: Report, results: "Outcome", start: float) -> None:
    fitted, options = results.fitted, results.options
    report.section("Learning")
    draw = lambda theme: plots.training_curve(fitted.history, theme=theme)
    _show(report, results, "training", draw, "The loss against steps.")
    weights = sum(p.numel() for p in fitted.denoiser.parameters())
    report.text(
        f"{options.steps} steps, {weights} weights: {fitted.seconds:.0f} s "
        f"({1e3 * fitted.seconds / options.steps:.0f} ms a step); the whole demonstration took "
        f"{time.perf_counter() - start:.0f} s on {platform.machine()}, torch "
        f"{torch.__version__}, {torch.get_num_threads()} threads. Times were taken once, on a "
        "machine that may have been busy."
    )

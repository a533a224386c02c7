"""Figures of learning: losses and accuracies, each above what can be learned at all."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from .curves import Curves, plain_ticks, styles
from .style import ACCENTS, Array, Numbers, Theme, numbers, page

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["accuracy_by_time", "loss_by_time", "training_curve"]


def loss_by_time(
    t: Numbers,
    loss: Numbers | Mapping[str, Numbers],
    floor: Numbers | None = None,
    ylabel: str = r"loss  E$|\hat\epsilon - \epsilon|^2$",
    theme: str = "light",
) -> "Figure":
    """The loss at each time against the least possible one, and below it the excess.

    The floor is not zero: even the exact denoiser cannot tell noise from data. Only what lies
    above it is the network's error, sigma^2 E|score error|^2.

    Args:
        t: times (T,).
        loss: values (T,), or name -> values for several networks.
        floor: the irreducible loss (T,); with it a second panel shows loss - floor.
        ylabel: of the first panel.
        theme: "light" or "dark".
    """
    named = loss if isinstance(loss, Mapping) else {"network": loss}
    times = numbers(t)
    below = floor is not None
    with page(3.0 + 1.6 * below, theme) as (figure, look):
        ratios = [1.4, 1] if below else [1]
        grid = figure.subplots(len(ratios), squeeze=False, sharex=True, height_ratios=ratios)
        first, last = grid[0, 0], grid[-1, 0]
        if floor is not None:
            least = numbers(floor)
            first.fill_between(times, least, color=look.grid, lw=0)
            first.plot(times, least, color=look.ink, lw=1.2, label="least possible", zorder=3)
            last.set(yscale="log", ylabel="excess")
        for (name, values), style in zip(named.items(), styles(named, {}, look), strict=True):
            first.plot(times, numbers(values), label=name, **style)
            if floor is not None:
                last.plot(times, numbers(values) - least, **style)
        first.set(ylim=(0, None), ylabel=ylabel)
        first.legend()
        first.grid()
        last.grid()
        last.set_xlabel("time $t$   (0: data, 1: noise)")
    return figure


def accuracy_by_time(
    t: Numbers,
    accuracy: Mapping[str, Numbers],
    best: Numbers | None = None,
    classes: int | None = None,
    theme: str = "light",
) -> "Figure":
    """How often a classifier is right about noisy points, against how often one can be.

    Args:
        t: times (T,).
        accuracy: name -> values (T,) in [0, 1].
        best: accuracy of the exact class posterior (T,): no classifier does better.
        classes: number of equally likely classes; draws the accuracy of guessing.
        theme: "light" or "dark".
    """
    times = numbers(t)
    with page(3.3, theme) as (figure, look):
        axes = figure.subplots()
        if best is not None:
            axes.fill_between(times, numbers(best), 1, color=look.grid, lw=0)
            axes.plot(times, numbers(best), color=look.muted, lw=1.2, label="best possible")
        if classes is not None:
            axes.axhline(1 / classes, color=look.muted, lw=1, ls=":", label="guessing")
        for (name, values), style in zip(
            accuracy.items(), styles(accuracy, {}, look), strict=True
        ):
            axes.plot(times, numbers(values), label=name, **style)
        axes.set(ylim=(0, 1.02), xlabel="time $t$   (0: data, 1: noise)", ylabel="accuracy")
        axes.grid()
        axes.legend()
    return figure


def training_curve(
    history: Curves | Sequence[Mapping[str, float]],
    floors: Mapping[str, float] | None = None,
    theme: str = "light",
) -> "Figure":
    """What was measured during training, one panel for each quantity, with its floor.

    Args:
        history: the rows of ``fit(...).history``: their loss, and whatever was evaluated; or
            name -> (steps, values).
        floors: name -> the value that cannot be improved upon.
        theme: "light" or "dark".
    """
    history = history if isinstance(history, Mapping) else _columns(history)
    with page(0.6 + 1.8 * len(history), theme) as (figure, look):
        rows = figure.subplots(len(history), 1, squeeze=False, sharex=True)[:, 0]
        for axes, (name, (steps, values)) in zip(rows, history.items(), strict=True):
            _history(axes, numbers(steps), numbers(values), (floors or {}).get(name), look)
            axes.set_ylabel(name)
        rows[-1].set_xlabel("training step")
    return figure


def _columns(rows: Sequence[Mapping[str, float]]) -> Curves:
    """The quantities of a history: steps and values, in the rows that have one."""
    names = dict.fromkeys(name for row in rows for name in row)
    found = {}
    for name in (name for name in names if name not in ("step", "lr", "seconds")):
        known = [row for row in rows if math.isfinite(row.get(name, math.nan))]
        found[name] = ([row["step"] for row in known], [row[name] for row in known])
    return found


def _history(axes: "Axes", steps: Array, values: Array, floor: float | None, look: Theme) -> None:
    """One quantity; where there are many values, their running mean over a pale line."""
    many = len(steps) > 120
    axes.plot(steps, values, color=ACCENTS[0], lw=0.8 if many else 1.8, alpha=0.35 if many else 1)
    if many:
        axes.plot(steps, smooth(values), color=ACCENTS[0])
    if floor is not None:
        axes.axhline(floor, color=look.muted, lw=1.2)
        axes.annotate(
            "least possible",
            (0.01, floor),
            (0, 3),
            xycoords=axes.get_yaxis_transform(),
            textcoords="offset points",
            color=look.muted,
        )
    if values.min() > 0:
        axes.set_yscale("log")
        plain_ticks(axes, "y")
    axes.grid()


def smooth(values: Array, share: float = 0.02) -> Array:
    """A running mean over a share of the whole, shorter windows at the ends."""
    half = max(1, round(0.5 * share * len(values)))
    total = np.concatenate([[0.0], np.cumsum(values)])
    i = np.arange(len(values))
    low, high = np.maximum(i - half, 0), np.minimum(i + half + 1, len(values))
    mean: Array = (total[high] - total[low]) / (high - low)
    return mean

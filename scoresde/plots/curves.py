"""Figures of numbers: errors against evaluations.

A floor (the noise of a measurement, below which nothing can be told apart) is drawn in grey.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .style import ACCENTS, VIEWS, Array, Numbers, Theme, numbers, page

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "convergence",
    "fit_order",
]

Curves = Mapping[str, tuple[Numbers, Numbers]]
"""Name -> (x values, y values)."""
MARKERS = "osD^vPX*"
DASHES = ("-", "--", (0, (1.2, 1.2)), "-.")


def convergence(
    curves: Curves,
    views: Mapping[str, str] | None = None,
    floor: tuple[float, float] | None = None,
    guides: Curves | None = None,
    constants: Mapping[str, float] | None = None,
    labels: Sequence[str] = ("denoiser evaluations", "error", "product"),
    theme: str = "light",
) -> "Figure":
    """Errors against evaluations, both logarithmic, with the fitted order of each curve.

    Args:
        curves: name -> (evaluations, errors); an error of zero is left out.
        views: name -> "chain", "sde" or "ode", which gives the colour; a curve named after a view
            needs none, others take colours of their own.
        floor: mean and standard deviation of the noise in the error, drawn as a band of two
            standard deviations; points in it are not used in the fits.
        guides: name -> (x, y), dashed grey lines: what is known in advance.
        constants: name of a curve of order one -> the limit of evaluations times error; adds a
            panel in which that product is seen to tend to it.
        labels: of the two axes, and of the product of the two.
        theme: "light" or "dark".
    """
    entries = len(curves) + len(guides or {}) + (floor is not None)
    with page(3.7 + 0.23 * math.ceil(entries / 2) + 1.7 * bool(constants), theme) as (
        figure,
        look,
    ):
        ratios = [1.6, 1] if constants else [1]
        grid = figure.subplots(len(ratios), squeeze=False, sharex=True, height_ratios=ratios)
        first, last = grid[0, 0], grid[-1, 0]
        if floor is not None:
            _floor_band(first, floor, look)
        for name, (x, y) in (guides or {}).items():
            first.plot(
                numbers(x), numbers(y), color=look.muted, lw=1.1, ls=(0, (5, 3)), label=name
            )
        drawn = styles(curves, views or {}, look)
        limit = 0.0 if floor is None else floor[0] + 2 * floor[1]
        for (name, (x, y)), style in zip(curves.items(), drawn, strict=True):
            _convergence_of(first, name, numbers(x), numbers(y), limit, style)
            if name in (constants or {}):
                last.plot(numbers(x), numbers(x) * numbers(y), **style)
        for constant in (constants or {}).values():
            last.axhline(constant, color=look.muted, lw=1.1, ls=(0, (5, 3)))
            last.text(
                1, constant, f" {constant:#.4g}", va="center", transform=last.get_yaxis_transform()
            )
        if constants:
            last.set_ylabel(labels[2] if len(labels) > 2 else "product")
            last.grid()
        first.set(xscale="log", yscale="log", ylabel=labels[1])
        last.set_xlabel(labels[0])
        _name_views(first, [(views or {}).get(name, name) for name in curves])
        plain_ticks(last, "x")
        first.grid()
        figure.legend(loc="outside lower left", ncols=2, handlelength=2.2, columnspacing=1.2)
    return figure


def fit_order(evals: Numbers, errors: Numbers, floor: float = 0.0) -> float:
    """The order p of errors ~ evals^-p: least squares in logarithms, over the finer half.

    Only points with an error above ``floor`` count, and of them the half with most evaluations
    (three at least), where the leading term rules. NaN where fewer than three points are left.
    """
    n, error = numbers(evals), numbers(errors)
    used = (error > floor) & (error > 0) & np.isfinite(error)
    n, error = n[used], error[used]
    if len(n) < 3:
        return math.nan
    finest = np.argsort(n)[-max(3, math.ceil(len(n) / 2)) :]
    return -float(np.polyfit(np.log(n[finest]), np.log(error[finest]), 1)[0])


def _floor_band(axes: "Axes", floor: tuple[float, float], look: Theme) -> None:
    mean, sd = floor
    top = mean + 2 * sd
    axes.axhspan(max(mean - 2 * sd, 0.02 * top), top, color=look.grid, lw=0)
    axes.axhline(mean, color=look.muted, lw=1, label="noise floor")


def _convergence_of(
    axes: "Axes", name: str, n: Array, error: Array, limit: float, style: dict[str, Any]
) -> None:
    """One curve, its order in the legend where there are points enough to fit it."""
    order, seen = fit_order(n, error, limit), error > 0
    label = name if math.isnan(order) else f"{name}: order {order:.2f}"
    axes.plot(n[seen], error[seen], label=label, **style)


def styles(
    names: Mapping[str, object] | Sequence[str], views: Mapping[str, str], look: Theme
) -> list[dict[str, Any]]:
    """Colour by view; within a view curves differ by marker and dash."""
    seen: dict[str, Any] = {}
    fresh = count()
    found = []
    size = count(7, -min(0.25, 2 / max(1, len(names))))  # where curves coincide both are seen
    for name in names:
        key = views.get(name, name)
        i = next(seen.setdefault(key, count()))
        if key in VIEWS:
            others = MARKERS.replace(VIEWS[key].marker, "")
            marker = VIEWS[key].marker if i == 0 else others[i % len(others)]
            color = VIEWS[key].color
        else:
            j = next(fresh)
            color, marker, i = ACCENTS[j % len(ACCENTS)], MARKERS[j % len(MARKERS)], j
        dash = DASHES[i % len(DASHES)]
        line = {"color": color, "ls": dash, "lw": 1.5}
        found.append(line | {"marker": marker, "ms": next(size), "mec": look.face, "mew": 0.6})
    return found


def _name_views(axes: "Axes", keys: Sequence[str]) -> None:
    """The views that occur, above the axes, each in its colour."""
    places: tuple[Literal["left", "center", "right"], ...] = ("left", "center", "right")
    for place, (key, view) in zip(places, VIEWS.items(), strict=True):
        if key in keys:
            axes.set_title(view.label, loc=place, color=view.color)


def plain_ticks(axes: "Axes", which: Literal["x", "y"]) -> None:
    """On a logarithmic axis of a few decades at most: 1, 2, 5, 10, 20, 50."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis = axes.xaxis if which == "x" else axes.yaxis
    low, high = axis.get_view_interval()
    if not 0 < low < high < 300 * low:
        return
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axis.set_minor_formatter(NullFormatter())

"""Figures of paths (n, L, 2): in the plane, against time, and in motion."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..files import atomically
from .panels import Box, coordinates, frame, square
from .style import ACCENTS, Array, Numbers, Theme, bare, color_of, name_of, numbers, page

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL import Image

__all__ = ["film", "paths", "paths_against_time"]

INKS = ("#3a81f6", "#e8590c", "#0b8a72", "#a8478f", "#97720a", "#5b7a99")
"""Of single paths, so that neighbours can be told apart."""


def paths(
    panels: Mapping[str, Tensor],
    show: int = 6,
    points: Tensor | None = None,
    spread: float | None = None,
    columns: int = 3,
    theme: str = "light",
) -> "Figure":
    """Paths in the plane, a panel for each set of them; a dot where each begins.

    Args:
        panels: title -> paths (n, L, 2).
        show: paths drawn in each panel.
        points: positions (m, 2) that were asked for: drawn as rings in every panel.
        spread: standard deviation of these, drawn about them, in the units of the data.
        columns: of panels.
        theme: "light" or "dark".
    """
    shown = {name: _paths(name, x)[:show] for name, x in panels.items()}
    box = square(torch.cat([x.flatten(0, 1).cpu() for x in shown.values()]), quantile=0.0)
    rows, columns = -(-len(panels) // columns), min(columns, len(panels))
    with page(0.45 + rows * (5.5 / columns + 0.25), theme) as (figure, look):
        grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).flatten()
        for axes, (name, x) in zip(grid, shown.items(), strict=False):
            for k, path in enumerate(numbers(x)):
                draw_path(axes, path, INKS[k % len(INKS)])
            if points is not None:
                rings(axes, points, spread, look)
            frame(axes, box, look)
            axes.set_title(name_of(name), loc="center")
        for axes in grid[len(panels) :]:
            axes.set_visible(False)
        coordinates(figure, look)
    return figure


def paths_against_time(
    times: Numbers,
    sets: Mapping[str, Tensor],
    at: Sequence[int] = (),
    y: Tensor | None = None,
    std: float = 0.0,
    show: int = 12,
    unit: str = "",
    theme: str = "light",
) -> "Figure":
    """Both coordinates of paths against time: single ones, and the middle 90 % of all.

    Args:
        times: (L,).
        sets: name -> paths (n, L, 2); the first is the truth, in grey, the others are in colour.
        at: indices of times that were observed.
        y: positions there, (m, 2).
        std: standard deviation of their noise, drawn as two-sided bars of twice it.
        show: single paths drawn of each set in colour.
        unit: of time.
        theme: "light" or "dark".
    """
    t = numbers(times)
    with page(4.9, theme) as (figure, look):
        panels = figure.subplots(2, 1, sharex=True)
        for c, axes in enumerate(panels):
            for k, (name, x) in enumerate(sets.items()):
                color = look.muted if k == 0 else ACCENTS[(k - 1) % len(ACCENTS)]
                _band(axes, t, _paths(name, x)[..., c], color, name, 0 if k == 0 else show)
            if y is not None:
                spot: Any = {"fmt": "o", "color": look.ink, "ms": 5, "capsize": 3, "zorder": 5}
                axes.errorbar(t[list(at)], numbers(y[:, c]), 2 * std, label="observed", **spot)
            axes.set_ylabel(f"$x_{c + 1}$", rotation=0, labelpad=10)
        panels[-1].set_xlabel(f"time {unit}".strip())
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=3)
    return figure


def film(
    panels: Mapping[str, Tensor],
    path: str | Path,
    show: int = 6,
    tail: int = 0,
    points: Tensor | None = None,
    frames: int = 64,
    seconds: float = 4.0,
    pause: float = 1.0,
    theme: str = "dark",
    dpi: int = 100,
) -> Path:
    """Write a GIF of bodies that run along their paths, panels side by side; it loops.

    Args:
        panels: title -> paths (n, L, 2), all of one L.
        path: where to; the file appears whole or not at all.
        show: paths in each panel.
        tail: points of the path drawn behind a body; 0 for all since the start.
        points: positions (m, 2) that were asked for.
        frames: at most; fewer where there are fewer times.
        seconds: for one run.
        pause: seconds on the last frame.
        theme: "light" or "dark".
        dpi: pixels per inch.

    Returns:
        The path.
    """
    shown = {name: _paths(name, x)[:show] for name, x in panels.items()}
    length = min(x.shape[1] for x in shown.values())
    chosen = np.unique(np.linspace(0, length - 1, min(frames, length)).round().astype(int))
    images = _frames(shown, chosen, tail or length, points, theme, dpi)
    step = round(1000 * seconds / len(images))
    delays = [step] * (len(images) - 1) + [step + round(1000 * pause)]
    first, rest = images[0], images[1:]

    def write(part: Path) -> None:
        first.save(
            part, "GIF", save_all=True, append_images=rest, duration=delays, loop=0, disposal=1
        )

    return atomically(Path(path), write)


def draw_path(axes: "Axes", path: Array, color: str, width: float = 1.3) -> None:
    """One path (L, 2) as a line, with a dot where it begins."""
    axes.plot(path[:, 0], path[:, 1], color=color, lw=width, alpha=0.9)
    axes.plot(*path[0], "o", color=color, ms=3.5)


def rings(axes: "Axes", points: Tensor, spread: float | None, look: Theme) -> None:
    """Positions that were asked for, and twice their standard deviation about them."""
    from matplotlib.patches import Circle

    for x, y in numbers(points):
        axes.plot(x, y, "o", ms=8, mfc="none", mec=look.ink, mew=1.6, zorder=5)
        if spread:
            axes.add_patch(Circle((x, y), 2 * spread, color=look.ink, alpha=0.12, lw=0))


def _paths(name: str, x: Tensor) -> Tensor:
    if x.ndim != 3 or x.shape[2] != 2:
        raise ValueError(f"expected paths (n, L, 2) for {name!r}, got {tuple(x.shape)}")
    return x


def _band(axes: "Axes", t: Array, x: Tensor, color: str, name: str, show: int) -> None:
    """The middle 90 per cent of x (n, L) at each time, and some of the paths."""
    low, mid, high = np.quantile(numbers(x), [0.05, 0.5, 0.95], axis=0)
    if show == 0:
        axes.fill_between(t, low, high, color=color, alpha=0.25, lw=0, label=name)
        axes.plot(t, mid, color=color, lw=1.2)
        return
    axes.plot(t, numbers(x[:show]).T, color=color, lw=0.6, alpha=0.45)
    axes.plot(t, low, color=color, lw=1.4, ls="--", label=name)
    axes.plot(t, high, color=color, lw=1.4, ls="--")
    axes.plot(t, mid, color=color, lw=1.6)


def _frames(
    shown: Mapping[str, Tensor],
    chosen: NDArray[np.int64],
    tail: int,
    points: Tensor | None,
    theme: str,
    dpi: int,
) -> list["Image.Image"]:
    """Every frame as an image of few colours, the same for all."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    box = square(torch.cat([x.flatten(0, 1).cpu() for x in shown.values()]), quantile=0.002)
    images = []
    with page(0.45 + 5.6 / len(shown), theme) as (figure, look):
        figure.set_dpi(dpi)
        canvas: Any = FigureCanvasAgg(figure)  # matplotlib leaves its methods untyped
        moving = [
            _stage(figure.add_subplot(1, len(shown), i + 1), name, len(x), box, points, look)
            for i, (name, x) in enumerate(shown.items())
        ]
        for k in chosen:
            for lines, x in zip(moving, shown.values(), strict=True):
                for (line, body), one in zip(lines, numbers(x), strict=True):
                    line.set_data(*one[max(0, k - tail) : k + 1].T)
                    body.set_data(*one[k : k + 1].T)
            canvas.draw()
            figure.set_layout_engine("none")
            images.append(Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB"))
    colors = images[-1].quantize(128)  # every colour is in the last frame
    return [image.quantize(palette=colors, dither=Image.Dither.NONE) for image in images]


def _stage(
    axes: "Axes", name: str, n: int, box: Box, points: Tensor | None, look: Theme
) -> list[Any]:
    """Empty lines and bodies in a panel."""
    frame(axes, box, look)
    bare(axes)
    axes.set_title(name_of(name), color=color_of(name, look), loc="center")
    if points is not None:
        rings(axes, points, None, look)
    inks = [INKS[k % len(INKS)] for k in range(n)]
    return [
        (axes.plot([], [], color=c, lw=1.4)[0], axes.plot([], [], "o", color=c, ms=5)[0])
        for c in inks
    ]

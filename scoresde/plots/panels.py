"""What panels of the plane are made of: exact densities as contours, points, frames."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..denoiser import anchor
from ..distributions import Distribution
from .style import Array, Theme, numbers

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["density_levels", "plane_density"]

MASSES = (0.99, 0.9, 0.5)
Box = tuple[float, float, float, float]
"""Left, right, bottom, top of a square."""


def plane_density(
    law: Distribution, box: Box, t: Tensor | None = None, cells: int = 200
) -> tuple[Array, Array, Array]:
    """Middles of the cells in x and y (cells,), and p_t there (cells, cells), rows along y."""
    left, right, bottom, top = box
    middle = (torch.arange(cells, dtype=torch.float64) + 0.5) / cells
    xs, ys = left + (right - left) * middle, bottom + (top - bottom) * middle
    y, x = torch.meshgrid(ys, xs, indexing="ij")
    points = torch.stack((x.flatten(), y.flatten()), 1).to(anchor(law))
    parts = [law.log_prob(part, None if t is None else t.to(part)) for part in points.split(8192)]
    density = torch.cat(parts).exp().cpu().reshape(cells, cells)
    return numbers(xs), numbers(ys), numbers(density)


def density_levels(density: Array, masses: Sequence[float] = MASSES) -> list[float]:
    """The densities above which lie the given shares of the mass, of values on equal cells."""
    ordered = np.sort(density.flatten())[::-1]
    share = np.cumsum(ordered) / ordered.sum()
    return [float(ordered[np.searchsorted(share, mass)]) for mass in masses]


def contours(
    axes: "Axes",
    law: Distribution,
    box: Box,
    look: Theme,
    t: Tensor | None = None,
    fill: bool = True,
) -> None:
    """The exact law, quietly: regions that hold 99, 90 and 50 per cent of it."""
    xs, ys, density = plane_density(law, box, t)
    top = float(density.max())
    # where the density is flat all levels are one, drawn just below it: the edge
    levels = sorted({min(level, 0.9 * top) for level in density_levels(density)})
    if fill:
        shades = [look.ramp[1], look.ramp[1], look.ramp[2]][: len(levels)]
        axes.contourf(xs, ys, density, [*levels, 1.01 * top], colors=shades, alpha=0.6)
    axes.contour(xs, ys, density, levels, colors=look.ramp[-1], linewidths=0.6)


def dots(axes: "Axes", points: Tensor, color: str, columns: int = 3) -> None:
    """Small points without an edge, so that density shows; smaller in smaller panels."""
    xy = numbers(points)
    axes.scatter(xy[:, 0], xy[:, 1], s=1.8 + 8 / columns, color=color, lw=0, alpha=0.75)


def frame(axes: "Axes", box: Box, look: Theme) -> None:
    """A square panel inside a hairline; numbers on the outer sides alone."""
    from matplotlib.ticker import MultipleLocator

    step = next(k for k in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 1e9) if box[1] - box[0] < 4.5 * k)
    axes.set(xlim=box[:2], ylim=box[2:], aspect="equal")
    axes.xaxis.set_major_locator(MultipleLocator(step))
    axes.yaxis.set_major_locator(MultipleLocator(step))
    axes.label_outer()
    axes.tick_params(length=2, color=look.grid, labelsize=9)
    for spine in axes.spines.values():
        spine.set(visible=True, color=look.grid)


def coordinates(figure: "Figure", look: Theme) -> None:
    """Say once what the axes of all panels are."""
    text = "$x_1$ to the right, $x_2$ upwards, in the units of the data"
    figure.supxlabel(text, fontsize=9.5, color=look.muted)


def square(points: Tensor, pad: float = 0.06, quantile: float = 0.001) -> Box:
    """The smallest square about all but a few outlying points, and some room."""
    flat = points.detach().cpu().double()
    ends = np.quantile(numbers(flat), [quantile, 1 - quantile], axis=0)
    centre, half = ends.mean(0), float(np.diff(ends, axis=0).max()) * (0.5 + pad)
    x, y = centre.tolist()
    return x - half, x + half, y - half, y + half


def as_box(limits: Sequence[float] | None) -> Box | None:
    """Limits given by a user as a box."""
    if limits is None:
        return None
    left, right, bottom, top = (float(end) for end in limits)
    return left, right, bottom, top


def seeded(law: Distribution, seed: int = 0) -> torch.Generator:
    """A generator on the device where the law draws its samples."""
    return torch.Generator(anchor(law).device).manual_seed(seed)

"""Figures of the plane: particles on their way, the score, samples beside the truth.

Contours are regions of highest density of the exact law: the lines drawn hold a stated share of
its mass (50, 90 and 99 per cent by default), so a good sample of 1000 leaves about 10 points
outside the last one.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..denoiser import Denoiser, anchor
from ..distributions import Distribution, GaussianMixture
from .panels import Box, as_box, contours, coordinates, dots, frame, plane_density, seeded, square
from .style import ACCENTS, VIEWS, Theme, color_of, name_of, numbers, page

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "compare_points",
    "guidance",
    "particles",
    "score_field",
]


def particles(
    states: Mapping[str, Tensor],
    times: Sequence[float] | Tensor,
    law: Distribution | None = None,
    show: int = 600,
    theme: str = "light",
) -> "Figure":
    """Particles in the plane at chosen times: a row for each view, a column for each time.

    Args:
        states: name of a view ("chain", "sde", "ode") or any other -> states (T, n, 2).
        times: of the columns, (T,), in the order in which they are shown.
        law: draws the exact density of each time as contours.
        show: particles drawn in each panel.
        theme: "light" or "dark".
    """
    ts = [float(t) for t in times]
    for name, x in states.items():
        if x.ndim != 3 or x.shape[0] != len(ts) or x.shape[2] != 2:
            raise ValueError(
                f"expected states ({len(ts)}, n, 2) for {name!r}, one for each time, "
                f"got {tuple(x.shape)}"
            )
    box = square(torch.cat([x.flatten(0, 1) for x in states.values()]))
    with page(0.75 + len(states) * 5.45 / len(ts), theme) as (figure, look):
        panels = figure.subplots(len(states), len(ts), squeeze=False, sharex=True, sharey=True)
        for row, (name, x) in zip(panels, states.items(), strict=True):
            row[0].set_ylabel(name_of(name), color=color_of(name, look))
            for axes, points, t in zip(row, x, ts, strict=True):
                if law is not None:
                    contours(axes, law, box, look, torch.tensor(t))
                dots(axes, points[:show], color_of(name, look), len(ts))
                frame(axes, box, look)
        for axes, t in zip(panels[0], ts, strict=True):
            axes.set_title(f"$t$ = {t:.3g}", loc="center")
        coordinates(figure, look)
    return figure


def score_field(
    denoiser: Denoiser,
    times: Sequence[float] | float,
    law: Distribution | None = None,
    limits: Sequence[float] | None = None,
    arrows: int = 17,
    theme: str = "light",
) -> "Figure":
    r"""The score of a law or of a network as arrows, over the exact log density.

    The arrows are sigma(t) grad log p_t = -eps, which has no unit and the same size at all times;
    arrows longer than 3 are drawn as 3, in a paler colour.

    Args:
        denoiser: a law or a model in two dimensions.
        times: one panel for each.
        law: whose density is shown; the denoiser itself where it is a law.
        limits: (left, right, bottom, top), in the units of the data.
        arrows: in each direction.
        theme: "light" or "dark".
    """
    ts = [float(times)] if isinstance(times, float | int) else [float(t) for t in times]
    law = denoiser if law is None and isinstance(denoiser, Distribution) else law
    box = _box(limits, law, ts)
    with page(0.75 + 5.5 / len(ts), theme) as (figure, look):
        panels = figure.subplots(1, len(ts), squeeze=False, sharex=True, sharey=True)[0]
        for axes, t in zip(panels, ts, strict=True):
            if law is not None:
                _log_density(axes, law, t, box, look)
            _arrows(axes, denoiser, t, box, arrows, look)
            frame(axes, box, look)
            axes.set_title(f"$t$ = {t:.3g}", loc="center")
        coordinates(figure, look)
    return figure


def compare_points(
    samples: Tensor | Mapping[str, Tensor],
    truth: Distribution | Tensor,
    show: int = 1500,
    limits: Sequence[float] | None = None,
    theme: str = "light",
) -> "Figure":
    """Generated points beside the truth: its exact contours, or its own points in grey.

    Args:
        samples: points (n, 2), or name -> points for a panel each; views keep their colour.
        truth: an exact law, or data (m, 2).
        show: points drawn in each panel.
        limits: (left, right, bottom, top); chosen from the truth if not given.
        theme: "light" or "dark".
    """
    panels_of = samples if isinstance(samples, Mapping) else {"generated": samples}
    data = truth if isinstance(truth, Tensor) else truth.sample(4000, generator=seeded(truth))
    box = as_box(limits) or square(data, pad=0.12)
    columns = min(3, len(panels_of))
    rows = -(-len(panels_of) // columns)
    with page(0.5 + rows * (5.5 / columns + 0.25), theme) as (figure, look):
        grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).flatten()
        for axes, (name, points) in zip(grid, panels_of.items(), strict=False):
            if isinstance(truth, Tensor):
                dots(axes, truth[:show], look.ramp[-1], columns)
            else:
                contours(axes, truth, box, look)
            color = VIEWS[name].color if name in VIEWS else ACCENTS[0]
            dots(axes, points[:show], color, columns)
            frame(axes, box, look)
            axes.set_title(name_of(name), color=color, loc="center")
        for axes in grid[len(panels_of) :]:
            axes.set_visible(False)
        coordinates(figure, look)
    return figure


def guidance(
    samples: Mapping[str, Tensor],
    mixture: GaussianMixture,
    target: int,
    show: int = 1200,
    theme: str = "light",
) -> "Figure":
    """Samples with and without guidance, and under each the share that went to every mode.

    Points that belong to the target mode (by the exact class posterior) are in colour, others
    grey; a line across the bars marks the share in the data, so the first panel shows what
    guidance has to change.

    Args:
        samples: title -> points (n, 2), a panel each.
        mixture: the exact law whose modes are counted.
        target: index of the mode that was asked for.
        show: points drawn in each panel.
        theme: "light" or "dark".
    """
    box = square(torch.cat([x.cpu().double() for x in samples.values()]), quantile=0.002)
    with page(0.75 + 5.2 / len(samples) + 1.45, theme) as (figure, look):
        ratios = [5.2 / len(samples), 0.9]
        rows = figure.subplots(2, len(samples), squeeze=False, height_ratios=ratios)
        for axes, bars, (name, points) in zip(*rows, samples.items(), strict=True):
            posterior = mixture.posterior(points.to(mixture.means))
            owner = posterior.argmax(1).cpu()
            contours(axes, mixture, box, look)
            dots(axes, points.cpu()[owner != target][:show], look.muted, len(samples))
            dots(axes, points.cpu()[owner == target][:show], ACCENTS[0], len(samples))
            frame(axes, box, look)
            axes.set(xlabel="$x_1$", ylabel="$x_2$" if axes is rows[0, 0] else "")
            axes.tick_params(labelbottom=True)
            axes.set_title(name, loc="center")
            _weights(bars, posterior.mean(0).cpu(), mixture.weights.cpu(), target, look)
            bars.sharey(rows[1, 0])
            bars.tick_params(labelleft=bars is rows[1, 0])
        rows[1, 0].set_ylabel("share")
        rows[1, 0].text(
            0.02,
            0.95,
            "line: share in the data",
            size=9.5,
            va="top",
            transform=rows[1, 0].transAxes,
        )
    return figure


def _log_density(axes: "Axes", law: Distribution, t: float, box: Box, look: Theme) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    density = plane_density(law, box, torch.tensor(t))[2]
    log_density = np.log(np.maximum(density, 1e-300))
    colors = LinearSegmentedColormap.from_list("density", look.ramp[:3])
    top = float(log_density.max())
    axes.imshow(log_density, extent=box, origin="lower", cmap=colors, vmin=top - 9, vmax=top)


def _arrows(
    axes: "Axes", denoiser: Denoiser, t: float, box: Box, arrows: int, look: Theme
) -> None:
    step = (box[1] - box[0]) / arrows
    xs = torch.linspace(box[0] + step / 2, box[1] - step / 2, arrows, dtype=torch.float64)
    ys = torch.linspace(box[2] + step / 2, box[3] - step / 2, arrows, dtype=torch.float64)
    points = torch.cartesian_prod(xs, ys).to(anchor(denoiser, xs))
    with torch.no_grad():
        push = numbers(-denoiser.eps(points, torch.tensor(t).to(points)))
    size = np.linalg.norm(push, axis=1, keepdims=True)
    shown = push * np.minimum(1, 3 / np.maximum(size, 1e-12))
    xy = numbers(points)
    axes.quiver(
        *xy.T,
        *shown.T,
        color=np.where(size[:, 0] > 3, look.muted, look.ink),
        angles="xy",
        scale_units="xy",
        scale=3 / (1.5 * step),
        width=0.0055,
        headwidth=3.4,
        headlength=3.6,
        headaxislength=3.2,
        minlength=0.6,
    )


def _weights(axes: "Axes", shares: Tensor, weights: Tensor, target: int, look: Theme) -> None:
    modes = np.arange(len(shares))
    colors = [ACCENTS[0] if k == target else look.muted for k in modes]
    axes.bar(modes, numbers(shares), color=colors, width=0.7)
    axes.hlines(numbers(weights), modes - 0.45, modes + 0.45, color=look.ink, lw=1.2)
    axes.set(ylim=(0, 1), yticks=(0, 0.5, 1), xlabel="mode")
    axes.set_xticks([0, len(modes) - 1])


def _box(limits: Sequence[float] | None, law: Distribution | None, ts: Sequence[float]) -> Box:
    given = as_box(limits)
    if given is None and law is None:
        raise ValueError("expected limits (left, right, bottom, top) where no law is known")
    if given is not None or law is None:
        return given or (0, 1, 0, 1)
    parts = [law.sample(4000, torch.tensor(t), seeded(law)) for t in ts]
    return square(torch.cat(parts), pad=0.1)

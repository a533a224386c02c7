"""Figures of a network's errors, told apart by cause, by time and by place."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..denoiser import Denoiser, anchor
from ..distributions import Distribution
from ..sde import SDE
from .panels import contours, coordinates, density_levels, frame, plane_density, seeded, square
from .style import ACCENTS, Array, Numbers, Theme, numbers, page

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

__all__ = ["error_ladder", "learning_by_time", "score_error"]

TICKS = (1.0, 0.7, 0.5, 0.3, 0.2, 0.1, 0.05, 0.01, 0.001)
SPAN = (3e-3, 1.0)
"""Of the colours of a score error, in units of the noise."""


def error_ladder(
    distances: Mapping[str, float],
    contributions: Mapping[str, Mapping[str, tuple[float, float]]],
    whole: float,
    floor: tuple[float, float],
    theme: str = "light",
) -> "Figure":
    """Distances from rung to rung, and under them what each cause adds, with its sign.

    Args:
        distances: cause -> sliced W2 between the two laws that differ by it.
        contributions: name of an observable, with unit -> cause, and "total" -> value and error.
        whole: sliced W2 from the data to the last law, at most the sum of the distances.
        floor: mean and standard deviation of the sliced W2 between two exact samples.
        theme: "light" or "dark".
    """
    rows = len(distances) + 1.9
    heights = [rows] + [rows] * len(contributions)
    with page(0.55 + 0.3 * sum(heights), theme) as (figure, look):
        panels = figure.subplots(len(heights), height_ratios=heights)
        colors = [*ACCENTS[: len(distances)], look.ink]
        values = [*distances.values(), whole]
        names = [*distances, "from the data to the end"]
        label = "grey: two exact samples"
        panels[0].axvspan(0, floor[0] + 2 * floor[1], color=look.grid, lw=0, label=label)
        _bars(panels[0], names, values, None, colors)
        bound = sum(distances.values())
        panels[0].set_title(f"sliced W2 from law to law; sum of four {bound:.3g}")
        panels[0].legend(loc="upper right", handlelength=0, handletextpad=0)
        for axes, (name, parts) in zip(panels[1:], contributions.items(), strict=True):
            sizes, errors = ([pair[k] for pair in parts.values()] for k in (0, 1))
            _bars(axes, list(parts), sizes, errors, colors)
            axes.axvline(0, color=look.muted, lw=1)
            axes.set_title(f"added to {name}, ± 1 standard error")
    return figure


def _bars(
    axes: "Axes",
    names: list[str],
    values: list[float],
    errors: list[float] | None,
    colors: list[str],
) -> None:
    y = np.arange(len(names))
    axes.barh(y, values, 0.62, color=colors)
    if errors is not None:
        ink = axes.xaxis.label.get_color()
        axes.errorbar(values, y, xerr=errors, fmt="none", ecolor=ink, elinewidth=1.2, capsize=2.5)
    axes.set_yticks(y, names)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.invert_yaxis()
    axes.locator_params(axis="x", nbins=6)
    axes.ticklabel_format(axis="x", scilimits=(-2, 4), useMathText=True)
    axes.grid(axis="x")


def learning_by_time(
    sde: SDE,
    t: Numbers,
    excess: Numbers,
    least: Numbers,
    bound: float,
    theme: str = "light",
) -> "Figure":
    r"""What a network has yet to learn, at every time, in nats.

    With lam half the log-SNR, g^2/2 E|s - s_m|^2 dt = E|eps_hat - eps*|^2 |d lam|: drawn against
    lam, the excess of the eps loss has the Girsanov bound of the SDE for its area.

    Args:
        sde: the process.
        t: times (T,).
        excess: E|eps_hat - eps*|^2 there, summed over dimensions (T,).
        least: the irreducible eps loss, summed over dimensions (T,).
        bound: the area over all times, in nats.
        theme: "light" or "dark".
    """
    times = torch.as_tensor(t, dtype=torch.float64)
    lam, over = numbers(sde.lam(times)), numbers(excess)
    with page(5.0, theme) as (figure, look):
        top, low = figure.subplots(2, sharex=True, height_ratios=(1.2, 1))
        top.semilogy(lam, numbers(least), color=look.muted, lw=1.4, label="least possible loss")
        top.semilogy(lam, over, "o-", color=ACCENTS[0], ms=4, label="the network's excess over it")
        top.set_ylim(max(float(over.min()) / 3, 1e-9), None)
        top.set_title(r"$\epsilon$ loss, summed over dimensions")
        top.legend()
        low.fill_between(lam, over, color=ACCENTS[0], alpha=0.25, lw=0)
        low.plot(lam, over, color=ACCENTS[0])
        low.set(ylim=(0, None), xlim=(lam.min(), lam.max()))
        low.set_title(f"the excess again: its area is {bound:.3g} nats, the path KL of the SDE")
        shown = [tick for tick in TICKS if times.min() <= tick <= times.max()]
        places = numbers(sde.lam(torch.tensor(shown, dtype=torch.float64)))
        low.set_xticks(places, [f"{tick:g}" for tick in shown])
        low.set_xlabel("time $t$, in equal steps of log-SNR   (left: noise, right: data)")
        top.grid()
        low.grid()
    return figure


def score_error(
    model: Denoiser,
    law: Distribution,
    times: Sequence[float],
    arrows: int = 21,
    theme: str = "light",
) -> "Figure":
    r"""Where a learned score is wrong: sigma (s_m - s) = eps* - eps_hat over the plane.

    Colour is the size of the error in units of the noise, arrows its direction, where p_t holds
    99.9 per cent of its mass. The title gives the root mean square under p_t.

    Args:
        model: the network, in two dimensions.
        law: the truth, in its units.
        times: one panel for each.
        arrows: in each direction.
        theme: "light" or "dark".
    """
    columns = min(2, len(times))
    rows = -(-len(times) // columns)
    with page(0.9 + rows * (4.9 / columns + 0.28), theme) as (figure, look):
        grid = figure.subplots(rows, columns, squeeze=False)
        for axes, t in zip(grid.flatten(), times, strict=False):
            image = _error_panel(axes, model, law, torch.tensor(t), arrows, look)
        for axes in grid.flatten()[len(times) :]:
            axes.set_visible(False)
        bar = figure.colorbar(image, ax=grid, location="top", aspect=40, extend="both")
        bar.set_label(r"$|\hat\epsilon - \epsilon^*|$, the error in units of the noise")
        bar.outline.set_visible(False)
        coordinates(figure, look)
    return figure


def _error_panel(
    axes: "Axes", model: Denoiser, law: Distribution, t: torch.Tensor, arrows: int, look: Theme
) -> "AxesImage":
    from matplotlib.colors import LogNorm

    x = law.sample(4000, t, seeded(law))
    rms = float(np.sqrt((_error(model, law, x, t) ** 2).sum(1).mean()))
    box = square(x, pad=0.1)
    xs, ys, density = plane_density(law, box, t)
    edge = density_levels(density, (0.999,))[0]
    plane = np.stack(np.meshgrid(xs, ys), -1).reshape(-1, 2)
    size = np.linalg.norm(_error(model, law, torch.from_numpy(plane), t), axis=1)
    inside = np.where(density > edge, size.reshape(density.shape), np.nan)
    dark = look.face != "#ffffff"
    image = axes.imshow(
        np.clip(inside, *SPAN),
        extent=box,
        origin="lower",
        norm=LogNorm(*SPAN),
        cmap="magma" if dark else "magma_r",
        interpolation="bilinear",
    )
    contours(axes, law, box, look, t, fill=False)
    step = max(1, len(xs) // arrows)
    part = np.s_[step // 2 :: step, step // 2 :: step]
    points = plane.reshape(*density.shape, 2)[part].reshape(-1, 2)
    points = points[density[part].flatten() > edge]
    push = -_error(model, law, torch.from_numpy(points), t)
    unit = push / np.maximum(np.linalg.norm(push, axis=1, keepdims=True), 1e-300)
    axes.quiver(
        *points.T,
        *unit.T,
        color=look.muted,
        angles="xy",
        scale_units="xy",
        scale=arrows / (0.75 * (box[1] - box[0])),
        width=0.004,
    )
    frame(axes, box, look)
    axes.set_title(f"$t$ = {float(t):.3g}: rms {rms:.2g}", loc="center")
    return image


@torch.no_grad()
def _error(model: Denoiser, law: Distribution, x: torch.Tensor, t: torch.Tensor) -> Array:
    """eps_hat - eps* at points, each asked in its own dtype, (n, 2)."""
    own, true = anchor(model, x), anchor(law, x)
    parts = [
        model.eps(p.to(own), t.to(own)).cpu().double()
        - law.eps(p.to(true), t.to(true)).cpu().double()
        for p in x.split(8192)
    ]
    return numbers(torch.cat(parts))

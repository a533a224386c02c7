r"""The x-t picture: a law on the line as it dissolves in noise, and paths that cross it.

Every row shows the same exact p_t(x). Over it lie the paths of one process: the forward one from
data to noise, or one of the three that walk back. At the sides stand the laws at both ends, grey
where exact, in colour where they are histograms of the paths.
"""

from collections.abc import Mapping, Sequence
from itertools import count, cycle, pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..denoiser import Denoiser, anchor
from ..distributions import Distribution
from ..grids import uniform
from ..samplers import Recorder, Sampler, listing
from .panels import seeded
from .style import VIEWS, Array, Numbers, Theme, bare, color_of, density_colors, numbers, page

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["WALKS", "density_columns", "density_xt", "walks"]

Path = tuple[Tensor, Tensor]
"""Times (T,) and the states there, (T, n) or (T, n, 1)."""
WALKS: dict[str, Sampler] = {
    one.view: one.sampler for one in map(listing, ("ancestral-beta", "euler-maruyama", "pf-heun"))
}
"""The sampler that stands for each view where one is enough."""
TITLES = {"forward": "forward process  →"} | {
    name: f"←  {view.label}" for name, view in VIEWS.items()
}


def walks(
    law: Distribution,
    t: float | None = None,
    n: int = 2000,
    steps: int = 200,
    denoiser: Denoiser | None = None,
    seed: int = 0,
) -> dict[str, Path]:
    """Data noised to t by the forward process, then walked back from there by each view.

    Args:
        law: the data, in any dimension.
        t: where to turn; the end of the process if not given.
        n: number of paths.
        steps: of each walk, equal in time, all the way down to t = 0 (t_eps for the ODE of a
            network).
        denoiser: what walks back; the law itself if not given.
        seed: of the data and of all noise.

    Returns:
        "forward", "chain", "sde", "ode": times (steps + 1,) and states (steps + 1, n, *event).
    """
    model, t = denoiser or law, law.sde.t_max if t is None else t
    x0 = law.sample(n, generator=seeded(law, seed))
    grid = uniform(steps, t, 0.0)
    paths = {"forward": (grid.flip(0), _forward(law, x0, grid.flip(0), seed + 1))}
    start = paths["forward"][1][-1]
    for k, (name, sampler) in enumerate(WALKS.items(), seed + 2):
        recorder = Recorder()
        sampler(model, start, grid, generator=seeded(law, k), callback=recorder)
        paths[name] = (recorder.times, recorder.x)
    return paths


def density_xt(
    law: Distribution,
    paths: Mapping[str, Path] | None = None,
    errors: Mapping[str, tuple[Numbers, Numbers]] | None = None,
    show: int = 9,
    cells: int = 300,
    limits: Sequence[float] | None = None,
    theme: str = "light",
) -> "Figure":
    """The x-t picture of a law on the line: its exact density, with paths over it.

    Args:
        law: one-dimensional, exact at every time.
        paths: name -> (times, states); "forward", "chain", "sde", "ode" have their own colours
            and titles, other names are titles. One row for each, ``walks(law)`` if not given.
        errors: adds a row of curves over the time at which the walk back began: name -> (times,
            values). Names of views are in their colour with markers, others are grey lines, such
            as the least error possible.
        show: how many paths are drawn; the histograms take all.
        cells: of the heat map, in x and in t.
        limits: lowest and highest x; chosen from the law if not given.
        theme: "light" or "dark".
    """
    if law.sample(1).shape != (1, 1):
        raise ValueError(f"expected a law on the line, got samples {tuple(law.sample(1).shape)}")
    paths = walks(law) if paths is None else paths
    low, high = _limits(law, limits)
    last = max(float(times.max()) for times, _ in paths.values())
    rows = len(paths) + bool(errors)
    with page(1.0 + 1.35 * rows, theme) as (figure, look):
        heights = [1.0] * len(paths) + [1.25] * bool(errors)
        grid = figure.add_gridspec(rows, 3, width_ratios=[0.14, 1, 0.14], height_ratios=heights)
        figure.set_layout_engine("constrained", wspace=0.0, w_pad=0.01, h_pad=0.03)
        panels = [[figure.add_subplot(grid[i, j]) for j in range(3)] for i in range(len(paths))]
        for row, (name, path) in zip(panels, paths.items(), strict=True):
            _heat(row[1], law, low, high, last, cells, look)
            _row(row, law, name, path, show, (low, high, last), look)
        if errors:
            below = figure.add_subplot(grid[-1, 1])
            below.sharex(panels[0][1])
            _errors(below, errors, look)
            panels.append([panels[-1][0], below, panels[-1][2]])
        for row in panels[:-1]:
            row[1].tick_params(labelbottom=False)
        panels[-1][1].set_xlabel("time $t$   (0: data, 1: noise)")
        _side_labels(panels[: len(paths)])
    return figure


def density_columns(law: Distribution, xs: Tensor, ts: Tensor) -> Tensor:
    """p_t(x) of a law on the line for every x and t: (X,), (T,) -> (X, T)."""
    x = xs.to(anchor(law))[:, None]
    return torch.stack([law.log_prob(x, t.to(x)).exp() for t in ts], 1).cpu()


def _heat(
    axes: "Axes", law: Distribution, low: float, high: float, last: float, cells: int, look: Theme
) -> None:
    """The density, each cell at its middle."""
    from matplotlib.colors import PowerNorm

    middle = (torch.arange(cells, dtype=torch.float64) + 0.5) / cells
    density = density_columns(law, low + (high - low) * middle, last * middle)
    axes.imshow(
        density.numpy(),
        extent=(0, last, low, high),
        origin="lower",
        aspect="auto",
        cmap=density_colors(look),
        # sharp modes near t = 0 would leave all else white
        norm=PowerNorm(0.6, vmin=0, vmax=float(density.quantile(0.995))),
        interpolation="bilinear",
    )
    axes.set(xlim=(0, last), ylim=(low, high))


def _row(
    row: Sequence["Axes"],
    law: Distribution,
    name: str,
    path: Path,
    show: int,
    box: tuple[float, float, float],
    look: Theme,
) -> None:
    left, main, right = row
    times, states = numbers(path[0]), numbers(path[1]).reshape(len(path[0]), -1)
    color = color_of(name, look)
    main.plot(times, states[:, :show], color=color, lw=1.1, alpha=0.85)
    main.set_title(TITLES.get(name, name), color=color, pad=3)
    order = times.argsort()
    for axes, end in ((left, order[0]), (right, order[-1])):
        _end(axes, law, float(times[end]), states[end], box, color, look)
    left.invert_xaxis()
    for spine in ("left", "bottom"):
        main.spines[spine].set_visible(False)
    main.tick_params(length=0, labelleft=False)


def _end(
    axes: "Axes",
    law: Distribution,
    t: float,
    states: Array,
    box: tuple[float, float, float],
    color: str,
    look: Theme,
) -> None:
    """The exact law at one end as a grey shape, and the paths there as a histogram."""
    low, high, _ = box
    xs = torch.linspace(low, high, 400, dtype=torch.float64)
    exact = density_columns(law, xs, torch.tensor([t], dtype=torch.float64))[:, 0]
    axes.fill_betweenx(xs.numpy(), exact.numpy(), color=look.ramp[-2], lw=0)
    ends = np.clip([states.min(), states.max()], low, high)
    counts, edges = np.histogram(states, 48, (float(ends[0]), float(ends[1])))
    # of all states, those beyond the limits too, or it would not fit the exact law
    axes.stairs(
        counts / (len(states) * np.diff(edges)),
        edges,
        orientation="horizontal",
        color=color,
        lw=1.2,
    )
    axes.set(ylim=(low, high), xlim=(0, 1.25 * float(exact.max())))
    bare(axes)


def _errors(axes: "Axes", errors: Mapping[str, tuple[Numbers, Numbers]], look: Theme) -> None:
    """Curves over the turning time: views as markers, the rest as grey lines."""
    size, dash = count(8, -1.5), cycle(("-", "--", ":"))  # two views that agree are both seen
    for name, (times, values) in errors.items():
        t, value = numbers(times), numbers(values)
        if name in VIEWS:
            view = VIEWS[name]
            (line,) = axes.plot(t, value, view.marker, color=view.color, label=view.short)
            line.set(ms=next(size), mec=look.face, mew=0.5, clip_on=False, zorder=3)
        else:
            axes.plot(t, value, color=look.muted, lw=1.3, ls=next(dash), label=name)
    axes.set_ylim(bottom=0)
    axes.set_title("mean squared error of the rebuilt $x_0$, turning at $t$", pad=3)
    axes.grid(axis="y")
    axes.legend(loc="lower right", ncols=2, handlelength=1.7, labelspacing=0.25, borderaxespad=0.1)


def _side_labels(rows: Sequence[Sequence["Axes"]]) -> None:
    """Ticks of x on the left of every row, names of the two ends on the first."""
    from matplotlib.ticker import MaxNLocator

    for left, _, _ in rows:
        left.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        left.tick_params(axis="y", length=0)
        left.set_ylabel("$x$", rotation=0, labelpad=2)
    rows[0][0].set_title("data", loc="center", fontsize=10)
    rows[0][2].set_title("noise", loc="center", fontsize=10)


def _limits(law: Distribution, limits: Sequence[float] | None) -> tuple[float, float]:
    if limits is not None:
        return float(limits[0]), float(limits[1])
    sample = law.sample(4000, generator=seeded(law, 0))
    std = law.sde.prior(law.sde.t_max).std
    reach = max(2.9 * std, float(sample.abs().max()) * 1.15)
    return -reach, reach


def _forward(law: Distribution, x0: Tensor, ts: Tensor, seed: int) -> Tensor:
    """An exact path of the forward process at increasing times."""
    states, generator = [x0], seeded(law, seed)
    for s, t in pairwise(ts):
        scale, std = (c.to(x0) for c in law.sde.transition(s, t))
        z = torch.randn(x0.shape, generator=generator, dtype=x0.dtype, device=x0.device)
        states.append(scale * states[-1] + std * z)
    return torch.stack(states)

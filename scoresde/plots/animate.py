"""The three views in motion: a GIF of particles on their way from noise to data."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..distributions import Distribution
from ..files import atomically
from .panels import Box, contours, frame, square
from .style import Array, Theme, bare, color_of, name_of, numbers, page

if TYPE_CHECKING:
    from matplotlib.collections import PathCollection
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.text import Text
    from PIL import Image

__all__ = ["animation"]


def animation(
    panels: Mapping[str, Tensor],
    times: Sequence[float] | Tensor,
    path: str | Path,
    law: Distribution | None = None,
    frames: int = 60,
    show: int = 500,
    seconds: float = 4.0,
    pause: float = 2.5,
    theme: str = "dark",
    dpi: int = 120,
) -> Path:
    """Write a GIF of panels side by side, all at the same time t; it loops, after a pause.

    The frames are spread evenly over the given states, first and last included: to dwell where
    something happens, record more times there (quadratic times suit the VP-SDE). The dark
    background is the default because it looks intended on a light page as well.

    Args:
        panels: name of a view ("chain", "sde", "ode") or any other -> states (T, n, 2).
        times: of the states, (T,), in the order in which they are shown.
        path: where to; the file appears whole or not at all.
        law: draws the exact law of the data, faintly, behind the particles.
        frames: at most; fewer where there are fewer states.
        show: particles drawn in each panel; the size of the file grows with them.
        seconds: for one run.
        pause: seconds on the last frame.
        theme: "light" or "dark".
        dpi: pixels per inch; 120 makes 720 pixels of the usual width.

    Returns:
        The path.
    """
    ts = numbers(torch.as_tensor(times))
    for name, x in panels.items():
        if x.ndim != 3 or len(x) != len(ts) or x.shape[2] != 2:
            raise ValueError(
                f"expected states ({len(ts)}, n, 2) for {name!r}, got {tuple(x.shape)}"
            )
    chosen = np.unique(np.linspace(0, len(ts) - 1, min(frames, len(ts))).round().astype(int))
    shown = {name: x[:, :show] for name, x in panels.items()}
    images = list(_frames(shown, ts, chosen, law, theme, dpi))
    step = round(1000 * seconds / len(images))
    delays = [step] * (len(images) - 1) + [step + round(1000 * pause)]
    first, rest = images[0], images[1:]

    def write(part: Path) -> None:
        first.save(
            part, "GIF", save_all=True, append_images=rest, duration=delays, loop=0, disposal=1
        )

    return atomically(path, write)


def _frames(
    panels: Mapping[str, Tensor],
    ts: Array,
    chosen: NDArray[np.int64],
    law: Distribution | None,
    theme: str,
    dpi: int,
) -> Iterator["Image.Image"]:
    """Every frame as an image of few colours, the same for all, so that only motion is stored."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    box = square(torch.cat([x.flatten(0, 1) for x in panels.values()]), pad=0.0, quantile=0.006)
    with page(0.85 + 5.6 / len(panels), theme) as (figure, look):
        figure.set_dpi(dpi)
        canvas: Any = FigureCanvasAgg(figure)  # matplotlib leaves its methods untyped
        clouds, clock, done = _stage(figure, panels, law, box, look)
        palette = _palette(look, panels)
        for k in chosen:
            for cloud, x in zip(clouds, panels.values(), strict=True):
                cloud.set_offsets(numbers(x[k]))
            clock.set_text(f"$t$ = {ts[k]:.2f}")
            done.set_data([0, np.ptp(ts[: k + 1]) / np.ptp(ts)], [0, 0])
            canvas.draw()
            figure.set_layout_engine("none")  # laid out once: nothing but particles may move
            image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
            yield image.quantize(palette=palette, dither=Image.Dither.NONE)


def _stage(
    figure: "Figure", panels: Mapping[str, Tensor], law: Distribution | None, box: Box, look: Theme
) -> tuple[list["PathCollection"], "Text", "Line2D"]:
    """Panels with empty clouds, and below them a bar that fills as time runs."""
    grid = figure.add_gridspec(2, len(panels), height_ratios=[1, 0.1])
    clouds = []
    for i, name in enumerate(panels):
        axes = figure.add_subplot(grid[0, i])
        if law is not None:
            contours(axes, law, box, look)
        frame(axes, box, look)
        bare(axes)
        axes.set_title(name_of(name), color=color_of(name, look), loc="center")
        clouds.append(axes.scatter([], [], s=6, color=color_of(name, look), lw=0))
    below = figure.add_subplot(grid[1, :])
    bare(below)
    below.set(xlim=(-0.12, 1.12), ylim=(-1, 1))
    below.plot([0, 1], [0, 0], color=look.grid, lw=3, solid_capstyle="round")
    (done,) = below.plot([0, 0], [0, 0], color=look.ink, lw=3, solid_capstyle="round")
    below.text(-0.02, 0, "noise", ha="right", va="center")
    below.text(1.02, 0, "data", ha="left", va="center")
    clock = below.text(0.5, 0.35, "$t$ = 0.00", ha="center", va="bottom")
    return clouds, clock, done


def _palette(look: Theme, names: Iterable[str]) -> "Image.Image":
    """Blends of everything that is drawn with the backgrounds it is drawn on."""
    from matplotlib.colors import to_rgb
    from PIL import Image

    def blend(a: str, b: str, count: int) -> list[list[int]]:
        mix = np.linspace(to_rgb(a), to_rgb(b), count)
        return np.rint(255 * mix).astype(int).tolist()  # type: ignore[no-any-return]

    colors = blend(look.face, look.ink, 16) + blend(look.face, look.ramp[-1], 16)
    for name in names:
        for ground, count in ((look.face, 12), (look.ramp[1], 6), (look.ramp[2], 6)):
            colors += blend(ground, color_of(name, look), count)
    palette = Image.new("P", (1, 1))
    palette.putpalette([channel for color in colors[:256] for channel in color])
    return palette

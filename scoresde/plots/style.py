"""How every figure looks: one palette, one type size, one way to a file.

What is true is grey: exact densities, floors, the forward process. What a sampler made is in
colour, one for each view, the same in every figure of the library. The three colours can be told
apart in every common kind of colour blindness, have a contrast of at least 3 on both backgrounds,
and never stand alone: a label, a marker or a place says the same. Text is sized for a figure
shown 390 pixels wide.

Figures are plain ``Figure`` objects: no pyplot, no global state, and matplotlib is imported only
when one is drawn.

References:
    WCAG 2.1, success criterion 1.4.11 (contrast); Machado, Oliveira and Fernandes 2009 (colour
    blindness), which tests/test_plots.py computes.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..files import atomically
from ..samplers import VIEW_NAMES, Sampler

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

__all__ = [
    "ACCENTS",
    "THEMES",
    "VIEWS",
    "Pair",
    "Theme",
    "View",
    "page",
    "save",
    "save_themes",
    "view_of",
]

Array = NDArray[np.float64]
Numbers = Tensor | Sequence[float] | Array
"""What a curve may be given as."""
Pair = tuple[Path, Path]
"""Files of one figure, for a light page and for a dark one."""
WIDTH = 6.0
"""Of every figure, in inches; 10 points of type are then 9 pixels on a phone of 390."""


@dataclass(frozen=True)
class Theme:
    """The neutral colours of a figure.

    Args:
        face: background.
        ink: text and the forward process.
        muted: ticks, axes, contours.
        grid: hairlines.
        ramp: densities, from none to the highest.
    """

    face: str
    ink: str
    muted: str
    grid: str
    ramp: tuple[str, ...]


@dataclass(frozen=True)
class View:
    """How one of the three ways to walk back is drawn, everywhere.

    Args:
        label: its name in figures.
        short: the same in one word.
        color: works on both themes.
        marker: of its points.
        dash: of its lines.
    """

    label: str
    short: str
    color: str
    marker: str
    dash: str | tuple[float, tuple[float, ...]]


THEMES = {
    "light": Theme(
        "#ffffff", "#1b2330", "#5a6573", "#e4e8ed", ("#ffffff", "#dde3ea", "#b3bdc9", "#8390a0")
    ),
    "dark": Theme(
        "#14161a", "#e9ecf1", "#9ca7b5", "#2b3038", ("#14161a", "#232830", "#38414d", "#5f6b7b")
    ),
}
"""Paper, ink and the greys between, for light and for dark pages."""
VIEWS = {
    "chain": View(*VIEW_NAMES["chain"], "#e8590c", "s", (0, (1.2, 1.2))),
    "sde": View(*VIEW_NAMES["sde"], "#3a81f6", "o", "-"),
    "ode": View(*VIEW_NAMES["ode"], "#a8478f", "^", "--"),
}
"""Name, colour, mark and dash of the three ways to walk."""
ACCENTS = ("#0b8a72", "#97720a", "#8a5a3c", "#5b7a99")
"""For what is not a view: a guided class, a classifier, a network."""


def view_of(sampler: Sampler) -> str:
    """The view a sampler belongs to, a key of ``VIEWS``: without noise it walks the ODE."""
    return sampler.view


@contextmanager
def page(height: float, theme: str = "light") -> Iterator[tuple["Figure", Theme]]:
    """An empty figure of the usual width and the theme's colours; draw on it inside the block.

    Args:
        height: in inches.
        theme: "light" or "dark".
    """
    import matplotlib
    from matplotlib.figure import Figure

    if theme not in THEMES:
        raise ValueError(f'expected theme "light" or "dark", got {theme!r}')
    look = THEMES[theme]
    with matplotlib.rc_context(_settings(look)):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        yield figure, look


def save(figure: "Figure", path: str | Path, dpi: int = 160) -> Path:
    """Write a figure; the kind of file follows from the name (.png, .svg, .pdf).

    The file appears whole or not at all: if writing fails, an earlier one is left as it was.

    Args:
        figure: any matplotlib figure.
        path: where to.
        dpi: pixels per inch; 160 makes 960 pixels of the usual width.

    Returns:
        The path.
    """
    path = Path(path)
    kind = path.suffix.lstrip(".") or "png"
    stamp: dict[str, Any] = {"png": {"Software": None}, "svg": {"Date": None}}.get(kind, {})
    return atomically(
        path, lambda part: figure.savefig(part, dpi=dpi, format=kind, metadata=stamp)
    )


def save_themes(stem: str | Path, draw: Callable[[str], "Figure"], dpi: int = 130) -> Pair:
    """Draw a figure in each theme and write STEM-light.png and STEM-dark.png.

    Args:
        stem: path without the theme and the ending.
        draw: theme -> figure.
        dpi: pixels per inch.
    """
    stem = Path(stem)
    light, dark = (
        save(draw(theme), stem.with_name(f"{stem.name}-{theme}.png"), dpi) for theme in THEMES
    )
    return light, dark


def numbers(values: Numbers) -> Array:
    """Anything numeric as a float64 array."""
    array: Array = torch.as_tensor(values).detach().cpu().double().numpy()
    return array


def density_colors(look: Theme) -> "Colormap":
    """The colours of a density: a quiet ramp of greys, so that what lies on top is seen."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("density", look.ramp)


def bare(axes: "Axes") -> None:
    """No ticks, no frame."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def name_of(key: str) -> str:
    """The short name of a view, or the key itself."""
    return VIEWS[key].short if key in VIEWS else key


def color_of(key: str, look: Theme) -> str:
    """The colour of a view; ink for all else."""
    return VIEWS[key].color if key in VIEWS else look.ink


def _settings(look: Theme) -> dict[Any, Any]:
    lines = dict.fromkeys(("axes.edgecolor", "xtick.color", "ytick.color"), look.muted)
    text = dict.fromkeys(("text.color", "axes.labelcolor", "axes.titlecolor"), look.ink)
    faces = dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), look.face)
    return {
        **lines,
        **text,
        **faces,
        "font.family": "DejaVu Sans",
        "mathtext.fontset": "dejavusans",
        "font.size": 10.5,
        "axes.titlesize": 11,
        "axes.labelsize": 10.5,
        "xtick.labelsize": 10,
        "ytick.labelsize": 10,
        "legend.fontsize": 10,
        "legend.frameon": False,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 0.8,
        "axes.titlelocation": "left",
        "axes.axisbelow": True,
        "axes.unicode_minus": True,
        "grid.color": look.grid,
        "grid.linewidth": 0.8,
        "lines.linewidth": 1.8,
        "lines.markersize": 5.5,
        "figure.constrained_layout.h_pad": 0.06,
        "figure.constrained_layout.w_pad": 0.06,
    }

r"""Fourteen families of trajectories
====================================

What a diffusion model of paths can be trained on here: noise, oscillators, orbits, chaos, cells
and sound. Each family is a law with physical parameters; seven of them are Gaussian, so that the
exact denoiser of whole paths is known.
"""

import torch
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba

from scoresde.data import TRAJECTORIES
from scoresde.plots import save
from scoresde.plots.style import ACCENTS, VIEWS, page

units = {
    "brownian": "µm", "ornstein_uhlenbeck": "", "thermal_oscillator": "", "lissajous": "m",
    "damped_oscillator": "m", "driven_oscillator": "m", "splines": "", "kepler": "au",
    "larmor": "mm", "double_pendulum": "m", "double_well": "µm", "run_and_tumble": "µm",
}  # fmt: skip
colors = (VIEWS["sde"].color, VIEWS["chain"].color, ACCENTS[0])

# %%
# Three paths of each, drawn on 600 times: faint where they begin, a dot where they end. The bar
# at the lower left is a length, as on a map.


def trail(axes, path, color):
    """One path, fading into its past."""
    pieces = torch.stack((path[:-1], path[1:]), 1).numpy()
    inks = [to_rgba(color, 0.12 + 0.88 * k / len(pieces)) for k in range(len(pieces))]
    axes.add_collection(LineCollection(pieces, colors=inks, linewidths=1.2))
    axes.plot(*path[-1].numpy(), "o", color=color, ms=3.5)


def scale_bar(axes, x, unit, look):
    """A round length below the paths, and the frame that holds both."""
    (left, bottom), (right, top) = x.amin((0, 1)).tolist(), x.amax((0, 1)).tolist()
    side = 1.1 * max(right - left, top - bottom)
    middle, floor = 0.5 * (left + right), 0.5 * (bottom + top) - 0.62 * side
    length = max(c * 10**e for e in range(-2, 3) for c in (1, 2, 5) if c * 10**e < side / 3)
    start = middle - 0.5 * side
    axes.plot([start, start + length], [floor, floor], color=look.ink, lw=2, solid_capstyle="butt")
    name = f"{length:g} {unit}".strip()
    axes.text(start + 1.15 * length, floor, name, va="center", fontsize=8, color=look.muted)
    axes.set(xlim=(middle - 0.55 * side, middle + 0.55 * side), aspect="equal")
    axes.set_ylim(floor - 0.05 * side, floor + 1.17 * side)


def title(axes, name):
    """What is seen, over its middle."""
    axes.set_title(name.replace("_", " "), loc="center", fontsize=9.5)


with page(7.6) as (figure, look):
    upper, lower = figure.subfigures(2, 1, height_ratios=(3.9, 1))
    grid = upper.subplots(3, 4).flat
    for k, (axes, (name, unit)) in enumerate(zip(grid, units.items(), strict=True)):
        x = TRAJECTORIES[name](length=600)(3, torch.Generator().manual_seed(k + 4))
        for path, color in zip(x, colors, strict=True):
            trail(axes, path, color)
        scale_bar(axes, x, unit, look)
        title(axes, name)
        axes.set_axis_off()
    for name, axes in zip(("ring_down", "chirp"), lower.subplots(1, 2, sharey=True), strict=True):
        family = TRAJECTORIES[name](length=600)
        for x, color in zip(family(3, torch.Generator().manual_seed(7)), colors, strict=True):
            axes.plot(1e3 * family.times.numpy(), x.numpy(), color=color, lw=1.2, alpha=0.85)
        title(axes, name)
        axes.tick_params(labelsize=8)
        axes.set(yticks=(-1, 0, 1))
        axes.set_xlabel("time in ms", fontsize=8)
save(figure, "trajectory_families.png")

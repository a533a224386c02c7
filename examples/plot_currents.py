r"""Where probability flows
=======================

The Fokker-Planck equation is a law of conservation, :math:`\partial_t p + \nabla\cdot J = 0`, and
its current has two parts:

.. math:: J = \underbrace{u\,p}_{\text{drift}} \; \underbrace{-\, \tfrac12 g^2\, \nabla
   p}_{\text{diffusion}}.

Diffusion spreads, whichever way time runs. How can a process run backward then?
"""

import numpy as np
import torch

from scoresde import VPSDE
from scoresde.data import gm2
from scoresde.physics import Cells, osmotic_velocity, probability_current, stream_lines
from scoresde.plots import VIEWS, save
from scoresde.plots.panels import contours, coordinates, frame
from scoresde.plots.style import page

sde = VPSDE()
law, t = gm2(sde), torch.tensor(0.08, dtype=torch.float64)
x = Cells.cube(3.9, 19, dim=2).points()

# %%
# Forward the drift is :math:`f x`, towards the origin. Backward it is :math:`-(f x - g^2 \nabla
# \log p)`: uphill, with twice the strength that diffusion has downhill.

p = law.log_prob(x, t).exp()[:, None]
diffusion = -p * osmotic_velocity(law, x, t)
rows = {
    "forward": (p * sde.drift(x, t), 1),
    "backward": (p * (2 * osmotic_velocity(law, x, t) - sde.drift(x, t)), -1),
}

# %%
# So the sums are one and the same current with opposite signs, and the laws on the way are equal.

for drift, sign in rows.values():
    current = probability_current(law.log_prob, sde, x, t)
    assert torch.allclose(drift + diffusion, sign * current, atol=1e-12)


def arrows(axes, field, color):
    """All panels have one scale: an arrow 0.6 long is a current of 0.3."""
    size = field.norm(dim=1)
    heads = {"headwidth": 3.6, "headlength": 3.8, "headaxislength": 3.3, "minlength": 0.3}
    axes.quiver(
        *x[size > 0.008].T,
        *field[size > 0.008].T,
        **heads,
        color=color,
        angles="xy",
        scale_units="xy",
        scale=0.5,
        width=0.007,
        pivot="mid",
    )


# %%
# The stream lines of the probability-flow ODE, taken back towards the data: each stroke begins
# thin. One point of the SDE never walks so straight; the flow of all of them does.


def strokes(axes, t, color):
    from matplotlib.collections import LineCollection

    jitter = torch.rand(900, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    starts = 7.8 * jitter - 3.9
    starts = starts[law.log_prob(starts, t) > -7]
    lines = stream_lines(lambda x: law.velocity(x, t), starts, -0.55, 16)
    pieces = torch.stack((lines[:-1], lines[1:]), 2).flatten(0, 1)
    fade = np.repeat(np.linspace(0.05, 1, 16), len(starts))
    axes.add_collection(LineCollection(pieces.numpy(), colors=color, lw=1.2 * fade, alpha=fade))


with page(6.6) as (figure, look):
    box = (-3.9, 3.9, -3.9, 3.9)
    grid = figure.subplots(3, 3, sharex=True, sharey=True)
    for row, (name, (drift, sign)) in zip(grid, rows.items(), strict=False):
        color = {1: look.ink, -1: VIEWS["sde"].color}[sign]
        for axes, field in zip(row, (drift, diffusion, drift + diffusion), strict=True):
            contours(axes, law, box, look, t)
            arrows(axes, field, color)
        row[0].set_ylabel(name, color=color, fontsize=11)
    for axes, time in zip(grid[2], torch.tensor([0.3, 0.1, 0.02]).double(), strict=True):
        contours(axes, law, box, look, time)
        strokes(axes, time, VIEWS["ode"].color)
        axes.set_title(f"$t$ = {float(time):.2g}", loc="center", color=VIEWS["ode"].color)
    grid[2, 0].set_ylabel("stream lines back", color=VIEWS["ode"].color, fontsize=11)
    for axes, title in zip(grid[0], ("drift", "+  diffusion", "=  current"), strict=True):
        axes.set_title(title, loc="center")
    for axes in grid.flat:
        frame(axes, box, look)
    coordinates(figure, look)
save(figure, "currents.png")

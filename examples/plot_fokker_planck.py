r"""The Fokker-Planck equation, both ways
=====================================

A density obeys :math:`\partial_t p = -\nabla\cdot(u\,p) + D\,\nabla^2 p`. Forward in time the
drift is :math:`u = f x` and any data end as noise. Backward, the score enters the drift, and noise
ends as data. On a grid both are a matter of small flows between neighbouring cells: no samples, no
randomness, and a reference where nothing is known in closed form, as with a score that is wrong.
"""

import torch

from scoresde import VPSDE
from scoresde.data import gm1
from scoresde.guidance import Guided
from scoresde.physics import Cells, denoising, evolve, noising
from scoresde.plots import VIEWS, save
from scoresde.plots.style import page

law = gm1(VPSDE())  # 0.6 N(1.5, 0.3^2) + 0.4 N(-1, 0.5^2), exact at every time
cells = Cells.cube(6.0, 400)
ts = torch.linspace(0, 1, 201, dtype=torch.float64)
exact = torch.stack([cells.density(lambda x, t=t: law.log_prob(x, t)) for t in ts])

# %%
# A score 1.1 times too large is the true one guided by the density itself. For a learned score
# such an error of ten per cent is no surprise.

large = Guided(law, law.log_prob, scale=0.1)

# %%
# Backward everything starts from the exact law at t = 1.

back = {
    "sde": evolve(denoising(law), cells, exact[-1], ts.flip(0), 2).flip(0),
    "wrong sde": evolve(denoising(large), cells, exact[-1], ts.flip(0), 2).flip(0),
    "wrong ode": evolve(denoising(large, noise=0), cells, exact[-1], ts.flip(0), 2).flip(0),
}
forward = evolve(noising(law.sde), cells, exact[0], ts, 2)

# %%
# The colours are the grid's, the lines the exact law's. With the true score the way back retraces
# the way out. With the wrong one the ODE squeezes every mode, for it never forgets an error; the
# SDE keeps adding noise and drawing it in again, and nearly forgives.

rows = {
    "forward process  →": (forward, "#5a6573"),
    "←  reverse SDE, true score": (back["sde"], VIEWS["sde"].color),
    "←  reverse SDE, score × 1.1": (back["wrong sde"], VIEWS["sde"].color),
    "←  probability-flow ODE, score × 1.1": (back["wrong ode"], VIEWS["ode"].color),
}


def heat(axes, p, color, look):
    """A density over time and space, under the contours of the exact one."""
    from matplotlib.colors import LinearSegmentedColormap, PowerNorm

    colors = LinearSegmentedColormap.from_list("density", [look.face, color])
    norm, box = PowerNorm(0.6, 0, 0.8), (0, 1, cells.low[0], cells.high[0])
    axes.imshow(p.T, extent=box, origin="lower", aspect="auto", cmap=colors, norm=norm)
    x = cells.middles()
    axes.contour(ts, x, exact.T, [0.05, 0.2, 0.4, 0.7], colors=look.ink, linewidths=0.5)
    axes.set(ylim=(-3, 3), yticks=(-2, 0, 2))
    axes.set_ylabel("$x$", rotation=0)


def end(axes, p, color, look):
    """The law at t = 0: exact in grey, the grid's as a line."""
    axes.fill_betweenx(cells.middles(), exact[0], color=look.ramp[1], lw=0)
    axes.plot(p[0], cells.middles(), color=color, lw=1.6)
    axes.set(ylim=(-3, 3), xlim=(1.4, 0), xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


with page(7.2) as (figure, look):
    grid = figure.subplots(4, 2, width_ratios=[0.2, 1], sharex="col")
    for (side, main), (title, (p, color)) in zip(grid, rows.items(), strict=True):
        end(side, p, color, look)
        heat(main, p, color, look)
        main.set_title(title, color=color)
    grid[0, 0].set_title("law at $t=0$", loc="center", fontsize=10)
    grid[-1, 1].set_xlabel("time $t$   (0: data, 1: noise)")
save(figure, "fokker_planck.png")

# %%
# The grid's own error, as a distance in total variation from the exact law. It falls as the square
# of the cell and in proportion to the step; the ODE has no diffusion to smooth its way, so its
# grid is of first order in the cell.

ends = {"forward, at t = 1": (forward, -1), "reverse SDE, at t = 0": (back["sde"], 0)}
for name, (p, k) in ends.items():
    print(f"{name}: {0.5 * float(cells.integral((p[k] - exact[k]).abs())):.1e}")

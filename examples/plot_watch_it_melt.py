r"""Watch it melt, and grow back
============================

The probability-flow ODE loses nothing. Walked from data to noise it melts two moons into a cloud
that nobody could tell from a Gaussian; the same points, walked back on the same grid, are the
moons again, each point where it was. (The noise of an SDE would have forgotten them.)
"""

import matplotlib.pyplot as plt
import torch
from matplotlib.animation import FuncAnimation

from scoresde import VPSDE, PFHeun, log_snr
from scoresde.data import moons

sde = VPSDE()
law = moons(sde)
grid = log_snr(sde, 48)  # from noise to data

# %%
# A sampler without noise walks an increasing grid as well: that is the way to noise. Every third
# state is kept for the film.

x = start = law.sample(800, generator=torch.Generator().manual_seed(0))
film = [(float(grid[-1]), x)]
for ts in (grid.flip(0), grid):
    for k in range(0, 48, 3):
        x = PFHeun()(law, x, ts[k : k + 4])
        film.append((float(ts[k + 3]), x))
print(f"largest distance from where a point began: {(x - start).norm(dim=1).max():.1e}")

# %%
# Colours say to which moon a point belongs. Two points never meet: paths of an ODE do not cross.

figure, ax = plt.subplots(figsize=(4, 4), layout="constrained")
upper = law.posterior(start).argmax(1) < len(law.weights) // 2  # which of the two moons
dots = ax.scatter(*start.T, s=6, c=upper, cmap="cividis", vmin=-0.2, vmax=1.2)
ax.set(xlim=(-3.5, 3.5), ylim=(-3.5, 3.5), aspect="equal", xticks=[], yticks=[])


def draw(k):
    """One frame: the particles, and the time."""
    t, points = film[k]
    dots.set_offsets(points)
    ax.set_title(f"{'to noise' if k <= len(film) // 2 else 'and back'}, t = {t:.2f}")
    return (dots,)


animation = FuncAnimation(figure, draw, frames=len(film), interval=100)

r"""Two ways to be wrong
====================

Euler-Maruyama freezes drift and noise over a step. How far is the walk from the exact solution on
the *same* Brownian path (strong error), and how far is its *law* (weak error)? Both questions have
exact answers for two equations that can be solved:

.. math:: \mathrm{d}S = \mu S\,\mathrm{d}t + \nu S\,\mathrm{d}W \quad\text{and}\quad
   \mathrm{d}X = -\theta X\,\mathrm{d}t + \nu\,\mathrm{d}W .
"""

import math

import torch

from scoresde import BrownianPath
from scoresde.plots import VIEWS, save
from scoresde.plots.style import ACCENTS, page

mu, nu, theta = 0.5, 0.8, 2.0  # everything starts from 1 and ends at T = 1
noise = BrownianPath(seed=3, shape=(1, 1))
fine = torch.linspace(0, 1, 1025, dtype=torch.float64)


def increments(ts):
    """W(t) - W(s) for neighbours of a grid, of the one path."""
    pairs = zip(ts[:-1].tolist(), ts[1:].tolist(), strict=True)
    return torch.cat([noise.increment(t, s)[0] for s, t in pairs])


# %%
# Ito's formula solves the first, :math:`S_t = \exp[(\mu - \nu^2/2)\,t + \nu W_t]`. A walk of N
# steps asks the same path for its increments over longer intervals.


def walk(N):
    """Times and states of Euler-Maruyama."""
    ts = fine[:: 1024 // N]
    factors = 1 + mu / N + nu * increments(ts)
    return ts, torch.cat([factors.new_ones(1), factors.cumprod(0)])


W = torch.cat([fine.new_zeros(1), increments(fine).cumsum(0)])
exact = ((mu - 0.5 * nu**2) * fine + nu * W).exp()

# %%
# No path is needed for the mean errors: one step multiplies the second moments of the exact and
# the walked state by numbers, so that :math:`\mathrm{E}(\hat X_N - X)^2` is a recursion.


def geometric(N):
    """Strong error and error of the mean of geometric Brownian motion."""
    h = 1 / N
    walked, both = (1 + mu * h) ** 2 + nu**2 * h, math.exp(mu * h) * (1 + (mu + nu**2) * h)
    square = walked**N - 2 * both**N + math.exp(2 * mu + nu**2)
    return square**0.5, math.exp(mu) - (1 + mu * h) ** N


def ornstein_uhlenbeck(N):
    """Strong error and error of the variance of the Ornstein-Uhlenbeck process."""
    h, decay, keep = 1 / N, math.exp(-theta / N), 1 - theta / N
    xx, xy, yy = 1.0, 1.0, 1.0
    for _ in range(N):
        xx = decay**2 * xx + nu**2 * (1 - decay**2) / (2 * theta)
        xy = decay * keep * xy + nu**2 * (1 - decay) / theta
        yy = keep**2 * yy + nu**2 * h
    return (xx - 2 * xy + yy) ** 0.5, (yy - keep ** (2 * N)) - (xx - decay ** (2 * N))


# %%
# Where the noise depends on the state, paths converge at order 1/2 and laws at order 1. Where it
# does not, as in every diffusion model, both are of order 1.

steps = [8, 16, 32, 64, 128, 256, 512, 1024]
errors = {
    r"$\mathrm{d}S = \mu S\,\mathrm{d}t + \nu S\,\mathrm{d}W$": [geometric(N) for N in steps],
    r"$\mathrm{d}X = -\theta X\,\mathrm{d}t + \nu\,\mathrm{d}W$": [
        ornstein_uhlenbeck(N) for N in steps
    ],
}


def slope(axes, start, order, look, below=False):
    """A grey line of this order, its name above or below it."""
    line = [start * (steps[0] / N) ** order for N in steps]
    axes.plot(steps, line, color=look.muted, lw=1, ls=(0, (5, 3)))
    text = r"$N^{-1/2}$" if order == 0.5 else r"$N^{-1}$"
    shift = (-34, -12) if below else (0, 5)
    place = {"xytext": shift, "textcoords": "offset points", "color": look.muted}
    axes.annotate(text, (steps[5], line[5]), **place)


with page(6.4) as (figure, look):
    grid = figure.subplot_mosaic("pp;ab", height_ratios=[1.1, 1])
    top = grid["p"]
    top.plot(fine, exact, color=look.ink, lw=1.0, label="exact")
    for N, color, size in ((8, VIEWS["chain"].color, 6), (64, VIEWS["sde"].color, 3)):
        ts, states = walk(N)
        style = {"marker": "o", "ms": size, "mec": look.face, "mew": 0.4}
        top.plot(ts, states, color=color, lw=1.2, label=f"{N} steps", **style)
    top.set(xlabel="time $t$", xlim=(0, 1))
    top.set_ylabel("$S$", rotation=0, labelpad=8)
    top.set_title("One Brownian path, and walks that hear it less and less often")
    top.legend(loc="upper left", ncols=3)
    for axes, (title, pairs), orders in zip(
        (grid["a"], grid["b"]), errors.items(), ((0.5, 1), (1, 1)), strict=True
    ):
        strong, weak = zip(*pairs, strict=True)
        axes.loglog(steps, strong, "o-", color=ACCENTS[0], label="paths (strong)")
        axes.loglog(steps, weak, "s--", color=ACCENTS[2], label="law (weak)")
        slope(axes, 1.6 * strong[0], orders[0], look)
        slope(axes, 0.5 * weak[0], orders[1], look, below=True)
        axes.set(xlabel="steps N", title=title, ylim=(5e-5, 1.2))
        axes.set_xticks([10, 100, 1000], ["10", "100", "1000"])
        axes.grid()
    grid["a"].set_ylabel("error at $t = 1$")
    grid["b"].legend(loc="upper right")
save(figure, "ito_and_geometric_brownian.png")

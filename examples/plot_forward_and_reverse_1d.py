r"""Forward and reverse on the line
===============================

Noise a point :math:`x_0` up to time :math:`t`, turn, and walk back. The Markov chain, the reverse
SDE and the probability-flow ODE all return to the same *law*: the coloured histograms on the left
fall on the grey density of the data. They do not return to the same *point*.
"""

import torch

from scoresde import VPSDE
from scoresde.data import gm1
from scoresde.plots import density_xt, save, walks

law = gm1(VPSDE())  # 0.6 N(1.5, 0.3^2) + 0.4 N(-1, 0.5^2), exact at every time

# %%
# Data to noise, and back from those very points along each of the three ways.

paths = walks(law, n=4000)

# %%
# Now turn earlier, at several :math:`t`, and measure how far from :math:`x_0` each walk ends.

turns = torch.linspace(0.1, 1, 8).tolist()
returns = [walks(law, t, n=2000, steps=80) for t in turns]


def error(walk, view):
    """Mean squared distance between where a walk began and where it returned."""
    x0, rebuilt = walk["forward"][1][0], walk[view][1][-1]
    return float((rebuilt - x0).square().mean())


# %%
# The least error possible is that of the posterior mean, :math:`\mathrm{mmse}(t) =
# \mathrm{E}|x_0 - \mathrm{E}[x_0|x_t]|^2`, exact here. The chain and the SDE return a fresh draw
# from the posterior :math:`p(x_0|x_t)`, as far from its mean as :math:`x_0` itself: exactly twice
# the minimum. The ODE draws nothing and lands in between. A sample is not a best guess.

times = torch.linspace(1e-3, 1, 100, dtype=torch.float64)
least = law.mmse(times)
exact = {"mmse$(t)$": (times, least), "2 mmse$(t)$": (times, 2 * least)}
errors = {v: (turns, [error(walk, v) for walk in returns]) for v in ("chain", "sde", "ode")}

figure = density_xt(law, paths, exact | errors)
save(figure, "forward_and_reverse_1d.png")

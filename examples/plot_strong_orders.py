r"""Strong orders
=============

How far does a sampler stray from the exact path of the reverse SDE, given its Brownian motion?
The mean distance :math:`\mathrm{E}|X_N - X|` falls as :math:`N^{-p}`: p is the strong order. The
noise is additive, so Euler-Maruyama has p = 1, not the 1/2 of the textbooks.
"""

import torch

from scoresde import VPSDE, Ancestral, BrownianPath, EulerMaruyama, TorchSDE, quadratic
from scoresde.data import gm1
from scoresde.plots import convergence, save

law = gm1(VPSDE())
x = law.sample(4000, torch.tensor(1.0), torch.Generator().manual_seed(0))
noise = BrownianPath(seed=0, shape=x.shape)
samplers = {
    r"DDPM, variance $\tilde\beta$": Ancestral(),
    r"DDPM, variance $\beta$": Ancestral("beta"),
    "Euler-Maruyama": EulerMaruyama(),
    "stochastic Runge-Kutta": TorchSDE("srk"),
}

# %%
# The exact path is that of a fine grid, on the same noise. The stochastic Runge-Kutta method
# (SRA1, by torchsde, two evaluations a step) uses the area under the path as well as its
# increments, for order 3/2. The discrete chain of DDPM follows the SDE path by path at order 1.

truth = TorchSDE("srk")(law, x, quadratic(1024), noise=noise)
steps = [16, 32, 64, 128, 256]


def distance(sampler, n):
    """Mean distance to the exact path at t = 1e-3."""
    return float((sampler(law, x, quadratic(n), noise=noise) - truth).abs().mean())


curves = {name: (steps, [distance(s, n) for n in steps]) for name, s in samplers.items()}
views = dict(zip(samplers, ["chain", "chain", "sde", "sde"], strict=True))
figure = convergence(curves, views, labels=("steps N", "mean distance to the exact path"))
save(figure, "strong_orders.png")

r"""Train a spiral
==============

A network learns one thing, the noise :math:`\varepsilon` in :math:`x_t = \alpha(t)\, x_0 +
\sigma(t)\, \varepsilon`, at every time. Whatever is needed to walk back, as a chain, an SDE or an
ODE, follows from it: train once, choose the walk afterwards.
"""

import torch

from scoresde import VPSDE, Ancestral, EpsDenoiser, EulerMaruyama, PFHeun, quadratic, sample
from scoresde.data import spiral
from scoresde.nets import MLP
from scoresde.plots import compare_points, save
from scoresde.training import fit

sde = VPSDE()
law = spiral(sde)  # two turns, made of 64 Gaussians: its density and score are known exactly

# %%
# Draw the data (an array of your own points would do as well), and train for some seconds.

x0 = law.sample(20_000, generator=torch.Generator().manual_seed(0))
torch.manual_seed(0)
run = fit(EpsDenoiser(MLP(2), sde), x0, steps=5000)

# %%
# The same network, walked three ways. The lines hold 50, 90 and 99 per cent of the truth. Look
# between the arms: the ODE, which draws no noise, carries every error of the network to the end.

walks = {
    "chain": (Ancestral("beta"), quadratic(200)),
    "sde": (EulerMaruyama(), quadratic(200)),
    "ode": (PFHeun(), quadratic(50)),
}
samples = {
    view: sample(run.denoiser, sampler, (1500, 2), grid, seed=0)
    for view, (sampler, grid) in walks.items()
}
figure = compare_points(samples, law)
save(figure, "train_a_spiral.png")

r"""Samplers compared
=================

On Gaussian data the exact denoiser is affine, so the law of a sampler's output is Gaussian too,
and :func:`scoresde.moments` computes it from the very table of numbers that the sampler walks.
No samples are drawn: every point below is exact, and the slopes are the orders.
"""

from scoresde import (
    DDIM,
    PFRK4,
    VPSDE,
    Ancestral,
    EulerMaruyama,
    PFEuler,
    PFHeun,
    ReverseDiffusion,
    moments,
    quadratic,
)
from scoresde.data import gauss
from scoresde.metrics import gaussian_w2
from scoresde.plots import convergence, save, view_of

law = gauss(VPSDE())  # one correlated Gaussian of the plane

# %%
# Each sampler with its evaluations of the denoiser per step.

samplers = {
    r"DDPM, variance $\tilde\beta$": (Ancestral(), 1),
    r"DDPM, variance $\beta$": (Ancestral("beta"), 1),
    "Euler-Maruyama": (EulerMaruyama(), 1),
    "reverse diffusion": (ReverseDiffusion(), 1),
    "DDIM": (DDIM(), 1),
    "Euler": (PFEuler(), 1),
    "Heun": (PFHeun(), 2),
    "Runge-Kutta": (PFRK4(), 4),
}


def error(sampler, n):
    """Distance between the sampler's law and the exact one where the grid ends."""
    grid = quadratic(n)
    means, covs = moments(sampler, law, grid)
    return float(gaussian_w2(means[-1], covs[-1], *law.marginal(grid[-1])))


# %%
# Every sampler with noise is of first order, and so are two of the ODE's; smooth paths are what
# lets Heun and Runge-Kutta do better. With 20 evaluations the choice matters little, with 200 it
# is worth four digits. (DDPM with variance :math:`\beta` happens to lie on Euler-Maruyama here.)

steps = [10, 20, 40, 80, 160]
curves = {
    name: ([cost * n for n in steps], [error(sampler, n) for n in steps])
    for name, (sampler, cost) in samplers.items()
}
views = {name: view_of(sampler) for name, (sampler, _) in samplers.items()}
figure = convergence(curves, views, labels=("denoiser evaluations", "$W_2$ to the exact law"))
save(figure, "samplers_compared.png")

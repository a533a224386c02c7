r"""Likelihoods of a diffusion model, and the latent space that its probability-flow ODE opens.

The ODE carries data to noise one to one, so the density of every point is known exactly, up to
the error of the integration (``log_likelihood``, ``ode_likelihood``, ``bits_per_dim``), and every
point has a latent (``encode``, ``decode``, ``interpolate``). The reverse SDE and the DDPM chain
made from the same network are other models with other densities; theirs are bounded only
(``elbo``; ``DDPMChain.vlb``), and their bounds say nothing about the ODE's.

>>> import torch
>>> from scoresde.data import ring
>>> from scoresde.sde import VPSDE
>>> mixture = ring(VPSDE())
>>> x = torch.tensor([[1.5, 0.0], [0.0, 0.0]], dtype=torch.float64)
>>> log_p = log_likelihood(mixture, x, prior=mixture)
>>> torch.allclose(log_p, mixture.log_prob(x), atol=1e-3)
True
"""

from .bounds import ELBO, elbo
from .density import Likelihood, bits_per_dim, log_likelihood, ode_likelihood
from .flow import rademacher
from .latent import decode, encode, interpolate
from .walks import Adaptive, Fixed, Torchdiffeq, Walk

__all__ = [
    "ELBO",
    "Adaptive",
    "Fixed",
    "Likelihood",
    "Torchdiffeq",
    "Walk",
    "bits_per_dim",
    "decode",
    "elbo",
    "encode",
    "interpolate",
    "log_likelihood",
    "ode_likelihood",
    "rademacher",
]

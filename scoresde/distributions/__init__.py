"""Distributions whose density, score and denoiser are known exactly at every time.

    GaussianMixture(weights, means, covs, sde)      any number of Gaussians, in any dimension
    Boxes(lo, hi, weights, sde)                     uniform on boxes: sharp edges
    Empirical(points, sde)                          stored points, each with weight 1/n
    gaussian_trajectories(mean, covariance, sde)    jointly Gaussian paths; ``bridge`` pins them

Each is a ``Distribution``: a denoiser with ``log_prob(x, t)`` and ``sample(n, t)``, the reference
for samplers, guidance, likelihood and networks. Given linear measurements a mixture stays one:
``condition`` and ``log_evidence``.

>>> from scoresde.sde import VPSDE
>>> two = torch.tensor([[-1.0], [1.0]])
>>> GaussianMixture.isotropic([0.5, 0.5], two, 0.1, VPSDE()).posterior(two).argmax(1)
tensor([0, 1])
"""

from .base import Distribution
from .boxes import Boxes
from .conditioning import condition, log_evidence
from .empirical import Empirical
from .mixture import GaussianMixture
from .trajectories import bridge, gaussian_trajectories

__all__ = [
    "Boxes",
    "Distribution",
    "Empirical",
    "GaussianMixture",
    "bridge",
    "condition",
    "gaussian_trajectories",
    "log_evidence",
]

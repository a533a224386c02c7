"""Distributions whose density, score and denoiser are known exactly at every time.

    GaussianMixture(weights, means, covs, sde)      any number of Gaussians, in any dimension
    Boxes(lo, hi, weights, sde)                     uniform on boxes: sharp edges
    Empirical(points, sde)                          stored points, each with weight 1/n
    gaussian_trajectories(mean, covariance, sde)    jointly Gaussian paths; ``bridge`` pins them

Each is a ``Distribution``: a denoiser with ``log_prob(x, t)`` and ``sample(n, t)``, the reference
for samplers, guidance, likelihood and networks. Given linear measurements a mixture stays one:
``condition`` and ``log_evidence``.

>>> from scoresde.sde import VPSDE
>>> pair = GaussianMixture.isotropic([0.5, 0.5], [[-1.0], [1.0]], 0.1, VPSDE())
>>> pair.sample(3).shape, pair.posterior(pair.means).argmax(1).tolist()
(torch.Size([3, 1]), [0, 1])
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

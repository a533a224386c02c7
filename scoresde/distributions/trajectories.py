r"""Paths that are jointly Gaussian at all their times: the exact distribution, and bridges.

A path of L times in C dimensions is one event (L, C). With mean m and two-time covariance
Cov[x_a(s), x_b(t)] it is one Gaussian of L C numbers, under a process

    x0_hat(x, t) = m + alpha C (alpha^2 C + sigma^2 I)^{-1} (x - alpha m),

and given positions at some of the times it is one again.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..sde import SDE
from .conditioning import condition
from .mixture import GaussianMixture

__all__ = ["bridge", "gaussian_trajectories"]


def gaussian_trajectories(mean: Tensor, covariance: Tensor, sde: SDE) -> GaussianMixture:
    """The distribution of Gaussian paths under a process: density, score, denoiser, on (L, C).

    Args:
        mean: the mean path, (L, C), in the units of x.
        covariance: Cov[x_a(s), x_b(t)], (L, C, L, C) indexed [s, a, t, b].
        sde: the process.
    """
    if mean.ndim != 2 or covariance.shape != 2 * mean.shape:
        raise ValueError(
            "expected a mean (L, C) and a covariance (L, C, L, C), got "
            f"{tuple(mean.shape)} and {tuple(covariance.shape)}"
        )
    size = mean.numel()
    return GaussianMixture(torch.ones(1), mean[None], covariance.reshape(1, size, size), sde)


def bridge(paths: GaussianMixture, at: Sequence[int], y: Tensor, std: float) -> GaussianMixture:
    """The paths given noisy positions y_j = x(t_j) + std n_j.

    Args:
        paths: their distribution, on (L, C).
        at: indices j of the times, increasing.
        y: positions (m, C), in the order of ``at``.
        std: standard deviation of the noise of each coordinate.
    """
    length, channels = paths.event
    if list(at) != sorted(set(at)) or y.shape != (len(at), channels):
        raise ValueError(
            f"expected increasing indices and a position ({channels},) for each, got {list(at)} "
            f"and y of shape {tuple(y.shape)}: sort both together"
        )
    every = torch.eye(paths.dim, device=paths.means.device).reshape(length, channels, paths.dim)
    return condition(paths, every[list(at)].flatten(0, 1), y.flatten(), std)

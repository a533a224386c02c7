"""Named laws that are a few Gaussians: the 1-D ones of the theory, and 2-D ones with clear modes.

Each is a function of the process that returns the exact law, a ``GaussianMixture``, in float64
on the CPU; ``.to(...)`` moves it. Coordinates have a standard deviation of 0.5 to 1.8, so that a
process which ends in N(0, I) suits them.
"""

import math

import torch
from torch import Tensor

from ..distributions import GaussianMixture
from ..sde import SDE

__all__ = [
    "aniso3",
    "gauss",
    "gm1",
    "gm2",
    "grid",
    "ring",
    "three_modes",
    "two_gaussians",
    "two_modes",
]


def gm1(sde: SDE) -> GaussianMixture:
    """The 1-D reference of the theory pages: 0.6 N(1.5, 0.09) + 0.4 N(-1, 0.25)."""
    return _line([0.6, 0.4], [1.5, -1.0], [0.3, 0.5], sde)


def two_modes(sde: SDE, distance: float = 2.0, std: float = 0.25) -> GaussianMixture:
    """Two equal Gaussians on the line.

    Args:
        sde: the process.
        distance: between the two means.
        std: standard deviation of each.
    """
    return _line([0.5, 0.5], [-distance / 2, distance / 2], [std, std], sde)


def three_modes(sde: SDE) -> GaussianMixture:
    """Three Gaussians on the line of unequal weight and width: an easy one to get wrong."""
    return _line([0.3, 0.5, 0.2], [-1.8, 0.2, 1.7], [0.25, 0.4, 0.15], sde)


def gauss(sde: SDE) -> GaussianMixture:
    """One correlated Gaussian of the plane, standard deviations 0.7 and 0.2, turned by 0.6 rad.

    Mean (0.5, -0.25): the law on which orders are measured against other libraries.
    """
    cov = _ellipse(0.7, 0.2, 0.6)
    return GaussianMixture(_tensor([1.0]), _tensor([[0.5, -0.25]]), cov[None], sde)


def two_gaussians(sde: SDE, distance: float = 2.0, std: float = 0.3) -> GaussianMixture:
    """Two equal round Gaussians side by side.

    Args:
        sde: the process.
        distance: between the means, along the first axis.
        std: standard deviation of each.
    """
    means = _tensor([[-distance / 2, 0.0], [distance / 2, 0.0]])
    return GaussianMixture.isotropic(_equal(2), means, std, sde)


def ring(sde: SDE, k: int = 8, radius: float = 1.5, std: float = 0.1) -> GaussianMixture:
    """k equal round Gaussians on a circle; the first on the positive first axis.

    Args:
        sde: the process.
        k: number of modes.
        radius: of the circle.
        std: standard deviation of each.
    """
    angle = 2 * math.pi * torch.arange(k, dtype=torch.float64) / max(k, 1)
    means = radius * torch.stack((angle.cos(), angle.sin()), 1)
    return GaussianMixture.isotropic(_equal(k), means, std, sde)


def grid(sde: SDE, k: int = 5, spacing: float = 0.8, std: float = 0.08) -> GaussianMixture:
    """k x k equal round Gaussians on a square lattice about the origin.

    Args:
        sde: the process.
        k: modes along each axis.
        spacing: between neighbours.
        std: standard deviation of each.
    """
    axis = spacing * (torch.arange(k, dtype=torch.float64) - (k - 1) / 2)
    return GaussianMixture.isotropic(_equal(k**2), torch.cartesian_prod(axis, axis), std, sde)


def aniso3(sde: SDE) -> GaussianMixture:
    """Three narrow, tilted, unequal Gaussians: the harder law of the solver benchmarks."""
    means = _tensor([[-1.0, 0.2], [0.9, 0.9], [0.8, -1.1]])
    covs = [_ellipse(0.6, 0.08, 0.5), _ellipse(0.4, 0.12, -0.7), _ellipse(0.3, 0.05, 1.9)]
    return GaussianMixture(_tensor([0.5, 0.3, 0.2]), means, torch.stack(covs), sde)


def gm2(sde: SDE) -> GaussianMixture:
    """The 2-D reference of the theory pages: three unequal Gaussians with full covariances."""
    means = _tensor([[2.0, 0.0], [-1.5, 1.5], [0.0, -2.0]])
    covs = _tensor(
        [[[0.3, 0.1], [0.1, 0.2]], [[0.15, -0.08], [-0.08, 0.35]], [[0.4, 0.0], [0.0, 0.05]]]
    )
    return GaussianMixture(_tensor([0.5, 0.3, 0.2]), means, covs, sde)


def _line(
    weights: list[float], means: list[float], stds: list[float], sde: SDE
) -> GaussianMixture:
    if min(stds) < 0:
        raise ValueError(f"expected standard deviations >= 0, got {stds}")
    covs = _tensor(stds).square()[:, None, None]
    return GaussianMixture(_tensor(weights), _tensor(means)[:, None], covs, sde)


def _tensor(values: list) -> Tensor:  # type: ignore[type-arg]
    return torch.tensor(values, dtype=torch.float64)


def _equal(k: int) -> Tensor:
    return torch.ones(k, dtype=torch.float64)


def _ellipse(major: float, minor: float, turn: float) -> Tensor:
    """Covariance with these standard deviations, the first one turned by an angle (radians)."""
    axes = _tensor([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    return (axes * _tensor([major**2, minor**2])) @ axes.mT

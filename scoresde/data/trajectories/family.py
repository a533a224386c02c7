"""What all families of trajectories share: a time axis, draws, and laws that are Gaussian."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ...distributions import GaussianMixture, bridge, gaussian_trajectories
from ...sde import SDE

__all__ = ["Family", "GaussianFamily", "normal", "not_negative", "positive", "ranges", "uniform"]

Quantity = Callable[[Tensor], Tensor]
"""Paths (n, L, C) -> values along each path (n, M)."""


@dataclass(frozen=True)
class Family(ABC):
    """A law of trajectories: called with n it draws n of them, (n, length, 2) in float64.

    A family can be given to ``fit`` as it is. Paths are drawn on the generator's device.

    Args:
        length: number L of equally spaced times, at least 2.
        duration: time from the first to the last of them, in the family's unit of time.
    """

    channels: ClassVar[int] = 2
    """Number of coordinates C."""
    length: int = 64
    duration: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what is no time axis."""
        if self.length < 2 or not 0 < self.duration < math.inf:
            raise ValueError(
                f"expected length >= 2 and a finite duration > 0, "
                f"got {self.length} and {self.duration}"
            )

    @property
    def times(self) -> Tensor:
        """The times, (L,) float64, from 0 to the duration."""
        return torch.linspace(0, self.duration, self.length, dtype=torch.float64)

    @property
    def step(self) -> float:
        """Time between neighbours."""
        return self.duration / (self.length - 1)

    @property
    def conserved(self) -> Mapping[str, Quantity]:
        """What the physics conserves along a path, by name; empty where it conserves nothing."""
        return {}

    @abstractmethod
    def __call__(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw n paths, (n, L, C) float64."""


class GaussianFamily(Family):
    """Paths that are jointly Gaussian, x = mean + R z with z ~ N(0, I): all is known exactly.

    A subclass defines ``root``, the matrix R that acts on the times of one coordinate; the two
    coordinates are independent unless it says otherwise.
    """

    @property
    def mean(self) -> Tensor:
        """The mean path, (L, 2)."""
        return torch.zeros(self.length, 2, dtype=torch.float64)

    @property
    @abstractmethod
    def root(self) -> Tensor:
        """R of each coordinate, (2, L, r), or (L, r) where both have the same."""

    @property
    def covariance(self) -> Tensor:
        """Two-time covariance Cov[x_a(s), x_b(t)], (L, 2, L, 2) indexed [s, a, t, b]."""
        root = self.root.expand(2, *self.root.shape[-2:])
        own = root @ root.mT  # (2, L, L)
        return torch.einsum("cst,ca,cb->satb", own, torch.eye(2).to(own), torch.eye(2).to(own))

    def __call__(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw n paths, exactly: (n, L, 2)."""
        root = self.root.expand(2, *self.root.shape[-2:])
        z = normal(generator, n, 2, root.shape[-1])
        return self.mean.to(z.device) + torch.einsum("clr,ncr->nlc", root.to(z.device), z)

    def law(self, sde: SDE) -> GaussianMixture:
        """The exact distribution of the paths under a process, on (L, 2)."""
        return gaussian_trajectories(self.mean, self.covariance, sde)

    def posterior(self, sde: SDE, at: Sequence[int], y: Tensor, std: float) -> GaussianMixture:
        """The exact bridge: the paths given noisy positions y_j = x(t_j) + std n_j.

        >>> from scoresde.data import Brownian
        >>> from scoresde.sde import VPSDE
        >>> goal = torch.tensor([[1.0, 2.0]])
        >>> Brownian(length=5).posterior(VPSDE(), at=(4,), y=goal, std=0.01).means[0, 4]
        tensor([0.9999, 1.9998], dtype=torch.float64)

        Args:
            sde: the process.
            at: indices j of the times, increasing.
            y: positions (m, 2), in the order of ``at``.
            std: standard deviation of the noise of each coordinate.
        """
        return bridge(self.law(sde), at, y, std)


def positive(**values: float) -> None:
    """Refuse a parameter that is not positive and finite."""
    for name, value in values.items():
        if not 0 < value < math.inf:
            raise ValueError(f"expected a finite {name} > 0, got {value}")


def not_negative(**values: float) -> None:
    """Refuse a parameter that is negative or not finite."""
    for name, value in values.items():
        if not 0 <= value < math.inf:
            raise ValueError(f"expected a finite {name} >= 0, got {value}")


def ranges(**ends: tuple[float, float]) -> None:
    """Refuse what is no range (low, high) of positive numbers."""
    for name, (low, high) in ends.items():
        if not 0 < low <= high < math.inf:
            raise ValueError(f"expected {name} = (low, high), 0 < low <= high, got {(low, high)}")


def normal(generator: torch.Generator | None, *shape: int) -> Tensor:
    """Standard normal numbers in float64, on the generator's device."""
    device = None if generator is None else generator.device
    return torch.randn(shape, generator=generator, dtype=torch.float64, device=device)


def uniform(
    generator: torch.Generator | None, n: int, low: float = 0.0, high: float = 1.0
) -> Tensor:
    """Uniform numbers (n,) in float64, on the generator's device."""
    device = None if generator is None else generator.device
    u = torch.rand(n, generator=generator, dtype=torch.float64, device=device)
    return low + (high - low) * u

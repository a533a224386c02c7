r"""Paths of noise: Brownian motion, Ornstein-Uhlenbeck, and an oscillator in a heat bath.

Each coordinate is an independent Gaussian process with a covariance known in closed form; the
paths are exact at their times, whatever the step.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .family import GaussianFamily, not_negative, positive

__all__ = ["Brownian", "OrnsteinUhlenbeck", "ThermalOscillator"]


@dataclass(frozen=True)
class Brownian(GaussianFamily):
    r"""Free diffusion, dx = sqrt(2 D) dW, from a Gaussian cloud of starting points.

        Cov[x(s), x(t)] = start^2 + 2 D min(s, t),        E|x(t) - x(s)|^2 = 4 D |t - s|.

    Args:
        length: number of times.
        duration: in seconds.
        diffusion: D, in micrometres^2 per second.
        start: standard deviation of x(0) in each coordinate, in micrometres.

    References:
        Einstein 1905, eq. 11.
    """

    diffusion: float = 0.5
    start: float = 0.1

    def __post_init__(self) -> None:
        """Refuse what does not diffuse."""
        super().__post_init__()
        positive(diffusion=self.diffusion)
        not_negative(start=self.start)

    @property
    def root(self) -> Tensor:
        """Lower triangular (L, L): the start, then independent increments."""
        scale = torch.full((self.length,), math.sqrt(2 * self.diffusion * self.step)).double()
        scale[0] = self.start
        return torch.ones(self.length, self.length).double().tril() * scale


@dataclass(frozen=True)
class OrnsteinUhlenbeck(GaussianFamily):
    r"""A bead in an optical trap, stationary: dx = -x/tau dt + std sqrt(2/tau) dW.

        Cov[x(s), x(t)] = std^2 exp(-|t - s|/tau)

    Args:
        length: number of times.
        duration: in the unit of tau.
        tau: relaxation time.
        std: stationary standard deviation of each coordinate, in the unit of x.

    References:
        Uhlenbeck and Ornstein 1930; Gillespie 1996, eq. 1.9 (the exact update).
    """

    duration: float = 4.0
    tau: float = 1.0
    std: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what does not relax."""
        super().__post_init__()
        positive(tau=self.tau, std=self.std)

    @property
    def root(self) -> Tensor:
        """The exact transition x' = rho x + std sqrt(1 - rho^2) z, from the start on: (L, L)."""
        i = torch.arange(self.length, dtype=torch.float64)
        decay = self.step / self.tau
        scale = torch.full_like(i, self.std * math.sqrt(-math.expm1(-2 * decay)))
        scale[0] = self.std
        return (-decay * (i[:, None] - i)).exp().tril() * scale


@dataclass(frozen=True)
class ThermalOscillator(GaussianFamily):
    r"""A damped oscillator in a heat bath, stationary: x'' + gamma x' + omega^2 x = noise.

        Cov[x(s), x(t)] = std^2 e^{-gamma tau/2} [cos w tau + gamma/(2 w) sin w tau],
        tau = |t - s|,        w^2 = omega^2 - gamma^2/4 > 0,        std^2 = k T/(m omega^2).

    Args:
        length: number of times.
        duration: in seconds.
        omega: angular frequency without damping, in radians per second.
        gamma: damping rate, in 1/s, below 2 omega.
        std: thermal standard deviation of each coordinate, in the unit of x.

    References:
        Wang and Uhlenbeck 1945, eq. 59 (the covariance).
    """

    omega: float = 4 * math.pi
    gamma: float = 2.0
    std: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what does not oscillate."""
        super().__post_init__()
        positive(omega=self.omega, std=self.std)
        if not 0 < self.gamma < 2 * self.omega:
            raise ValueError(
                f"expected 0 < gamma < 2 omega, got {self.gamma} and {self.omega}: "
                "an overdamped bead is an OrnsteinUhlenbeck"
            )

    @property
    def root(self) -> Tensor:
        """The Cholesky factor of the covariance, (L, L)."""
        lag = (self.times[:, None] - self.times).abs()
        w = math.sqrt(self.omega**2 - self.gamma**2 / 4)
        swing = (w * lag).cos() + self.gamma / (2 * w) * (w * lag).sin()
        kernel = self.std**2 * (-0.5 * self.gamma * lag).exp() * swing
        root: Tensor = torch.linalg.cholesky(kernel)
        return root

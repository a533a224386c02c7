r"""Signals, paths of one coordinate: a struck bell, and two stars that fall into each other."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .family import Family, positive, ranges, uniform

__all__ = ["Chirp", "RingDown"]

SUN = 4.925490947e-6
"""G M/c^3 of the sun, in seconds."""


@dataclass(frozen=True)
class Signal(Family):
    """A family of signals (n, L, 1)."""

    channels: ClassVar[int] = 1

    @property
    def rate(self) -> float:
        """Samples per second."""
        return 1 / self.step

    def _check_frequency(self, highest: float) -> None:
        if highest >= self.rate / 2:
            raise ValueError(
                f"expected frequencies below half the rate {self.rate:.4g} Hz, got "
                f"{highest:.4g} Hz: raise length or shorten duration"
            )


@dataclass(frozen=True)
class RingDown(Signal):
    r"""A resonator that was struck: x(t) = A e^{-t/tau} cos(2 pi f t + phi).

    A, tau and f are uniform in their ranges, phi on the circle.

    Args:
        length: number of samples.
        duration: in seconds.
        frequency: range of f, in hertz, below half the sampling rate.
        decay: range of tau, in seconds.
        loudness: range of A, without unit; 1 is full scale.
    """

    duration: float = 0.016
    frequency: tuple[float, float] = (250.0, 750.0)
    decay: tuple[float, float] = (0.002, 0.008)
    loudness: tuple[float, float] = (0.5, 1.0)

    def __post_init__(self) -> None:
        """Refuse frequencies that the samples cannot hold."""
        super().__post_init__()
        ranges(frequency=self.frequency, decay=self.decay, loudness=self.loudness)
        self._check_frequency(self.frequency[1])

    def __call__(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw n signals, (n, L, 1)."""
        ranges = (self.frequency, self.decay, self.loudness, (0, 2 * math.pi))
        f, tau, loudness, phase = (uniform(generator, n, *ends)[:, None] for ends in ranges)
        t = self.times.to(f)
        return (loudness * (-t / tau).exp() * (2 * math.pi * f * t + phase).cos())[..., None]


@dataclass(frozen=True)
class Chirp(Signal):
    r"""The gravitational wave of two stars spiralling together, at leading (Newtonian) order.

    With tau the time to the merger and m = G M_c/c^3 the chirp mass in seconds,

        f(tau) = (1/pi) (5/(256 tau))^{3/8} m^{-5/8},        phase = phi - 2 (tau/(5 m))^{5/8},

    and amplitude tau^{-1/4}, here 1 at the end of the signal, ``before`` the merger.

    Args:
        length: number of samples.
        duration: in seconds.
        mass: range of the chirp mass M_c, uniform, in solar masses.
        before: time from the end of the signal to the merger, in seconds.

    References:
        Maggiore 2008, "Gravitational Waves" 1, eq. 4.19, 4.30 and 4.31.
    """

    length: int = 128
    duration: float = 0.25
    mass: tuple[float, float] = (25.0, 35.0)
    before: float = 0.01

    def __post_init__(self) -> None:
        """Refuse frequencies that the samples cannot hold."""
        super().__post_init__()
        ranges(mass=self.mass)
        positive(before=self.before)
        self._check_frequency(self.frequency(self.before, self.mass[0]))

    @staticmethod
    def frequency(tau: float, mass: float) -> float:
        """The frequency f in hertz at tau seconds to the merger, for a chirp mass in suns."""
        return math.pow(5 / (256 * tau), 0.375) * math.pow(SUN * mass, -0.625) / math.pi

    def __call__(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw n signals, (n, L, 1), of height 1."""
        mass = SUN * uniform(generator, n, *self.mass)[:, None]
        phase = uniform(generator, n, 0, 2 * math.pi)[:, None]
        tau = self.before + self.duration - self.times.to(mass)
        wave = (phase - 2 * (tau / (5 * mass)) ** 0.625).cos()
        return ((tau / self.before) ** -0.25 * wave)[..., None]

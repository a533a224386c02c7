r"""Oscillators without noise whose amplitudes are random: linear, hence Gaussian.

The motion is linear in what is drawn, x(t) = sum_j Phi_j(t) theta_j with theta ~ N(0, diag s^2),
so Phi s is the root of its covariance, of rank 2 or 4: these laws fill only a few of the 2 L
dimensions, and their score at t = 0 is not finite.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .family import GaussianFamily, Quantity, not_negative, positive

__all__ = ["DampedOscillator", "DrivenOscillator", "Lissajous"]


@dataclass(frozen=True)
class Lissajous(GaussianFamily):
    r"""Two harmonic oscillators at right angles, in thermal equilibrium but not disturbed.

        x_a(t) = A_a cos w_a t + B_a sin w_a t,        A, B ~ N(0, amplitude^2)

    with w_a = 2 pi ratio_a/duration: every path is a closed Lissajous figure.

    Args:
        length: number of times.
        duration: of one figure, in seconds.
        ratio: whole numbers of oscillations in the figure, horizontally and vertically.
        amplitude: standard deviation of A and B, in metres.
    """

    ratio: tuple[int, int] = (1, 2)
    amplitude: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what does not close."""
        super().__post_init__()
        positive(amplitude=self.amplitude)
        if not all(isinstance(r, int) and r > 0 for r in self.ratio):
            raise ValueError(f"expected a ratio of two whole numbers > 0, got {self.ratio}")

    @property
    def omega(self) -> Tensor:
        """Angular frequencies (2,), in radians per second."""
        return 2 * math.pi / self.duration * torch.tensor(self.ratio, dtype=torch.float64)

    @property
    def root(self) -> Tensor:
        """Cosine and sine of each coordinate, (2, L, 2)."""
        angle = self.omega[:, None] * self.times
        return self.amplitude * torch.stack((angle.cos(), angle.sin()), 2)

    @property
    def conserved(self) -> Mapping[str, Quantity]:
        """The energy."""
        return {"energy": self.energy}

    def energy(self, x: Tensor) -> Tensor:
        r"""Energy per mass from neighbouring positions, (n, L, 2) -> (n, L - 1), exactly.

            E = sum_a w_a^2 (x^2 + x'^2 - 2 x x' cos w_a h)/(2 sin^2 w_a h),    x' = x(t + h).

        It needs more than two samples in each oscillation.

        >>> Lissajous().energy(Lissajous()(3)).std(1).max() < 1e-10
        tensor(True)
        """
        if 2 * max(self.ratio) >= self.length - 1:
            raise ValueError(
                f"expected more than two times in each oscillation, got {self.length} for "
                f"{max(self.ratio)}: raise length"
            )
        w = self.omega.to(x)
        a, b = x[:, :-1], x[:, 1:]
        cos, sin = (w * self.step).cos(), (w * self.step).sin()
        return (w.square() * (a.square() + b.square() - 2 * a * b * cos) / (2 * sin**2)).sum(2)


@dataclass(frozen=True)
class DampedOscillator(GaussianFamily):
    r"""A two-dimensional damped oscillator let go at random: x'' + gamma x' + omega^2 x = 0.

        x(t) = e^{-gamma t/2} [x_0 (cos w t + gamma/(2 w) sin w t) + v_0 sin(w t)/w]

    with w^2 = omega^2 - gamma^2/4 > 0; x_0 ~ N(0, amplitude^2), v_0 ~ N(0, (omega amplitude)^2).

    Args:
        length: number of times.
        duration: in seconds.
        omega: angular frequency without damping, in radians per second.
        gamma: damping rate, in 1/s, below 2 omega.
        amplitude: in metres.
    """

    omega: float = 6 * math.pi
    gamma: float = 4.0
    amplitude: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what does not oscillate."""
        super().__post_init__()
        positive(omega=self.omega, amplitude=self.amplitude)
        if not 0 <= self.gamma < 2 * self.omega:
            raise ValueError(
                f"expected 0 <= gamma < 2 omega, got {self.gamma} and {self.omega}: "
                "an overdamped one does not oscillate; lower gamma"
            )

    @property
    def root(self) -> Tensor:
        """Responses to a starting position and to a starting velocity, (L, 2)."""
        position, velocity = free_motion(self.times, self.omega, self.gamma)
        return self.amplitude * torch.stack((position, self.omega * velocity), 1)


@dataclass(frozen=True)
class DrivenOscillator(DampedOscillator):
    r"""The same, driven by a force of random strength: x'' + gamma x' + omega^2 x = F(t).

    F(t) = force (P cos W t + Q sin W t) with P, Q ~ N(0, 1) for each coordinate, W = drive. The
    motion is the response of the frequency W plus the transient that starts it at x_0 and v_0.

    Args:
        length: number of times.
        duration: in seconds.
        omega: angular frequency without damping, in radians per second.
        gamma: damping rate, in 1/s.
        amplitude: of the starting positions, in metres.
        drive: angular frequency W of the force, in radians per second.
        force: strength per mass, in metres per second^2.
    """

    amplitude: float = 0.3
    drive: float = 4 * math.pi
    force: float = 150.0

    def __post_init__(self) -> None:
        """Refuse a response without bound."""
        super().__post_init__()
        not_negative(drive=self.drive, force=self.force)
        if self.gamma == 0 and self.drive == self.omega:
            raise ValueError(
                f"expected a drive other than omega = {self.omega:.6g} without damping, got the "
                "same: its amplitude grows without end; use gamma > 0"
            )

    @property
    def root(self) -> Tensor:
        """Responses to position, velocity, and the two phases of the force, (L, 4)."""
        free = super().root
        position, velocity = free_motion(self.times, self.omega, self.gamma)
        gain = 1 / complex(self.omega**2 - self.drive**2, self.gamma * self.drive)
        wave = gain * torch.exp(1j * self.drive * self.times)  # response to e^{iWt}
        start, speed = gain, 1j * self.drive * gain
        whole = wave - start * position - speed * velocity  # at rest at t = 0
        return torch.cat((free, self.force * torch.stack((whole.real, whole.imag), 1)), 1)


def free_motion(times: Tensor, omega: float, gamma: float) -> tuple[Tensor, Tensor]:
    """Solutions of x'' + gamma x' + omega^2 x = 0 from (x, x') = (1, 0) and from (0, 1)."""
    w = math.sqrt(omega**2 - gamma**2 / 4)
    envelope = (-0.5 * gamma * times).exp()
    velocity = envelope * (w * times).sin() / w
    return envelope * (w * times).cos() + 0.5 * gamma * velocity, velocity

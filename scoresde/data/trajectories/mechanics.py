r"""Motion under a force, from exact formulas: Kepler orbits and Larmor circles."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .family import Family, Quantity, normal, not_negative, positive, ranges, uniform

__all__ = ["Kepler", "Larmor"]

STENCIL = (672 / 840, -168 / 840, 32 / 840, -3 / 840)
"""Central difference of order 8."""


@dataclass(frozen=True)
class Kepler(Family):
    r"""Planets about a star: r'' = -GM r/|r|^3, on ellipses of every orientation.

    With eccentric anomaly u, from Kepler's equation u - e sin u = sqrt(GM/a^3) t + M_0,

        r = R(theta) [a (cos u - e), a sqrt(1 - e^2) sin u];

    a, e, theta and M_0 are uniform; half of the planets go the other way round.

    Args:
        length: number of times.
        duration: in years.
        axis: range of the semi-major axis a, in astronomical units.
        eccentricity: range of e, up to 0.99.
        gm: GM, in au^3/year^2; 4 pi^2 for the sun.

    >>> orbits = Kepler()
    >>> energy = orbits.energy(orbits(4, torch.Generator().manual_seed(0)))  # by differences
    >>> (energy.std(1) / energy.mean(1).abs()).max() < 1e-2
    tensor(True)

    References:
        Goldstein, Poole and Safko 2002, "Classical Mechanics", sec. 3.8.
    """

    axis: tuple[float, float] = (0.7, 1.0)
    eccentricity: tuple[float, float] = (0.0, 0.5)
    gm: float = 4 * math.pi**2

    def __post_init__(self) -> None:
        """Refuse orbits that are not ellipses."""
        super().__post_init__()
        positive(gm=self.gm)
        ranges(axis=self.axis)
        low, high = self.eccentricity
        if not 0 <= low <= high <= 0.99:
            raise ValueError(
                f"expected eccentricity = (low, high), 0 <= low <= high <= 0.99, got {low, high}: "
                "ellipses only, of which Kepler's equation can be solved to rounding"
            )

    @property
    def conserved(self) -> Mapping[str, Quantity]:
        """Energy and angular momentum."""
        return {"energy": self.energy, "angular momentum": self.angular_momentum}

    def __call__(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw n orbits, (n, L, 2), in astronomical units."""
        a = uniform(generator, n, *self.axis)[:, None]
        e = uniform(generator, n, *self.eccentricity)[:, None]
        turn, start = (uniform(generator, n, 0, 2 * math.pi)[:, None] for _ in range(2))
        sense = (uniform(generator, n, -1, 1)[:, None]).sign()
        u = eccentric_anomaly((self.gm / a**3).sqrt() * self.times.to(a) + start, e)
        x, y = a * (u.cos() - e), sense * a * (1 - e**2).sqrt() * u.sin()
        return torch.stack((x * turn.cos() - y * turn.sin(), x * turn.sin() + y * turn.cos()), 2)

    def energy(self, x: Tensor) -> Tensor:
        """v^2/2 - GM/r per mass, in au^2/year^2: (n, L, 2) -> (n, L - 8), see ``velocity``."""
        v, inner = velocity(x, self.step), x[:, 4:-4]
        height: Tensor = -self.gm / inner.norm(dim=2)
        return 0.5 * v.square().sum(2) + height

    def angular_momentum(self, x: Tensor) -> Tensor:
        """X v_y - y v_x per mass, in au^2/year: (n, L, 2) -> (n, L - 8), see ``velocity``."""
        return cross(x[:, 4:-4], velocity(x, self.step))


@dataclass(frozen=True)
class Larmor(Family):
    r"""Charges in a uniform magnetic field along z: circles at the cyclotron frequency.

        x(t) = c + r (cos(phi - W t), sin(phi - W t)),        W = q B/m.

    The guiding centre c is normal, the phase uniform, the velocity thermal (Maxwell: each
    component N(0, thermal^2), so r = |v|/W is Rayleigh).

    Args:
        length: number of times.
        duration: in nanoseconds.
        cyclotron: W, in radians per nanosecond, not 0; negative turns the other way.
        thermal: standard deviation of a velocity component, in millimetres per nanosecond.
        centre: standard deviation of each coordinate of c, in millimetres.
    """

    cyclotron: float = 3 * math.pi
    thermal: float = 5.0
    centre: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what does not turn."""
        super().__post_init__()
        positive(**{"|cyclotron|": abs(self.cyclotron)}, thermal=self.thermal)
        not_negative(centre=self.centre)

    @property
    def conserved(self) -> Mapping[str, Quantity]:
        """Kinetic energy and canonical angular momentum."""
        return {"energy": self.energy, "angular momentum": self.angular_momentum}

    def __call__(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw n paths, (n, L, 2), in millimetres."""
        v, c = self.thermal * normal(generator, n, 1, 2), self.centre * normal(generator, n, 1, 2)
        angle = (self.cyclotron * self.times.to(v))[:, None]
        arm = torch.stack((-v[..., 1], v[..., 0]), 2) / self.cyclotron  # x - c, as v = W (y, -x)
        return c + arm * angle.cos() + torch.stack((arm[..., 1], -arm[..., 0]), 2) * angle.sin()

    def energy(self, x: Tensor) -> Tensor:
        """v^2/2 per mass from chords, |dx| = 2 |v|/W sin(W h/2), exactly: (n, L - 1)."""
        half = self._half_turn()
        return 0.5 * x.diff(dim=1).square().sum(2) * (self.cyclotron / (2 * math.sin(half))) ** 2

    def angular_momentum(self, x: Tensor) -> Tensor:
        """Canonical, x v_y - y v_x + W |x|^2/2 = W (|c|^2 - r^2)/2, from chords: (n, L - 1)."""
        half = self._half_turn()
        chord, middle = x.diff(dim=1), 0.5 * (x[:, 1:] + x[:, :-1])
        to_centre = 0.5 / math.tan(half) * torch.stack((chord[..., 1], -chord[..., 0]), 2)
        radius2 = chord.square().sum(2) / (4 * math.sin(half) ** 2)
        return 0.5 * self.cyclotron * ((middle + to_centre).square().sum(2) - radius2)

    def _half_turn(self) -> float:
        """W h/2, the angle between a chord and the tangent at its end."""
        half = 0.5 * self.cyclotron * self.step
        if abs(math.sin(half)) < 1e-6:
            raise ValueError(
                "expected times that see the circles, got a step of whole turns, whose chords "
                "vanish: raise length or change cyclotron"
            )
        return half


def eccentric_anomaly(mean_anomaly: Tensor, e: Tensor) -> Tensor:
    """Solve Kepler's equation u - e sin u = M by Newton, to rounding for e <= 0.99."""
    u = mean_anomaly + e * mean_anomaly.sin() / (1 - e * mean_anomaly.cos()).clamp(min=0.3)
    for _ in range(12):
        u = u - (u - e * u.sin() - mean_anomaly) / (1 - e * u.cos())
    return u


def velocity(x: Tensor, step: float) -> Tensor:
    """Central differences of order 8 at inner times, (n, L, C) -> (n, L - 8, C).

    The error is step^8/630 times the ninth derivative; noise of size s becomes 1.2 s/step.

    Raises:
        ValueError: for fewer than nine times.
    """
    length = x.shape[1]
    if length < 9:
        raise ValueError(f"expected at least 9 times for a velocity, got {length}")
    pairs = [(x[:, 4 + k : length - 4 + k], x[:, 4 - k : length - 4 - k]) for k in range(1, 5)]
    ahead = [c * (b - a) for c, (b, a) in zip(STENCIL, pairs, strict=True)]
    return torch.stack(ahead).sum(0) / step


def cross(a: Tensor, b: Tensor) -> Tensor:
    """The z component of a x b: (*, 2), (*, 2) -> (*)."""
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]

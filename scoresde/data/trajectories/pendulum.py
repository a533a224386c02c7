r"""The double pendulum: deterministic, and chaotic where it swings high."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .family import Family, positive, uniform

__all__ = ["DoublePendulum"]

TURN, LONG = 0.06, 50.0  # the longest step in units of 1/rate, up to this duration
LONGEST = 10**6  # steps of one path


@dataclass(frozen=True)
class DoublePendulum(Family):
    r"""The tip of a double pendulum, let go at rest from random angles.

    Two massless rods l_1, l_2 with point masses m_1, m_2 at their ends, angles a and b from the
    vertical; with d = a - b and D = 2 m_1 + m_2 - m_2 cos 2d the equations of motion are

        a'' = [-g (2 m_1 + m_2) sin a - m_2 g sin(a - 2b)
               - 2 m_2 sin d (b'^2 l_2 + a'^2 l_1 cos d)]/(l_1 D),
        b'' = 2 sin d [(m_1 + m_2)(a'^2 l_1 + g cos a) + b'^2 l_2 m_2 cos d]/(l_2 D).

    They are solved by the fourth-order Runge-Kutta method, with as many steps between two times as
    keep the drift of the energy below 1e-5 of its scale g (m_1 l_1 + m_2 (l_1 + l_2)).

    Args:
        length: number of times.
        duration: in seconds.
        rods: l_1 and l_2, in metres.
        masses: m_1 and m_2, in kilograms.
        release: both angles start uniform in [-release, release], in radians.
        gravity: g, in metres per second^2.

    References:
        Landau and Lifshitz 1976, "Mechanics", sec. 5, problem 1.
    """

    duration: float = 2.0
    rods: tuple[float, float] = (0.5, 0.5)
    masses: tuple[float, float] = (1.0, 1.0)
    release: float = 1.5
    gravity: float = 9.81

    def __post_init__(self) -> None:
        """Refuse what does not swing, or would take too many steps."""
        super().__post_init__()
        positive(gravity=self.gravity, release=self.release)
        for name, pair in (("rods", self.rods), ("masses", self.masses)):
            for i, value in enumerate(pair):
                positive(**{f"{name}[{i}]": value})
        steps = self.substeps * (self.length - 1)
        if steps > LONGEST:
            raise ValueError(
                f"expected paths of at most {LONGEST} steps, got {steps}: it turns too fast for "
                "this duration; lower duration, or take masses and rods that differ less"
            )

    @property
    def rate(self) -> float:
        """A bound on how fast it turns, in radians per second: modes and energy; a light elbow.

        Of small swings the faster mode, of wide ones the velocities that the energy allows; an
        elbow of small mass is thrown about where the rods are in line.
        """
        (l1, l2), (m1, m2), mass = self.rods, self.masses, sum(self.masses)
        half = mass * self.gravity * (l1 + l2) / (2 * m1 * l1 * l2)
        share = 4 * m1 * l1 * l2 / (mass * (l1 + l2) ** 2)
        lift = 1 - math.cos(min(self.release, math.pi))
        energy = self.gravity * (mass * l1 + m2 * l2) * lift
        swings = 2 * energy / m1 * max(1 / l1**2, mass / (m2 * l2**2))
        return math.sqrt(max(half * (1 + math.sqrt(1 - share)), swings) * mass / (2 * m1))

    @property
    def substeps(self) -> int:
        """Steps between two times; errors add up, so the fourth root of a long duration counts."""
        longer = math.sqrt(math.sqrt(max(1.0, self.rate * self.duration / LONG)))
        return math.ceil(self.step * self.rate * longer / TURN)

    def __call__(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw n paths of the tip, (n, L, 2), in metres from the pivot, y upwards."""
        return self.tip(self.states(n, generator))

    def states(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """The full motion (a, b, a', b') of n pendulums, (n, L, 4)."""
        angles = [uniform(generator, n, -self.release, self.release) for _ in range(2)]
        state = torch.stack((*angles, *map(torch.zeros_like, angles)), 1)
        path = [state]
        for _ in range(self.length - 1):
            for _ in range(self.substeps):
                state = self._step(state, self.step / self.substeps)
            path.append(state)
        return torch.stack(path, 1)

    def tip(self, states: Tensor) -> Tensor:
        """Position of the second mass, (*, 4) -> (*, 2)."""
        (l1, l2), (a, b) = self.rods, states[..., :2].unbind(-1)
        return torch.stack((l1 * a.sin() + l2 * b.sin(), -l1 * a.cos() - l2 * b.cos()), -1)

    def energy(self, states: Tensor) -> Tensor:
        """Kinetic and potential energy of full states, in joules: (*, 4) -> (*).

        From the tip alone it does not follow: the elbow may bend either way.
        """
        (l1, l2), (m1, m2) = self.rods, self.masses
        a, b, va, vb = states.unbind(-1)
        kinetic = 0.5 * (m1 + m2) * (l1 * va) ** 2 + 0.5 * m2 * (l2 * vb) ** 2
        coupling = m2 * l1 * l2 * va * vb * (a - b).cos()
        height = -(m1 + m2) * l1 * a.cos() - m2 * l2 * b.cos()
        return kinetic + coupling + self.gravity * height

    def rates(self, states: Tensor) -> Tensor:
        """The equations of motion, (a, b, a', b') -> (a', b', a'', b''): (*, 4) -> (*, 4)."""
        (l1, l2), (m1, m2), g = self.rods, self.masses, self.gravity
        a, b, va, vb = states.unbind(-1)
        sin, cos = (a - b).sin(), (a - b).cos()
        common = 2 * m1 + m2 * (2 - 2 * cos.square())  # 2 m1 + m2 - m2 cos 2d
        pull = -g * ((2 * m1 + m2) * a.sin() + m2 * (a - 2 * b).sin())
        turn_a = pull - 2 * m2 * sin * (vb.square() * l2 + va.square() * l1 * cos)
        lift = (m1 + m2) * (va.square() * l1 + g * a.cos())
        turn_b = 2 * sin * (lift + vb.square() * l2 * m2 * cos)
        return torch.stack((va, vb, turn_a / (l1 * common), turn_b / (l2 * common)), -1)

    def _step(self, y: Tensor, h: float) -> Tensor:
        k1 = self.rates(y)
        k2 = self.rates(y + 0.5 * h * k1)
        k3 = self.rates(y + 0.5 * h * k2)
        k4 = self.rates(y + h * k3)
        return y + h / 6 * (k1 + 2 * (k2 + k3) + k4)

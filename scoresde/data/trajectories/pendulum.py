r"""The double pendulum: deterministic, and chaotic where it swings high."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .family import Family, uniform

__all__ = ["DoublePendulum"]

SUBSTEPS = 8  # of Runge-Kutta between two times


@dataclass(frozen=True)
class DoublePendulum(Family):
    r"""The tip of a double pendulum, let go at rest from random angles.

    Two massless rods l_1, l_2 with point masses m_1, m_2 at their ends, angles a and b from the
    vertical; with d = a - b and D = 2 m_1 + m_2 - m_2 cos 2d the equations of motion are

        a'' = [-g (2 m_1 + m_2) sin a - m_2 g sin(a - 2b)
               - 2 m_2 sin d (b'^2 l_2 + a'^2 l_1 cos d)]/(l_1 D),
        b'' = 2 sin d [(m_1 + m_2)(a'^2 l_1 + g cos a) + b'^2 l_2 m_2 cos d]/(l_2 D).

    They are solved by the fourth-order Runge-Kutta method with eight steps between two times; at
    the default the energy drifts by less than 1e-5 of its scale m g l.

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

    def __call__(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw n paths of the tip, (n, L, 2), in metres from the pivot, y upwards."""
        return self.tip(self.states(n, generator))

    def states(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """The full motion (a, b, a', b') of n pendulums, (n, L, 4)."""
        angles = [uniform(generator, n, -self.release, self.release) for _ in range(2)]
        state = torch.stack((*angles, *map(torch.zeros_like, angles)), 1)
        path = [state]
        for _ in range(self.length - 1):
            for _ in range(SUBSTEPS):
                state = self._step(state, self.step / SUBSTEPS)
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

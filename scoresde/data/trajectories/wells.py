r"""Langevin motion in two wells: rare hops over a barrier."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .family import Family, normal, positive, uniform

__all__ = ["DoubleWell"]

WELL, WALL = 0.064, 0.512  # the longest step in units of 1/(D U''), at rest and far up the walls
LONGEST = 10**6  # steps of one path
NODES = 4001  # of the table from which stationary positions are drawn


@dataclass(frozen=True)
class DoubleWell(Family):
    r"""A colloid in a double well, overdamped and stationary: dx = -D grad U dt + sqrt(2 D) dW.

        U(x, y) = barrier (x^2/half^2 - 1)^2 + stiffness y^2/2        (in units of k T)

    The stationary density is exp(-U)/Z. Paths start from it exactly (by its tabulated inverse
    distribution function) and follow Heun's method, weak order 2 for additive noise: stationary
    variances in a well of curvature U'' are short by a part (h D U'')^2/4. Between two times there
    are as many steps h as keep that below 1.1e-3, both along and across the wells, and the method
    stable 40 k T above them.

    Args:
        length: number of times.
        duration: in seconds.
        barrier: height of the barrier at x = 0, in k T.
        half: half the distance of the wells, in micrometres.
        stiffness: curvature in y, in k T per micrometre^2.
        diffusion: D, in micrometres^2 per second.

    References:
        Kramers 1940; Milstein and Tretyakov 2004, "Stochastic Numerics", sec. 2.2 (the method).
    """

    duration: float = 4.0
    barrier: float = 2.0
    half: float = 1.0
    stiffness: float = 8.0
    diffusion: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what is no double well, or would take too many steps."""
        super().__post_init__()
        positive(barrier=self.barrier, half=self.half)
        positive(stiffness=self.stiffness, diffusion=self.diffusion)
        steps = self.substeps * (self.length - 1)
        if steps > LONGEST:
            raise ValueError(
                f"expected paths of at most {LONGEST} steps, got {steps}: the wells are too stiff "
                "for this duration; lower duration, diffusion, barrier or stiffness"
            )

    @property
    def reach(self) -> float:
        """The |x| at which U = 40 k T above the wells: beyond it there is nothing."""
        return self.half * math.sqrt(1 + math.sqrt(40 / self.barrier))

    @property
    def substeps(self) -> int:
        """Steps between two times, by the curvatures of the wells and of the walls."""
        scale = 4 * self.barrier / self.half**2
        wall = scale * (3 * (self.reach / self.half) ** 2 - 1)
        stiff = max(max(2 * scale, self.stiffness) / WELL, wall / WALL)
        return math.ceil(self.step * self.diffusion * stiff)

    def potential(self, x: Tensor) -> Tensor:
        """U in k T at positions (*, 2) -> (*)."""
        along, across = x.unbind(-1)
        well = self.barrier * ((along / self.half).square() - 1).square()
        return well + 0.5 * self.stiffness * across.square()

    def force(self, x: Tensor) -> Tensor:
        """-grad U in k T per micrometre, (*, 2) -> (*, 2)."""
        along, across = x.unbind(-1)
        push = 4 * self.barrier / self.half**2 * along * (1 - (along / self.half).square())
        return torch.stack((push, -self.stiffness * across), -1)

    def __call__(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw n paths, (n, L, 2), in micrometres."""
        x, h = self.stationary(n, generator), self.step / self.substeps
        path = [x]
        for _ in range(self.length - 1):
            for _ in range(self.substeps):
                noise = math.sqrt(2 * self.diffusion * h) * normal(generator, n, 2)
                slope = self.force(x)
                ahead = x + h * self.diffusion * slope + noise
                x = x + 0.5 * h * self.diffusion * (slope + self.force(ahead)) + noise
            path.append(x)
        return torch.stack(path, 1)

    def stationary(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw n positions from exp(-U)/Z, (n, 2)."""
        u, across = uniform(generator, n), normal(generator, n) / math.sqrt(self.stiffness)
        nodes = torch.linspace(-self.reach, self.reach, NODES, dtype=u.dtype, device=u.device)
        density = (-self.potential(torch.stack((nodes, torch.zeros_like(nodes)), 1))).exp()
        rise = (0.5 * (density[1:] + density[:-1])).cumsum(0)
        level = torch.cat((rise.new_zeros(1), rise / rise[-1]))
        i = torch.searchsorted(level, u).clamp(1, NODES - 1)
        share = (u - level[i - 1]) / (level[i] - level[i - 1])
        return torch.stack((nodes[i - 1] + share * (nodes[i] - nodes[i - 1]), across), 1)

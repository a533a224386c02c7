r"""Langevin motion in two wells: rare hops over a barrier."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .family import Family, normal, uniform

__all__ = ["DoubleWell"]

SUBSTEPS = 16  # between two times
NODES = 4001  # of the table from which stationary positions are drawn


@dataclass(frozen=True)
class DoubleWell(Family):
    r"""A colloid in a double well, overdamped and stationary: dx = -D grad U dt + sqrt(2 D) dW.

        U(x, y) = barrier (x^2/half^2 - 1)^2 + stiffness y^2/2        (in units of k T)

    The stationary density is exp(-U)/Z. Paths start from it exactly (by its tabulated inverse
    distribution function) and walk by Heun's method with sixteen steps h between two times, weak
    order 2 for additive noise: stationary variances in a well of curvature U'' are short by a
    part (h D U'')^2/4, at the default 1e-3.

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
        x, h = self.stationary(n, generator), self.step / SUBSTEPS
        path = [x]
        for _ in range(self.length - 1):
            for _ in range(SUBSTEPS):
                noise = math.sqrt(2 * self.diffusion * h) * normal(generator, n, 2)
                slope = self.force(x)
                ahead = x + h * self.diffusion * slope + noise
                x = x + 0.5 * h * self.diffusion * (slope + self.force(ahead)) + noise
            path.append(x)
        return torch.stack(path, 1)

    def stationary(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw n positions from exp(-U)/Z, (n, 2)."""
        u, across = uniform(generator, n), normal(generator, n) / math.sqrt(self.stiffness)
        # beyond this reach U > 40 k T above the wells
        reach = self.half * math.sqrt(1 + math.sqrt(40 / self.barrier))
        nodes = torch.linspace(-reach, reach, NODES, dtype=u.dtype, device=u.device)
        density = (-self.potential(torch.stack((nodes, torch.zeros_like(nodes)), 1))).exp()
        rise = (0.5 * (density[1:] + density[:-1])).cumsum(0)
        level = torch.cat((rise.new_zeros(1), rise / rise[-1]))
        i = torch.searchsorted(level, u).clamp(1, NODES - 1)
        share = (u - level[i - 1]) / (level[i] - level[i - 1])
        return torch.stack((nodes[i - 1] + share * (nodes[i] - nodes[i - 1]), across), 1)

"""Equal cells of a box: where densities on a grid live."""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

__all__ = ["Cells"]


@dataclass(frozen=True)
class Cells:
    """A box cut into equal cells; a density is given at their middles.

    Args:
        low: lower corner, one number for each axis, in the units of x.
        high: upper corner.
        counts: number of cells along each axis, at least 2.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    counts: tuple[int, ...]

    def __post_init__(self) -> None:
        """Raise an error unless the box has a volume and at least two cells along each axis."""
        sizes = {len(self.low), len(self.high), len(self.counts)}
        ends = zip(self.low, self.high, strict=False)
        if len(sizes) != 1 or 0 in sizes or not all(a < b for a, b in ends):
            raise ValueError(
                f"expected corners low < high and counts of one length, got {self.low}, "
                f"{self.high} and {self.counts}: Cells((-6.0,), (6.0,), (400,)) for the line"
            )
        if min(self.counts) < 2:
            raise ValueError(f"expected at least 2 cells along each axis, got {self.counts}")

    @classmethod
    def cube(cls, reach: float, count: int, dim: int = 1) -> "Cells":
        """The box from -reach to reach along each of dim axes, with count cells along each."""
        return cls((-reach,) * dim, (reach,) * dim, (count,) * dim)

    @property
    def dim(self) -> int:
        """Number of axes."""
        return len(self.counts)

    @property
    def widths(self) -> tuple[float, ...]:
        """Widths of a cell, in the units of x."""
        ends = zip(self.low, self.high, self.counts, strict=True)
        return tuple((b - a) / n for a, b, n in ends)

    def middles(self, axis: int = 0) -> Tensor:
        """Coordinates of the middles along an axis, (counts[axis],)."""
        return self._nodes(axis, 0.5, self.counts[axis])

    def points(self) -> Tensor:
        """Middles of all cells, (N, dim), the last axis fastest."""
        return _product([self.middles(axis) for axis in range(self.dim)])

    def faces(self, axis: int) -> Tensor:
        """Middles of the inner faces across an axis, (M, dim), one less than cells along it."""
        lines = [self.middles(k) for k in range(self.dim)]
        lines[axis] = self._nodes(axis, 1.0, self.counts[axis] - 1)
        return _product(lines)

    def density(self, log_p: Callable[[Tensor], Tensor]) -> Tensor:
        """exp(log_p) at the middles, (*counts), from a function (N, dim) -> (N,) of float64.

        Where a network is behind it, cast inside: ``lambda x: log_p(x.float(), t)``.
        """
        with torch.no_grad():
            return log_p(self.points()).exp().reshape(self.counts)

    def integral(self, values: Tensor) -> Tensor:
        """Integral over the box of values at the middles, (..., *counts) -> (...)."""
        return values.flatten(-self.dim).sum(-1) * prod(self.widths)

    def _nodes(self, axis: int, first: float, count: int) -> Tensor:
        steps = torch.arange(count, dtype=torch.float64) + first
        return self.low[axis] + self.widths[axis] * steps


def _product(lines: list[Tensor]) -> Tensor:
    return torch.cartesian_prod(*lines).reshape(-1, len(lines))

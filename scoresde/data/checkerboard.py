"""A named distribution with sharp edges: the checkerboard, exact at every time as ``Boxes``."""

import torch

from ..distributions import Boxes
from ..sde import SDE

__all__ = ["checkerboard"]


def checkerboard(sde: SDE, k: int = 4, side: float = 1.0) -> Boxes:
    """The dark squares of a k x k board about the origin, uniform.

    Args:
        sde: the process.
        k: squares along each axis.
        side: of one square, in the units of the data.
    """
    i, j = torch.cartesian_prod(torch.arange(k), torch.arange(k)).T
    corner = torch.stack((i, j), 1)[(i + j) % 2 == 0].double()
    lo = side * (corner - k / 2)
    return Boxes(lo, lo + side, torch.ones(len(lo)), sde)

"""One answer to the question which solver, and which grid, for a given number of evaluations."""

from typing import NamedTuple

from torch import Tensor

from ..grids import optimized
from ..sde import SDE
from .fixed.adams import Adams

__all__ = ["Plan", "recommended"]


class Plan(NamedTuple):
    """A sampler and the grid for it: ``sampler, ts = recommended(sde, nfe)``."""

    sampler: Adams
    ts: Tensor


def recommended(sde: SDE, nfe: int, scale: float = 1.0) -> Plan:
    """The solver and the grid to take where the samples may cost ``nfe`` evaluations each.

    For the probability-flow ODE, ending at t = 0: ``last`` of ``sample`` adds nothing. The order
    rises with nfe; with very few steps some must be put close to t = 0, and none can be spared
    for the guard. Chosen on exact scores and on trained networks together: what is best for the
    former alone (the angle, no guard) is no better than DDIM for the latter. Figures in
    benchmarks/README.md.

    Args:
        sde: the process.
        nfe: number of evaluations, at least 1.
        scale: standard deviation of the data in the model's units; 1 if ``fit`` scaled them.
    """
    if not (isinstance(nfe, int) and nfe >= 1):
        raise ValueError(f"expected a number of evaluations nfe >= 1, got {nfe!r}")
    values = (1, 0) if nfe < 4 else (1, 2) if nfe < 6 else (2, 3) if nfe < 24 else (4, 4)
    finest, guard = (0.005, 0.0) if nfe < 6 else (0.02, 0.0) if nfe < 9 else (0.05, 0.05)
    ts = optimized(sde, nfe, finest=finest, guard=guard, scale=scale)
    return Plan(Adams(*values, scale), ts)

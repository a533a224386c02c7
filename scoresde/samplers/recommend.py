"""One answer to the question which solver, and which grid, for a given number of evaluations."""

from typing import NamedTuple

from torch import Tensor

from ..grids import optimized
from ..sde import SDE
from .adams import Adams

__all__ = ["Plan", "recommended"]


class Plan(NamedTuple):
    """A sampler and the grid for it: ``sampler, ts = recommended(sde, nfe)``."""

    sampler: Adams
    ts: Tensor


def recommended(sde: SDE, nfe: int, scale: float = 1.0) -> Plan:
    """The solver and the grid to take where the samples may cost ``nfe`` evaluations each.

    For the probability-flow ODE, ending at t = 0: ``last`` of ``sample`` adds nothing. The order
    rises with nfe, and with very few steps some must be put close to t = 0. Chosen on five laws by
    benchmarks/work_precision.py: on the two that have a reference the error is below the best of
    111 configurations of ten libraries at every nfe from 5 to 200 (benchmarks/README.md).

    Args:
        sde: the process.
        nfe: number of evaluations, at least 1.
        scale: standard deviation of the data in the model's units; 1 if ``fit`` scaled them.
    """
    if not (isinstance(nfe, int) and nfe >= 1):
        raise ValueError(f"expected a number of evaluations nfe >= 1, got {nfe!r}")
    values = (1, 0) if nfe < 4 else (2, 3) if nfe < 9 else (3, 4) if nfe < 14 else (4, 4)
    finest = 0.02 if nfe < 7 else 0.05
    return Plan(Adams(*values, scale), optimized(sde, nfe, finest=finest, scale=scale))

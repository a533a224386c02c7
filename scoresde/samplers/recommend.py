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

    For the probability-flow ODE, ending at t = 0: ``last`` of ``sample`` adds nothing. With few
    evaluations a lower order is more robust. Chosen by benchmarks/work_precision.py: on its two
    laws the error is below the best of 111 configurations of ten libraries at every nfe from 5 to
    200 (figures in benchmarks/README.md).

    Args:
        sde: the process.
        nfe: number of evaluations, at least 1.
        scale: standard deviation of the data in the model's units; 1 if ``fit`` scaled them.
    """
    if not (isinstance(nfe, int) and nfe >= 1):
        raise ValueError(f"expected a number of evaluations nfe >= 1, got {nfe!r}")
    predictor, corrector = (1, 0) if nfe < 4 else (2, 3) if nfe < 12 else (4, 4)
    return Plan(Adams(predictor, corrector, scale), optimized(sde, nfe, scale=scale))

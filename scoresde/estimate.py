"""A number that was measured, with its standard error."""

import warnings
from typing import NamedTuple

from torch import Tensor

__all__ = ["Estimate"]


class Estimate(NamedTuple):
    """A value and its standard error: ``value +- stderr`` is one sigma.

    Attributes:
        value: (*), of any shape and unit.
        stderr: (*), in the unit of the value; zero where it is exact.
    """

    value: Tensor
    stderr: Tensor

    @property
    def error(self) -> Tensor:
        """The former name of ``stderr`` in ``metrics``; kept for one minor version."""
        warnings.warn("Estimate.error is now Estimate.stderr", DeprecationWarning, stacklevel=2)
        return self.stderr

"""How often a denoiser is asked: what a sampler costs."""

from typing import Any

from torch import Tensor

from ..denoiser import Denoiser, Wrapper
from ..prediction import Quantity

__all__ = ["Counted"]


class Counted(Wrapper):
    """A denoiser that counts how often it is asked: ``calls``, one for a whole batch.

    Works with every sampler, and over all chunks of ``sample``.

    >>> from scoresde import DDIM, VPSDE, sample, uniform
    >>> from scoresde.data import gauss
    >>> counted = Counted(gauss(VPSDE()))
    >>> x = sample(counted, DDIM(), (8, 2), uniform(10), last="stop")
    >>> counted.calls
    10
    """

    def __init__(self, denoiser: Denoiser) -> None:
        """Start at zero."""
        super().__init__(denoiser)
        self._calls = [0]  # shared with the parts of the batch

    @property
    def calls(self) -> int:
        """Evaluations so far."""
        return self._calls[0]

    def predict(self, quantity: Quantity, x: Tensor, t: Tensor, **cond: Any) -> Tensor:
        """The prediction of the denoiser within, counted."""
        self._calls[0] += 1
        return self.denoiser.predict(quantity, x, t, **cond)

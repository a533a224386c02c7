"""The interface of an exact distribution: its density and its samples, at every time."""

from abc import abstractmethod

import torch
from torch import Tensor

from ..denoiser import Denoiser

__all__ = ["Distribution"]


class Distribution(Denoiser):
    """An exact denoiser that also knows its density and can be sampled at every time."""

    @property
    @abstractmethod
    def event(self) -> torch.Size:
        """Shape of one sample."""

    @abstractmethod
    def log_prob(self, x: Tensor, t: Tensor | None = None) -> Tensor:
        """log p_t(x) in nats, (B, *) -> (B,); of the data where no time is given."""

    @abstractmethod
    def sample(
        self, n: int, t: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Exact samples of p_t, (n, *); of the data where no time is given."""

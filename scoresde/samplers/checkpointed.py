"""Gradients through many steps in the memory of their states."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, is_grad_enabled
from torch.utils.checkpoint import checkpoint

from ..denoiser import Along, Denoiser, Wrapper
from ..prediction import Quantity

__all__ = ["Checkpointed"]


class Checkpointed(Wrapper):
    """A denoiser that is evaluated again for its gradient, instead of keeping what it computed.

        sampler(Checkpointed(denoiser), x, ts, differentiable=True)

    Memory falls from n times all activations of the network to n times a state and the
    activations of one evaluation, for one more evaluation a step in the backward pass; the
    gradients are the same. Wrap last: Checkpointed(Guided(denoiser, log_h)).

    Args:
        denoiser: the one whose evaluations are repeated; dropout is repeated as it was.

    References:
        Chen et al. 2016 (arXiv:1604.06174).
    """

    def __init__(self, denoiser: Denoiser) -> None:
        """Keep the denoiser."""
        super().__init__(denoiser)

    def predict(self, quantity: Quantity, x: Tensor, t: Tensor, **cond: Any) -> Tensor:
        """The denoiser's prediction, computed again for its gradient."""
        return _again(self.denoiser.predict, quantity, x, t, **cond)

    def along(
        self, ts: Tensor, x: Tensor, u: Tensor | None = None, w: Tensor | None = None, **cond: Any
    ) -> Along:
        """Along the grid, each evaluation by itself."""
        ask = self.denoiser.along(ts, x, u, w, **cond)
        return lambda k, x: _again(ask, k, x)


def _again(function: Callable[..., Tensor], *args: Any, **cond: Any) -> Tensor:
    """function(*args), to be computed again where its gradient is asked for."""
    if not is_grad_enabled():
        out: Tensor = function(*args, **cond)
    else:
        out = checkpoint(function, *args, use_reentrant=False, **cond)
    return out

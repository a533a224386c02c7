"""The denoising error of a batch, and the loss it makes."""

from typing import Any

from torch import Tensor
from torch.nn.functional import mse_loss

from ..denoiser import Denoiser
from .weights import Weight, simple

__all__ = ["denoising_errors", "denoising_loss"]


def denoising_errors(denoiser: Denoiser, x0: Tensor, t: Tensor, z: Tensor, **cond: Any) -> Tensor:
    """|eps_hat(x_t, t) - z|^2/d of every sample, (B,).

    Args:
        denoiser: the model.
        x0: clean data in the model's units, (B, *).
        t: times, () or (B,).
        z: standard normal noise, of the shape of x0.
        **cond: conditions, such as y.
    """
    eps = _eps(denoiser, x0, t, z, **cond)
    return mse_loss(eps, z, reduction="none").flatten(1).mean(1)


def denoising_loss(
    denoiser: Denoiser, x0: Tensor, t: Tensor, z: Tensor, weight: Weight = simple, **cond: Any
) -> Tensor:
    """Mean over samples and dimensions of w(t) |eps_hat - z|^2, (); see ``denoising_errors``."""
    if weight is simple:  # the same in one kernel; five cost 1 % of a small net's step
        return mse_loss(_eps(denoiser, x0, t, z, **cond), z)
    return (weight(denoiser.sde, t) * denoising_errors(denoiser, x0, t, z, **cond)).mean()


def _eps(denoiser: Denoiser, x0: Tensor, t: Tensor, z: Tensor, **cond: Any) -> Tensor:
    eps = denoiser.eps(denoiser.sde.perturb(x0, t, z), t, **cond)
    if eps.shape != z.shape:
        raise ValueError(
            f"expected a network that returns the shape of x, {tuple(z.shape)}, "
            f"got {tuple(eps.shape)}"
        )
    return eps

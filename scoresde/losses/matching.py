"""The denoising error of a batch, and the loss it makes."""

from typing import Any

from torch import Tensor
from torch.nn.functional import mse_loss

from ..denoiser import Denoiser, VDenoiser, like
from .weights import Weight, simple, v_weight

__all__ = ["denoising_errors", "denoising_loss"]


def denoising_errors(denoiser: Denoiser, x0: Tensor, t: Tensor, z: Tensor, **cond: Any) -> Tensor:
    """|eps_hat(x_t, t) - z|^2/d of every sample, (B,).

    Args:
        denoiser: the model.
        x0: clean data in the model's units, (B, *); taken to the dtype of the weights.
        t: times, () or (B,).
        z: standard normal noise, of the shape of x0.
        **cond: conditions, such as y.
    """
    error = mse_loss(*_eps(denoiser, x0, t, z, **cond), reduction="none")
    return error.flatten(1).mean(1)


def denoising_loss(
    denoiser: Denoiser, x0: Tensor, t: Tensor, z: Tensor, weight: Weight = simple, **cond: Any
) -> Tensor:
    """Mean over samples and dimensions of w(t) |eps_hat - z|^2, (); see ``denoising_errors``.

    That of a ``VDenoiser`` under ``v_weight`` is taken as |v_hat - v|^2, which it equals: so it is
    finite where alpha = 0 too, and there v = -sigma x0.
    """
    if weight is v_weight and isinstance(denoiser, VDenoiser):
        return _v_loss(denoiser, *_cast(denoiser, x0, z), t, **cond)
    if weight is simple:  # the same in one kernel; five cost 1 % of a small net's step
        return mse_loss(*_eps(denoiser, x0, t, z, **cond))
    return (weight(denoiser.sde, t) * denoising_errors(denoiser, x0, t, z, **cond)).mean()


def _v_loss(denoiser: VDenoiser, x0: Tensor, z: Tensor, t: Tensor, **cond: Any) -> Tensor:
    """|v_hat - (alpha z - sigma x0)|^2/d, the mean over samples, ()."""
    alpha, sigma = (like(c, x0) for c in (denoiser.sde.alpha(t), denoiser.sde.sigma(t)))
    v = denoiser.v(alpha * x0 + sigma * z, t, **cond)
    return mse_loss(_same_shape(v, x0), alpha * z - sigma * x0)


def _eps(
    denoiser: Denoiser, x0: Tensor, t: Tensor, z: Tensor, **cond: Any
) -> tuple[Tensor, Tensor]:
    """eps_hat, and the z that it is compared with, both (B, *)."""
    x0, z = _cast(denoiser, x0, z)
    eps = denoiser.eps(denoiser.sde.perturb(x0, t, z), t, **cond)
    return _same_shape(eps, z), z


def _cast(denoiser: Denoiser, x0: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """Both in the dtype of the weights: data are often float64, networks float32."""
    if not len(x0):
        raise ValueError("expected at least one sample to take a loss of, got none")
    weight = next(denoiser.parameters(), x0)
    return x0.to(weight.dtype), z.to(weight.dtype)


def _same_shape(out: Tensor, x: Tensor) -> Tensor:
    if out.shape != x.shape:
        raise ValueError(
            f"expected a network that returns the shape of x, {tuple(x.shape)}, "
            f"got {tuple(out.shape)}"
        )
    return out

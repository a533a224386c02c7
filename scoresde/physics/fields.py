"""Derivatives of fields: scalars and vectors that depend on a point and a time.

A field maps x (B, *) and t, () or (B,), to a value for each point; the value at one point does not
depend on the others, so that the gradient of the sum over a batch holds the gradients of all.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from ..autodiff import differentiating
from ..likelihood.flow import pull_each

__all__ = ["Scalar", "Vector", "check_field", "dot", "gradient", "jacobian"]

Scalar = Callable[[Tensor, Tensor], Tensor]
"""A scalar field, (x (B, *), t) -> (B,): ``mixture.log_prob``, say."""
Vector = Callable[[Tensor, Tensor], Tensor]
"""A vector field, (x (B, *), t) -> (B, *): ``denoiser.score``, say."""


def gradient(field: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """grad field at x, (B, *), of a function (B, *) -> (B,)."""
    with differentiating():
        slope: Tensor = torch.func.grad(lambda x: field(x).sum())(x)
    return slope


def jacobian(field: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """field(x) (B, *) and its Jacobian J_ij = d field_i/d x_j (B, d, d): one call and d vjps."""
    axes = torch.eye(x.shape[1:].numel(), dtype=x.dtype, device=x.device)
    axes = axes.reshape(-1, 1, *x.shape[1:]).expand(-1, *x.shape)
    with differentiating():
        value, pull = torch.func.vjp(field, x)[:2]
        rows = pull_each(pull, axes)  # (d, B, *)
    return value, rows.flatten(2).movedim(0, 1)


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner products of events: (B, *), (B, *) -> (B,)."""
    return (a * b).flatten(1).sum(1)


def check_field(x: Tensor, t: Tensor) -> None:
    """Raise an error unless x is a batch of floating points and t fits it."""
    if x.ndim < 2 or not x.is_floating_point():
        raise ValueError(
            f"expected floating points x (B, *), got {x.dtype} {tuple(x.shape)}: for points on "
            "the line use (B, 1)"
        )
    if t.shape not in ((), x.shape[:1]):
        raise ValueError(
            f"expected a time () or ({len(x)},), got {tuple(t.shape)}: pass one time for all "
            "points, or one for each"
        )

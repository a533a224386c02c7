"""What every metric asks of its samples, checked once at the door."""

import torch
from torch import Tensor

__all__ = ["as_floats", "as_pair", "as_path_set", "as_points", "distances"]


def as_floats(x: Tensor, name: str = "x") -> Tensor:
    """Floating-point numbers as a tensor, of 32 bits at least: sums in 16 would be worth nothing.

    Raises:
        ValueError: for integers.
    """
    x = torch.as_tensor(x)
    if not x.is_floating_point():
        raise ValueError(f"{name}: expected floating-point numbers, got {x.dtype}: use .double()")
    return x.detach().to(torch.promote_types(x.dtype, torch.float32))


def as_path_set(x: Tensor) -> Tensor:
    """A set of paths (n, L, C), see ``as_floats``.

    Raises:
        ValueError: for other shapes, or no paths.
    """
    x = as_floats(x)
    if x.ndim != 3 or x.numel() == 0:
        raise ValueError(
            f"expected paths (n, L, C) with n, L, C >= 1, got {tuple(x.shape)}: "
            "signals (n, L) need a last axis, x[..., None]"
        )
    return x


def as_points(x: Tensor, name: str = "x", finite: bool = True) -> Tensor:
    """A sample as points (n, d): (n,) becomes (n, 1), (n, *) becomes (n, -1).

    Args:
        x: sample (n, *), any unit.
        name: what to call it in a message.
        finite: refuse NaN and infinite values (this reads the values: on a GPU it synchronises).

    Raises:
        ValueError: for an empty sample, numbers that are not floating-point, NaN or infinity.
    """
    x = as_floats(x, name)
    if x.ndim == 0 or x.numel() == 0:
        raise ValueError(
            f"{name}: expected a sample of shape (n, *) with n >= 1, got {tuple(x.shape)}"
        )
    if finite and not bool(x.isfinite().all()):
        bad = int((~x.isfinite()).reshape(len(x), -1).any(1).sum())
        raise ValueError(
            f"{name}: expected finite numbers, got NaN or infinity in {bad} of {len(x)} points: "
            "the run that made them diverged, or drop them and say so"
        )
    return x.reshape(len(x), -1)


def as_pair(x: Tensor, y: Tensor, finite: bool = True) -> tuple[Tensor, Tensor]:
    """Two samples (n, *) and (m, *) as points (n, d) and (m, d) of one space, dtype and device.

    Raises:
        ValueError: as ``as_points``, and where dimension or device differ.
    """
    x, y = as_points(x, "x", finite), as_points(y, "y", finite)
    if x.shape[1] != y.shape[1]:
        raise ValueError(
            f"expected samples of one dimension, got d = {x.shape[1]} for x and {y.shape[1]} "
            "for y: compare laws of the same space"
        )
    if x.device != y.device:
        raise ValueError(f"expected samples on one device, got {x.device} and {y.device}")
    dtype = torch.promote_types(x.dtype, y.dtype)
    return x.to(dtype), y.to(dtype)


def distances(x: Tensor, y: Tensor) -> Tensor:
    """|x_i - y_j| for points (n, d) and (m, d): (n, m), by differences.

    Through |x|^2 + |y|^2 - 2xy, equal points would come out 1e-8 apart.
    """
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")

"""Checks of a sampler's arguments: one clear error for each that it could not use."""

from itertools import pairwise
from operator import gt, lt
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..denoiser import Denoiser, anchor
from ..sde import SDE

__all__ = ["among", "check_grid", "check_state", "home", "not_negative", "taken", "with_gradients"]

WIDE = (torch.float32, torch.float64)
Array = NDArray[np.floating[Any]]


def home(denoiser: Denoiser) -> tuple[torch.device, torch.dtype | None]:
    """Where a denoiser lives, and the dtype of its parameters: none if it has none.

    Parameters in 16 bits say nothing of the state, which stays wider.
    """
    dtype = next((p.dtype for p in denoiser.parameters() if p.dtype in WIDE), None)
    return anchor(denoiser).device, dtype


def taken(x: Tensor | Array, denoiser: Denoiser) -> Tensor:
    """A tensor of the dtype of the denoiser's parameters, if it has any; an array goes there."""
    first = next(denoiser.parameters(), None)
    if isinstance(x, Tensor) and (first is None or first.dtype == x.dtype):
        return x  # as nearly always
    device, dtype = home(denoiser)
    if not isinstance(x, Tensor):
        x = torch.as_tensor(x, device=device)
    return x if dtype is None or x.dtype not in WIDE else x.to(dtype)


def check_state(x: Tensor, differentiable: bool) -> None:
    """Raise an error for a state that no step can start from."""
    if not x.is_floating_point() or x.ndim < 1:
        raise TypeError(
            f"expected floating-point x (B, *), got {x.dtype} {tuple(x.shape)}: draw it from "
            "sde.prior(ts[0]).sample(shape)"
        )
    if x.dtype not in WIDE:
        raise TypeError(
            f"expected a state in float32 or float64, got {x.dtype}, in which the steps would "
            "drown: take x.float(), and run the network in 16 bits by nets.Autocast(net)"
        )
    if len(x) == 0:
        raise ValueError(f"expected at least one sample, got x of shape {tuple(x.shape)}")
    if x.requires_grad and torch.is_grad_enabled() and not differentiable:
        raise ValueError(
            "expected differentiable=True for an x that requires grad: by default samplers "
            "record no gradients; pass it, or x.detach()"
        )


def with_gradients(x: Tensor) -> Tensor:
    """The result of a run that was to record gradients, if it did."""
    if not x.requires_grad:
        raise RuntimeError(
            "expected a result that carries gradients, got none: let x, a parameter or a "
            "condition require grad, and call it outside of torch.no_grad()"
        )
    return x


def check_grid(ts: Tensor, sde: SDE, increasing: bool = False) -> Tensor:
    """The grid as float64 on the CPU, or one clear error.

    Args:
        ts: times (n + 1,), strictly decreasing.
        sde: the process, whose t_max may not be passed.
        increasing: whether a strictly increasing grid will do as well.
    """
    ts = torch.as_tensor(ts)
    if ts.requires_grad:
        raise ValueError(
            "expected a grid that does not require grad: its coefficients are plain numbers, "
            "which carry no gradient; pass ts.detach()"
        )
    ts = ts.to("cpu", torch.float64)
    if ts.ndim != 1 or len(ts) < 2:
        raise ValueError(f"expected a grid of times (n + 1,), n >= 1, got {tuple(ts.shape)}")
    times = ts.tolist()  # plain numbers: an operation of a tensor costs more than a short list
    rises = all(map(lt, times, times[1:]))
    if not (all(map(gt, times, times[1:])) or (increasing and rises)):
        if rises:
            raise ValueError(
                "expected a decreasing grid, got an increasing one: a sampler with noise cannot "
                "go from data to noise; use DDIM(eta=0) or PFHeun()"
            )
        again = next((t for t, s in pairwise(times) if t == s), None)
        if again is not None:
            raise ValueError(
                f"expected every time of the grid once, got {again:.6g} twice in a row: leave "
                "out the repetition"
            )
        raise ValueError("expected a strictly monotone grid, got one that is not: sort it")
    low, high = sorted((times[0], times[-1]))
    if low < 0 or high > sde.t_max * (1 + 1e-12):
        raise ValueError(
            f"expected times within [0, {sde.t_max:.6g}], got {low:.6g}..{high:.6g}: "
            f"build the grid with t_max={sde.t_max:.6g} (grids that take the sde do so)"
        )
    return ts


def among(name: str, value: object, choices: tuple[object, ...]) -> None:
    """Raise an error unless the value is among the choices."""
    if value not in choices:
        raise ValueError(f"expected {name} among {choices}, got {value!r}")


def not_negative(name: str, value: float) -> None:
    """Raise an error for a negative amount of noise."""
    if not value >= 0:
        raise ValueError(f"expected {name} >= 0, got {value}: 0 is the probability-flow ODE")

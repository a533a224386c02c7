r"""The exact law of a sampler's output on Gaussian data, without Monte Carlo.

For data N(m, C) the exact denoiser is affine, x0_hat = G x + u, so every row of the table is too:

    x_s = A x_t + d + c z,   A = a I + b G,   d = b u
    mean <- A mean + d,      cov <- A cov A^T + c^2 I.

Discretisation bias is then a number, to rounding: orders of convergence are read off it.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from ..mixture import GaussianMixture
from .base import Sampler, TableSampler, check_grid

__all__ = ["moments"]


def moments(
    sampler: Sampler,
    gaussian: GaussianMixture,
    ts: Tensor,
    start: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Mean and covariance of the state before the first and after every row of a sampler.

    Args:
        sampler: any sampler whose steps are affine (all but the Langevin rule "song").
        gaussian: the data law, a mixture of one component.
        ts: the grid (n + 1,).
        start: mean (d,) and covariance (d, d) at ts[0]; the exact law there if not given.

    Returns:
        means (R + 1, d) and covariances (R + 1, d, d) in float64, for R rows (R = n unless the
        sampler corrects).
    """
    if len(gaussian.weights) != 1:
        raise ValueError(
            f"expected a single Gaussian, got a mixture of {len(gaussian.weights)}: "
            "the samplers' law is not Gaussian there; take gaussian.component(k)"
        )
    if not sampler.linear:
        raise TypeError(f"{sampler} is not affine in x, so it has no moment recursion")
    ts = check_grid(ts, gaussian.sde, increasing=not sampler.noise)
    mean, cov = gaussian.marginal(ts[0]) if start is None else (s.double() for s in start)
    means, covs = [mean], [cov]
    for linear, shift, var in _steps(sampler, gaussian, ts):
        mean = linear @ mean + shift
        cov = linear @ cov @ linear.T + var * torch.eye(len(mean), dtype=cov.dtype)
        means.append(mean)
        covs.append(cov)
    return torch.stack(means), torch.stack(covs)


def _steps(
    sampler: Sampler, gaussian: GaussianMixture, ts: Tensor
) -> list[tuple[Tensor, Tensor, float]]:
    """(A, d, c^2) of every row."""
    if not isinstance(sampler, TableSampler):
        pairs = [ts[k : k + 2] for k in range(len(ts) - 1)]
        return [(*_impulse(partial(sampler, gaussian, ts=pair), gaussian), 0.0) for pair in pairs]
    table = sampler.table(gaussian.sde, ts)
    gain, offset = _impulse(gaussian, gaussian, table.t)
    eye = torch.eye(gaussian.dim, dtype=torch.float64)
    linear = table.a[:, None, None] * eye + table.b[:, None, None] * gain
    return list(zip(linear, table.b[:, None] * offset, table.c.square().tolist(), strict=True))


def _impulse(
    function: Callable[..., Tensor], gaussian: GaussianMixture, t: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Matrix (d, d) and shift (d,) of an affine function of the state: its answer to unit vectors.

    With times (R,), those of function(x, t) at every one of them, (R, d, d) and (R, d).
    """
    d = gaussian.dim
    basis = torch.cat([torch.zeros(1, d), torch.eye(d)]).double()
    if t is None:
        out = function(basis.reshape(-1, *gaussian.event)).reshape(d + 1, d)
    else:
        x = basis.repeat(len(t), 1).reshape(-1, *gaussian.event)
        out = function(x, t.repeat_interleave(d + 1)).reshape(len(t), d + 1, d)
    zero = out[..., 0, :]
    return (out[..., 1:, :] - zero[..., None, :]).mT, zero

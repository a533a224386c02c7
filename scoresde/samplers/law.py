r"""The exact law of a sampler's output on Gaussian data, without Monte Carlo.

For data N(m, C) the exact denoiser is affine, x0_hat = G x + o, so every row of the table is too.
On the state X = (x, h_1, ..., h_{K-1}) of a sampler that remembers K - 1 earlier rows,

    h_0 = (u + w G) x + w o,    x <- a x + sum_j b_j h_j + c z,    h_{j+1} <- h_j,
    X <- A X + d + c z,         mean <- A mean + d,      cov <- A cov A^T + c^2 P,

with P the projector on x. Discretisation bias is then a number, to rounding: orders of
convergence are read off it.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
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
    d, means, covs = len(mean), [mean], [cov]
    steps = _steps(sampler, gaussian, ts)
    grow = steps[0][1].shape[0] - d  # what is remembered is nothing at first
    mean, cov = F.pad(mean, (0, grow)), F.pad(cov, (0, grow, 0, grow))
    fresh = F.pad(torch.eye(d, dtype=cov.dtype), (0, grow, 0, grow))
    for linear, shift, var in steps:
        mean = linear @ mean + shift
        cov = linear @ cov @ linear.T + var * fresh
        means.append(mean[:d])
        covs.append(cov[:d, :d])
    return torch.stack(means), torch.stack(covs)


def _steps(
    sampler: Sampler, gaussian: GaussianMixture, ts: Tensor
) -> list[tuple[Tensor, Tensor, float]]:
    """(A, d, c^2) of every row."""
    if not (isinstance(sampler, TableSampler) and sampler.tabular(gaussian, ts)):
        pairs = [ts[k : k + 2] for k in range(len(ts) - 1)]
        return [(*_impulse(partial(sampler, gaussian, ts=pair), gaussian), 0.0) for pair in pairs]
    table, d = sampler.table(gaussian.sde, ts), gaussian.dim
    gain, offset = _impulse(gaussian, gaussian, table.t)
    eye, grow = torch.eye(d, dtype=torch.float64), d * (table.b.shape[1] - 1)
    new = _scaled(table.u, eye) + _scaled(table.w, gain)  # h_0 = new x + shift
    shift = table.w[:, None] * offset
    x = torch.cat([_scaled(b, eye) for b in table.b.unbind(1)], 2)
    x[:, :, :d] = _scaled(table.a, eye) + _scaled(table.b[:, 0], new)
    push = table.b[:, :1] * shift
    if grow:
        down = torch.eye(d + grow, dtype=torch.float64)[d:-d].expand(len(x), -1, -1)
        x = torch.cat([x, F.pad(new, (0, grow)), down], 1)
        push = torch.cat([push, shift, shift.new_zeros(len(x), grow - d)], 1)
    return list(zip(x, push, table.c.square().tolist(), strict=True))


def _scaled(factor: Tensor, matrix: Tensor) -> Tensor:
    """(R,) times (d, d) or (R, d, d)."""
    return factor[:, None, None] * matrix


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

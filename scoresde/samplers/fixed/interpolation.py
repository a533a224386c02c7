"""Weights of remembered values in the integral over a step: predictors and correctors.

The formulas are those at the head of ``exponential``; ``adams`` is the same with another kernel.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..table import widen

__all__ = ["corrected", "exponential_adams", "interpolate", "midpoint", "moments_of_decay"]


def moments_of_decay(x: Tensor, n: int) -> Tensor:
    """J_0, ..., J_{n-1} for x = c h of either sign: (R,) -> (R, n).

    By their recursion where |x| > 1, and below by the series of the last of them, run backwards:
    J_m = m! sum_{i > 0} (-1)^{i-1} x^i/(m + i)!.
    """
    forward = [-torch.expm1(-x)]
    for m in range(1, n):
        forward.append(1 - m / x * forward[-1])
    terms = torch.arange(1, 20, dtype=x.dtype)
    factors = -torch.exp(math.lgamma(n) - torch.lgamma(terms + n)) * (-1) ** terms
    backward = [(x[:, None] ** terms) @ factors]
    for m in range(n - 1, 0, -1):
        backward.append((1 - backward[-1]) * x / m)
    large, small = torch.stack(forward, 1), torch.stack(backward[::-1], 1)
    return torch.where(x.abs()[:, None] > 1, large, small)


def interpolate(xi: Tensor, moments: Tensor, ahead: bool = False) -> Tensor:
    """Weights (n, p) of the newest p values in an integral over each of the n steps of a grid.

    The values are interpolated by a polynomial in xi. Row k has k + 1 values to choose from, so
    the first rows have fewer, and zeros for the rest.

    Args:
        xi: the grid (n + 1,) in the variable of the polynomial.
        moments: (n, p), the integrals over each step of r^0, ..., r^{p-1}, where r goes from 0 to
            1 as xi crosses the step.
        ahead: whether the end of the step counts as the newest value.
    """
    step, p = xi.diff(), torch.arange(moments.shape[1])
    back = torch.arange(len(step))[:, None] + int(ahead) - p  # the node of each value
    nodes = (xi[back.clamp(min=0)] - xi[:-1, None]) / step[:, None]
    absent = (back < 0)[..., None]  # where there is no value, its equation is w_j = 0
    eye = torch.eye(len(p), dtype=xi.dtype)
    powers = torch.where(absent, eye, nodes[:, None] ** p[:, None])
    weights: Tensor = torch.linalg.solve(powers, moments * ~absent[..., 0])
    return weights


def exponential_adams(lam: Tensor, order: int, c: Tensor | float, ahead: bool = False) -> Tensor:
    """``interpolate`` in lam, for the integral of the head: (n, order)."""
    return interpolate(lam, moments_of_decay(torch.as_tensor(c) * lam.diff(), order), ahead)


def corrected(a: Tensor, b: Tensor, end: Tensor | None) -> Tensor:
    """Factors (n, K) of a method whose steps are corrected at the start of the row after them.

    Args:
        a: factor of the state in each row, (n,).
        b: the predictor's factors of what is remembered, (n, p).
        end: the corrector's, the end of the step first, (n, q); none: no corrector.
    """
    if end is None:
        return b
    wide = max(b.shape[1] + 1, end.shape[1])
    b = widen(b, wide)
    e = widen(end, wide) - b.roll(1, 1)  # seen from the end, where the prediction has none
    return torch.cat([b[:1], b[1:] + a[1:, None] * e[:-1]])


def midpoint(lam: Tensor, share: Tensor, total: Tensor) -> Tensor:
    """Weights (n, 2) total D_0 + (share/2)(D_0 - D_1)/r_0; the first row has D_0 alone."""
    h = lam.diff()
    slope = F.pad(0.5 * share[1:] * h[1:] / h[:-1], (1, 0))
    return torch.stack([total + slope, -slope], 1)

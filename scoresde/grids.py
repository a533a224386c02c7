"""Time grids: the times at which a sampler evaluates, as plain tensors.

A grid of n steps is a float64 tensor (n + 1,) on the CPU that decreases from ``t_max`` to
``t_eps``. Samplers step exactly through the grid they are given; flip it to go from data to noise.
"""

import math
from functools import lru_cache

import torch
from torch import Tensor

from .sde import SDE

__all__ = ["karras", "log_snr", "optimized", "quadratic", "uniform"]


def uniform(n: int, t_max: float = 1.0, t_eps: float = 1e-3) -> Tensor:
    """Equal steps in t. ``t_eps = 0`` is allowed."""
    _check(n, t_max, t_eps, zero=True)
    return torch.linspace(t_max, t_eps, n + 1, dtype=torch.float64)


def quadratic(n: int, t_max: float = 1.0, t_eps: float = 1e-3) -> Tensor:
    """Equal steps in sqrt(t): denser near the data. ``t_eps = 0`` is allowed."""
    _check(n, t_max, t_eps, zero=True)
    roots = torch.linspace(t_max**0.5, t_eps**0.5, n + 1, dtype=torch.float64)
    return _pin(roots.square(), t_max, t_eps)


def log_snr(sde: SDE, n: int, t_max: float | None = None, t_eps: float | None = None) -> Tensor:
    """Equal steps in log-SNR = log(alpha^2/sigma^2), the natural grid of exponential solvers."""
    t_max, t_eps = _ends(sde, n, t_max, t_eps)
    start, stop = sde.log_snr(torch.tensor([t_max, t_eps], dtype=torch.float64)).tolist()
    levels = torch.linspace(start, stop, n + 1, dtype=torch.float64)
    return _pin(sde.time_of_log_snr(levels), t_max, t_eps)


def karras(
    sde: SDE, n: int, rho: float = 7.0, t_max: float | None = None, t_eps: float | None = None
) -> Tensor:
    """Equal steps in (sigma/alpha)^(1/rho).

    References:
        Karras et al. 2022 (arXiv:2206.00364), eq. 5.
    """
    t_max, t_eps = _ends(sde, n, t_max, t_eps)
    if not rho > 0:
        raise ValueError(f"expected rho > 0, got {rho}: the paper uses 7")
    ends = torch.tensor([t_max, t_eps], dtype=torch.float64)
    start, stop = (-sde.lam(ends) / rho).exp().tolist()
    levels = torch.linspace(start, stop, n + 1, dtype=torch.float64)
    return _pin(sde.time_of_log_snr(-2 * rho * levels.log()), t_max, t_eps)


def optimized(
    sde: SDE,
    n: int,
    order: int = 3,
    finest: float = 0.05,
    guard: float = 0.05,
    scale: float = 1.0,
    t_max: float | None = None,
    t_eps: float = 0.0,
) -> Tensor:
    r"""The grid with the least bound on the error of a method of a given order.

    In the variable xi = asinh(sigma/(alpha d)) of ``Adams`` the flow towards N(0, l^2 d^2) is

        Z_l(xi) = sqrt(1 - (1 - l^2)/cosh^2 xi),

    and the errors that a method of order p makes in the steps h_k add up to at most a constant
    times sum_k h_k^{p+1} M(xi_k), where M is the largest |d^{p+1} Z_l/dxi^{p+1}| for widths l
    from ``finest`` to 1. That sum is least where every step has the same share: equal steps in
    the integral of M^{1/(p+1)}. Only the process and the range of widths enter.

    M vanishes where noise prevails, since there the exact denoiser hardly moves. A network's does:
    ``guard`` is the least density of steps, which keeps its errors from being carried far.

    Args:
        sde: the process.
        n: number of steps.
        order: p, from 1 to 4.
        finest: width of the finest structure of the data, in units of ``scale``, in (0, 1).
        guard: added to M^{1/(p+1)}, which is of the order of one; 0 suits exact scores.
        scale: d, standard deviation of the data.
        t_max: start of the grid.
        t_eps: end of the grid; 0 is allowed, and meant for ``Adams``.
    """
    t_max = sde.t_max if t_max is None else t_max
    _check(n, t_max, t_eps, zero=True)
    _within(sde, t_max)
    if order not in (1, 2, 3, 4) or not (0 < finest < 1 and guard >= 0 and scale > 0):
        raise ValueError(
            "expected order 1, 2, 3 or 4, 0 < finest < 1, guard >= 0 and scale > 0, got "
            f"{order}, {finest}, {guard} and {scale}: finest is relative to scale"
        )
    ends = torch.tensor([t_max, t_eps], dtype=torch.float64)
    xi, share = _shares(order, finest, guard)
    start, stop = _through(((-sde.lam(ends)).exp() / scale).asinh(), xi, share)
    steps = start + (stop - start) * torch.linspace(0, 1, n + 1, dtype=torch.float64)
    y = scale * _through(steps, share, xi).sinh()
    # y is 0 at t_eps = 0: the clamp keeps its logarithm finite, _pin sets the end itself
    return _pin(sde.time_of_log_snr(-2 * y.clamp(min=1e-300).log()), t_max, t_eps)


@lru_cache
def _shares(order: int, finest: float, guard: float) -> tuple[Tensor, Tensor]:
    """xi from 0 on, dense at 0, and the integral of M^{1/(p+1)} + guard up to each."""
    xi = 20 * torch.linspace(0, 1, 3001, dtype=torch.float64) ** 4
    width2 = torch.logspace(math.log10(finest), 0, 40, dtype=torch.float64)[:, None] ** 2
    # Taylor coefficients: tanh' = sech^2, sech^2 = 1 - tanh^2, Z^2 = 1 - (1 - l^2) sech^2
    tanh, sech2 = [xi.tanh()], [1 / xi.cosh() ** 2]
    for k in range(1, order + 2):
        tanh.append(sech2[-1] / k)
        sech2.append(-torch.stack([tanh[i] * tanh[k - i] for i in range(k + 1)]).sum(0))
    flow = [(1 - (1 - width2) * sech2[0]).sqrt()]
    for k in range(1, order + 2):
        cross = sum(flow[i] * flow[k - i] for i in range(1, k))
        flow.append((-(1 - width2) * sech2[k] - cross) / (2 * flow[0]))
    density = flow[-1].abs().amax(0) ** (1 / (order + 1)) + guard
    pieces = 0.5 * (density[1:] + density[:-1]) * xi.diff()
    return xi, torch.cat([pieces.new_zeros(1), pieces.cumsum(0)])


def _through(x: Tensor, nodes: Tensor, values: Tensor) -> Tensor:
    """Linear interpolation of increasing nodes."""
    i = torch.searchsorted(nodes, x.contiguous()).clamp(1, len(nodes) - 1)
    share = (x - nodes[i - 1]) / (nodes[i] - nodes[i - 1])
    return values[i - 1] + share * (values[i] - values[i - 1])


def _ends(sde: SDE, n: int, t_max: float | None, t_eps: float | None) -> tuple[float, float]:
    t_max = sde.t_max if t_max is None else t_max
    t_eps = sde.t_eps if t_eps is None else t_eps
    _check(n, t_max, t_eps, zero=False)
    _within(sde, t_max)
    return t_max, t_eps


def _within(sde: SDE, t_max: float) -> None:
    if t_max > sde.t_max:
        raise ValueError(
            f"expected t_max <= {sde.t_max:.6g}, where alpha is still positive, got {t_max}: "
            "leave it out to start where the process can"
        )


def _check(n: int, t_max: float, t_eps: float, zero: bool) -> None:
    if not (isinstance(n, int) and n >= 1):
        raise ValueError(f"expected a number of steps n >= 1, got {n!r}")
    if not 0 <= t_eps < t_max <= 1:
        raise ValueError(
            f"expected 0 <= t_eps < t_max <= 1, got t_eps = {t_eps} and t_max = {t_max}"
        )
    if t_eps == 0 and not zero:
        raise ValueError(
            "expected t_eps > 0, got 0, where log-SNR is infinite: pass t_eps = 1e-6, "
            "or use uniform() or quadratic()"
        )


def _pin(ts: Tensor, t_max: float, t_eps: float) -> Tensor:
    """Set both ends exactly (an inverse function leaves them within rounding)."""
    ts[0], ts[-1] = t_max, t_eps
    return ts

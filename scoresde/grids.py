"""Time grids: where a sampler stands, as plain tensors.

A grid of n steps is a float64 tensor (n + 1,) on the CPU that decreases from ``t_max`` to
``t_eps``. Samplers walk exactly the grid they are given; flip one to walk from data to noise.
"""

import torch
from torch import Tensor

from .sde import SDE

__all__ = ["karras", "log_snr", "quadratic", "uniform"]


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


def _ends(sde: SDE, n: int, t_max: float | None, t_eps: float | None) -> tuple[float, float]:
    t_max = sde.t_max if t_max is None else t_max
    t_eps = sde.t_eps if t_eps is None else t_eps
    _check(n, t_max, t_eps, zero=False)
    if t_max > sde.t_max:
        raise ValueError(
            f"expected t_max <= {sde.t_max:.6g}, where alpha is still positive, got {t_max}: "
            "leave it out to start where the process can"
        )
    return t_max, t_eps


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

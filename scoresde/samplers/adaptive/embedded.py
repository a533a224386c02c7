r"""Embedded Runge-Kutta pairs on the device of the state: the host asks it once a step.

    k_i = f(u + c_i h, y + h sum_j a_ij k_j),
    y'  = y + h sum_i b_i k_i,        e = h sum_i e_i k_i,

with u and h plain numbers. A step is taken where rms[e / (atol + rtol max(|y|, |y'|))] <= 1, the
root mean square over the batch; that number is what the host asks for. The last stage is the first
of the next step. Between steps the pair's own polynomial interpolates. Coefficients: scipy's, but
for the error of Dormand and Prince's.

References:
    Bogacki and Shampine 1989 (order 3); Dormand and Prince 1980 (order 5); Shampine 1986 (its
    interpolant and companion); Hairer, Norsett and Wanner 1993, sec. II.4 (first step).
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["integrate"]

PAIRS = {"bosh3": "RK23", "dopri5": "RK45"}
COMPANION = (1951 / 21600, 0, 22642 / 50085, 451 / 720, -12231 / 42400, 649 / 6300, 1 / 60)
"""Shampine's formula of order 4 on the stages of Dormand and Prince, to which theirs is compared,
as torchdiffeq does: the steps are the same as there (``tests/test_adaptive.py``)."""
SAFETY, LEAST, MOST, STEPS = 0.9, 0.2, 10.0, 100_000
Slope = Callable[[float, Tensor], Tensor]


class _Pair(NamedTuple):
    """Coefficients as plain numbers; ``p`` are those of the interpolant, one row a stage."""

    a: list[list[float]]
    c: list[float]
    e: list[float]
    p: list[list[float]]
    order: int


def _pair(method: str) -> _Pair:
    import scipy.integrate

    pair = getattr(scipy.integrate, PAIRS[method])
    a, e = [*pair.A.tolist(), pair.B.tolist()], pair.E.tolist()  # the last stage is the step
    if method == "dopri5":
        e = [b - other for b, other in zip([*a[-1], 0.0], COMPANION, strict=True)]
    return _Pair(a, [*pair.C.tolist(), 1.0], e, pair.P.tolist(), pair.order)


def integrate(
    slope: Slope, y: Tensor, nodes: Sequence[float], method: str, rtol: float, atol: float
) -> Tensor:
    """States at all nodes, (N, B, *); the last one is the end of a step: nothing lies beyond.

    Args:
        slope: dy/du, called with a plain number and a state.
        y: the state at the first node, (B, *).
        nodes: monotone.
        method: "bosh3" or "dopri5".
        rtol: relative tolerance.
        atol: absolute tolerance.

    Raises:
        FloatingPointError: where the steps shrink to rounding.
    """
    pair, u, end = _pair(method), nodes[0], nodes[-1]
    sign, left = math.copysign(1.0, end - u), [*nodes[1:]]
    k, found = slope(u, y), [y]
    h = _first_step(slope, u, y, k, sign, pair.order, rtol, atol)
    for _ in range(STEPS):
        last = h >= abs(end - u)
        step = end - u if last else sign * h
        new, ks = _stages(slope, pair, u, y, k, step)
        ratio = _ratio(_sum(ks, pair.e) * step, y, new, rtol, atol)
        if ratio <= 1:
            stop = end if last else u + step
            while left and not last and sign * (stop - left[0]) >= 0:
                found.append(_between(pair, y, ks, step, (left.pop(0) - u) / step))
            if last:
                inner = [_between(pair, y, ks, step, (node - u) / step) for node in left[:-1]]
                return torch.stack([*found, *inner, new])
            u, y, k = stop, new, ks[-1]
        least = 1.0 if ratio < 1 else LEAST  # a step that was good enough is not made shorter
        h = abs(step) * min(MOST, max(least, SAFETY * ratio ** (-1 / pair.order)))
        if h < 4 * math.ulp(max(abs(u), abs(end))):
            break
    raise FloatingPointError(f"steps shrank to {h:.1g} at {u:.4g}")


def _stages(
    slope: Slope, pair: _Pair, u: float, y: Tensor, k: Tensor, h: float
) -> tuple[Tensor, list[Tensor]]:
    """The state after a step, and the slopes of all stages."""
    ks, state = [k], y
    for row, c in zip(pair.a[1:], pair.c[1:], strict=True):
        state = y + h * _sum(ks, row)
        ks.append(slope(u + c * h, state))
    return state, ks


def _sum(ks: Sequence[Tensor], factors: Sequence[float]) -> Tensor:
    """sum_i f_i k_i over as many as there are slopes."""
    total = ks[0] * factors[0]
    for k, factor in zip(ks[1:], factors[1:], strict=False):
        if factor:
            total = torch.add(total, k, alpha=factor)
    return total


def _between(pair: _Pair, y: Tensor, ks: Sequence[Tensor], h: float, theta: float) -> Tensor:
    """The interpolant at a share theta of the step."""
    powers = [theta ** (m + 1) for m in range(len(pair.p[0]))]
    weights = [sum(c * t for c, t in zip(row, powers, strict=True)) for row in pair.p]
    return y + h * _sum(ks, weights)


def _ratio(error: Tensor, y: Tensor, new: Tensor, rtol: float, atol: float) -> float:
    """Error over tolerance; infinite where it is no number. Here the host asks the device."""
    scaled = error / (atol + rtol * torch.maximum(y.abs(), new.abs()))
    ratio = float(scaled.square().mean().sqrt())
    return max(ratio, 1e-10) if math.isfinite(ratio) else 1e10


def _first_step(
    slope: Slope, u: float, y: Tensor, k: Tensor, sign: float, order: int, rtol: float, atol: float
) -> float:
    """Hairer, Norsett and Wanner's: an Euler step tells how fast the slope changes."""
    scale = atol + rtol * y.abs()
    rms: Callable[[Tensor], Tensor] = lambda x: (x / scale).square().mean().sqrt()
    size, speed = map(float, torch.stack([rms(y), rms(k)]).tolist())
    h = 0.01 * size / speed if size > 1e-5 and speed > 1e-5 else 1e-6
    if not math.isfinite(h):
        return 1e-6
    change = float(rms(slope(u + sign * h, y + sign * h * k) - k)) / h
    largest = max(speed, change)
    if not math.isfinite(largest):
        return h
    wanted = (0.01 / largest) ** (1 / order) if largest > 1e-15 else max(1e-6, 1e-3 * h)
    return min(100 * h, wanted)

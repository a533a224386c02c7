"""Runge-Kutta methods in t on the probability-flow ODE dx/dt = velocity(x, t).

They ask the denoiser for its ``velocity``, which an exact law gives in a form that is finite at
t = 0. That of a network is not (sigma = 0 there), so with one the last step to t = 0 is Euler's.

References:
    Song et al. 2021 (arXiv:2011.13456), eq. 13; Hairer, Norsett and Wanner 1993, sec. II.1.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from torch import Tensor

from ..denoiser import Denoiser
from ..noise import Noise
from ..sde import SDE, like
from .base import Callback, Sampler

__all__ = ["PFRK4", "PFHeun", "RungeKutta"]


class RungeKutta(Sampler):
    """An explicit Runge-Kutta method: k_i = velocity(x + h sum_j A_ij k_j, t + c_i h).

    A subclass is its Butcher tableau: ``stages`` (the rows of A) and ``weights`` (b).
    """

    stages: ClassVar[tuple[tuple[float, ...], ...]]
    weights: ClassVar[tuple[float, ...]]
    noise: ClassVar[bool] = False

    def walk(
        self, denoiser: Denoiser, x: Tensor, ts: Tensor, noise: Noise, callback: Callback | None
    ) -> Tensor:
        """x <- x + h sum_i b_i k_i, step by step."""
        if float(ts[0]) == 0 and not denoiser.regular:
            raise ValueError(
                "expected a grid that starts above t = 0, where this denoiser's velocity is not "
                "finite: start at 1e-6"
            )
        nodes = ts.new_tensor([sum(row) for row in self.stages])
        times = (ts[:-1, None] + ts.diff()[:, None] * nodes).to(x.dtype)
        rows = [row.unbind() for row in times.to(x.device, non_blocking=True).unbind()]
        grid = ts.tolist()
        x0_hat = x
        for k, (t, s) in enumerate(pairwise(grid)):
            first = denoiser.velocity(x, rows[k][0])
            if callback is not None:
                x0_hat = _x0_hat(denoiser.sde, x, first, rows[k][0]) if t else x
                callback(k, t, x, x0_hat)
            if s == 0 and not denoiser.regular:
                x = x.add(first, alpha=s - t)
            else:
                x = self._step(denoiser, x, first, rows[k], s - t)
        if callback is not None:
            callback(len(rows), grid[-1], x, x0_hat)
        return x

    def _step(
        self, denoiser: Denoiser, x: Tensor, first: Tensor, times: tuple[Tensor, ...], h: float
    ) -> Tensor:
        slopes = [first]
        for row, t in zip(self.stages[1:], times[1:], strict=True):
            slopes.append(denoiser.velocity(_combine(x, slopes, row, h), t))
        return _combine(x, slopes, self.weights, h)


@dataclass(frozen=True)
class PFHeun(RungeKutta):
    """Heun's method in t, two evaluations a step. Order 2."""

    order: ClassVar[int] = 2
    stages: ClassVar[tuple[tuple[float, ...], ...]] = ((), (1.0,))
    weights: ClassVar[tuple[float, ...]] = (0.5, 0.5)


@dataclass(frozen=True)
class PFRK4(RungeKutta):
    """The classical Runge-Kutta method in t, four evaluations a step. Order 4."""

    order: ClassVar[int] = 4
    stages: ClassVar[tuple[tuple[float, ...], ...]] = ((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0))
    weights: ClassVar[tuple[float, ...]] = (1 / 6, 1 / 3, 1 / 3, 1 / 6)


def _combine(x: Tensor, slopes: list[Tensor], factors: tuple[float, ...], h: float) -> Tensor:
    for slope, factor in zip(slopes, factors, strict=True):
        if factor:
            x = x.add(slope, alpha=h * factor)
    return x


def _x0_hat(sde: SDE, x: Tensor, velocity: Tensor, t: Tensor) -> Tensor:
    """The denoiser's answer that belongs to a velocity (for callbacks: no further evaluation)."""
    score = 2 * (sde.drift(x, t) - velocity) / like(sde.g2(t), x)
    return (x + like(sde.sigma2(t), x) * score) / like(sde.alpha(t), x)

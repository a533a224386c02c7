r"""Runge-Kutta methods in t on the probability-flow ODE dx/dt = velocity(x, t).

The velocity is linear in the state and the denoiser's answer,

    velocity = f x - g^2/2 score = u x + w x0_hat,
    w = -g^2 alpha/(2 sigma^2),      u = f + g^2/(2 sigma^2),

so a Runge-Kutta method is a table whose rows remember velocities.

At t = 0 both numbers are infinite, though an exact distribution's velocity is not. A grid that
touches 0 is integrated with the distribution's own ``velocity``; with a network the last step, to
t = 0, is Euler's.

References:
    Song et al. 2021 (arXiv:2011.13456), eq. 13; Hairer, Norsett and Wanner 1993, sec. II.1.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from ...denoiser import Denoiser, onto
from ...noise import Noise
from ...sde import SDE
from ..base import Callback, TableSampler, Walk
from ..catalogue import Listing
from ..table import Table
from .stages import unroll

__all__ = ["PFRK4", "PFHeun", "RungeKutta"]


class RungeKutta(TableSampler):
    """An explicit Runge-Kutta method: k_i = velocity(x + h sum_j A_ij k_j, t + c_i h).

    A subclass is its Butcher tableau: ``matrix`` (the rows of A) and ``weights`` (b).
    """

    matrix: ClassVar[tuple[tuple[float, ...], ...]]
    weights: ClassVar[tuple[float, ...]]
    noise: ClassVar[bool] = False

    @property
    def stages(self) -> int:
        """Evaluations in one step."""
        return len(self.weights)

    def tabular(self, denoiser: Denoiser, ts: Tensor) -> bool:
        """False where the grid touches t = 0 and the denoiser's velocity is finite there."""
        return float(ts.min()) > 0 or not denoiser.regular

    def table(self, sde: SDE, ts: Tensor) -> Table:
        """Row i of a step leads from the argument of stage i to that of stage i + 1."""
        h, n = ts.diff()[:, None], self.stages
        tableau = [[*row, *[0.0] * (n - len(row))] for row in (*self.matrix, self.weights)]
        weights = h[..., None] * ts.new_tensor(tableau)
        nodes = ts[:-1, None] + weights.sum(2)  # of all stages, and the end of the step
        a, b = unroll(torch.ones_like(nodes), weights)
        t, s = nodes[:, :-1].clone(), nodes[:, 1:].clone()
        s[:, -1] = ts[1:]
        a, b, t, s = a.flatten(), b.flatten(0, 1), t.flatten(), s.flatten()
        if float(ts[-1]) == 0:  # the last step is Euler's: one evaluation, none at t = 0
            end = len(t) - n + 1
            a, b, t, s = a[:end], b[:end], t[:end], s[:end]
            b[-1], s[-1] = 0.0, 0.0
            b[-1, 0] = h[-1]
        f, g2 = sde.rates(t)
        gain = 0.5 * g2 / sde.sigma2(t)
        return Table(t, s, a, b, torch.zeros_like(t), f + gain, -gain * sde.alpha(t))

    def bind(self, denoiser: Denoiser, x: Tensor, ts: Tensor) -> Walk:
        """The table, or the denoiser's own velocity where it is finite and the grid touches 0."""
        if self.tabular(denoiser, ts):
            return super().bind(denoiser, x, ts)
        nodes = ts.new_tensor([sum(row) for row in self.matrix])
        rows = onto(
            torch.cat([(ts[:-1, None] + ts.diff()[:, None] * nodes).flatten(), ts[-1:]]), x
        )

        def walk(x: Tensor, noise: Noise, callback: Callback | None) -> Tensor:
            for k, (t, s) in enumerate(pairwise(ts.tolist())):
                times = rows[k * self.stages :]
                if callback is not None:
                    callback(k, t, x, denoiser(x, times[0]))
                slopes: list[Tensor] = []
                for row, time in zip(self.matrix, times, strict=False):
                    slopes.append(denoiser.velocity(_combine(x, slopes, row, s - t), time))
                x = _combine(x, slopes, self.weights, s - t)
            if callback is not None:
                callback(k + 1, s, x, denoiser(x, rows[-1]))
            return x

        return walk


@dataclass(frozen=True)
class PFHeun(RungeKutta):
    """Heun's method in t, two evaluations a step. Order 2."""

    order: ClassVar[int] = 2
    matrix: ClassVar[tuple[tuple[float, ...], ...]] = ((), (1.0,))
    weights: ClassVar[tuple[float, ...]] = (0.5, 0.5)

    @classmethod
    def catalogue(cls) -> tuple[Listing, ...]:
        """Under its short name."""
        return (Listing("Heun", cls(), "ode", cost=2, word="pf-heun", place=13),)


@dataclass(frozen=True)
class PFRK4(RungeKutta):
    """The classical Runge-Kutta method in t, four evaluations a step. Order 4."""

    order: ClassVar[int] = 4
    matrix: ClassVar[tuple[tuple[float, ...], ...]] = ((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0))
    weights: ClassVar[tuple[float, ...]] = (1 / 6, 1 / 3, 1 / 3, 1 / 6)

    @classmethod
    def catalogue(cls) -> tuple[Listing, ...]:
        """Under its short name."""
        return (Listing("Runge-Kutta 4", cls(), "ode", cost=4, word="pf-rk4", place=14),)


def _combine(x: Tensor, slopes: list[Tensor], factors: tuple[float, ...], h: float) -> Tensor:
    for slope, factor in zip(slopes, factors, strict=True):
        if factor:
            x = x.add(slope, alpha=h * factor)
    return x

r"""Predictor-corrector: a sampler's step in time, then Langevin steps at fixed time.

    x <- x + delta score(x, t) + sqrt(2 delta) z

leaves p_t invariant as delta -> 0. With delta = 2 r^2 sigma^2 it is one more row of the table:

    a = 1 - 2 r^2,      b = 2 r^2 alpha,      c = 2 r sigma.

References:
    Song et al. 2021 (arXiv:2011.13456), sec. 4.2 and algorithms 4 and 5.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ...sde import SDE
from ..base import TableSampler
from ..catalogue import Listing
from ..table import Row, Table
from .onestep import DDIM, EulerMaruyama, ReverseDiffusion

__all__ = ["Langevin", "PredictorCorrector"]


@dataclass(frozen=True)
class Langevin:
    r"""The corrector.

        "sigma":  delta = 2 r^2 sigma(t)^2. No noise in the step size, any dimension. Relative
                  stationary bias r^2 sigma^2/(v - r^2 sigma^2) for data of variance v at time t,
                  which vanishes as t -> 0. Stable for r < 1.
        "song":   delta = 2 (r <|z|>/<|score|>)^2 with means over the batch, as in the paper's
                  code: couples the samples. In many dimensions it is 2 r^2 v^2/V for samples of
                  variance V, which rest at V = v (1 + r^2): a bias r^2 at any number of steps.

    Args:
        r: step size ("signal-to-noise ratio" in the paper), in (0, 1).
        steps: Langevin steps for each step of the predictor.
        rule: how delta is chosen.
    """

    r: float = 0.16
    steps: int = 1
    rule: Literal["sigma", "song"] = "sigma"

    def __post_init__(self) -> None:
        """Raise an error for settings that are unstable or do not exist."""
        if not 0 < self.r < 1:
            raise ValueError(f"expected 0 < r < 1, got {self.r}: the step is unstable from 1 on")
        if self.steps < 0:
            raise ValueError(f"expected steps >= 0, got {self.steps}")
        if self.rule not in ("sigma", "song"):
            raise ValueError(f'expected rule "sigma" or "song", got {self.rule!r}')

    def row(self, sde: SDE, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(a, b, c) of one step at t by the rule "sigma"."""
        gain = torch.full_like(t, 2 * self.r**2)
        return 1 - gain, gain * sde.alpha(t), 2 * self.r * sde.sigma(t)

    def song(self, x: Tensor, x0_hat: Tensor, row: Row, z: Tensor) -> Tensor:
        """One step by the rule "song", with alpha and sigma read off the row of "sigma"."""
        alpha, sigma = row.b[0] / (2 * self.r**2), row.c / (2 * self.r)
        push = alpha * x0_hat - x  # sigma^2 score
        ratio = self.r * sigma * _mean_norm(z) / _mean_norm(push)
        return x + 2 * ratio**2 * push + 2 * sigma * ratio * z


@dataclass(frozen=True)
class PredictorCorrector(TableSampler):
    """A predictor's rows with Langevin rows between them; no corrector at t = 0.

    n intervals cost n (1 + steps) evaluations. With the rule "sigma" the distribution converges,
    with order 1 on a log-SNR grid but 1/2 on a uniform one: the finer the grid, the later it
    stops following the corrector's biased one. With "song" the bias stays. With an exact
    denoiser, from a few hundred steps on, the predictor alone is more accurate.

    Args:
        predictor: any sampler of one evaluation a step.
        corrector: the Langevin steps.
        sequence: "pc" corrects at s after each step from t to s, "cp" at t before it.
    """

    predictor: TableSampler
    corrector: Langevin = Langevin()
    sequence: Literal["pc", "cp"] = "pc"
    order: ClassVar[int] = 1
    noise: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Raise an error for an unknown sequence."""
        if self.sequence not in ("pc", "cp"):
            raise ValueError(f'expected sequence "pc" or "cp", got {self.sequence!r}')

    @classmethod
    def catalogue(cls) -> tuple[Listing, ...]:
        """One for each predictor of a single evaluation; Song's own stands in every table."""
        euler, song, ddim = cls(EulerMaruyama()), cls(ReverseDiffusion()), cls(DDIM())
        name, word = "reverse diffusion + Langevin", "predictor-corrector"
        return (
            Listing("Euler-Maruyama + Langevin", euler, "sde", cost=2, common=False, place=6),
            Listing(name, song, "sde", cost=2, word=word, place=7),
            Listing("DDIM + Langevin", ddim, "sde", cost=2, common=False, place=8),
        )

    def row(self, sde: SDE, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The predictor's row."""
        return self.predictor.row(sde, t, s)

    @property
    def linear(self) -> bool:
        """False with the rule "song", which takes its step size from the samples."""
        return self.corrector.rule == "sigma"

    def table(self, sde: SDE, ts: Tensor) -> Table:
        """The predictor's rows and, at each time, the corrector's."""
        predict = self.predictor.table(sde, ts)
        at = predict.s if self.sequence == "pc" else predict.t
        correct = Table.one_step(at, at, *self.corrector.row(sde, at))
        columns = []
        for p, c in zip(predict.columns, correct.columns, strict=True):
            p, c = p[:, None], c[:, None].repeat(1, self.corrector.steps, *[1] * (c.ndim - 1))
            both = [p, c] if self.sequence == "pc" else [c, p]
            columns.append(torch.cat(both, 1).flatten(0, 1))
        above = columns[0] > 0  # there is no noise to correct at t = 0
        return Table(*(column[above] for column in columns))

    def apply(self, x: Tensor, past: Sequence[Tensor], row: Row, z: Tensor | None) -> Tensor:
        """The row, but for a corrector by the rule "song"."""
        if row.t == row.s and z is not None and not self.linear:
            return self.corrector.song(x, past[0], row, z)
        return super().apply(x, past, row, z)


def _mean_norm(v: Tensor) -> Tensor:
    return v.flatten(1).square().sum(1).sqrt().mean()

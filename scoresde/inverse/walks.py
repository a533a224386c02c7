r"""Methods that are samplers: what was measured is put into the state.

In the directions that A can see (A = U S V^T) the data are known, y_i = (U^T y)_i/S_i, up to noise
of standard deviation n_i = s/S_i, and so is the state at time t, N(alpha y_i, sigma^2), as long as
sigma >= alpha n_i. These samplers want ``Observed`` for a denoiser, which carries y:

    sample(Observed(denoiser, measurement), RePaint(), shape, ts)

References:
    Song et al. 2021 (arXiv:2011.13456), app. I (replacement); Lugmayr et al. 2022
    (arXiv:2201.09865), algorithm 1 (RePaint); Kawar et al. 2022 (arXiv:2201.11793), eq. 7 and 8
    (DDRM).
"""

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import ClassVar

import torch
from torch import Tensor

from ..denoiser import Denoiser
from ..noise import Noise
from ..samplers import Ancestral, Sampler
from ..samplers.base import Callback, TableSampler, tabulate
from ..samplers.table import Row, Table
from ..sde import SDE
from .measurement import Observed
from .methods import spectral

__all__ = ["DDRM", "RePaint", "Replacement"]


class _Known:
    """A measurement and its noise in the coordinates V^T x.

    Args:
        denoiser: an ``Observed`` one.
        x: a state, for its shape, dtype and device.
    """

    def __init__(self, denoiser: Denoiser, x: Tensor) -> None:
        if not isinstance(denoiser, Observed):
            raise TypeError(
                f"expected Observed(denoiser, measurement), got {type(denoiser).__name__}: "
                "this sampler needs to know what was measured"
            )
        measurement = denoiser.measurement
        measurement.residual(x)  # refuses shapes that do not fit
        self.operator, self.coarsest = spectral(measurement), measurement.coarsest
        values = self.operator.spectrum(x)
        self.seen = values > 0
        values = values.where(self.seen, 1.0)
        self.y = self.operator.left(measurement.y.to(x.dtype)) / values  # (1 or B, *seen)
        self.n = measurement.std / values

    def put(self, x: Tensor, coordinates: Tensor) -> Tensor:
        """The state x with these coordinates in the place of its own, where A can see."""
        change = coordinates - self.operator.right(x)
        return x + self.operator.back(change.where(self.seen, 0.0))


class _Informed(Sampler):
    """A sampler of one evaluation a step, after each of which what is known is put in."""

    order: ClassVar[int] = 1
    noise: ClassVar[bool] = True
    predictor: TableSampler

    @property
    def differentiable(self) -> bool:
        """True: what is put in is linear in the state."""
        return True

    @property
    def repeats(self) -> int:
        """How often each stretch is taken; in between, the forward process goes back."""
        return 1

    @property
    def stretch(self) -> int:
        """How many steps are repeated together."""
        return 1

    @abstractmethod
    def known(
        self, known: _Known, x: Tensor, x0_hat: Tensor, z: Tensor, alpha: float, sigma: float
    ) -> Tensor:
        """The new coordinates V^T x at the end of a step, where alpha and sigma are taken.

        Args:
            known: what was measured.
            x: coordinates V^T x after the predictor's step.
            x0_hat: coordinates V^T x0_hat.
            z: coordinates of fresh noise.
            alpha: the process's alpha there.
            sigma: the process's sigma there.
        """

    def walk(
        self, denoiser: Denoiser, x: Tensor, ts: Tensor, noise: Noise, callback: Callback | None
    ) -> Tensor:
        """Step, put in what is known, and so on."""
        known, (table, rows) = _Known(denoiser, x), self._table(denoiser.sde, ts)
        remember, draw = denoiser.along(table.t, x), _Numbered(noise)
        stretches = _stretches(len(rows), self.stretch)
        marginals, kicks = _marginals(denoiser.sde, ts), _kicks(denoiser.sde, ts, stretches)
        for steps, (scale, std) in zip(stretches, kicks, strict=True):
            first, last = rows[steps[0]], rows[steps[-1]]
            alpha, sigma = marginals[steps[-1]]
            # Where something is not put in any more, going back would only forget it.
            for repeat in range(self.repeats if sigma >= alpha * known.coarsest else 1):
                if repeat:
                    x = scale * x + std * draw(last.s, first.t, x)
                for k in steps:
                    x0_hat = remember(k, x)
                    if callback is not None and repeat == 0:
                        callback(k, rows[k].t, x.clone(), x0_hat)
                    x = self._step(known, rows[k], x, x0_hat, draw, *marginals[k])
        if callback is not None:
            callback(len(rows), last.s, x.clone(), x0_hat)
        return x

    def _step(
        self,
        known: _Known,
        row: Row,
        x: Tensor,
        x0_hat: Tensor,
        draw: "_Numbered",
        alpha: float,
        sigma: float,
    ) -> Tensor:
        right = known.operator.right
        x = self.predictor.apply(x, [x0_hat], row, draw(row.t, row.s, x) if row.c else None)
        z = right(draw(row.t, row.s, x))
        return known.put(x, self.known(known, right(x), right(x0_hat), z, alpha, sigma))

    def _table(self, sde: SDE, ts: Tensor) -> tuple[Table, Sequence[Row]]:
        table, rows = tabulate(self.predictor, sde, ts)
        if len(table.t) != len(ts) - 1 or table.b.shape[1] > 1 or bool(table.u.any()):
            raise ValueError(
                "expected a predictor of one evaluation a step that remembers nothing (Ancestral, "
                f"DDIM, EulerMaruyama), got {self.predictor}"
            )
        return table, rows


@dataclass(frozen=True)
class Replacement(_Informed):
    r"""After every step of a sampler, replace what is known by its noised value.

        (V^T x)_i <- alpha y_i + sqrt(sigma^2 - alpha^2 n_i^2) z_i        where sigma >= alpha n_i,

    with fresh z in every step; below that time the state is less noisy than what was measured,
    and goes on by itself (so that with A = I nothing is approximated). Where only a part is known
    this does not sample the posterior, whatever the number of steps: with correlation rho between
    a known and an unknown Gaussian, both of variance 1, the unknown tends to the mean
    y (1 - sqrt(1 - rho^2))/rho and the variance (1 - rho^2) artanh(rho)/rho in the place of rho y
    and 1 - rho^2.

    Args:
        predictor: any sampler of one evaluation a step that remembers nothing.
    """

    predictor: TableSampler = field(default_factory=Ancestral)

    def known(
        self, known: _Known, x: Tensor, x0_hat: Tensor, z: Tensor, alpha: float, sigma: float
    ) -> Tensor:
        """The value alpha y + sqrt(sigma^2 - alpha^2 n^2) z, or x where the root is not real."""
        rest = sigma**2 - (alpha * known.n).square()
        return torch.where(rest >= 0, alpha * known.y + rest.clamp(min=0).sqrt() * z, x)


@dataclass(frozen=True)
class RePaint(Replacement):
    """Replacement in which stretches of steps are repeated, with the forward process in between.

    After ``jump`` steps the forward process leads back to where they began, and they are taken
    again, ``resamples`` times in all. The unknown part so comes to terms with the known one before
    the noise falls: the bias of replacement shrinks with the number of repetitions, at their cost.
    The length of the jump matters little while it is a small share of the grid; a long one is
    another start, and cures less (docs/theory/inverse.md). Stretches are repeated while all that
    is known is put in: it is made for directions known equally well (a mask).

    Args:
        predictor: any sampler of one evaluation a step that remembers nothing.
        resamples: how often each step is taken (r in the paper); 1 is ``Replacement``.
        jump: steps in a stretch (j in the paper), counted from the end of the grid.

    References:
        Lugmayr et al. 2022, algorithm 1 (jump 1), sec. 4.2 and app. B.
    """

    resamples: int = 10
    jump: int = 1

    def __post_init__(self) -> None:
        """Raise an error unless both numbers are at least 1."""
        for name, value in (("resamples", self.resamples), ("jump", self.jump)):
            if value < 1:
                raise ValueError(f"expected {name} >= 1, got {value}")

    @property
    def repeats(self) -> int:
        """The number of times each stretch is taken, ``resamples``."""
        return self.resamples

    @property
    def stretch(self) -> int:
        """The number of steps in a stretch, ``jump``."""
        return self.jump


@dataclass(frozen=True)
class _Renoise(TableSampler):
    """x_s = alpha_s x0_hat + sigma_s (sqrt(1 - eta^2) eps_hat + eta z)."""

    eta: float
    order: ClassVar[int] = 1
    noise: ClassVar[bool] = True

    def row(self, sde: SDE, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The formula above as a row."""
        sigma = sde.sigma(s)
        a = math.sqrt(1 - self.eta**2) * sigma / sde.sigma(t)
        return a, sde.alpha(s) - a * sde.alpha(t), self.eta * sigma


@dataclass(frozen=True)
class DDRM(_Informed):
    r"""Denoising diffusion restoration: each direction of the SVD by its own rule.

    With y_i and n_i as above, x0_i = (V^T x0_hat)_i and r = sigma/alpha at the end of the step,

        S_i = 0:    x_i/alpha = x0_i + sqrt(1 - eta^2) r eps_hat_i + eta r z_i
        r < n_i:    x_i/alpha = x0_i + sqrt(1 - eta^2) r (y_i - x0_i)/n_i + eta r z_i
        r >= n_i:   x_i/alpha = (1 - eta_b) x0_i + eta_b y_i + sqrt(r^2 - eta_b^2 n_i^2) z_i.

    Fast, but what is measured in one direction reaches the others through x0_hat alone: it does
    not sample the posterior.

    Args:
        eta: share of fresh noise, in [0, 1].
        eta_b: weight of the measurement while it is the less noisy, in [0, 1].

    References:
        Kawar et al. 2022, eq. 7 and 8 and sec. 5 (the default values).
    """

    eta: float = 0.85
    eta_b: float = 1.0

    def __post_init__(self) -> None:
        """Raise an error for shares outside of [0, 1]."""
        if not (0 <= self.eta <= 1 and 0 <= self.eta_b <= 1):
            raise ValueError(f"expected eta and eta_b in [0, 1], got {self.eta} and {self.eta_b}")

    @property
    def predictor(self) -> TableSampler:  # type: ignore[override]
        """The rule of the directions that A cannot see."""
        return _Renoise(self.eta)

    def known(
        self, known: _Known, x: Tensor, x0_hat: Tensor, z: Tensor, alpha: float, sigma: float
    ) -> Tensor:
        """The two rules of the directions that it can."""
        r, n, gap = sigma / alpha, known.n, known.y - x0_hat
        share = math.sqrt(1 - self.eta**2) * r / n.clamp(min=torch.finfo(n.dtype).tiny)
        fine = x0_hat + share.clamp(max=1) * gap + self.eta * r * z
        rest = (r**2 - (self.eta_b * n).square()).clamp(min=0).sqrt()
        return alpha * torch.where(r < n, fine, x0_hat + self.eta_b * gap + rest * z)


class _Numbered:
    """A noise source that counts its own draws: there are several in a step."""

    def __init__(self, noise: Noise) -> None:
        self.noise, self.k = noise, count()

    def __call__(self, t: float, s: float, x: Tensor) -> Tensor:
        return self.noise(next(self.k), t, s, x.shape, x.device, x.dtype)


def _marginals(sde: SDE, ts: Tensor) -> list[tuple[float, float]]:
    """(alpha, sigma) at the end of each step."""
    alphas, sigmas = sde.alpha(ts[1:]), sde.sigma(ts[1:])
    return list(zip(alphas.tolist(), sigmas.tolist(), strict=True))


def _stretches(n: int, length: int) -> list[range]:
    """The steps 0..n-1 cut into stretches, counted from the end of the grid."""
    ends = range(n, 0, -length)
    return [range(max(0, end - length), end) for end in reversed(ends)]


def _kicks(sde: SDE, ts: Tensor, stretches: list[range]) -> list[tuple[float, float]]:
    """(scale, std) of the forward process from the end of each stretch to its start."""
    first, last = ([steps[i] for steps in stretches] for i in (0, -1))
    scales, stds = sde.transition(ts[1:][last], ts[:-1][first])
    return list(zip(scales.tolist(), stds.tolist(), strict=True))

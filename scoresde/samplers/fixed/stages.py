r"""One-step methods of several evaluations: each step gives the table a row for every stage.

The argument of stage i, and at last the end of the step, are linear in the state at its start and
in what the stages before remember,

    X_i = scale_i x + sum_{j<i} W_ij h_j,

so the state goes from one argument to the next by a row that needs no copy of x:

    X_{i+1} = a X_i + sum_j (W_{i+1,j} - a W_ij) h_j,       a = scale_{i+1}/scale_i.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ...sde import SDE
from ..base import TableSampler, among, not_negative
from ..catalogue import Listing
from ..table import Table, to_zero

__all__ = ["DPMSolver", "EDMStochastic", "unroll"]


def unroll(scale: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Factors (a, b), (n, S) and (n, S, S), of the S rows of each of n steps.

    Args:
        scale: of x in X_0, ..., X_S, (n, S + 1).
        weights: W of h_0, ..., h_{S-1} in X_0, ..., X_S, (n, S + 1, S).
    """
    a = scale[:, 1:] / scale[:, :-1]
    b = weights[:, 1:] - a[..., None] * weights[:, :-1]
    stages = b.shape[1]  # row i lists h_i, h_{i-1}, ..., h_0: newest first
    newest = [b[:, i].roll(stages - 1 - i, 1).flip(1) for i in range(stages)]
    return a, torch.stack(newest, 1)


@dataclass(frozen=True)
class DPMSolver(TableSampler):
    r"""DPM-Solver-2 and -3, singlestep, on the predicted noise; order 1 is DDIM(0).

    Stages at lam_t + r_i h with r = 1/2, or 1/3 and 2/3; h = lam_s - lam_t, psi(r) = e^{rh} - 1:

        X_1 = (alpha_1/alpha_t) x - sigma_1 psi(r_1) eps_0
        X_2 = (alpha_2/alpha_t) x - sigma_2 [psi(r_2) eps_0
                                             + (r_2/r_1) (psi(r_2)/(r_2 h) - 1) (eps_1 - eps_0)]
        x_s = (alpha_s/alpha_t) x - sigma_s [psi(1) eps_0 + k (eps_last - eps_0)],
        k = psi(1)/(2 r_1) for order 2, (psi(1)/h - 1)/r_2 for order 3.

    ``order`` evaluations for each interval of the grid; the last one to t = 0 is x0_hat.

    Args:
        order: 1, 2 or 3; also the order of convergence.

    References:
        Lu et al. 2022 (arXiv:2206.00927), algorithms 1 and 2.
    """

    order: int = 3
    noise: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Raise an error for an order that does not exist."""
        among("order", self.order, (1, 2, 3))

    @classmethod
    def catalogue(cls) -> tuple[Listing, ...]:
        """The one of three stages."""
        return (Listing("DPM-Solver 3", cls(), "ode", cost=3, common=False, place=21),)

    @property
    def stages(self) -> int:
        """Evaluations in one step."""
        return self.order

    def table(self, sde: SDE, ts: Tensor) -> Table:
        """The stages of each step, remembering eps_hat."""
        if float(ts[-1]) == 0:
            return to_zero(self.table(sde, ts[:-1]) if len(ts) > 2 else None, ts)
        n, lam = self.order, sde.lam(ts)
        r = torch.arange(n, dtype=ts.dtype) / n
        h = lam.diff()[:, None]
        t = sde.time_of_log_snr(2 * (lam[:-1, None] + h * r))
        t[:, 0] = ts[:-1]
        nodes = torch.cat([t, ts[1:, None]], 1)
        alpha, sigma, psi = (
            sde.alpha(nodes),
            sde.sigma(nodes),
            torch.expm1(h * F.pad(r, (0, 1), value=1.0)),
        )
        w = torch.zeros(len(h), n + 1, n, dtype=ts.dtype)
        w[..., 0] = -psi
        if n == 3:
            _turn(w[:, 2], 1, 2 * (1.5 * psi[:, 2] / h[:, 0] - 1))
        if n > 1:
            last = psi[:, n] if n == 2 else 1.5 * (psi[:, n] / h[:, 0] - 1)
            _turn(w[:, n], n - 1, last)
        a, b = unroll(alpha / alpha[:, :1], sigma[..., None] * w)
        t, s = t.flatten(), nodes[:, 1:].flatten()
        u, w = 1 / sigma[:, :-1], -alpha[:, :-1] / sigma[:, :-1]
        zero = torch.zeros_like(t)
        return Table(t, s, a.flatten(), b.flatten(0, 1), zero, u.flatten(), w.flatten())


def _turn(w: Tensor, j: int, k: Tensor) -> None:
    """Add -k (h_j - h_0) to the weights (n, S)."""
    w[:, j] -= k
    w[:, 0] += k


@dataclass(frozen=True)
class EDMStochastic(TableSampler):
    r"""Heun's method in y = sigma/alpha with churn: noise up a little, then a step down (EDM).

        y^ = y + gamma y,   gamma = min(churn/n, sqrt(2) - 1) where s_min <= y <= s_max,
        X^ = X + s_noise sqrt(y^^2 - y^2) z,                              X = x/alpha
        X' = X^ + (y' - y^) eps(X^, y^),
        X'' = X^ + (y' - y^) (eps(X^, y^) + eps(X', y'))/2.

    With churn = 0 it is Heun's method for the probability-flow ODE in y. Two evaluations a step;
    the last one to t = 0 is Euler's, which is x0_hat. The noise never rises above that at the
    start of the grid, so that there is no churn in the first step. gamma falls as 1/n, and the
    distribution converges with order 2; s_noise other than 1 leaves a bias.

    Args:
        churn: total amount of churn, S_churn.
        s_min: least y with churn.
        s_max: largest y with churn.
        s_noise: factor of the fresh noise.

    References:
        Karras et al. 2022 (arXiv:2206.00364), algorithm 2.
    """

    churn: float = 0.0
    s_min: float = 0.0
    s_max: float = math.inf
    s_noise: float = 1.0
    order: ClassVar[int] = 2

    def __post_init__(self) -> None:
        """Raise an error for a negative churn."""
        not_negative("churn", self.churn)

    stages: ClassVar[int] = 2

    @classmethod
    def catalogue(cls) -> tuple[Listing, ...]:
        """With some churn; without it is Heun's method."""
        return (Listing("EDM, churn 10", cls(10.0), "sde", cost=2, common=False, place=20),)

    @property
    def noise(self) -> bool:
        """Fresh noise is drawn unless churn = 0."""
        return self.churn > 0

    def table(self, sde: SDE, ts: Tensor) -> Table:
        """Two rows a step; the churn of a step is the noise of the row before it."""
        ends_clean = float(ts[-1]) == 0
        at, raised = self._churn(sde, ts[:-1] if ends_clean else ts, len(ts) - 1, ends_clean)
        if ends_clean:
            last = torch.stack([at[-1], ts[-1]])
            return to_zero(self._rows(sde, ts[:-1], at, raised) if len(ts) > 2 else None, last)
        return self._rows(sde, ts, at, raised)

    def _churn(self, sde: SDE, ts: Tensor, n: int, last: bool) -> tuple[Tensor, Tensor]:
        """Times and y of the grid after the churn: none at its start, nor at its end but for 0."""
        y = (-sde.lam(ts)).exp()
        gamma = torch.full_like(y, min(self.churn / n, math.sqrt(2) - 1))
        gamma[(y < self.s_min) | (y > self.s_max)] = 0
        if not last:
            gamma[-1] = 0
        raised = (
            torch.minimum((1 + gamma) * y, y.max()) if self.churn else y
        )  # not above the start
        return torch.where(raised > y, sde.time_of_log_snr(-2 * raised.log()), ts), raised

    def _rows(self, sde: SDE, ts: Tensor, at: Tensor, raised: Tensor) -> Table:
        """Euler to the next time of the grid; there the trapezoid's other half, and churn."""
        alpha, y, alpha_at = sde.alpha(ts), (-sde.lam(ts)).exp(), sde.alpha(at)
        t = torch.stack([at[:-1], ts[1:]], 1).flatten()
        s = torch.stack([ts[1:], at[1:]], 1).flatten()
        a = torch.stack([alpha[1:] / alpha_at[:-1], alpha_at[1:] / alpha[1:]], 1)
        fall, none = y[1:] - raised[:-1], torch.zeros_like(y[1:])
        euler = torch.stack([alpha[1:] * fall, none], 1)
        half = 0.5 * alpha_at[1:] * fall
        b = torch.stack([euler, torch.stack([half, -half], 1)], 1)
        fresh = (raised[1:].square() - y[1:].square()).clamp(min=0).sqrt()
        c = torch.stack([none, self.s_noise * alpha_at[1:] * fresh], 1)
        sigma = sde.sigma(t)
        return Table(
            t, s, a.flatten(), b.flatten(0, 1), c.flatten(), 1 / sigma, -sde.alpha(t) / sigma
        )

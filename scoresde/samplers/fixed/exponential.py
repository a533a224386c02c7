r"""Exponential solvers: the linear part of the reverse process exactly, x0_hat interpolated.

For every tau, with lam = log(alpha/sigma), from t to s, h = lam_s - lam_t and c = 1 + tau^2,

    x_s = (sigma_s/sigma_t) e^{-tau^2 h} x_t
          + alpha_s int_{lam_t}^{lam_s} c e^{-c (lam_s - l)} x0_hat(l) dl
          + sigma_s sqrt(1 - e^{-2 tau^2 h}) z

is exact: tau = 0 is the probability-flow ODE, tau = 1 the reverse SDE. A solver is a polynomial in
lam in the place of x0_hat(l), through its values at some nodes; with r_j = (lam_j - lam_t)/h and
the moments J_n = int_0^1 c h e^{-c h (1 - r)} r^n dr its weights w_j solve

    sum_j r_j^n w_j = J_n,         J_0 = 1 - e^{-ch},       J_n = 1 - (n/(ch)) J_{n-1}.

Nodes at this row and before it make a predictor (Adams-Bashforth), those and the end of the step a
corrector (Adams-Moulton), nodes within the step a method of several stages. A corrected state and
the predicted one have x_t and z in common, so they differ by what is remembered alone,

    corrected = predicted + sum_j e_j x0_hat_{k-j},

and a predictor-corrector that reuses its evaluations is a table of one evaluation a row as well.

How they start and end. Row k interpolates through at most k + 1 values, so the first row of a
multistep method is DDIM's: no evaluation more. Formally that leaves order 2, but at t_max x0_hat
hardly moves (its slope in lam is O(alpha^2/sigma^2), 4e-5 for VPSDE), and it is not seen above
1e-7. A last row to t = 0, where lam is infinite, returns x0_hat: better end the grid above 0 and
let ``sample(last="half")`` take the last step.

References:
    Lu et al. 2022, DPM-Solver (arXiv:2206.00927) and DPM-Solver++ (arXiv:2211.01095); Zhao et al.
    2023, UniPC (arXiv:2302.04867); Xue et al. 2023, SA-Solver (arXiv:2309.05019); Zhang and Chen
    2023, DEIS (arXiv:2204.13902).
"""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ...sde import SDE
from ..base import TableSampler, among, not_negative
from ..catalogue import Listing
from ..table import Table, to_zero
from .interpolation import corrected, exponential_adams, midpoint

__all__ = ["DEIS", "DPMSolverPP", "SASolver", "UniPC"]


class Exponential(TableSampler):
    """A multistep solver: weights that predict the end of a step and, if any, that correct it."""

    def tau2(self, t: Tensor) -> Tensor:
        """tau^2 of the steps that start at t (n,): 0 is the ODE, 1 the reverse SDE."""
        return torch.zeros_like(t)

    @abstractmethod
    def predict(self, lam: Tensor, c: Tensor) -> Tensor:
        """Weights (n, p) of x0_hat at the nodes before the end of each step, newest first."""

    def correct(self, lam: Tensor, c: Tensor) -> Tensor | None:
        """Weights (n, q) of x0_hat at the end of each step and before it; none: no corrector."""
        return None

    def table(self, sde: SDE, ts: Tensor) -> Table:
        """Rows of the master formula; the correction of a step is part of the row after it."""
        if float(ts[-1]) == 0:
            return to_zero(self.table(sde, ts[:-1]) if len(ts) > 2 else None, ts)
        t, s, lam = ts[:-1], ts[1:], sde.lam(ts)
        h, tau2, alpha_s, sigma_s = lam.diff(), self.tau2(t), sde.alpha(s), sde.sigma(s)
        a = sigma_s / sde.sigma(t) * (-tau2 * h).exp()
        b = alpha_s[:, None] * self.predict(lam, 1 + tau2)
        end = self.correct(lam, 1 + tau2)
        b = corrected(a, b, None if end is None else alpha_s[:, None] * end)
        c = sigma_s * (-torch.expm1(-2 * tau2 * h)).clamp(min=0).sqrt()
        return Table(t, s, a, b, c, torch.zeros_like(t), torch.ones_like(t))


@dataclass(frozen=True)
class DPMSolverPP(Exponential):
    r"""DPM-Solver++ in its multistep forms 1, 2M and 3M, for the ODE, the SDE and between.

    With D_j = x0_hat at the j-th newest node, r0 = (lam_t - lam_1)/h and E = (D_0 - D_1)/r0,

        1:   alpha_s J_0 D_0              DDIM(0); with tau = 1 DDIM(1), which is DDPM with beta~
        2M:  alpha_s J_0 (D_0 + E/2)      the midpoint form, as published
        3M:  the quadratic through D_0, D_1, D_2 in the exact integral.

    Order ``order`` for the ODE, weak order 2 at most for the SDE. (The formula of 3M in
    circulation has half of its J_2 term, and order 2.)

    Args:
        order: 1, 2 or 3.
        tau: amount of noise, from 0 (the ODE) to 1 (the reverse SDE) and beyond.

    References:
        Lu et al. 2022 (arXiv:2211.01095), algorithm 2 (2M) and its SDE form; 3M is corrected here.
    """

    order: int = 2
    tau: float = 0.0

    def __post_init__(self) -> None:
        """Raise an error for an order that does not exist, or a negative tau."""
        among("order", self.order, (1, 2, 3))
        not_negative("tau", self.tau)

    @classmethod
    def catalogue(cls) -> tuple[Listing, ...]:
        """Second order with and without noise, third without."""
        return (
            Listing("SDE-DPM++ 2M", cls(2, 1.0), "sde", word="dpm++2m-sde", place=15),
            Listing("DPM++ 2M", cls(2), "ode", word="dpm++2m", place=16),
            Listing("DPM++ 3M", cls(3), "ode", word="dpm++3m", common=False, place=17),
        )

    @property
    def convergence(self) -> int:
        """Order of convergence: weak order 2 at most with noise."""
        return min(self.order, 2) if self.tau else self.order

    @property
    def noise(self) -> bool:
        """Fresh noise is drawn unless tau = 0."""
        return self.tau > 0

    def tau2(self, t: Tensor) -> Tensor:
        """The same in every step."""
        return torch.full_like(t, self.tau**2)

    def predict(self, lam: Tensor, c: Tensor) -> Tensor:
        """1, 2M (midpoint) or 3M."""
        if self.order != 2:
            return exponential_adams(lam, self.order, c)
        j0 = -torch.expm1(-c * lam.diff())
        return midpoint(lam, j0, j0)


@dataclass(frozen=True)
class UniPC(Exponential):
    r"""UniPC-p: a predictor of p values, and a corrector that adds the value at the step's end.

    The correction costs no evaluation: x0_hat at the predicted point serves the next step too.
    There is none after the last step. From 3 values on, both are the exact integral of the
    interpolation; with 2 values the paper fixes the weight 1/2 and a function B(h):

        predictor of p = 2:  alpha_s [J_0 D_0 + (B/2)(D_0 - D_1)/r_0]
        corrector of p = 1:  alpha_s [J_0 D_0 + (B/2)(D_end - D_0)],
        B = 1 - e^{-h} ("bh2") or h ("bh1").

    Order p + 1 (p with ``corrector=False``: UniP-p).

    Args:
        order: p = 1, 2, 3 or 4.
        variant: B.
        corrector: whether to correct.

    References:
        Zhao et al. 2023 (arXiv:2302.04867), UniP-p and UniC-p in data prediction.
    """

    order: int = 2
    variant: Literal["bh1", "bh2"] = "bh2"
    corrector: bool = True
    noise: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Raise an error for an order or a variant that does not exist."""
        among("order", self.order, (1, 2, 3, 4))
        among("variant", self.variant, ("bh1", "bh2"))

    @classmethod
    def catalogue(cls) -> tuple[Listing, ...]:
        """The one of three values."""
        return (Listing("UniPC 3", cls(3), "ode", word="unipc", place=22),)

    @property
    def convergence(self) -> int:
        """Order of convergence: p + 1 with the corrector."""
        return self.order + self.corrector

    def predict(self, lam: Tensor, c: Tensor) -> Tensor:
        """UniP-p; where there are two values, the formula of p = 2."""
        out = exponential_adams(lam, self.order, c)
        if self.order > 1:
            two = midpoint(lam, self._b(lam), -torch.expm1(-lam.diff()))
            rows = slice(1, None if self.order == 2 else 2)
            out[rows, :2] = two[rows]
        return out

    def correct(self, lam: Tensor, c: Tensor) -> Tensor | None:
        """UniC-p; where there are two values, the formula of p = 1."""
        if not self.corrector:
            return None
        out, half = exponential_adams(lam, self.order + 1, c, ahead=True), 0.5 * self._b(lam)
        two = torch.stack([half, -torch.expm1(-lam.diff()) - half], 1)
        rows = slice(0, None if self.order == 1 else 1)
        out[rows, :2] = two[rows]
        return out

    def _b(self, lam: Tensor) -> Tensor:
        h = lam.diff()
        return h if self.variant == "bh1" else -torch.expm1(-h)


@dataclass(frozen=True)
class SASolver(Exponential):
    r"""SA-Solver: stochastic Adams, with an amount of noise tau that may change along the way.

    The predictor interpolates through the newest ``predictor`` values; the corrector through the
    value at the end of the step and the newest ``corrector`` - 1, with the step's own z. The
    amount of noise tau(t) is held within a step; any such function leads to the data
    distribution.

    Order min(corrector, predictor + 1) for the ODE (``predictor`` without corrector); weak order
    2 at most with noise.

    Args:
        predictor: values in the predictor, 1 to 4.
        corrector: values in the corrector, 1 to 4; 0 for none.
        tau: a number, or a function of time, (n,) -> (n,).

    References:
        Xue et al. 2023 (arXiv:2309.05019), SA-Predictor and SA-Corrector.
    """

    predictor: int = 2
    corrector: int = 2
    tau: float | Callable[[Tensor], Tensor] = 1.0

    def __post_init__(self) -> None:
        """Raise an error for an order that does not exist, or a negative tau."""
        among("predictor", self.predictor, (1, 2, 3, 4))
        among("corrector", self.corrector, (0, 1, 2, 3, 4))
        if not callable(self.tau):
            not_negative("tau", self.tau)

    @classmethod
    def catalogue(cls) -> tuple[Listing, ...]:
        """The reverse SDE, predicted and corrected."""
        return (Listing("SA-Solver", cls(), "sde", common=False, place=18),)

    @property
    def order(self) -> int:
        """Order of convergence."""
        q = min(self.corrector, self.predictor + 1) if self.corrector else self.predictor
        return min(q, 2) if self.noise else q

    @property
    def noise(self) -> bool:
        """Fresh noise is drawn unless tau = 0."""
        return callable(self.tau) or self.tau > 0

    def tau2(self, t: Tensor) -> Tensor:
        """tau(t)^2 of the steps that start at t."""
        if callable(self.tau):
            return torch.as_tensor(self.tau(t), dtype=t.dtype).expand_as(t).square()
        return torch.full_like(t, self.tau**2)

    def predict(self, lam: Tensor, c: Tensor) -> Tensor:
        """Adams-Bashforth."""
        return exponential_adams(lam, self.predictor, c)

    def correct(self, lam: Tensor, c: Tensor) -> Tensor | None:
        """Adams-Moulton."""
        return exponential_adams(lam, self.corrector, c, ahead=True) if self.corrector else None


@dataclass(frozen=True)
class DEIS(TableSampler):
    r"""DEIS: Adams-Bashforth on the predicted noise, interpolated in lam.

        x_s = (alpha_s/alpha_t) x_t - alpha_s int_{lam_t}^{lam_s} e^{-l} eps_hat(l) dl,

    exact for the probability-flow ODE; each row remembers eps_hat = (x - alpha x0_hat)/sigma. The
    integral is the one of the head with c = -1. Order ``order``.

    Args:
        order: values to interpolate through, 1 to 4; 1 is DDIM(0).

    References:
        Zhang and Chen 2023 (arXiv:2204.13902), tAB-DEIS, with lam for their t.
    """

    order: int = 3
    noise: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Raise an error for an order that does not exist."""
        among("order", self.order, (1, 2, 3, 4))

    @classmethod
    def catalogue(cls) -> tuple[Listing, ...]:
        """The one of three values."""
        return (Listing("DEIS 3", cls(), "ode", common=False, place=23),)

    def table(self, sde: SDE, ts: Tensor) -> Table:
        """The rows; the last one to t = 0 is x0_hat."""
        if float(ts[-1]) == 0:
            return to_zero(self.table(sde, ts[:-1]) if len(ts) > 2 else None, ts)
        t, s, alpha, sigma = ts[:-1], ts[1:], sde.alpha(ts), sde.sigma(ts)
        b = sigma[1:, None] * exponential_adams(sde.lam(ts), self.order, -1.0)
        u, w = 1 / sigma[:-1], -alpha[:-1] / sigma[:-1]
        return Table(t, s, alpha[1:] / alpha[:-1], b, torch.zeros_like(t), u, w)

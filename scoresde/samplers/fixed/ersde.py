r"""ER-SDE: an exponential solver whose amount of noise is a function of y = sigma/alpha.

With X = x/alpha and a function phi(y) that grows at least as fast as y, from y to y' < y,

    X' = r X + (1 - r) x0_hat + z sqrt(y'^2 - r^2 y^2),       r = phi(y')/phi(y),

leads from the distribution at y to that at y' where x0_hat is constant: phi = y is the
probability-flow ODE, phi = y^2 the reverse SDE. A slope of x0_hat in y, from the row before, adds

    [y' - y + phi(y') int_{y'}^{y} dy/phi] (D_0 - D_1)/(y - y_1).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...sde import SDE
from ..base import TableSampler, among
from ..catalogue import Listing
from ..table import Table, to_zero

__all__ = ["ERSDE", "er_phi"]


def er_phi(y: Tensor) -> Tensor:
    """y (e^{y^0.3} + 10), the choice of the paper: noise early, little of it late."""
    return y * ((y**0.3).exp() + 10)


@dataclass(frozen=True)
class ERSDE(TableSampler):
    """ER-SDE-Solver of one or two values of x0_hat; order ``order``, one evaluation a step.

    The first row has one value; the last one to t = 0 is x0_hat.

    Args:
        order: 1 or 2.
        phi: function of y (n,) -> (n,), positive, with phi(y)/y not decreasing.

    References:
        Cui et al. 2023 (arXiv:2309.06169), ER-SDE-Solver-1 and -2.
    """

    order: int = 2
    phi: Callable[[Tensor], Tensor] = er_phi
    noise: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Raise an error for an order that does not exist."""
        among("order", self.order, (1, 2))

    @classmethod
    def catalogue(cls) -> tuple[Listing, ...]:
        """The one of two values."""
        return (Listing("ER-SDE 2", cls(), "sde", common=False, place=19),)

    def table(self, sde: SDE, ts: Tensor) -> Table:
        """The rows, in x instead of X."""
        if float(ts[-1]) == 0:
            return to_zero(self.table(sde, ts[:-1]) if len(ts) > 2 else None, ts)
        alpha, y = sde.alpha(ts), (-sde.lam(ts)).exp()
        phi = self.phi(y)
        r, end = phi[1:] / phi[:-1], alpha[1:]
        share = 1 - (r * y[:-1] / y[1:]).square()  # of y'^2, what is drawn afresh
        if bool((share < -1e-12).any()):
            raise ValueError(
                "expected phi(y)/y that does not decrease with y, got one that does: the ODE is "
                "phi = y, the SDE phi = y^2"
            )
        b = torch.stack([1 - r, torch.zeros_like(r)], 1)
        if self.order == 2:
            gain = y.diff() + phi[1:] * self._integral(y)
            slope = F.pad(gain[1:] / y.diff()[:-1], (1, 0))
            b = b + torch.stack([slope, -slope], 1)
        c = end * y[1:] * share.where(share > 1e-14, 0.0).sqrt()
        zero = torch.zeros_like(r)
        return Table(
            ts[:-1], ts[1:], end / alpha[:-1] * r, end[:, None] * b, c, zero, torch.ones_like(r)
        )

    def _integral(self, y: Tensor) -> Tensor:
        """int dy/phi over each step, (n,): Gauss-Legendre in log y."""
        nodes, weights = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(32))
        half = 0.5 * -y.log().diff()[:, None]
        at = (0.5 * (y[1:] * y[:-1]).log()[:, None] + half * nodes).exp()
        return (half * weights * at / self.phi(at)).sum(1)

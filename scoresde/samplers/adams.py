r"""Adams's methods on what is left of the probability flow when a Gaussian is taken out.

Were the data N(0, d^2), the flow from the noise to the data would be a straight scaling by m(t) =
sqrt(alpha^2 d^2 + sigma^2), exactly. For any data, in Z = x/m and the angle phi, it is

    dZ/dphi = Q,      tan(phi) = sigma/(alpha d),
    Q = [alpha d (x - alpha x0_hat)/sigma - sigma x0_hat/d]/m,

and Q vanishes for that Gaussian. For a variance-preserving process and d = 1, m = 1, and this is
the plain equation x' = v: the flow turns x into v at unit angular speed. As d -> infinity Q is the
noise (DEIS), as d -> 0 the data (DPM-Solver++), but only in between is Q regular at both ends: the
walk goes to t = 0 itself at full order, with no last denoising.

Q is interpolated by a polynomial in phi through the newest ``predictor`` values, and the step then
corrected through the value at its end and the ``corrector`` - 1 newest before it; the correction
costs no evaluation (see ``exponential``).

References:
    Hairer, Norsett and Wanner 1993, sec. III.1 and III.5; Salimans and Ho 2022 (arXiv:2202.00512),
    appendix D (the angle); Karras et al. 2022 (arXiv:2206.00364), eq. 7 (the scale d).
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..sde import SDE
from .base import TableSampler, among
from .interpolation import corrected, interpolate
from .table import Table

__all__ = ["Adams"]


@dataclass(frozen=True)
class Adams(TableSampler):
    """Adams predictor-corrector on the probability flow without its Gaussian part.

    One evaluation a step. Order min(corrector, predictor + 1); ``predictor`` without corrector.
    The first row of a walk is Euler's in phi, as there is nothing yet to interpolate.

    Args:
        predictor: values in the predictor, 1 to 4.
        corrector: values in the corrector, 1 to 5; 0 for none.
        scale: d, the standard deviation of the data in the model's units.
    """

    predictor: int = 3
    corrector: int = 4
    scale: float = 1.0
    noise: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Refuse what does not exist."""
        among("predictor", self.predictor, (1, 2, 3, 4))
        among("corrector", self.corrector, (0, 1, 2, 3, 4, 5))
        if not self.scale > 0:
            raise ValueError(f"expected scale > 0, got {self.scale}: of scaled data it is 1")

    @property
    def order(self) -> int:
        """Order of convergence."""
        return min(self.corrector, self.predictor + 1) if self.corrector else self.predictor

    def table(self, sde: SDE, ts: Tensor) -> Table:
        """The rows; the correction of a step is part of the row after it."""
        d, alpha, sigma = self.scale, sde.alpha(ts), sde.sigma(ts)
        m = (alpha**2 * d**2 + sigma**2).sqrt()
        phi = (sigma / (alpha * d)).atan()
        powers = torch.arange(1, 1 + max(self.predictor, self.corrector))
        moments = phi.diff()[:, None] / powers  # int r^k dphi over each step
        a, end = m[1:] / m[:-1], None
        b = m[1:, None] * interpolate(phi, moments[:, : self.predictor])
        if self.corrector:
            end = m[1:, None] * interpolate(phi, moments[:, : self.corrector], ahead=True)
        alpha, sigma, m = alpha[:-1], sigma[:-1], m[:-1]
        u, w = alpha * d / (m * sigma), -m / (sigma * d)
        return Table(ts[:-1], ts[1:], a, corrected(a, b, end), torch.zeros_like(a), u, w)

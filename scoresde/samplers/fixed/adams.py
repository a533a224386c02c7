r"""Adams's methods on what is left of the probability flow when a Gaussian is taken out.

Were the data N(0, d^2), the denoiser would be x0_G = alpha d^2 x/m^2 with m^2 = alpha^2 d^2 +
sigma^2, and the flow a mere scaling, x proportional to m. For any data it is exactly

    d(x/m)/dxi = (alpha/sigma) (x0_G - x0_hat),        sinh(xi) = sigma/(alpha d),

which vanishes for that Gaussian. Where noise prevails xi is -lam but for a constant, so that an
error of a network in eps stays as small as it is; at the clean end it is sigma/(alpha d), and the
right side is regular: the steps go to t = 0 itself at full order, with no last denoising. (With
the angle phi, tan(phi) = sigma/(alpha d), in the place of xi, a variance-preserving flow is
x' = v; exact scores like that even better, but it magnifies the error of an eps network by
1/cos(phi), 150 at t = 1.)

The right side is interpolated by a polynomial in xi through the newest ``predictor`` values, and
the step then corrected through the value at its end and the ``corrector`` - 1 newest before it;
the correction costs no evaluation (see ``exponential``).

References:
    Hairer, Norsett and Wanner 1993, sec. III.1 and III.5; Salimans and Ho 2022 (arXiv:2202.00512),
    appendix D (the angle); Karras et al. 2022 (arXiv:2206.00364), eq. 7 (the scale d).
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ...sde import SDE
from ..base import TableSampler, among
from ..catalogue import Listing
from ..table import Table
from .interpolation import corrected, interpolate

__all__ = ["Adams"]


@dataclass(frozen=True)
class Adams(TableSampler):
    """Adams predictor-corrector on the probability flow without its Gaussian part.

    One evaluation a step. Order min(corrector, predictor + 1); ``predictor`` without corrector.
    The first row of a run is Euler's in xi, as there is nothing yet to interpolate.

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
        """Raise an error for an order that does not exist, or a scale that is not positive."""
        among("predictor", self.predictor, (1, 2, 3, 4))
        among("corrector", self.corrector, (0, 1, 2, 3, 4, 5))
        if not self.scale > 0:
            raise ValueError(f"expected scale > 0, got {self.scale}: of scaled data it is 1")

    @classmethod
    def catalogue(cls) -> tuple[Listing, ...]:
        """One of high order, and what ``recommended`` makes of it on a grid of its own."""
        from ..recommend import recommended  # which stands on this class

        best = Listing(
            "Adams (recommended)", cls(), "ode", word="recommended", place=25, plan=recommended
        )
        return Listing("Adams 4, 4", cls(4, 4), "ode", common=False, place=24), best

    @property
    def order(self) -> int:
        """Order of convergence."""
        return min(self.corrector, self.predictor + 1) if self.corrector else self.predictor

    def table(self, sde: SDE, ts: Tensor) -> Table:
        """The rows; the correction of a step is part of the row after it."""
        d, alpha, sigma = self.scale, sde.alpha(ts), sde.sigma(ts)
        m = (alpha**2 * d**2 + sigma**2).sqrt()
        xi = (sigma / (alpha * d)).asinh()
        powers = torch.arange(1, 1 + max(self.predictor, self.corrector))
        moments = xi.diff()[:, None] / powers  # int r^k dxi over each step
        a, end = m[1:] / m[:-1], None
        b = m[1:, None] * interpolate(xi, moments[:, : self.predictor])
        if self.corrector:
            end = m[1:, None] * interpolate(xi, moments[:, : self.corrector], ahead=True)
        alpha, sigma, m = alpha[:-1], sigma[:-1], m[:-1]
        u, w = (alpha * d / m) ** 2 / sigma, -alpha / sigma
        return Table(ts[:-1], ts[1:], a, corrected(a, b, end), torch.zeros_like(a), u, w)

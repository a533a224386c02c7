r"""A measurement y = A x0 + s n with n ~ N(0, I), and what follows from it exactly.

Every method here approximates the same thing. By Bayes' rule at time t,

    score(x | y) = score(x) + grad_x log p(y | x_t = x),
    p(y | x_t) = integral p(y | x0) p(x0 | x_t) dx0,

and the integral is not known for a network. For a Gaussian mixture it is: its posterior is again
a mixture (``posterior``), the reference against which the methods are scored.
"""

import copy
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..denoiser import Affine, Denoiser, Wrapper
from ..distributions import GaussianMixture, conditioning
from .operators import Linear

__all__ = ["Measurement", "Observed", "log_evidence", "posterior"]

Operator = Callable[[Tensor], Tensor]
"""(B, *event) -> (B, *measured), each row of its own sample alone; ``Linear`` or any other."""


class Measurement(nn.Module):
    """y = A x0 + std n, n ~ N(0, I).

    Noise of another covariance R: whiten with L L^T = R, ``Matrix(L^{-1} A)`` and L^{-1} y, std 1.

    Args:
        operator: A, a ``Linear``, or any differentiable function (B, *event) -> (B, *measured).
        y: what was measured, in the user's units: (1, *measured), the same for all samples, or
            (B, *measured), one for each.
        std: standard deviation of its noise, >= 0, in the units of y.
    """

    y: Tensor
    coarsest: float
    """Noise of the direction known worst, in the units of x0 (of y where A is not linear)."""

    def __init__(self, operator: Operator, y: Tensor, std: float) -> None:
        super().__init__()
        if not 0 <= std < math.inf:
            raise ValueError(f"expected std >= 0 of the noise of y, got {std}")
        if y.ndim < 2 or not y.is_floating_point() or not bool(torch.isfinite(y).all()):
            raise ValueError(
                "expected finite y of shape (1, *measured), or (B, *measured) with one for each "
                f"sample, got {y.dtype} {tuple(y.shape)}: y[None] adds the axis"
            )
        self.operator, self.std = operator, float(std)
        self.coarsest = self.std / (operator.weakest() if isinstance(operator, Linear) else 1.0)
        self.register_buffer("y", y)

    def part(self, index: slice) -> "Measurement":
        """The measurement of these samples."""
        return self if len(self.y) == 1 else Measurement(self.operator, self.y[index], self.std)

    def residual(self, x0: Tensor) -> Tensor:
        """The residual y - A x0, (B, *measured)."""
        seen, y = self.operator(x0), self.y.to(x0.dtype)
        if seen.shape[1:] != y.shape[1:] or len(y) not in (1, len(seen)):
            raise ValueError(
                f"expected a measurement of shape (1, *m) or ({len(seen)}, *m) where A x is "
                f"{tuple(seen.shape)}, got y {tuple(y.shape)}"
            )
        return y - seen

    def log_likelihood(self, x0: Tensor) -> Tensor:
        """log N(y; A x0, std^2 I) in nats, (B,); std must not be 0."""
        residual = self.residual(x0).flatten(1)
        norm = residual.shape[1] * math.log(self.std * math.sqrt(2 * math.pi))
        return -0.5 * (residual / self.std).square().sum(1) - norm

    def within(self, affine: Affine | None) -> "Measurement":
        """The same measurement of z, where x0 = mean + scale z are the user's units."""
        if affine is None:
            return self
        if isinstance(self.operator, Linear) and affine.mean.ndim and not affine.whitens:
            scale = affine.scale.flatten()[0]
            if bool((affine.scale == scale).all()):  # A (mean + c z) = A mean + c A z
                y = (self.y - self.operator(affine.mean[None])) / scale
                return Measurement(self.operator, y, self.std / float(scale))
        operator = self.operator
        return Measurement(lambda z: operator(affine.inverse(z)), self.y, self.std)


class Observed(Wrapper):
    """A denoiser that knows what was measured, but does not yet use it.

    Its own answers are those of the prior. Samplers that need the measurement (``Replacement``,
    ``RePaint``, ``DDRM``) find it here, and the subclasses are the methods that are denoisers.

    Args:
        denoiser: the denoiser of the prior.
        measurement: of x0, in the user's units; its rows are cut with the batch.
    """

    def __init__(self, denoiser: Denoiser, measurement: Measurement) -> None:
        super().__init__(denoiser)
        self.measurement = measurement.within(denoiser.affine)

    @property
    def samples(self) -> int | None:
        """The number of samples of the prior, or of measurements if there are several."""
        return super().samples or (
            len(self.measurement.y) if len(self.measurement.y) > 1 else None
        )

    def part(self, index: slice) -> "Observed":
        """The same for these samples of a batch."""
        inner, measurement = self.denoiser.part(index), self.measurement.part(index)
        if inner is self.denoiser and measurement is self.measurement:
            return self
        twin = copy.copy(self)
        twin._modules = {**self._modules, "denoiser": inner, "measurement": measurement}
        return twin


def posterior(law: GaussianMixture, measurement: Measurement) -> GaussianMixture:
    r"""The distribution of x0 given y; of a mixture of Gaussians (w_k, m_k, C_k) it is again one.

        G_k = C_k A^T (A C_k A^T + s^2 I)^{-1},         m_k -> m_k + G_k (y - A m_k),
        C_k -> (I - G_k A) C_k,                         w_k -> w_k N(y; A m_k, A C_k A^T + s^2 I).

    Args:
        law: the prior.
        measurement: linear, with one y.
    """
    matrix, y = _dense(law, measurement)
    if len(y) != 1:
        raise ValueError(f"expected one y, got {len(y)}: measurement.part(slice(i, i+1))")
    return conditioning.condition(law, matrix, y[0], measurement.std)


def log_evidence(law: GaussianMixture, measurement: Measurement) -> Tensor:
    """log p(y) in nats, (n,) for y (n, *measured)."""
    return conditioning.log_evidence(law, *_dense(law, measurement), measurement.std)


def _dense(law: GaussianMixture, measurement: Measurement) -> tuple[Tensor, Tensor]:
    """A as a matrix (m, d), and y as rows (n, m)."""
    operator = measurement.operator
    if not isinstance(operator, Linear):
        raise TypeError(f"expected a Linear operator, got {type(operator).__name__}")
    return operator.matrix(law.event), measurement.y.flatten(1)

r"""Methods that are denoisers: the distribution of x0 given x_t is replaced by a Gaussian.

With p(x0 | x_t) ~ N(x0_hat, V) the measurement has the likelihood N(y; A x0_hat, S),

    S = A V A^T + s^2 I,        pull = grad_x log p(y | x_t) ~ J^T A^T S^{-1} (y - A x0_hat),
    x0_hat -> x0_hat + sigma^2/alpha pull,                  J = d x0_hat/dx,

where S is held fixed in the gradient. The methods differ in V alone:

    DPS                V = 0                             no uncertainty: too strong, far too narrow
    PiGDM              V = v I                           exact for a prior N(m, c I)
    MomentMatching     V = sigma^2/alpha J^T             exact for any Gaussian prior

(the last is Tweedie's formula of second order, Cov[x0 | x_t] = sigma^2/alpha J). For a prior of
several modes none is exact. A that is not linear enters by its derivative at x0_hat.

References:
    Chung et al. 2023 (arXiv:2209.14687), DPS; Song et al. 2023 (ICLR), PiGDM; Rozet et al. 2024
    (arXiv:2405.13712), moment matching by conjugate gradients.
"""

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from ..autodiff import differentiating
from ..denoiser import Denoiser, like
from ..prediction import Quantity, tilted
from .measurement import Measurement, Observed
from .operators import Linear

__all__ = ["DPS", "MomentMatching", "PiGDM"]

Map = Callable[[Tensor], Tensor]


class _Pulled(Observed):
    """A denoiser with the pull J^T A^T u of a force u on the measurement; u by subclasses."""

    @abstractmethod
    def force(self, residual: Tensor, x0: Tensor, pull: Map, t: Tensor) -> Tensor:
        """u ~ S^{-1} (y - A x0_hat), (B, *measured).

        Args:
            residual: y - A x0_hat.
            x0: x0_hat.
            pull: u -> J^T A^T u.
            t: () or (B,).
        """

    def resolve(self, x: Tensor, t: Tensor, **cond: Any) -> tuple[Tensor, Tensor]:
        """x0_hat of the prior and the pull, with one evaluation and its transpose."""
        x0, pull, _ = self._resolve(x, t, **cond)
        return x0, pull

    def twist(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x0_hat of the prior, the pull, and what it is (nearly) the gradient of, (B,).

            log h = -1/2 (y - A x0_hat)^T S^{-1} (y - A x0_hat)

        The determinant of S is left out: any guess will do for ``samplers.TwistedSMC``.
        """
        _one_and_noisy(self.measurement)
        x0, pull, square = self._resolve(x, t)
        return x0, pull, -0.5 * square

    def log_target(self, x: Tensor, t: Tensor) -> Tensor:
        """log p(y | x0) in nats, (B,), of x itself at t = 0 and of its x0_hat at other times."""
        return self.measurement.log_likelihood(self.denoiser(x, t))

    def _resolve(self, x: Tensor, t: Tensor, **cond: Any) -> tuple[Tensor, Tensor, Tensor]:
        """x0_hat, the pull, and residual . force."""

        def miss(x: Tensor) -> tuple[Tensor, Tensor]:
            x0: Tensor = self.denoiser(x, t, **cond)
            return self.measurement.residual(x0), x0

        with differentiating():
            residual, transpose, x0 = _vjp(miss, x)
            pull: Map = lambda u: transpose(-u)[0]
            force = self.force(residual, x0, pull, t)
            return x0, pull(force), _dot(residual, force)

    def predict(self, quantity: Quantity, x: Tensor, t: Tensor, **cond: Any) -> Tensor:
        """The prior's prediction with the pull added to its score, finite at t = 0 where it is.

        x0_hat takes one evaluation, others two.
        """
        x0, pull = self.resolve(x, t, **cond)
        out = x0 if quantity == "x0" else self.denoiser.predict(quantity, x, t, **cond)
        return tilted(self.sde, quantity, t, out, pull)

    def _gain(self, t: Tensor, x: Tensor) -> Tensor:
        return like(self.sde.sigma2(t) / self.sde.alpha(t), x)


class DPS(_Pulled):
    r"""Diffusion posterior sampling: x0_hat taken for x0 itself (V = 0).

        rule "likelihood":  log h = -scale |y - A x0_hat|^2/(2 s^2),
        rule "norm":        log h = -scale sqrt(m) |y - A x0_hat|/s,

    m the size of y. The norm is that of each sample. Both have the same slope where the residual
    is what the noise leaves, |y - A x0_hat| = s sqrt(m), but that of the second does not grow
    with the residual: it needs no small steps. (Chung et al. divide by the norm too, and move by
    a fixed length in every step whatever its size; here the length follows the step, so that the
    result has a limit.) Neither samples the posterior: for a prior N(0, c) and R = s^2, the
    reverse SDE ends with variance R (1 - e^{-2c/R})/2 in the place of c R/(c + R).

    Args:
        denoiser: the denoiser of the prior.
        measurement: with std > 0; any differentiable A.
        scale: strength, 1 where V = 0 is meant.
        rule: which of the two.

    References:
        Chung et al. 2023, eq. 16 and algorithm 1.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        measurement: Measurement,
        scale: float = 1.0,
        rule: Literal["likelihood", "norm"] = "likelihood",
    ) -> None:
        super().__init__(denoiser, measurement)
        if rule not in ("likelihood", "norm"):
            raise ValueError(f'expected rule "likelihood" or "norm", got {rule!r}')
        if not measurement.std > 0:
            raise ValueError(
                "expected a measurement with std > 0: DPS divides by it; PiGDM and "
                "MomentMatching work without noise"
            )
        self.scale, self.rule = scale, rule

    def force(self, residual: Tensor, x0: Tensor, pull: Map, t: Tensor) -> Tensor:
        """The residual over s^2, or its direction with the length sqrt(m)/s."""
        std = self.measurement.std
        if self.rule == "likelihood":
            return self.scale / std**2 * residual
        norm = _dot(residual, residual).sqrt().clamp(min=torch.finfo(residual.dtype).tiny)
        root_m = math.sqrt(residual[0].numel())
        return self.scale * root_m / std * residual / like(norm, residual)


class PiGDM(_Pulled):
    r"""Pseudoinverse guidance: V = v I, with v = c sigma^2/(alpha^2 c + sigma^2).

    Exact for a prior N(m, c I). With c = 1 and a variance-preserving process v = sigma^2. Data
    that vary by more than c in some direction (smooth images do) are pulled too far along it, and
    runs of few steps diverge: take for c the largest variance of the data in any direction.

    Args:
        denoiser: the denoiser of the prior.
        measurement: A must be ``Linear``.
        data_var: c, the variance of a coordinate of the data in the model's units.

    References:
        Song, Vahdat, Mardani and Kautz 2023, "Pseudoinverse-guided diffusion models for inverse
        problems" (ICLR).
    """

    def __init__(
        self, denoiser: Denoiser, measurement: Measurement, data_var: float = 1.0
    ) -> None:
        super().__init__(denoiser, measurement)
        if not data_var > 0:
            raise ValueError(f"expected data_var > 0, got {data_var}")
        self.data_var, self.operator = data_var, spectral(self.measurement)

    def force(self, residual: Tensor, x0: Tensor, pull: Map, t: Tensor) -> Tensor:
        """(v A A^T + s^2 I)^{-1} residual, through the singular values."""
        c, sigma2 = self.data_var, self.sde.sigma2(t)
        v = c * sigma2 / (self.sde.alpha(t).square() * c + sigma2)
        return self.operator.solve(residual, v, self.measurement.std**2)


class MomentMatching(_Pulled):
    r"""Moment matching posterior sampling (MMPS): V = sigma^2/alpha J^T, never stored.

    S u = y - A x0_hat is solved by conjugate gradients, each iteration one product with J^T and
    one with A. Their number is fixed: nothing waits for the device. In exact arithmetic as many as
    y has numbers suffice; a few are enough in practice.

    Args:
        denoiser: the denoiser of the prior.
        measurement: any differentiable A.
        iterations: number of conjugate gradient iterations; a step costs one evaluation of the
            denoiser and iterations + 1 transposed ones.

    References:
        Rozet et al. 2024, algorithm 2 and sec. 4.2 (the method); Boys et al. 2023
        (arXiv:2310.06721) (the covariance from Tweedie's formula).
    """

    def __init__(self, denoiser: Denoiser, measurement: Measurement, iterations: int = 5) -> None:
        super().__init__(denoiser, measurement)
        if iterations < 1:
            raise ValueError(f"expected at least one iteration, got {iterations}")
        self.iterations = iterations

    def force(self, residual: Tensor, x0: Tensor, pull: Map, t: Tensor) -> Tensor:
        """S^{-1} residual, nearly."""
        operator, var = self.measurement.operator, self.measurement.std**2
        gain = self._gain(t, x0)

        def product(u: Tensor) -> Tensor:
            moved = gain * pull(u)
            if isinstance(operator, Linear):
                return operator(moved) + var * u
            out: Tensor = torch.func.jvp(operator, (x0,), (moved,))[1]
            return out + var * u

        return conjugate_gradients(product, residual, self.iterations)


def conjugate_gradients(product: Map, b: Tensor, iterations: int) -> Tensor:
    """Solve S u = b for each sample, S symmetric and not negative, from u = 0 (B, *).

    A sample that is solved stays as it is: where p^T S p vanishes the step does too.
    """
    u, r, p = torch.zeros_like(b), b, b
    rr = _dot(r, r)
    for _ in range(iterations):
        sp = product(p)
        step = like(_ratio(rr, _dot(p, sp)), b)
        u, r = u + step * p, r - step * sp
        before, rr = rr, _dot(r, r)
        p = r + like(_ratio(rr, before), b) * p
    return u


def spectral(measurement: Measurement) -> Linear:
    """The operator of a measurement, if its singular values are known."""
    if not isinstance(measurement.operator, Linear):
        raise TypeError(
            "expected a Linear operator and data of one scale (an Affine without whitening, the "
            "same for all coordinates), got none that has singular values: use MomentMatching"
        )
    return measurement.operator


def _one_and_noisy(measurement: Measurement) -> None:
    """Raise an error for a measurement whose likelihood could not weigh particles."""
    if len(measurement.y) != 1:
        raise ValueError(
            f"expected one y for all particles, got {len(measurement.y)}: they are drawn anew "
            "together; treat measurement.part(slice(i, i + 1)) one after the other"
        )
    if not measurement.std > 0:
        raise ValueError(
            "expected a measurement with std > 0, got 0: weights are ratios of likelihoods, and "
            "without noise nearly all of these vanish; give y a small std"
        )


def _vjp(
    function: Callable[[Tensor], tuple[Tensor, Tensor]], x: Tensor
) -> tuple[Tensor, Callable[[Tensor], tuple[Tensor]], Tensor]:
    """The first output at x, its transposed derivative, and the second output."""
    found: Any = torch.func.vjp(function, x, has_aux=True)
    output, transpose, aside = found
    return output, transpose, aside


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).flatten(1).sum(1)


def _ratio(a: Tensor, b: Tensor) -> Tensor:
    """a/b, and zero where b is not positive."""
    positive = b > torch.finfo(b.dtype).tiny
    return (a / b.where(positive, 1.0)).where(positive, 0.0)

r"""Uniform distributions on boxes, diffused: an exact denoiser for densities with sharp edges.

Data uniform on boxes [lo_k, hi_k] with weights w_k stay a sum of products in the coordinates:

    p_t(x) = sum_k w_k prod_j [Phi(u_kj) - Phi(l_kj)]/(alpha (hi - lo)_kj),
    l = (x - alpha hi)/sigma,        u = (x - alpha lo)/sigma,

and given x and box k, the noise in coordinate j is a standard normal number truncated to [l, u].
Its mean, averaged over the boxes, is eps; score and x0_hat follow. Everything is computed from
ratios of normal tails, so far outside the boxes and near t = 0 nothing underflows.

References:
    Johnson, Kotz and Balakrishnan 1994, "Continuous univariate distributions" 1, sec. 13.10.1.
"""

import math
from typing import Any

import torch
from numpy.polynomial.legendre import leggauss
from torch import Tensor

from ..denoiser import like
from ..prediction import Quantity, convert
from ..sde import SDE
from .base import Distribution

__all__ = ["Boxes"]

LOG_ROOT_2PI = 0.5 * math.log(2 * math.pi)
RULE = list(zip(*(array.tolist() for array in leggauss(8)), strict=True))


class Boxes(Distribution):
    r"""The distribution sum_k w_k Uniform[lo_k, hi_k], exact at every time of a process.

    At t = 0 the score is zero inside the boxes and has no finite value at their edges, so
    samplers of the ODE should stop at a small t > 0, as for a network.

    Args:
        lo: lower corners (K, d), in the units of the data.
        hi: upper corners (K, d), above the lower ones; the boxes may touch but not overlap.
        weights: (K,), positive; scaled to sum to one.
        sde: the process.
    """

    lo: Tensor
    hi: Tensor
    weights: Tensor

    def __init__(self, lo: Tensor, hi: Tensor, weights: Tensor, sde: SDE) -> None:
        super().__init__(sde)
        if lo.ndim != 2 or lo.shape != hi.shape or weights.shape != lo.shape[:1]:
            raise ValueError(
                "expected corners (K, d) and weights (K,), got "
                f"{tuple(lo.shape)}, {tuple(hi.shape)} and {tuple(weights.shape)}"
            )
        finite = all(bool(torch.isfinite(a).all()) for a in (lo, hi, weights))
        if not len(lo) or not (finite and bool((hi > lo).all() and (weights > 0).all())):
            raise ValueError(
                "expected one box or more, finite corners lo < hi in every coordinate, and finite "
                f"positive weights, got lo {lo.tolist()}, hi {hi.tolist()}, weights "
                f"{weights.tolist()}"
            )
        self.register_buffer("lo", lo.double())
        self.register_buffer("hi", hi.double())
        self.register_buffer("weights", (weights / weights.sum()).double())

    @property
    def event(self) -> torch.Size:
        """Shape of one sample."""
        return self.lo.shape[1:]

    def log_prob(self, x: Tensor, t: Tensor | None = None) -> Tensor:
        """log p_t(x) in nats; -inf outside of the boxes at t = 0. (n, d) -> (n,)."""
        t = x.new_zeros(()) if t is None else t
        log_p = self._joint(x, t)[0].logsumexp(1)
        inside = (x[:, None] >= self.lo.to(x)) & (x[:, None] <= self.hi.to(x))  # (n, K, d)
        return log_p.masked_fill(~inside.all(2).any(1) & (self.sde.sigma(t) == 0), -math.inf)

    def posterior(self, x: Tensor, t: Tensor | None = None) -> Tensor:
        """Probability of each box given x_t = x: (n, d) -> (n, K)."""
        return self._joint(x, x.new_zeros(()) if t is None else t)[0].softmax(1)

    def predict(self, quantity: Quantity, x: Tensor, t: Tensor, **cond: Any) -> Tensor:
        """From E[eps | x_t = x], finite at every t: (n, d) -> (n, d).

        x0_hat = (x - sigma eps)/alpha and score = -eps/sigma with sigma kept from zero: at t = 0
        the nearest point of the boxes, and 0 within them.
        """
        log_joint, eps = self._joint(x, t)
        eps = (log_joint.softmax(1)[:, :, None] * eps).sum(1)
        alpha, sigma = self._path(x, t)
        if quantity == "x0":
            return (x - sigma * eps) / alpha
        if quantity in ("score", "velocity"):
            return convert(self.sde, "score", quantity, x, t, -eps / sigma)
        return convert(self.sde, "eps", quantity, x, t, eps)

    def sample(
        self, n: int, t: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Exact samples of p_t, (n, d), of the data where no time is given."""
        k = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        share = torch.empty_like(self.lo[k]).uniform_(generator=generator)
        x0 = self.lo[k] + (self.hi - self.lo)[k] * share
        if t is None:
            return x0
        return self.sde.perturb(x0, t.to(x0), torch.empty_like(x0).normal_(generator=generator))

    def _path(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """alpha and sigma for x, sigma kept from zero by an amount far below rounding of x."""
        t = t.to(x)
        alpha, sigma = like(self.sde.alpha(t), x), like(self.sde.sigma(t), x)
        return alpha, sigma.clamp(min=torch.finfo(x.dtype).tiny ** 0.25)

    def _joint(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """log w_k p_t(x | k), (n, K), and E[eps | x, k], (n, K, d)."""
        alpha, sigma = (c.reshape(-1, 1, 1) for c in self._path(x, t))
        lo, hi = self.lo.to(x), self.hi.to(x)
        centre = (x[:, None] - alpha * (0.5 * (lo + hi))) / sigma  # (n, K, d)
        half = (0.5 * alpha * (hi - lo) / sigma).expand_as(centre)
        log_mass, eps = truncated_normal(centre, half)
        log_density = log_mass - (alpha * (hi - lo)).log()
        return self.weights.to(x).log() + log_density.sum(2), eps


def truncated_normal(centre: Tensor, half: Tensor) -> tuple[Tensor, Tensor]:
    """Log mass and mean of N(0, 1) on [centre - half, centre + half], elementwise.

    Three forms of one integral: narrow intervals, over which the density varies little, by
    quadrature; others by tails measured from the end nearest to zero.
    """
    narrow = half * (centre.abs() + half) < 1
    # each form sees only arguments it can digest, so that its derivatives stay finite too
    quadrature = _narrow(torch.where(narrow, centre, 0.0), torch.where(narrow, half, 0.5))
    tails = _wide(torch.where(narrow, 0.0, centre), torch.where(narrow, 2.0, half))
    log_mass, mean = (torch.where(narrow, a, b) for a, b in zip(quadrature, tails, strict=True))
    return log_mass, mean


def _narrow(centre: Tensor, half: Tensor) -> tuple[Tensor, Tensor]:
    """By Gauss-Legendre: phi(c + h xi)/phi(c) = exp(-h xi (c + h xi/2)) is nearly flat."""
    mass, moment = torch.zeros_like(centre), torch.zeros_like(centre)
    for xi, weight in RULE:
        step = half * xi
        density = weight * (-step * (centre + 0.5 * step)).exp()
        mass, moment = mass + density, moment + density * step
    log_mass = (half * mass).log() - 0.5 * centre.square() - LOG_ROOT_2PI
    return log_mass, centre + moment / mass


def _wide(centre: Tensor, half: Tensor) -> tuple[Tensor, Tensor]:
    """By upper tails Q = phi M (M: Mills' ratio), with a = |c| - h, b = |c| + h.

    mass = Q(a) - Q(b),  |mean| = (phi(a) - phi(b))/mass,  and phi(b)/phi(a) = exp(-2 h |c|).
    """
    sign = torch.where(centre < 0, -1.0, 1.0).to(centre)
    c = centre * sign
    (log_tail, log_mills), (_, log_mills_b) = _upper_tail(c - half), _upper_tail(c + half)
    ratio = -2 * half * c
    log_rest = (-torch.expm1(log_mills_b + ratio - log_mills)).log()  # log(1 - Q(b)/Q(a))
    mean = -torch.expm1(ratio) * (-log_mills - log_rest).exp()
    return log_tail + log_rest, sign * mean


def _upper_tail(a: Tensor) -> tuple[Tensor, Tensor]:
    """Log Q(a) = log(1 - Phi(a)) and log Q(a)/phi(a), accurate where Q and phi underflow."""
    left = a < 0
    far = torch.where(left, -a, a)
    log_mills = (torch.special.erfcx(far / math.sqrt(2)) * math.sqrt(math.pi / 2)).log()
    log_phi = -0.5 * far.square() - LOG_ROOT_2PI
    log_tail = log_mills + log_phi
    log_tail = torch.where(left, torch.log1p(-log_tail.exp()), log_tail)
    return log_tail, torch.where(left, log_tail - log_phi, log_mills)

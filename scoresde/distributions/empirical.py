r"""Stored points, each with weight 1/n: the distribution on which a loss over data is least.

Its denoiser is a softmax over the points,

    x0_hat = sum_i r_i x_i,      r_i = softmax_i(-|x - alpha x_i|^2/(2 sigma^2)),

and all its reverse processes end on one of them.
"""

import math
from typing import Any

import torch
from torch import Tensor

from ..sde import SDE, like
from .base import Distribution

__all__ = ["Empirical", "distances"]


class Empirical(Distribution):
    """The distribution of n points, each with weight 1/n, and its exact denoiser at every t > 0.

    Args:
        points: (n, *), in the model's units.
        sde: the process.
    """

    points: Tensor

    def __init__(self, points: Tensor, sde: SDE) -> None:
        """Keep the points as a buffer."""
        super().__init__(sde)
        if points.ndim < 2 or len(points) < 1 or not points.is_floating_point():
            raise ValueError(
                f"expected points (n, *) of floats, got {points.dtype} {tuple(points.shape)}"
            )
        self.register_buffer("points", points)

    @property
    def event(self) -> torch.Size:
        """Shape of one sample."""
        return self.points.shape[1:]

    def forward(self, x: Tensor, t: Tensor, **cond: Any) -> Tensor:
        """E[x0 | x_t = x]: the points, averaged by their responsibilities."""
        mean = self.posterior(x, t) @ self.points.flatten(1).to(x)
        return mean.reshape(x.shape)

    def posterior(self, x: Tensor, t: Tensor) -> Tensor:
        """Responsibilities r_i = p(x0 = x_i | x_t = x) of the points, (B, n)."""
        return self._log_kernel(x, t).softmax(1)

    def log_prob(self, x: Tensor, t: Tensor | None = None) -> Tensor:
        """log p_t(x) in nats, (B,); the data themselves have no density."""
        if t is None:
            raise ValueError("expected a time above 0, got none: point masses have no density")
        sigma2 = self.sde.sigma2(t.to(x)).expand(len(x))
        norm = 0.5 * self.event.numel() * (2 * math.pi * sigma2).log()
        return self._log_kernel(x, t).logsumexp(1) - norm - math.log(len(self.points))

    def sample(
        self, n: int, t: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Points drawn with replacement, noised to t: (n, *)."""
        p = self.points
        picked = torch.randint(len(p), (n,), generator=generator, device=p.device)
        if t is None:
            return p[picked]
        return self.sde.perturb(
            p[picked], t.to(p), torch.empty_like(p[picked]).normal_(generator=generator)
        )

    def _log_kernel(self, x: Tensor, t: Tensor) -> Tensor:
        """-|x - alpha x_i|^2/(2 sigma^2), (B, n)."""
        if x.shape[1:] != self.event:
            raise ValueError(f"expected x (B, *{tuple(self.event)}), got {tuple(x.shape)}")
        alpha, sigma2 = (
            like(c, x.flatten(1)) for c in (self.sde.alpha(t.to(x)), self.sde.sigma2(t.to(x)))
        )
        squares = distances(x.flatten(1) / alpha, self.points.flatten(1).to(x)).square()
        return -0.5 * alpha.square() / sigma2 * squares


def distances(x: Tensor, points: Tensor) -> Tensor:
    """|x_b - p_i|, (B, n), by differences: a product would lose the digits of near pairs."""
    return torch.cdist(x, points, compute_mode="donot_use_mm_for_euclid_dist")

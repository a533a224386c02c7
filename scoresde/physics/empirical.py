r"""Memorisation: the exact law of n training points, and whether a model reproduces them.

The least loss on n points is reached by their own denoiser, a softmax over the points,

    x0_hat = sum_i r_i x_i,      r_i = softmax_i(-|x - alpha x_i|^2/(2 sigma^2)),

and all its reverse processes end on one of them: a model that samples anything new owes it to the
error it makes here. Whether a trained one does is seen in the distances from its samples to the
nearest and second nearest training point: for points of a density in d dimensions (d1/d2)^d is
uniform on [0, 1], for copies it is near 0.

References:
    Gu, Du, Pang, Li, Lin and Wang 2023 (arXiv:2310.02664); Biroli et al. 2024
    (arXiv:2402.18491).
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..estimate import Estimate
from ..mixture import Law
from ..sde import SDE, like

__all__ = ["Empirical", "Memorisation", "memorisation"]

CHUNK = 2**24  # distances at a time


class Empirical(Law):
    """The law of n points, each with weight 1/n, and its exact denoiser at every t > 0.

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
        squares = _distances(x.flatten(1) / alpha, self.points.flatten(1).to(x)).square()
        return -0.5 * alpha.square() / sigma2 * squares


class Memorisation(NamedTuple):
    """How near samples lie to the training points.

    Attributes:
        nearest: index of the nearest training point, (B,).
        distance: to it, in the units of the data, (B,).
        ratio: d1/d2, of the distances to the nearest and the second nearest, (B,).
        share: of samples with d1 below ``threshold`` d2, with its standard error, ().
        expected: that share for new points of a density in d dimensions, threshold^d.
    """

    nearest: Tensor
    distance: Tensor
    ratio: Tensor
    share: Estimate
    expected: float


def memorisation(samples: Tensor, train: Tensor, threshold: float = 1 / 3) -> Memorisation:
    r"""Are these samples copies of training points? By the ratio of two distances.

    A sample counts as a copy where d1 < threshold d2. For new points of a smooth density, and many
    training points, P(d1 < r d2) = r^d with d the dimension of the data (that of the space here):
    compare the share with ``expected``, in low dimension far from 0, or, where the data fill fewer
    dimensions or are few, with the share of held-out data.

    Args:
        samples: (B, *).
        train: training points (n, *), n >= 2, without duplicates.
        threshold: of the ratio; 1/3 is usual.

    References:
        Gu et al. 2023 (arXiv:2310.02664): the ratio 1/3.
    """
    if samples.shape[1:] != train.shape[1:] or len(train) < 2 or len(samples) < 2:
        raise ValueError(
            "expected samples (B, *) and train (n, *) of one shape with B, n >= 2, got "
            f"{tuple(samples.shape)} and {tuple(train.shape)}"
        )
    points = train.flatten(1).to(samples)
    rows = max(1, CHUNK // len(points))
    found = [_distances(x, points).topk(2, largest=False) for x in samples.flatten(1).split(rows)]
    near, index = torch.cat([f.values for f in found]), torch.cat([f.indices for f in found])
    ratio = near[:, 0] / near[:, 1]
    copies = (ratio < threshold).to(ratio)
    share = Estimate(copies.mean(), copies.std() / math.sqrt(len(copies)))
    return Memorisation(index[:, 0], near[:, 0], ratio, share, threshold ** points.shape[1])


def _distances(x: Tensor, points: Tensor) -> Tensor:
    """|x_b - p_i|, (B, n), by differences: a product would lose the digits of near pairs."""
    return torch.cdist(x, points, compute_mode="donot_use_mm_for_euclid_dist")

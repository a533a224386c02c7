r"""Two sets of paths (n, L, C) compared, each number from another side of the physics.

All are functions (x, y) -> (), zero where the sets agree, positive between any two samples: read
each beside its ``floor``, or let ``judge`` do so. y is the truth where the two are not treated
alike (it gives the units): where it does not vary at all, and so gives none, what differs from it
is infinitely far. Paths must be equally spaced in time, with the same times in both.
"""

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor

from .kernels import median_distance
from .motion import (
    arc_length,
    mean_squared_displacement,
    power_spectrum,
    spread,
    turning,
    two_time_covariance,
    velocity_autocorrelation,
)
from .pairs import as_floats, as_pair
from .signatures import signature_levels
from .transport import sorted_cost

__all__ = [
    "PATH_METRICS",
    "arc_length_w1",
    "autocorrelation_error",
    "conservation_error",
    "conservation_metrics",
    "covariance_error",
    "displacement_error",
    "marginal_w1",
    "mean_error",
    "path_mmd",
    "signature_mmd",
    "spectrum_error",
    "turning_w1",
]

PathMetric = Callable[[Tensor, Tensor], Tensor]
STIFF = 1e-3  # variances below this part of the largest are whitened no further


def marginal_w1(x: Tensor, y: Tensor) -> Tensor:
    """W_1 between the laws of each coordinate at each time, averaged over both; in units of x."""
    x, y = as_paths(x, y)
    return sorted_cost(x.flatten(1).mT, y.flatten(1).mT, 1).mean()


def mean_error(x: Tensor, y: Tensor) -> Tensor:
    """Root mean square over times of the difference of mean paths, over y's largest std."""
    x, y = as_paths(x, y)
    x, y = x - y[:1], y - y[:1]  # equal paths are 0 to the last bit
    scale = y.var(0, correction=0).max().sqrt()
    return _over(_rms(x.mean(0) - y.mean(0)), scale)


def covariance_error(x: Tensor, y: Tensor) -> Tensor:
    """Root mean square difference of all entries of Cov[x_a(s), x_b(t)], over y's largest."""
    x, y = as_paths(x, y)
    truth = two_time_covariance(y)
    return _over(_rms(two_time_covariance(x) - truth), truth.diagonal().max())


def displacement_error(x: Tensor, y: Tensor) -> Tensor:
    """Root mean square over lags of the difference of MSD curves, over y's largest value."""
    x, y = as_paths(x, y)
    truth = mean_squared_displacement(y)
    return _over(_rms(mean_squared_displacement(x) - truth), truth.max())


def autocorrelation_error(x: Tensor, y: Tensor) -> Tensor:
    """Root mean square over lags of the difference of VACF curves, over y's value at lag 0."""
    x, y = as_paths(x, y)
    truth = velocity_autocorrelation(y)
    return _over(_rms(velocity_autocorrelation(x) - truth), truth[0])


def spectrum_error(x: Tensor, y: Tensor) -> Tensor:
    """Root mean square over frequencies of log(P_x/P_y), in nats: every decade counts alike.

    The first to see noise on smooth paths, where the true power is small. Where neither has any
    power the two agree.
    """
    p, q = (power_spectrum(part) for part in as_paths(x, y))
    return _rms(torch.where(p == q, 0.0, p.log() - q.log()))


def arc_length_w1(x: Tensor, y: Tensor) -> Tensor:
    """W_1 between the laws of the arc length, in units of x."""
    x, y = as_paths(x, y)
    return sorted_cost(arc_length(x)[None], arc_length(y)[None], 1)[0]


def turning_w1(x: Tensor, y: Tensor) -> Tensor:
    """W_1 between the laws of the total absolute curvature, in radians."""
    x, y = as_paths(x, y)
    return sorted_cost(turning(x)[None], turning(y)[None], 1)[0]


def conservation_error(x: Tensor, y: Tensor, quantity: Callable[[Tensor], Tensor]) -> Tensor:
    """Difference of the median relative spreads of a quantity along each path, without unit.

    Args:
        x: paths (n, L, C).
        y: the truth, (m, L, C).
        quantity: function of paths, (n, L, C) -> (n, M); constant along each path of the truth.
    """
    x, y = as_paths(x, y)
    found, truth = (spread(quantity(part)).median() for part in (x, y))
    return torch.where(found == truth, 0.0, (found - truth).abs())


def conservation_metrics(
    conserved: Mapping[str, Callable[[Tensor], Tensor]],
) -> dict[str, PathMetric]:
    """One metric for each conserved quantity, as ``family.conserved`` lists them."""
    return {
        f"spread of {name}": partial(conservation_error, quantity=quantity)
        for name, quantity in conserved.items()
    }


def path_mmd(x: Tensor, y: Tensor, limit: int = 1000) -> Tensor:
    r"""Maximum mean discrepancy of whole paths with a Gaussian kernel, without unit, in [0, 1.5].

    The paths are whitened by y's mean and covariance, z = (l + l_max/1000)^{-1/2} U^T (x - mean),
    so that all modes count alike down to 3 % of the largest amplitude; the bandwidth is the
    median distance of paths that differ. It is the root of the biased estimate, never negative.

    Args:
        x: paths (n, L, C).
        y: the truth, (m, L, C).
        limit: at most so many paths of each are used, the first ones: the time grows as their
            square.

    References:
        Gretton et al. 2012, eq. 5.
    """
    x, y = as_paths(x, y)
    x, y = x - y[:1], y - y[:1]
    values, vectors = torch.linalg.eigh(two_time_covariance(y))
    turn = vectors * (values + STIFF * values[-1]).where(values[-1] > 0, 1.0).rsqrt()
    a, b = ((part[:limit] - y.mean(0)).flatten(1) @ turn for part in (x, y))
    h = median_distance(a, b, limit=500)
    means = [_kernel_mean(u / h, v / h) for u, v in ((a, a), (b, b), (a, b))]
    return (means[0] + means[1] - 2 * means[2]).clamp(min=0).sqrt()


def signature_mmd(x: Tensor, y: Tensor, depth: int = 4) -> Tensor:
    r"""Distance of mean signatures, with every level weighing the same; without unit.

        MMD^2 = sum_k |E S_k(X) - E S_k(Y)|^2/tr Cov S_k(Y),        k = 1 .. depth.

    Each coordinate is scaled by y's mean and standard deviation (by the largest of them where it
    is constant), each path starts from 0 (its place counts) and carries its time in [0, 1] along
    as a coordinate (its speed counts). This is the maximum mean discrepancy of the truncated
    signature kernel. Linear in n.

    Args:
        x: paths (n, L, C).
        y: the truth, (m, L, C).
        depth: highest level; the cost grows as (C + 1)^depth.

    References:
        Chevyrev and Oberhauser 2022 (arXiv:1810.10971), sec. 4; Kiraly and Oberhauser 2019.
    """
    x, y = as_paths(x, y)
    x, y = x - y[0, 0], y - y[0, 0]
    mean, scale = y.mean((0, 1)), y.std((0, 1), correction=0)
    scale = scale.where(scale > 0, scale.max())
    unit = scale.where(scale > 0, 1.0)
    sets = [signature_levels(_with_time((part - mean) / unit), depth) for part in (x, y)]
    terms = []
    for a, b in zip(*sets, strict=True):
        a, b = a - b[:1], b - b[:1]  # of equal paths 0 to the last bit
        gap = (a.mean(0) - b.mean(0)).square().sum()
        terms.append(_over(gap, b.var(0, correction=0).sum()))
    return torch.stack(terms).sum().sqrt()


PATH_METRICS: dict[str, PathMetric] = {
    "marginal W1": marginal_w1,
    "mean path": mean_error,
    "two-time covariance": covariance_error,
    "mean squared displacement": displacement_error,
    "velocity autocorrelation": autocorrelation_error,
    "power spectrum": spectrum_error,
    "arc length W1": arc_length_w1,
    "turning W1": turning_w1,
    "path MMD": path_mmd,
    "signature MMD": signature_mmd,
}
"""The metrics that need to know nothing about the family, by name."""


def as_paths(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Two sets of paths (n, L, C) and (m, L, C), of one dtype.

    Raises:
        ValueError: for other shapes, fewer than four times, NaN or infinity.
    """
    x, y = as_floats(x), as_floats(y, "y")
    if x.ndim != 3 or y.ndim != 3 or x.shape[1:] != y.shape[1:] or x.shape[1] < 4:
        raise ValueError(
            f"expected paths (n, L, C) and (m, L, C) with L >= 4, got {tuple(x.shape)} and "
            f"{tuple(y.shape)}: signals (n, L) need a last axis, x[..., None]"
        )
    event = x.shape[1:]
    x, y = as_pair(x, y)
    return x.unflatten(1, event), y.unflatten(1, event)


def _kernel_mean(a: Tensor, b: Tensor) -> Tensor:
    """Mean of exp(-|a_i - b_j|^2/2) over all pairs; the products lose no digit that is seen."""
    squares = a.square().sum(1)[:, None] + b.square().sum(1) - 2 * a @ b.mT
    return (-0.5 * squares.clamp(min=0)).exp().mean()


def _with_time(x: Tensor) -> Tensor:
    """(n, L, C) -> (n, L + 1, C + 1): time 0 to 1 as first coordinate, and a start at 0."""
    time = torch.linspace(0, 1, x.shape[1], dtype=x.dtype, device=x.device)
    path = torch.cat((time.expand(len(x), -1)[..., None], x), 2)
    return torch.cat((torch.zeros_like(path[:, :1]), path), 1)


def _over(error: Tensor, scale: Tensor) -> Tensor:
    """error/scale; no error is none in any unit."""
    return torch.where(error > 0, error / scale, error)


def _rms(x: Tensor) -> Tensor:
    return x.square().mean().sqrt()

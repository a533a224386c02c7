r"""What a set of paths x (n, L, C), equally spaced in time, is described by.

Curves against a lag k or a frequency are averages over paths and over the times that share the
lag. They follow from one matrix G[s, t] = mean over paths of x(s) . x(t):

    MSD(k)  = mean_t (G[t, t] + G[t + k, t + k] - 2 G[t, t + k])
    VACF(k) = mean_t G'[t, t + k],        G' of the increments.
"""

import torch
from torch import Tensor

from .pairs import as_floats, as_path_set

__all__ = [
    "arc_length",
    "mean_squared_displacement",
    "power_spectrum",
    "spread",
    "turning",
    "two_time_covariance",
    "velocity_autocorrelation",
]


def two_time_covariance(x: Tensor) -> Tensor:
    """Cov[x_a(s), x_b(t)] as a matrix, (n, L, C) -> (L C, L C), rows in the order of x[0]."""
    x = as_path_set(x)
    from_first = x - x[:1]  # equal paths are 0 to the last bit, and so is their covariance
    centred = (from_first - from_first.mean(0)).flatten(1)
    return centred.mT @ centred / len(x)


def mean_squared_displacement(x: Tensor) -> Tensor:
    """<|x(t + k) - x(t)|^2> over paths and times t, at lags k = 0 .. L - 1: (n, L, C) -> (L,).

    >>> mean_squared_displacement(torch.tensor([[[0.0], [1.0], [3.0]]]))
    tensor([0.0000, 2.5000, 9.0000])
    """
    x = as_path_set(x)
    gram = _gram(x - x[:, :1])  # a shift of each path drops out; without it fewer digits
    own = gram.diagonal()
    return _by_lag(own[:, None] + own - 2 * gram).clamp(min=0)


def velocity_autocorrelation(x: Tensor) -> Tensor:
    """<u(t) . u(t + k)> of the increments u between neighbours: (n, L, C) -> (L - 1,).

    Divide by step^2 for velocities, by the first entry for a correlation.
    """
    return _by_lag(_gram(as_path_set(x).diff(dim=1)))


def power_spectrum(x: Tensor) -> Tensor:
    """Mean power sum_c |FFT(w (x - mean))|^2/sum w^2 with Hann's window w, (n, L, C) -> (L//2,).

    The mean of each path is taken out, and with it the frequency 0; entry k is k + 1 periods in
    L steps.
    """
    x = as_path_set(x)
    x = x - x[:, :1]  # a path at rest has no power at all
    window = torch.hann_window(x.shape[1], periodic=False, dtype=x.dtype, device=x.device)
    waves = torch.fft.rfft(window[:, None] * (x - x.mean(1, keepdim=True)), dim=1)[:, 1:]
    power: Tensor = waves.abs().square().sum(2).mean(0)
    return power / window.square().sum()


def arc_length(x: Tensor) -> Tensor:
    """Length of each path as a chain of straight pieces, (n, L, C) -> (n,), in the units of x."""
    lengths: Tensor = as_path_set(x).diff(dim=1).norm(dim=2)
    return lengths.sum(1)


def turning(x: Tensor) -> Tensor:
    """Total absolute curvature of each path: its turning angles in [0, pi] summed, in radians.

    int |kappa| ds of a smooth curve; 2 pi for a closed convex one. A resting step turns by
    nothing. (n, L, C) -> (n,).

    >>> turning(torch.tensor([[[0.0, 0.0], [1.0, 0.0], [1.0, 2.0]]]))  # a right angle
    tensor([1.5708])

    References:
        Milnor 1950, "On the total curvature of knots".
    """
    x = as_path_set(x)
    heading = torch.nn.functional.normalize(x.diff(dim=1), dim=2, eps=torch.finfo(x.dtype).tiny)
    before, after = heading[:, :-1], heading[:, 1:]
    # Kahan's form: exact for small angles, where arccos would lose half of the digits
    angle = 2 * torch.atan2((after - before).norm(dim=2), (after + before).norm(dim=2))
    moves = (before.square().sum(2) > 0) & (after.square().sum(2) > 0)
    return torch.where(moves, angle, 0.0).sum(1)


def spread(values: Tensor) -> Tensor:
    """Relative spread along each path, std/|mean|, of what should be conserved: (n, M) -> (n,).

    0 where it is constant, be it at 0; infinite where the mean alone is 0.
    """
    values = as_floats(values)
    std = values.std(1, correction=0)
    return torch.where(std > 0, std / values.mean(1).abs(), std)


def _gram(x: Tensor) -> Tensor:
    """Mean over paths of x(s) . x(t), (L, L)."""
    rows = x.transpose(0, 1).flatten(1)  # (L, n C)
    return rows @ rows.mT / len(x)


def _by_lag(matrix: Tensor) -> Tensor:
    """Means over the diagonals on and above the main one, (L, L) -> (L,)."""
    return torch.stack([matrix.diagonal(k).mean() for k in range(len(matrix))])

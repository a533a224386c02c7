"""Which modes of a mixture a sample visits, and how often."""

import torch
from torch import Tensor

from ..distributions import GaussianMixture
from .pairs import as_floats, as_points

__all__ = ["mode_coverage", "mode_weights"]


def mode_weights(
    x: Tensor, mixture: GaussianMixture, t: Tensor | None = None, hard: bool = False
) -> Tensor:
    """The share of a sample that belongs to each mode: to be compared with ``mixture.weights``.

    By default the mean class probability p(k | x), whose expectation under the mixture is w_k
    exactly, with a standard error below sqrt(w_k (1 - w_k)/n). A point far from all modes counts
    for the one it prefers; ``mode_coverage`` asks whether it is near.

    Args:
        x: sample (n, *).
        mixture: the truth.
        t: time of the law that x should follow; of the data where none is given.
        hard: count each point for its most probable mode.

    Returns:
        (K,), sums to one.
    """
    x = as_floats(x)
    as_points(x)
    posterior = mixture.posterior(x, t)
    if hard:
        posterior = torch.nn.functional.one_hot(posterior.argmax(1), posterior.shape[1]).to(x)
    return posterior.mean(0)


def mode_coverage(
    x: Tensor, mixture: GaussianMixture, radius: float = 3.0, at_least: int = 1
) -> Tensor:
    """The fraction of modes of the data that hold samples within ``radius`` standard deviations.

    The distance is Mahalanobis', (x - m_k)' C_k^{-1} (x - m_k) <= radius^2, so a narrow mode is as
    hard to hit as it looks. In d = 2 a Gaussian has 98.9 % of its mass within 3.

    Args:
        x: sample (n, *).
        mixture: the truth, its covariances regular.
        radius: in standard deviations.
        at_least: how many samples a mode needs to count as covered.

    Returns:
        A number in [0, 1], ().
    """
    points = as_points(x)
    means, basis = mixture.means.flatten(1).to(points), mixture.basis.to(points)
    if points.shape[1] != means.shape[1]:
        raise ValueError(
            f"expected samples of dimension {means.shape[1]}, got {points.shape[1]}: "
            "compare with the mixture of the same space"
        )
    y = torch.einsum("nkd,kde->nke", points[:, None] - means, basis)
    near = (y.square() / mixture.spectrum.to(points)).sum(2) <= radius**2
    return (near.sum(0) >= at_least).to(points.dtype).mean()

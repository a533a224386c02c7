r"""Memorisation: whether a model reproduces its training points.

The least loss on n points is reached by their own denoiser (``distributions.Empirical``), and all
its reverse processes end on one of them: a model that samples anything new owes it to the error it
makes here. Whether a trained one does is seen in the distances from its samples to the nearest and
second nearest training point: for points of a density in d dimensions (d1/d2)^d is uniform on
[0, 1], for copies it is near 0.

References:
    Gu, Du, Pang, Li, Lin and Wang 2023 (arXiv:2310.02664); Biroli et al. 2024
    (arXiv:2402.18491).
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..distributions.empirical import distances
from ..estimate import Estimate

__all__ = ["Memorisation", "memorisation"]

CHUNK = 2**24  # distances at a time


class Memorisation(NamedTuple):
    """How near samples lie to the training points.

    Attributes:
        nearest: index of the nearest training point, (B,).
        distance: distance to that point, in the units of the data, (B,).
        ratio: d1/d2, the ratio of the distances to the nearest and the second nearest, (B,).
        share: share of samples with d1 below ``threshold`` d2, with its standard error, ().
        expected: that share for new points of a density in d dimensions, threshold^d.
    """

    nearest: Tensor
    distance: Tensor
    ratio: Tensor
    share: Estimate
    expected: float


def memorisation(samples: Tensor, train: Tensor, threshold: float = 1 / 3) -> Memorisation:
    r"""Tell by the ratio of two distances whether samples are copies of training points.

    A sample counts as a copy where d1 < threshold d2. For new points of a smooth density, and many
    training points, P(d1 < r d2) = r^d with d the dimension of the data (that of the space here):
    compare the share with ``expected``, in low dimension far from 0, or, where the data fill fewer
    dimensions or are few, with the share of held-out data.

    Args:
        samples: samples of the model, (B, *).
        train: training points (n, *), n >= 2, without duplicates.
        threshold: the ratio below which a sample is a copy; 1/3 is usual.

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
    found = [distances(x, points).topk(2, largest=False) for x in samples.flatten(1).split(rows)]
    near, index = torch.cat([f.values for f in found]), torch.cat([f.indices for f in found])
    ratio = near[:, 0] / near[:, 1]
    copies = (ratio < threshold).to(ratio)
    share = Estimate(copies.mean(), copies.std() / math.sqrt(len(copies)))
    return Memorisation(index[:, 0], near[:, 0], ratio, share, threshold ** points.shape[1])

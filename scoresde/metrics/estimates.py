"""Exact samples of a law, and the noise floor of any metric."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ..denoiser import anchor
from ..distributions import Distribution
from ..estimate import Estimate

__all__ = ["Floor", "floor"]


class Floor(NamedTuple):
    """Mean and standard deviation of a metric between exact samples of one law."""

    mean: Tensor
    sd: Tensor


def floor(
    metric: Callable[[Tensor, Tensor], Tensor | Estimate],
    law: Distribution,
    n: int,
    m: int | None = None,
    t: Tensor | None = None,
    repeats: int = 10,
    seed: int = 0,
) -> Floor:
    """The noise floor of a metric: its value between two independent exact samples of one law.

    No sampler can be told from the truth below about mean + 2 sd. Give the sizes with which the
    metric is used, and its options through a lambda; where it compares a sample with the law,
    leave its second argument unused: ``floor(lambda x, _: nll_gap(x, law), law, n)``.

    Args:
        metric: function of two samples; a value of any shape, or an ``Estimate``.
        law: the exact law.
        n: size of the first sample.
        m: size of the second one, n by default.
        t: time of the law; of the data where none is given.
        repeats: number of independent pairs, at least 2.
        seed: of the samples.

    Returns:
        Mean and standard deviation over the repeats, in the units of the metric.
    """
    if repeats < 2:
        raise ValueError(f"expected repeats >= 2 for a standard deviation, got {repeats}")
    generator = seeded(law, seed)
    values = []
    for _ in range(repeats):
        x, y = (law.sample(size, t, generator) for size in (n, n if m is None else m))
        value = metric(x, y)
        values.append(value.value if isinstance(value, Estimate) else value)
    stack = torch.stack(values)
    return Floor(stack.mean(0), stack.std(0))


def seeded(law: Distribution, seed: int) -> torch.Generator:
    """A generator on the device where the law draws its samples."""
    return torch.Generator(anchor(law).device).manual_seed(seed)

r"""Critical times: when the reverse process chooses a class, and when a training point.

From noise to data a state passes two transitions (Biroli et al. 2024). Before the *speciation*
time its class is open, after it the class is settled; "time" depends on a criterion, and the three
in use differ by O(1) in B = -2 log alpha. With J the Jacobian of the score at the centre,

    "covariance"   alpha^2 Lambda = 1, Lambda the largest eigenvalue of the data's covariance
    "density"      largest eigenvalue of J = 0: p_t turns from one peak to several
    "drift"        largest eigenvalue of J = f/g^2: the reverse drift g^2 s - f x loses stability

(for two modes +-m of variance v at time t, J = alpha^2 m^2/v^2 - 1/v). At the *collapse* time the
exact score of n points starts to lead to one of them: I(x0; x_t) = log n.

References:
    Biroli, Bonnaire, de Bortoli and Mezard 2024 (arXiv:2402.18491); Raya and Ambrogioni 2023
    (arXiv:2305.19693).
"""

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from ..autodiff import differentiating
from ..denoiser import Denoiser, anchor
from ..distributions import Distribution, Empirical, GaussianMixture
from ..estimate import Estimate
from ..sde import VariancePreserving
from .averages import SAMPLES, average
from .information import mutual_information

__all__ = ["Criterion", "clone_probability", "collapse_time", "speciation_time"]

Criterion = Literal["covariance", "density", "drift"]
"""The definitions of a speciation time."""


def speciation_time(
    denoiser: Denoiser, criterion: Criterion = "covariance", x0: Tensor | None = None
) -> Tensor:
    """The time, (), at which the reverse process starts to choose a class; coming from noise.

    "density" and "drift" ask the score around alpha times the mean of the data, and find the first
    instability there on the way from noise. The ODE's map is monotone on the line and has no such
    instability: only its density has.

    Args:
        denoiser: a mixture; or another distribution, or a network, with x0.
        criterion: "covariance", "density" or "drift".
        x0: data (n, *) in the model's units, for their mean and covariance.

    Raises:
        ValueError: if there is no such time (one class, or all data within the noise).

    References:
        Biroli et al. 2024 ("covariance": e^{-2 tau} Lambda = 1, with B = 2 tau).
    """
    mean, cov = _moments(denoiser, x0)
    if criterion == "covariance":
        return _covariance_time(denoiser, cov)
    if criterion not in ("density", "drift"):
        raise ValueError(
            f'expected criterion "covariance", "density" or "drift", got {criterion!r}'
        )

    def instability(t: Tensor) -> float:
        f, g2 = denoiser.sde.rates(t)
        level = f / g2 if criterion == "drift" else torch.zeros_like(f)
        return _stiffest(denoiser, mean, t) - float(level)

    return _first_from_noise(denoiser, instability)


def clone_probability(
    law: Distribution,
    t: Tensor,
    classes: Tensor | None = None,
    n: int = SAMPLES,
    generator: torch.Generator | None = None,
) -> Estimate:
    r"""Probability that two reverse paths from the same x_t end in the same class, as t.

        phi(t) = E sum_c p(c | x_t)^2,

    from sum_c p(c)^2 in noise to 1 at the data. By Bayes' rule it is also the mean responsibility
    E p(c | x_t) of the class that x_t came from; of ``Empirical``, whose classes are its
    points, that of the own training point.

    Args:
        law: a ``GaussianMixture`` or ``Empirical``.
        t: times above 0 for point masses, of any shape.
        classes: the class of each component, integers (K,); if not given each is its own class.
        n: number of samples where there is no quadrature.
        generator: random generator of the samples.

    References:
        Biroli et al. 2024 (two clones).
    """
    if not isinstance(law, GaussianMixture | Empirical):
        raise TypeError(
            f"expected a distribution with classes, got {type(law).__name__}: pass a "
            "GaussianMixture, or Empirical(points, sde)"
        )

    def same(x: Tensor, t: Tensor) -> Tensor:
        r = law.posterior(x, t)
        if classes is not None:
            r = r.new_zeros(len(r), int(classes.max()) + 1).index_add(1, classes.to(r.device), r)
        return r.square().sum(1)

    return average(law, t, same, None, n, generator)


def collapse_time(law: Distribution, n: int, samples: int = SAMPLES, seed: int = 0) -> Tensor:
    r"""The time, (), below which the exact score of n training points leads to one of them.

        I(x0; x_t) = log n:   x_t tells as much of x0 as it takes to name one of n points.

    For one Gaussian with variances c_i it is 1/2 sum_i log(1 + c_i snr) = log n: early, that is
    near the data, only if n grows exponentially with the dimension.

    Args:
        law: the distribution of the data; if it is not known, a ``GaussianMixture`` with the mean
            and covariance of the points (a Gaussian has the most information for its covariance,
            so the time that results is an upper bound).
        n: number of training points.
        samples: number of samples for a distribution without quadrature.
        seed: random seed of these samples, the same at all times.

    References:
        Biroli et al. 2024 (collapse as the condensation of a random-energy model).
    """
    if n < 2:
        raise ValueError(f"expected n >= 2 points, got {n}: one point is memorised at all times")

    def excess(t: Tensor) -> float:
        device = anchor(law).device
        generator = torch.Generator(device).manual_seed(seed)
        return float(mutual_information(law, t, samples, generator).value) - math.log(n)

    low, high = (torch.tensor(t, dtype=torch.float64) for t in (1e-9, law.sde.t_max))
    if not excess(low) > 0 > excess(high):
        raise ValueError(
            f"expected I(x0; x_t) to cross log {n} between t = 1e-9 and {law.sde.t_max:.6g}: the "
            "data have fewer than n separate points, or the process ends before it forgets them"
        )
    return _bisect(excess, low, high)


def _covariance_time(denoiser: Denoiser, cov: Tensor) -> Tensor:
    """alpha^2 = 1/Lambda, so that log_snr = -log(Lambda - 1)."""
    if not isinstance(denoiser.sde, VariancePreserving):
        raise TypeError(
            f"expected a variance-preserving process, got {type(denoiser.sde).__name__}: "
            'alpha^2 Lambda = 1 compares with the noise N(0, I); use "density"'
        )
    largest = torch.linalg.eigvalsh(cov)[-1]
    if not largest > 1:
        raise ValueError(
            f"expected a direction of variance above 1, got {float(largest):.4g}: such data never "
            'stand out of N(0, I) in this sense; scale them, or use "density"'
        )
    return denoiser.sde.time_of_log_snr(-(largest - 1).log())


def _moments(denoiser: Denoiser, x0: Tensor | None) -> tuple[Tensor, Tensor]:
    """Mean (*event) and covariance (d, d) of the data."""
    if x0 is not None:
        return x0.mean(0), torch.atleast_2d(x0.flatten(1).T.cov(correction=0))
    if not isinstance(denoiser, GaussianMixture):
        raise TypeError(
            f"expected data x0 beside a {type(denoiser).__name__}, got none: their mean is the "
            "centre and their covariance the scale; pass x0 (n, *) in the model's units"
        )
    mean, cov = denoiser.marginal()
    return mean.reshape(denoiser.event), cov


def _stiffest(denoiser: Denoiser, mean: Tensor, t: Tensor) -> float:
    """The largest eigenvalue of the symmetric part of the score's Jacobian at alpha mean."""
    at = t.to(mean)
    centre = denoiser.sde.alpha(at) * mean
    flat = lambda x: denoiser.score(x.reshape(1, *mean.shape), at).flatten()
    with differentiating():
        jacobian = torch.func.jacrev(flat)(centre.flatten())
    return float(torch.linalg.eigvalsh(0.5 * (jacobian + jacobian.mT))[-1])


def _first_from_noise(denoiser: Denoiser, function: Callable[[Tensor], float]) -> Tensor:
    """The largest root below t_max of a function that is negative in noise."""
    ends = torch.tensor([denoiser.sde.t_max, 1e-4], dtype=torch.float64)
    first, last = denoiser.sde.log_snr(ends).tolist()
    grid = denoiser.sde.time_of_log_snr(torch.linspace(first, last, 120, dtype=torch.float64))
    later = ends[0]
    if function(later) > 0:
        raise ValueError("expected a stable centre in pure noise: the process ends too early")
    for t in grid[1:]:
        if function(t) > 0:
            return _bisect(function, t, later)
        later = t
    raise ValueError(
        "expected an instability of the centre, found none between noise and data: a single "
        "class, or a mean that lies inside one of them"
    )


def _bisect(function: Callable[[Tensor], float], low: Tensor, high: Tensor) -> Tensor:
    """The root of a function that is positive at low and negative at high."""
    for _ in range(46):  # to 2^-46, about 1e-14, of the interval
        middle = 0.5 * (low + high)
        low, high = (middle, high) if function(middle) > 0 else (low, middle)
    return 0.5 * (low + high)

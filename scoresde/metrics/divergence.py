r"""Kullback-Leibler divergence  KL(P || Q) = E_P log(p/q), in nats: from samples, or exactly.

The first argument is always the law (or sample) under which the mean is taken. With samples x
of a generator and an exact law Q, ``KL(x || Q)`` punishes what the generator invents; what it
forgets is seen by ``KL(Q || x)``.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.polynomial.legendre import leggauss
from torch import Tensor

from ..distributions import Distribution
from ..estimate import Estimate
from .estimates import seeded
from .pairs import as_floats, as_pair, as_points

__all__ = ["kl_exact", "kl_histogram", "kl_knn", "kl_quadrature", "nll_gap"]

LogProb = Callable[[Tensor], Tensor]


def kl_histogram(
    x: Tensor, other: Tensor | LogProb, bins: int = 32, limits: Sequence[float] | None = None
) -> Tensor:
    r"""KL(P || Q) of cell probabilities on a regular grid, for d <= 2.

        KL = sum_cells p_c [L(p_c) - L(q_c)],   L(p) = -sum_{k=1}^N (1 - p)^k/k ~ log p + r(N p),

    r(u) = int_u^inf e^{-v} dv/v, N = min(n - 1, m): of the logarithm, what N points can tell. Of
    this sum the estimate is free of bias: (1 - p)^k is the chance that k points all miss a cell,
    and its mean over draws of k from those that are there is a function of the count alone. So
    between samples of one law it is 0 on average, for any number of cells, and sometimes negative;
    where cells hold several points each, it is the KL of the cells; and cells that N points of Q
    hardly reach (N q_c < 1) count for less than they should. What happens inside of a cell is
    hidden, so the KL of the cells never exceeds that of the laws.

    ``other`` is a sample of Q, or its log density, integrated over each cell by 4 Gauss-Legendre
    nodes per axis (then N = n - 1). All that lies outside the grid is one more cell.

    Args:
        x: sample of P, (n, *) with n >= 2 and d <= 2.
        other: sample of Q (m, *), or a function (k, d) -> (k,), the log density of Q in nats.
        bins: cells per axis.
        limits: (low, high) of the grid on every axis; by default the range of the samples.

    Returns:
        The divergence in nats, ().

    References:
        Zhang and Grabchak 2014, "Nonparametric estimation of Kullback-Leibler divergence" (the
        estimate for N = n - 1 = m); Cover and Thomas 2006, theorem 2.8.1 (grouping).
    """
    if callable(other):
        x, y = as_points(x), None
    else:
        x, y = as_pair(x, other)
    d = x.shape[1]
    if d > 2:
        raise ValueError(f"expected d <= 2 for a grid, got {d}: use kl_knn")
    if limits is None:
        both = x if y is None else torch.cat((x, y))
        low, high = both.amin(0), both.amax(0)
    else:
        low, high = (x.new_full((d,), float(end)) for end in limits)
    if not bool((high > low).all()):
        raise ValueError(f"expected limits low < high, got {low.tolist()} and {high.tolist()}")
    n, counts = len(x), _cell_counts(x, low, high, bins)
    if n < 2:
        raise ValueError(f"expected n >= 2 points of P, got {n}: draw more")
    points = n - 1 if y is None else min(n - 1, len(y))
    if y is None:
        log_q = _log_of_mass(_cell_masses(other, low, high, bins), points)  # type: ignore[arg-type]
    else:
        log_q = _log_of_count(_cell_counts(y, low, high, bins), len(y), points)
    log_p = _log_of_count((counts - 1).clamp(min=0), n - 1, points)  # of the others
    return (counts.double() / n @ (log_p - log_q)).to(x)


def kl_knn(x: Tensor, y: Tensor, k: int = 5) -> Tensor:
    r"""KL(P || Q) from samples by distances to the k-th nearest neighbours, any dimension.

        KL = (d/n) sum_i log(nu_k(x_i)/rho_k(x_i)) + log(m/(n - 1)),

    rho_k the distance from x_i to its k-th neighbour among the other x, nu_k among the y.
    Consistent; its error falls slowly where d is large. More neighbours: less variance, more
    bias. Where Q is too thin for m points to show it (q < 1/m) the value falls short: for
    KL(N(0, 1) || N(0, 1/4)) = 0.81 it gives 0.60 with n = m = 8000, and so does any estimate
    from samples.

    Args:
        x: sample of P, (n, *), n > k.
        y: sample of Q, (m, *), m >= k.
        k: which neighbour.

    Returns:
        The divergence in nats, (); may be slightly negative.

    References:
        Wang, Kulkarni and Verdu 2009, "Divergence estimation for multidimensional densities via
        k-nearest-neighbor distances", eq. 5.
    """
    from scipy.spatial import cKDTree

    x, y = as_pair(x, y)
    n, m, d = len(x), len(y), x.shape[1]
    if not 1 <= k < n or k > m:
        raise ValueError(f"expected 1 <= k < n and k <= m, got k = {k}, n = {n}, m = {m}")
    a, b = x.double().cpu().numpy(), y.double().cpu().numpy()
    rho = torch.from_numpy(cKDTree(a).query(a, k=[k + 1])[0])
    nu = torch.from_numpy(cKDTree(b).query(a, k=[k])[0])
    if not bool((rho > 0).all() and (nu > 0).all()):
        raise ValueError(
            f"expected points without repetition, got one with {k} copies: "
            "raise k, or drop the copies (a generator that copies its data has no density)"
        )
    return x.new_tensor(d * float((nu / rho).log().mean()) + math.log(m / (n - 1)))


def kl_exact(
    p: Distribution, q: Distribution, t: Tensor | None = None, n: int = 2**16, seed: int = 0
) -> Estimate:
    """KL(p_t || q_t) in nats between known laws, any dimension, with its standard error.

    The mean of log p - log q over n exact samples of p. The standard error is about
    sqrt(2 KL/n) for close laws: for a KL below 1e-3 in one or two dimensions ``kl_quadrature``
    is exact where this is noise.

    Args:
        p: law under which the mean is taken.
        q: the other law.
        t: time of both laws; of the data where none is given.
        n: number of samples.
        seed: of the samples.
    """
    x = p.sample(n, t, seeded(p, seed))
    return _mean(p.log_prob(x, t) - q.log_prob(x, t))


def kl_quadrature(
    log_p: LogProb, log_q: LogProb, limits: Sequence[float], d: int = 1, points: int = 512
) -> Tensor:
    """KL(P || Q) in nats between known densities in one or two dimensions, without noise.

    The trapezoid rule on a regular grid, which for a smooth density that vanishes at the limits
    converges faster than any power. For Gaussians of standard deviation s the relative error is of
    the order of e^{-2 (pi s/h)^2} at a spacing h: 5e-9 at h = s, rounding at s/2. Where log p
    turns from one mode of a mixture to the next take s/8. For densities with edges (boxes at
    t = 0) it is of first order only.

    Args:
        log_p: log density of P in nats, (k, d) -> (k,); -inf where it vanishes.
        log_q: log density of Q in nats.
        limits: (low, high) of every axis, in the units of the data.
        d: dimension, 1 or 2.
        points: grid points per axis.
    """
    if d not in (1, 2):
        raise ValueError(f"expected d = 1 or 2, got {d}: use kl_exact")
    low, high = limits
    axis = torch.linspace(low, high, points, dtype=torch.float64)
    grid = torch.cartesian_prod(*[axis] * d).reshape(-1, d)
    lp, lq = log_p(grid), log_q(grid)
    density = lp.exp()
    terms = torch.where(density > 0, density * (lp - lq), 0.0)
    return terms.sum() * ((high - low) / (points - 1)) ** d


def nll_gap(
    x: Tensor,
    law: Distribution,
    t: Tensor | None = None,
    entropy: float | None = None,
    n: int = 2**16,
    seed: int = 0,
) -> Estimate:
    """Mean negative log-likelihood of a sample under the exact law, minus the law's entropy.

        gap = -mean log p(x) - H(p) = KL(P_x || p) + H(P_x) - H(p)

    Zero for exact samples, negative where the sample is over-concentrated (which no distance
    between samples shows as such), positive where it strays. Infinite where a point lies outside
    the support.

    Args:
        x: sample (n, *), or whatever shape ``law.log_prob`` takes.
        law: the exact law.
        t: time of the law that x should follow; of the data where none is given.
        entropy: H(p_t) in nats where it is known; otherwise the mean over n exact samples, whose
            error enters the standard error.
        n: number of samples for the entropy.
        seed: of these samples.

    Returns:
        The gap in nats and its standard error.
    """
    x = as_floats(x)
    as_points(x)
    gap = _mean(-law.log_prob(x, t))
    if entropy is not None:
        return Estimate(gap.value - entropy, gap.stderr)
    own = _mean(-law.log_prob(law.sample(n, t, seeded(law, seed)), t))
    return Estimate(gap.value - own.value, (gap.stderr**2 + own.stderr**2).sqrt())


def _mean(values: Tensor) -> Estimate:
    return Estimate(values.mean(), values.std() / math.sqrt(len(values)))


def _cell_counts(x: Tensor, low: Tensor, high: Tensor, bins: int) -> Tensor:
    """Points in each of the bins^d cells, the last those outside of the grid; on the CPU."""
    cell = ((x - low) / (high - low) * bins).floor().long()
    cell = torch.where(x == high, bins - 1, cell)  # the upper edge belongs to the last cell
    inside = ((cell >= 0) & (cell < bins)).all(1)
    strides = torch.tensor([bins**i for i in reversed(range(x.shape[1]))], device=x.device)
    index = torch.where(inside, (cell * strides).sum(1), bins ** x.shape[1])
    return torch.bincount(index, minlength=bins ** x.shape[1] + 1).cpu()


def _log_of_count(counts: Tensor, n: int, points: int) -> Tensor:
    """L of cells that hold these of n points: the mean over draws of ``points`` among them.

    The j-th point adds 1/j unless a draw has none of the first j: with all drawn, a harmonic sum.
    """
    j = torch.arange(1, n + 1, dtype=torch.float64)
    none = (1 - points / (n + 1 - j)).clamp(min=0).cumprod(0)
    sums = torch.cat((j.new_zeros(1), ((1 - none) / j).cumsum(0)))
    return (sums - j[:points].reciprocal().sum())[counts]


def _log_of_mass(mass: Tensor, points: int) -> Tensor:
    """L of cells of known probability: log q + r, by a midpoint rule to 1/(24 points^2)."""
    from scipy.special import exp1

    q = mass.cpu().double()
    rest = exp1(((points + 0.5) * -torch.log1p(-q)).numpy())
    return q.log() + torch.from_numpy(rest)


def _cell_masses(log_q: LogProb, low: Tensor, high: Tensor, bins: int) -> Tensor:
    """Probability of each cell and of the outside, by 4 Gauss-Legendre nodes per axis."""
    d = len(low)
    nodes, weights = torch.as_tensor(np.stack(leggauss(4))).to(low).unbind()
    cells = torch.arange(bins, device=low.device).to(low)
    unit = (cells[:, None] + 0.5 * (1 + nodes)).reshape(-1) / bins  # (4 bins,) in [0, 1]
    axes = [a + (b - a) * unit for a, b in zip(low, high, strict=True)]
    density = log_q(torch.cartesian_prod(*axes).reshape(-1, d)).exp().reshape([bins, 4] * d)
    rule, factors = ("ai,i->a", [weights]) if d == 1 else ("aibj,i,j->ab", [weights, weights])
    inside = torch.einsum(rule, density, *factors).reshape(-1) * (0.5 * (high - low) / bins).prod()
    return torch.cat((inside, (1 - inside.sum()).clamp(min=torch.finfo(low.dtype).tiny)[None]))

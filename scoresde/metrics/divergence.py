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

from ..estimate import Estimate
from ..mixture import Law
from .estimates import seeded
from .pairs import as_pair, as_points

__all__ = ["kl_exact", "kl_histogram", "kl_knn", "kl_quadrature", "nll_gap"]

LogProb = Callable[[Tensor], Tensor]


def kl_histogram(
    x: Tensor, other: Tensor | LogProb, bins: int = 32, limits: Sequence[float] | None = None
) -> Tensor:
    r"""KL(P || Q) of cell probabilities on a regular grid, for d <= 2.

        KL = sum_cells p_c log(p_c/q_c),        p_c = n_c/n.

    ``other`` is a sample of Q, whose counts get 1/2 added to each cell so that no q_c vanishes,
    or the log density of Q, integrated over each cell (4 Gauss-Legendre nodes per axis). All that
    lies outside the grid is one more cell. The cells hide what happens inside them (the value
    never exceeds the true KL but for noise), and n points add about (occupied cells)/(2n) nats.

    Args:
        x: sample of P, (n, *) with d <= 2.
        other: sample of Q (m, *), or a function (k, d) -> (k,), the log density of Q in nats.
        bins: cells per axis.
        limits: (low, high) of the grid on every axis; by default the range of the samples.

    Returns:
        The divergence in nats, ().

    References:
        Cover and Thomas 2006, theorem 2.8.1 (grouping); Paninski 2003, bias of plug-in estimates.
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
    p = _cell_counts(x, low, high, bins) / len(x)
    if y is None:
        q = _cell_masses(other, low, high, bins)  # type: ignore[arg-type]
    else:
        q = _cell_counts(y, low, high, bins) + 0.5
    return (torch.xlogy(p, p) - torch.xlogy(p, q / q.sum())).sum()


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


def kl_exact(p: Law, q: Law, t: Tensor | None = None, n: int = 2**16, seed: int = 0) -> Estimate:
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
    converges faster than any power: to rounding once the spacing is below the smallest standard
    deviation. For densities with edges (boxes at t = 0) it is of first order only.

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
    law: Law,
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
    as_points(x)
    gap = _mean(-law.log_prob(x, t))
    if entropy is not None:
        return Estimate(gap.value - entropy, gap.stderr)
    own = _mean(-law.log_prob(law.sample(n, t, seeded(law, seed)), t))
    return Estimate(gap.value - own.value, (gap.stderr**2 + own.stderr**2).sqrt())


def _mean(values: Tensor) -> Estimate:
    return Estimate(values.mean(), values.std() / math.sqrt(len(values)))


def _cell_counts(x: Tensor, low: Tensor, high: Tensor, bins: int) -> Tensor:
    """Points in each of the bins^d cells, and outside of the grid (the last number)."""
    cell = ((x - low) / (high - low) * bins).floor().long()
    cell = torch.where(x == high, bins - 1, cell)  # the upper edge belongs to the last cell
    inside = ((cell >= 0) & (cell < bins)).all(1)
    strides = torch.tensor([bins**i for i in reversed(range(x.shape[1]))], device=x.device)
    index = torch.where(inside, (cell * strides).sum(1), bins ** x.shape[1])
    return torch.bincount(index, minlength=bins ** x.shape[1] + 1).to(x.dtype)


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

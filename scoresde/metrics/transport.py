r"""Wasserstein distances: the cost of carrying one law onto another.

    W_p(P, Q)^p = inf over couplings of E |X - Y|^p

in the units of the data. Between finite samples of the *same* law it is positive, of order
n^{-1/2} in one dimension and n^{-1/d} beyond: read every value beside its ``floor``.

References:
    Peyre and Cuturi 2019, "Computational Optimal Transport" (arXiv:1803.00567), sec. 2.
"""

from functools import reduce

import torch
from torch import Tensor

from .pairs import as_floats, as_pair, distances

__all__ = ["gaussian_w2", "sliced_wasserstein", "wasserstein"]


def wasserstein(x: Tensor, y: Tensor, p: int = 1) -> Tensor:
    """Exact W_p between two samples, all points weighing the same.

    In one dimension by sorting, beyond by the network simplex of POT on the CPU: time about n^3
    and memory n m numbers (n = 2000: 0.3 s), so thin larger samples or use the sliced distance.

    Args:
        x: sample (n, *).
        y: sample (m, *); m may differ from n.
        p: exponent, 1 or 2.

    Returns:
        W_p, (), in the units of the data.

    References:
        Bonneel et al. 2011 (the solver); Flamary et al. 2021, POT.
    """
    x, y = as_pair(x, y)
    _check_exponent(p)
    if x.shape[1] == 1:
        return sorted_cost(x.mT, y.mT, p)[0] ** (1 / p)
    import ot

    costs = distances(x.double().cpu(), y.double().cpu()) ** p
    cost = ot.emd2([], [], costs.numpy(), numItermax=10_000_000)
    return x.new_tensor(cost ** (1 / p))


def sliced_wasserstein(
    x: Tensor, y: Tensor, p: int = 2, projections: int = 128, seed: int = 0
) -> Tensor:
    r"""Sliced distance: W_p^p of one-dimensional projections, averaged over directions.

        SW_p^p = (1/L) sum_l W_p^p(<u_l, x>, <u_l, y>),        u_l uniform on the unit sphere.

    The directions depend on ``seed`` alone and are the same on every device, so values can be
    compared. They come in orthonormal sets of d, which makes p = 2 exact for translations where
    d divides L: |v|/sqrt(d). All is done on the device of x without a synchronisation, hence the
    values are not looked at: NaN in, NaN out.

    Args:
        x: sample (n, *).
        y: sample (m, *); m may differ from n.
        p: exponent, 1 or 2.
        projections: number L of directions.
        seed: of the directions.

    Returns:
        SW_p, (), in the units of the data.

    References:
        Bonneel et al. 2015, "Sliced and Radon Wasserstein barycenters"; Rowland et al. 2019
        (arXiv:1903.03784), orthogonal directions.
    """
    x, y = as_pair(x, y, finite=False)
    _check_exponent(p)
    if projections < 1:
        raise ValueError(f"expected at least one projection, got {projections}")
    u = directions(x.shape[1], projections, seed).to(x.dtype).to(x.device, non_blocking=True)
    return sorted_cost(u @ x.mT, u @ y.mT, p).mean() ** (1 / p)


def gaussian_w2(mean1: Tensor, cov1: Tensor, mean2: Tensor, cov2: Tensor) -> Tensor:
    r"""W_2 between two Gaussians, in closed form.

        W_2^2 = |m1 - m2|^2 + tr(C1 + C2 - 2 (C1^{1/2} C2 C1^{1/2})^{1/2})

    evaluated as |m1 - m2|^2 + min_U |C1^{1/2} - C2^{1/2} U|_F^2 over orthogonal U, which loses no
    digits where the two laws are close (the trace would stop at 1e-8).

    Args:
        mean1: (d,), and cov1: (d, d), symmetric and not negative; so the second law.
        cov1: covariance of the first law.
        mean2: mean of the second law.
        cov2: covariance of the second law.

    Returns:
        W_2 (not squared), (), in the units of the data.

    References:
        Dowson and Landau 1982; Bhatia, Jain and Lim 2019 (the orthogonal form), theorem 1.
    """
    names = ("mean1", "cov1", "mean2", "cov2")
    moments = [as_floats(m, n) for m, n in zip((mean1, cov1, mean2, cov2), names, strict=True)]
    dtype = reduce(torch.promote_types, (m.dtype for m in moments))
    mean1, cov1, mean2, cov2 = (m.to(dtype) for m in moments)
    root1, root2 = _root(cov1), _root(cov2)
    u, _, vh = torch.linalg.svd(root2 @ root1)
    spread: Tensor = (root1 - root2 @ (u @ vh)).square().sum()
    return ((mean1 - mean2).square().sum() + spread).sqrt()


def _check_exponent(p: int) -> None:
    if p not in (1, 2):
        raise ValueError(f"expected p = 1 or 2, got {p}")


def directions(d: int, count: int, seed: int) -> Tensor:
    """Unit vectors (count, d) in orthonormal sets; one is enough on a line."""
    count = 1 if d == 1 else count
    size = min(d, count)
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(-(-count // size), d, size, generator=generator, dtype=torch.float64)
    q: Tensor = torch.linalg.qr(normal).Q  # (sets, d, size), columns orthonormal
    return q.mT.reshape(-1, d)[:count]


def sorted_cost(x: Tensor, y: Tensor, p: int) -> Tensor:
    """W_p^p of each row: the integral of |F^{-1} - G^{-1}|^p over levels. (L, n) -> (L,)."""
    x, y = x.sort(-1).values, y.sort(-1).values
    n, m = x.shape[-1], y.shape[-1]
    if n == m:
        return (x - y).abs().pow(p).mean(-1)
    # levels in units of 1/(n m), as integers: between two cuts both quantile functions are flat
    steps = torch.arange(1, max(n, m) + 1, device=x.device)
    cuts = torch.cat((steps[:n] * m, steps[:m] * n)).sort().values
    start = torch.cat((cuts.new_zeros(1), cuts[:-1]))
    width = ((cuts - start) / (n * m)).to(x.dtype)
    # the last cut comes twice: its second interval is empty and starts past the last point
    i, j = (start // m).clamp(max=n - 1), (start // n).clamp(max=m - 1)
    return (x[:, i] - y[:, j]).abs().pow(p) @ width


def _root(cov: Tensor) -> Tensor:
    """Symmetric square root of a covariance."""
    values, vectors = torch.linalg.eigh(cov)
    root: Tensor = (vectors * values.clamp(min=0).sqrt()) @ vectors.mT
    return root

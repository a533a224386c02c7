r"""Integrals over one or two dimensions to about twelve digits, however narrow the integrand.

A cube is cut into cells, and each cell that is too coarse into halves along every axis, in two
stages: until ``coarse`` says of none that it could overlook something, and until each is smooth.
The rule of a cell is that of Gauss and Legendre with n points along each axis. For an integrand
that is analytic up to an ellipse of Bernstein of parameter rho about a cell, the Legendre
coefficients c_k fall as rho^-k and the error of the rule as rho^-2n, so that

    error ~ volume c_{n-1}^2/max_k c_k.

References:
    Trefethen 2013, "Approximation Theory and Approximation Practice", theorems 8.2 and 19.3.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

__all__ = ["Rule", "adaptive"]

POINTS = 12
TOLERANCE = 1e-13  # of a cell, relative to the whole integral
MOST = 10**5


class Rule(NamedTuple):
    """Nodes, their weights, and the values of the integrand for which they were chosen.

    Attributes:
        x: nodes, (M, d).
        weights: weights of the Lebesgue measure, (M,).
        values: values of the integrand, (M,).
    """

    x: Tensor
    weights: Tensor
    values: Tensor


def adaptive(
    function: Callable[[Tensor], Tensor],
    centre: Tensor,
    half: Tensor,
    coarse: Callable[[Tensor, Tensor], Tensor],
) -> Rule:
    """A rule for integrals of a function that does not change its sign, and of its likes.

    Args:
        function: the integrand, (M, d) -> (M,), analytic.
        centre: centre of the cube, (d,).
        half: half the side of the cube, ().
        coarse: centres (N, d) and half sides (N,) of cells -> (N,), where to cut before looking.
    """
    d, found, total = len(centre), [], centre.new_zeros(())
    nodes, weights, transform = _legendre(d, centre)
    centres, halves = _cut_while(coarse, centre[None], half.reshape(1))
    while len(centres):
        x = centres[:, None] + halves[:, None, None] * nodes  # (N, n^d, d)
        volume = halves**d
        values = function(x.flatten(0, 1)).reshape(len(x), -1)
        sums = volume * (values @ weights)
        rough = volume * _tail(values, transform, d) > TOLERANCE * (total + sums.sum())
        fine = ~rough
        total = total + sums[fine].sum()
        found.append((x[fine], volume[fine, None] * weights, values[fine]))
        centres, halves = _halves(centres[rough], halves[rough])
        if len(centres) > MOST:
            raise RuntimeError(f"more than {MOST} cells are too coarse: this is not smooth")
    x, w, values = (torch.cat(parts).flatten(0, 1) for parts in zip(*found, strict=True))
    return Rule(x, w, values)


def _legendre(d: int, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Nodes (n^d, d) and weights (n^d,) on [-1, 1]^d; values -> the last coefficients (2, n)."""
    x, w = np.polynomial.legendre.leggauss(POINTS)
    k = np.arange(POINTS)
    to_coefficients = (k[:, None] + 0.5) * np.polynomial.legendre.legvander(x, POINTS - 1).T * w
    axis, weight, transform = (torch.from_numpy(a).to(like) for a in (x, w, to_coefficients))
    grid = torch.cartesian_prod(*[axis] * d).reshape(-1, d)
    return grid, torch.cartesian_prod(*[weight] * d).reshape(-1, d).prod(1), transform


def _tail(values: Tensor, transform: Tensor, d: int) -> Tensor:
    """c_last^2/c_largest along the axis where it is largest, (N, n^d) -> (N,)."""
    cells = values.reshape(-1, *[POINTS] * d)
    sizes = []
    for axis in range(1, d + 1):
        c = torch.tensordot(transform, cells.movedim(axis, 0), 1).abs()  # (n, N, ...)
        c = c.reshape(POINTS, len(cells), -1).mean(2)
        sizes.append(c[-2:].amax(0).square() / c.amax(0).clamp(min=torch.finfo(c.dtype).tiny))
    return 2.0**d * torch.stack(sizes).amax(0)


def _cut_while(
    coarse: Callable[[Tensor, Tensor], Tensor], centres: Tensor, halves: Tensor
) -> tuple[Tensor, Tensor]:
    """The cells after cutting until none is coarse."""
    found = []
    while len(centres):
        rough = coarse(centres, halves)
        found.append((centres[~rough], halves[~rough]))
        centres, halves = _halves(centres[rough], halves[rough])
    cells, sides = (torch.cat(parts) for parts in zip(*found, strict=True))
    return cells, sides


def _halves(centres: Tensor, halves: Tensor) -> tuple[Tensor, Tensor]:
    """The 2^d parts of every cell."""
    d = centres.shape[1]
    signs = torch.cartesian_prod(*[torch.tensor([-0.5, 0.5]).to(centres)] * d).reshape(-1, d)
    parts = centres[:, None] + halves[:, None, None] * signs
    return parts.flatten(0, 1), (0.5 * halves).repeat_interleave(2**d)

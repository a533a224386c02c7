r"""Signatures: the iterated integrals of a path, which determine it up to retracing.

    S_k = int_{t_1 < ... < t_k} dx(t_1) (x) ... (x) dx(t_k),        S_0 = 1,

a tensor of C^k numbers at each level k. A straight piece d has S_k = d^{(x) k}/k!, and two paths
one after the other have S = S' (x) S'' (Chen's identity): so the signature of a chain of
straight pieces is exact.

References:
    Chen 1958; Chevyrev and Kormilitzin 2016 (arXiv:1603.03788), sec. 1.3 (introduction).
"""

import torch
from torch import Tensor

from .pairs import as_floats

__all__ = ["signature", "signature_levels"]

ROWS = 256  # paths at a time: they stay in the cache


def signature(x: Tensor, depth: int = 4) -> Tensor:
    r"""The signature of each path, levels 1 to depth one after the other, flattened.

    By Chen's identity level k grows along a piece d that starts at S by

        sum_j S_{k-j} (x) d^{(x) j}/j! = (S_{k-1} + (S_{k-2} + (...) (x) d/3) (x) d/2) (x) d,

    here for all pieces at once, level by level.

    >>> signature(torch.tensor([[[0.0], [1.0], [2.0]]]), 3)  # 2, 2^2/2, 2^3/6
    tensor([[2.0000, 2.0000, 1.3333]])

    Args:
        x: paths (n, L, C), joined by straight pieces.
        depth: highest level, at least 1.

    Returns:
        (n, C + C^2 + ... + C^depth).
    """
    return torch.cat(signature_levels(x, depth), 1)


def signature_levels(x: Tensor, depth: int = 4) -> list[Tensor]:
    """The levels 1 to depth of each signature apart, (n, C^k) each."""
    x = as_floats(x)
    if x.ndim != 3 or x.shape[1] < 2 or depth < 1:
        raise ValueError(
            "expected paths (n, L, C) with L >= 2 and depth >= 1, "
            f"got {tuple(x.shape)} and {depth}"
        )
    parts = [_levels(part, depth) for part in x.split(ROWS)]
    return [torch.cat(level) for level in zip(*parts, strict=True)]


def _levels(x: Tensor, depth: int) -> list[Tensor]:
    pieces = x.diff(dim=1)
    starts = [torch.ones_like(pieces[..., :1])]  # S_0, S_1, ... where each piece begins
    ends = []
    for k in range(1, depth + 1):
        inner = starts[0]
        for j in range(1, k):
            inner = starts[j] + _outer(inner, pieces) / (k - j + 1)
        ends.append((inner.mT @ pieces).flatten(1))
        if k < depth:
            grown = _outer(inner, pieces).cumsum(1)
            starts.append(torch.cat((torch.zeros_like(grown[:, :1]), grown[:, :-1]), 1))
    return ends


def _outer(a: Tensor, b: Tensor) -> Tensor:
    """Outer products (n, l, A), (n, l, B) -> (n, l, A B)."""
    return (a[..., :, None] * b[..., None, :]).flatten(2)

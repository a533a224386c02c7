r"""Linear measurements A, each given by its singular value decomposition.

    A = U S V^T,        A x = U (S V^T x),        A^T y = V (S U^T y),

U^T U = V^T V = I over the r directions that A can see. All operators here have U and V that are
cheap to apply (a selection, a block mean; in ``fourier`` a Fourier transform), so that nothing is
ever stored as a matrix but by ``Matrix``. Shapes: x (B, *event), y (B, *measured).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ..sde import like

__all__ = [
    "BlockAverage",
    "Grey",
    "Linear",
    "Mask",
    "Matrix",
    "random_projection",
]


class Linear(nn.Module, ABC):
    """A linear map A = U S V^T; a subclass defines ``right``, ``back`` and what U needs."""

    __call__: Callable[..., Tensor]
    singular: Tensor
    """The singular values S, not negative, in a shape that multiplies ``right(x)``."""

    @abstractmethod
    def right(self, x: Tensor) -> Tensor:
        """The coordinates V^T x that A can see, (B, *event) -> (B, *seen)."""

    @abstractmethod
    def back(self, z: Tensor) -> Tensor:
        """V z, (B, *seen) -> (B, *event); V V^T x is the part of x that A can see."""

    def left(self, y: Tensor) -> Tensor:
        """U^T y, (B, *measured) -> (B, *seen)."""
        return y

    def unleft(self, z: Tensor) -> Tensor:
        """U z, (B, *seen) -> (B, *measured)."""
        return z

    def forward(self, x: Tensor) -> Tensor:
        """A x."""
        return self.unleft(self.spectrum(x) * self.right(x))

    def adjoint(self, y: Tensor) -> Tensor:
        """A^T y."""
        return self.back(self.spectrum(y) * self.left(y))

    def solve(self, y: Tensor, v: Tensor, var: float) -> Tensor:
        """(v A A^T + var I)^{-1} y, v () or (B,): the whitening of a measurement."""
        z = self.left(y)
        return self.unleft(z / (like(v, z) * self.spectrum(y).square() + var))

    def spectrum(self, x: Tensor) -> Tensor:
        """The singular values in the dtype of x."""
        return self.singular.to(x.dtype)

    def weakest(self) -> float:
        """The smallest singular value that is not zero."""
        return float(self.singular.where(self.singular > 0, math.inf).min())

    def matrix(self, event: Sequence[int]) -> Tensor:
        """A as a dense matrix (m, d) in float64, for events of this shape; for small ones."""
        d = math.prod(event)
        eye = torch.eye(d, dtype=torch.float64, device=self.singular.device)
        return self(eye.reshape(d, *event)).flatten(1).T


class Mask(Linear):
    """Inpainting: the entries of x that are known, as a vector.

    Args:
        known: bool (*event), True where x is measured.
    """

    index: Tensor

    def __init__(self, known: Tensor) -> None:
        super().__init__()
        if known.dtype != torch.bool or not bool(known.any()):
            raise ValueError(
                f"expected a bool mask (*event) with a known entry, got {known.dtype} "
                f"{tuple(known.shape)}: True marks what is measured"
            )
        self.event = known.shape
        self.register_buffer("index", known.flatten().nonzero()[:, 0])
        self.register_buffer("singular", torch.ones((), dtype=torch.float64, device=known.device))

    def right(self, x: Tensor) -> Tensor:
        """The known entries, (B, m)."""
        if x.shape[1:] != self.event:
            raise ValueError(
                f"expected x of shape (B, {', '.join(map(str, self.event))}) for this mask, "
                f"got {tuple(x.shape)}"
            )
        return x.flatten(1).index_select(1, self.index)

    def back(self, z: Tensor) -> Tensor:
        """The entries in their places, zero elsewhere."""
        empty = z.new_zeros(len(z), math.prod(self.event))
        return empty.index_copy(1, self.index, z).reshape(len(z), *self.event)


class BlockAverage(Linear):
    """Super-resolution: means over blocks of size^dims neighbours; all singular values are alike.

    Args:
        size: side k of a block.
        dims: number of trailing axes that are averaged: 2 for images, 1 for signals.
    """

    def __init__(self, size: int, dims: int = 2) -> None:
        super().__init__()
        if size < 1 or dims < 1:
            raise ValueError(f"expected size >= 1 and dims >= 1, got {size} and {dims}")
        self.size, self.dims, self.root = size, dims, math.sqrt(size**dims)
        self.register_buffer("singular", torch.tensor(1 / self.root, dtype=torch.float64))

    def right(self, x: Tensor) -> Tensor:
        """Sums over blocks, divided by the square root of their size."""
        sides = x.shape[x.ndim - self.dims :]
        if x.ndim <= self.dims or any(side % self.size for side in sides):
            raise ValueError(
                f"expected {self.dims} trailing axes divisible by {self.size}, "
                f"got x of shape {tuple(x.shape)}"
            )
        blocks = [part for side in sides for part in (side // self.size, self.size)]
        cut = x.reshape(*x.shape[: -self.dims], *blocks)
        return cut.sum(dim=tuple(range(-1, -2 * self.dims, -2))) / self.root

    def back(self, z: Tensor) -> Tensor:
        """Each value spread evenly over its block."""
        for axis in range(z.ndim - self.dims, z.ndim):
            z = torch.stack([z] * self.size, axis + 1).flatten(axis, axis + 1)
        return z / self.root


class Grey(Linear):
    """Colour to grey: a weighted sum over the first axis of the event, which stays, of length 1.

    Args:
        weights: (C,); the luma of ITU-R BT.601 if not given.
    """

    direction: Tensor

    def __init__(self, weights: Sequence[float] = (0.299, 0.587, 0.114)) -> None:
        super().__init__()
        w = torch.tensor(weights, dtype=torch.float64)
        self.register_buffer("singular", w.norm())
        self.register_buffer("direction", w / w.norm())

    def right(self, x: Tensor) -> Tensor:
        """The component of each pixel along the weights, (B, 1, *)."""
        if x.ndim < 2 or x.shape[1] != len(self.direction):
            raise ValueError(
                f"expected x of shape (B, {len(self.direction)}, *), got {tuple(x.shape)}"
            )
        return (x.movedim(1, -1) @ self.direction.to(x.dtype))[:, None]

    def back(self, z: Tensor) -> Tensor:
        """A pixel of that component and no other."""
        return z * self.direction.to(z.dtype).reshape(-1, *[1] * (z.ndim - 2))


class Matrix(Linear):
    """Any matrix, decomposed once.

    Args:
        matrix: (m, d), acting on the flattened event.
        event: shape of x; (d,) if not given.
    """

    u: Tensor
    v: Tensor

    def __init__(self, matrix: Tensor, event: Sequence[int] | None = None) -> None:
        super().__init__()
        self.event = torch.Size(event if event is not None else matrix.shape[1:])
        if matrix.ndim != 2 or math.prod(self.event) != matrix.shape[1]:
            raise ValueError(
                f"expected a matrix (m, {math.prod(self.event)}) for events "
                f"{tuple(self.event)}, got {tuple(matrix.shape)}"
            )
        # All of U, so that every measurement has coordinates; of V as many as it can have.
        u, s, vh = torch.linalg.svd(matrix.double(), full_matrices=True)
        m = len(matrix)
        s = s.where(s > 1e-13 * s[0], 0.0)
        self.register_buffer("singular", nn.functional.pad(s, (0, m - len(s))))
        self.register_buffer("u", u)
        self.register_buffer("v", nn.functional.pad(vh[: len(s)].T, (0, m - len(s))))

    def right(self, x: Tensor) -> Tensor:
        """V^T x, (B, m)."""
        if x.shape[1:] != self.event:
            raise ValueError(f"expected x (B, {tuple(self.event)}), got {tuple(x.shape)}")
        return x.flatten(1) @ self.v.to(x.dtype)

    def back(self, z: Tensor) -> Tensor:
        """V z."""
        return (z @ self.v.T.to(z.dtype)).reshape(len(z), *self.event)

    def left(self, y: Tensor) -> Tensor:
        """U^T y."""
        return y @ self.u.to(y.dtype)

    def unleft(self, z: Tensor) -> Tensor:
        """U z."""
        return z @ self.u.T.to(z.dtype)


def random_projection(event: Sequence[int], m: int, seed: int = 0) -> Matrix:
    """A projection on m random orthonormal directions, uniform in direction.

    Args:
        event: shape of x, of size d >= m.
        m: how many numbers are measured.
        seed: random seed of the directions.
    """
    d = math.prod(event)
    if not 1 <= m <= d:
        raise ValueError(f"expected 1 <= m <= {d}, the size of the event, got {m}")
    generator = torch.Generator().manual_seed(seed)
    rows = torch.linalg.qr(torch.randn(d, m, generator=generator, dtype=torch.float64))[0].T
    return Matrix(rows, event)

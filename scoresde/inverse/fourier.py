"""Linear measurements that are diagonal in Fourier space, or select there: blur, tomography."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .operators import Linear, Mask

__all__ = ["Blur", "Fourier"]


class Blur(Linear):
    r"""Convolution with a kernel on a periodic grid: diagonal in Fourier space.

        A = F^* diag(h) F,   h the transform of the kernel;   S = |h|,  V = F^*,  U = F^* h/|h|.

    Args:
        kernel: weights, of odd sides; its middle is the origin.
        sides: lengths of the trailing axes it acts on, as many as the kernel has.
    """

    phase: Tensor

    def __init__(self, kernel: Tensor, sides: Sequence[int]) -> None:
        super().__init__()
        odd = all(a % 2 and a <= b for a, b in zip(kernel.shape, sides, strict=False))
        if kernel.ndim != len(sides) or not odd:
            raise ValueError(
                f"expected a kernel of odd sides within {tuple(sides)}, got {tuple(kernel.shape)}"
            )
        wide = torch.zeros(*sides, dtype=torch.float64, device=kernel.device)
        wide[tuple(slice(0, n) for n in kernel.shape)] = kernel.double()
        centred = wide.roll([-(n // 2) for n in kernel.shape], tuple(range(kernel.ndim)))
        h = torch.fft.fftn(centred)
        singular = h.abs()
        seen = singular > 1e-14 * singular.max()
        self.axes = tuple(range(-kernel.ndim, 0))
        self.register_buffer("singular", singular.where(seen, 0.0))
        # Two real columns: casting a module to a real dtype would drop an imaginary part.
        self.register_buffer("phase", torch.view_as_real((h / singular).where(seen, 1.0 + 0j)))

    @classmethod
    def gaussian(cls, width: float, sides: Sequence[int]) -> "Blur":
        """A Gaussian of this standard deviation in pixels, cut at 3 widths, of sum 1."""
        reach = [min(math.ceil(3 * width), (side - 1) // 2) for side in sides]
        axes = [torch.arange(-r, r + 1, dtype=torch.float64) for r in reach]
        radius2 = sum(axis.square() for axis in torch.meshgrid(*axes, indexing="ij"))
        kernel = torch.as_tensor(-radius2 / (2 * width**2)).exp()
        return cls(kernel / kernel.sum(), sides)

    def right(self, x: Tensor) -> Tensor:
        """The Fourier coefficients, complex."""
        if x.shape[x.ndim - len(self.axes) :] != self.singular.shape:
            raise ValueError(
                f"expected x with trailing sides {tuple(self.singular.shape)}, "
                f"got {tuple(x.shape)}"
            )
        coefficients: Tensor = torch.fft.fftn(x, dim=self.axes, norm="ortho")
        return coefficients

    def back(self, z: Tensor) -> Tensor:
        """The real field of these coefficients."""
        field: Tensor = torch.fft.ifftn(z, dim=self.axes, norm="ortho").real
        return field

    def left(self, y: Tensor) -> Tensor:
        """The coefficients of y, with the phase of h taken off."""
        return self._phase(y).conj() * self.right(y)

    def unleft(self, z: Tensor) -> Tensor:
        """The real field of these coefficients, with the phase of h put on."""
        return self.back(self._phase(z.real) * z)

    def _phase(self, y: Tensor) -> Tensor:
        return torch.view_as_complex(self.phase.to(y.dtype))


class Fourier(Linear):
    r"""Fourier subsampling: the coefficients of some wave vectors k, in a real orthonormal form.

        c_k = Re F_k - Im F_k        (Hartley),   F unitary,

    which at k and -k together say what the complex F_k says; so a mask must hold both or neither.

    Args:
        known: bool, the sides of the trailing axes it acts on, in the order of ``torch.fft``.
    """

    def __init__(self, known: Tensor) -> None:
        super().__init__()
        self.axes = tuple(range(-known.ndim, 0))
        mirrored = known.flip(self.axes).roll([1] * known.ndim, self.axes)
        if not torch.equal(known, mirrored):
            raise ValueError(
                "expected a mask that holds k and -k together, got one that does not: "
                "use mask | mask.flip(dims).roll([1] * len(dims), dims)"
            )
        self.mask = Mask(known)
        self.register_buffer("singular", torch.ones((), dtype=torch.float64, device=known.device))

    def right(self, x: Tensor) -> Tensor:
        """The coefficients of the known wave vectors, (B, *, m)."""
        sides, lead = self.mask.event, x.shape[: x.ndim - len(self.axes)]
        z = self.mask.right(self._hartley(x).reshape(-1, *sides))
        return z.reshape(*lead, -1)

    def back(self, z: Tensor) -> Tensor:
        """The field that has these coefficients and no other."""
        field = self.mask.back(z.reshape(-1, z.shape[-1]))
        return self._hartley(field.reshape(*z.shape[:-1], *self.mask.event))

    def _hartley(self, x: Tensor) -> Tensor:
        """The Hartley transform, its own inverse."""
        transform: Tensor = torch.fft.fftn(x, dim=self.axes, norm="ortho")
        return transform.real - transform.imag

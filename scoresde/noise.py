"""Where the noise of a sampler comes from.

A noise source is any callable ``noise(k, t, s, shape, device, dtype) -> z`` that returns standard
normal numbers for step k, which goes from time t to s. Randomness appears nowhere else.

Samples are numbered in blocks, and each block has its own generator seeded by a hash of
(seed, block), which draws its x_T first and then its z step by step. So the noise of sample i
depends on the seed and on i alone, however a run is cut into chunks or shared among machines.
"""

import hashlib
import math
from collections.abc import Sequence
from operator import index
from typing import Protocol

import torch
from torch import Tensor

from .autodiff import ordinary_tensors

__all__ = ["BlockNoise", "GeneratorNoise", "Noise", "block_size"]

BLOCK_SAMPLES, BLOCK_NUMBERS = 4096, 2**18


class Noise(Protocol):
    """The noise that a sampler asks for: z ~ N(0, I) for step k from t to s."""

    def __call__(
        self,
        k: int,
        t: float,
        s: float,
        shape: Sequence[int],
        device: torch.device,
        dtype: torch.dtype,
    ) -> Tensor:
        """Return z of the given shape, device and dtype."""


class GeneratorNoise:
    """Noise drawn from one generator (or from torch's global one), in the order of the steps."""

    def __init__(self, generator: torch.Generator | None = None) -> None:
        """Keep the generator; its device must be that of the samples."""
        if not isinstance(generator, torch.Generator | None):
            raise TypeError(
                f"expected a torch.Generator, got {generator!r}: pass "
                "torch.Generator(x.device).manual_seed(0), say"
            )
        self.generator = generator

    def __call__(
        self,
        k: int,
        t: float,
        s: float,
        shape: Sequence[int],
        device: torch.device,
        dtype: torch.dtype,
    ) -> Tensor:
        """Return z of the given shape, device and dtype."""
        return torch.randn(tuple(shape), generator=self.generator, device=device, dtype=dtype)


def block_size(event: Sequence[int]) -> int:
    """Samples in a block: a fixed rule of the shape of one sample, never of the run."""
    return max(1, min(BLOCK_SAMPLES, BLOCK_NUMBERS // max(1, math.prod(event))))


class BlockNoise:
    """Noise for samples first, ..., first + n - 1 of the run with this seed.

    The z that a step is given is valid until the next call, which writes into the same memory;
    clone it to keep it. (x_T, from ``draw``, is a tensor of its own; and so is every z where
    gradients are recorded, which may need it.)

    Args:
        seed: any integer.
        n: number of samples.
        event: shape of one sample.
        device: where to draw; streams of different device types differ.
        first: number of the first sample, a multiple of ``block_size(event)``.
    """

    def __init__(
        self,
        seed: int,
        n: int,
        event: Sequence[int],
        device: torch.device | str | None = None,
        first: int = 0,
    ) -> None:
        """Seed one generator for each block."""
        self.n, self.event, self.size = n, tuple(event), block_size(event)
        if first % self.size:
            raise ValueError(
                f"expected first to be a multiple of the block of {self.size}, got {first}"
            )
        blocks = range(first // self.size, math.ceil((first + n) / self.size))
        self.generators = [
            torch.Generator(device or "cpu").manual_seed(_hash(seed, b)) for b in blocks
        ]
        self._buffers: dict[tuple[torch.device, torch.dtype], Tensor] = {}

    def draw(self, device: torch.device, dtype: torch.dtype) -> Tensor:
        """The next n numbers of every block's stream, (n, *event), in a new tensor."""
        return self._fill(self._empty(device, dtype))

    def __call__(
        self,
        k: int,
        t: float,
        s: float,
        shape: Sequence[int],
        device: torch.device,
        dtype: torch.dtype,
    ) -> Tensor:
        """Return z of the given shape, device and dtype, valid until the next call."""
        if torch.is_grad_enabled():
            return self.draw(device, dtype)
        key = (device, dtype)
        if key not in self._buffers:
            with ordinary_tensors():  # else it could not be written to outside of inference mode
                self._buffers[key] = self._empty(device, dtype)
        return self._fill(self._buffers[key])

    def _empty(self, device: torch.device, dtype: torch.dtype) -> Tensor:
        """Memory for whole blocks: a short last one draws whole, to have the stream of a long."""
        shape = (len(self.generators) * self.size, *self.event)
        return torch.empty(shape, device=device, dtype=dtype)

    def _fill(self, z: Tensor) -> Tensor:
        for generator, block in zip(self.generators, z.split(self.size), strict=True):
            block.normal_(generator=generator)
        return z[: self.n]


def _hash(seed: int, block: int) -> int:
    """A hash of the seed, whose low half counts the blocks.

    The CPU's generator reads only those 32 bits, in which hashes of (seed, block) would collide
    after some 10^5 blocks.
    """
    if isinstance(seed, bool) or not hasattr(seed, "__index__"):
        raise TypeError(f"expected an integer for a seed, got {seed!r}: seed=0, say")
    digest = hashlib.blake2b(str(index(seed)).encode(), digest_size=8).digest()
    high, low = divmod(int.from_bytes(digest, "big") >> 1, 2**32)
    return high * 2**32 + (low + block) % 2**32

"""From noise to samples: the outermost function, and a recorder of what happens on the way."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from ..denoiser import Affine, Denoiser
from ..noise import BlockNoise, block_size
from ..sde import warn_of_start
from .base import Callback, Sampler, check_grid, check_parts, recording
from .checks import home
from .compiled import faster

__all__ = ["Ending", "Recorder", "finish", "sample"]

Ending = Literal["stop", "denoise", "half"]
"""How ``sample`` ends where the grid ends above 0."""
GPU_BLOCKS = 16


def sample(
    denoiser: Denoiser,
    sampler: Sampler,
    shape: Sequence[int],
    ts: Tensor,
    *,
    seed: int | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    callback: Callback | None = None,
    chunk: int | None = None,
    last: Ending = "denoise",
    compile: bool = False,
    graph: bool = False,
    differentiable: bool = False,
) -> Tensor:
    """Draw x_T from ``sde.prior(ts[0])``, run the sampler in chunks, return the user's units.

    The noise of sample i depends on the seed and on i alone, so that the result does not depend
    on the chunks but for rounding.

    Args:
        denoiser: the model; per-sample conditions bound by ``Given`` are cut with the chunks.
        sampler: the method that takes the steps.
        shape: (n, *event).
        ts: the grid (n + 1,), decreasing.
        seed: random seed; drawn from torch's global generator if not given.
        device: where to sample; the denoiser's own device if not given.
        dtype: dtype of the samples, float32 or float64; that of the denoiser's parameters if not
            given, and torch's default if it has none. (The loop is run in that of the parameters.)
        callback: see ``Callback``; called for every chunk.
        chunk: samples at a time, rounded up to whole noise blocks; one block on a CPU (it fits
            the cache) and 16 on a GPU if not given.
        last: what to add where the grid ends above t = 0. "stop": nothing; "denoise": return
            x0_hat; "half": (x/alpha + x0_hat)/2, more accurate for data that have a density. The
            last two cost one evaluation.
        compile: whether to run compiled steps (``Compiled``); worth it for long runs.
        graph: whether to run the loop as a CUDA graph (``Captured``); worth it on a GPU.
        differentiable: whether the samples carry gradients with respect to the parameters of the
            denoiser and its conditions. By default they carry none. Every step's activations are
            then kept; ``Checkpointed(denoiser)`` keeps the states alone.

    Returns:
        Samples (n, *event).
    """
    check_parts(denoiser, sampler)
    if last not in ("stop", "denoise", "half"):
        raise ValueError(f'expected last "stop", "denoise" or "half", got {last!r}')
    ts, sampler = check_grid(ts, denoiser.sde), faster(sampler, compile, graph)
    warn_of_start(denoiser.sde, ts[0])
    at, own = home(denoiser)
    device = at if device is None else torch.device(device)
    state = own or dtype or torch.get_default_dtype()
    seed = int(torch.randint(2**62, ())) if seed is None else seed
    n, *event = _shape(shape, denoiser)
    std, size = denoiser.sde.prior(ts[0]).std, _chunk(chunk, event, device)
    out = []
    with recording(denoiser, differentiable):
        for first in range(0, n, size):
            count = min(size, n - first)
            noise = BlockNoise(seed, count, event, device, first)
            part = denoiser.part(slice(first, first + count))
            x = sampler(
                part,
                noise.draw(device, state) * std,
                ts,
                noise=noise,
                callback=callback,
                differentiable=differentiable,
            )
            out.append(finish(part, x, ts, last))
    with torch.set_grad_enabled(differentiable):
        x = torch.cat(out)  # outside inference mode: it may take part in gradients again
        return _users_units(x, denoiser.affine).to(dtype or state)


def _users_units(x: Tensor, affine: Affine | None) -> Tensor:
    return x if affine is None else affine.inverse(x.to(affine.mean.dtype))


def _shape(shape: Sequence[int], denoiser: Denoiser) -> tuple[int, ...]:
    """The shape (n, *event), checked against the denoiser's units and conditions."""
    sizes = tuple(shape) if isinstance(shape, Sequence) else ()
    if not sizes or any(not isinstance(n, int) or n < 1 for n in sizes):
        raise ValueError(f"expected a shape (n, *event) of positive integers, got {shape}")
    if denoiser.affine is not None:
        denoiser.affine.check(sizes[1:])
    if denoiser.samples not in (None, sizes[0]):
        raise ValueError(
            f"expected conditions of {sizes[0]} samples, as the shape says, or of all, got "
            f"{denoiser.samples}: bind one value, or as many as there are samples"
        )
    return sizes


def finish(denoiser: Denoiser, x: Tensor, ts: Tensor, last: Ending) -> Tensor:
    """The ending ``last`` of ``sample``, for a state x at ts[-1]."""
    if last == "stop" or float(ts[-1]) == 0:
        return x
    t = ts[-1].to(x.dtype).to(x.device, non_blocking=True)
    x0_hat = denoiser(x, t)
    return x0_hat if last == "denoise" else 0.5 * (x / denoiser.sde.alpha(t) + x0_hat)


def _chunk(chunk: int | None, event: Sequence[int], device: torch.device) -> int:
    block = block_size(event)
    if chunk is None:
        return block if device.type == "cpu" else GPU_BLOCKS * block
    if chunk < 1:
        raise ValueError(f"expected a chunk of at least one sample, got {chunk}")
    return -(-chunk // block) * block


class Recorder:
    """A callback that keeps the states nearest to given times, over all chunks of a run.

    Args:
        times: the times to keep; every row if not given.
    """

    def __init__(self, times: Sequence[float] | Tensor | None = None) -> None:
        """Start with nothing recorded."""
        self.wanted = None if times is None else [float(t) for t in times]
        self._chunks: list[dict[int, tuple[float, Tensor, Tensor]]] = []

    def __call__(self, k: int, t: float, x: Tensor, x0_hat: Tensor) -> None:
        """Keep this state where it is the nearest so far (at equal distance, the later one)."""
        if k == 0:
            self._chunks.append({})
        kept = self._chunks[-1]
        for slot, wanted in [(k, t)] if self.wanted is None else list(enumerate(self.wanted)):
            if slot not in kept or abs(t - wanted) <= abs(kept[slot][0] - wanted):
                kept[slot] = (t, x, x0_hat)

    @property
    def times(self) -> Tensor:
        """The times recorded, (T,)."""
        return torch.tensor([t for t, _, _ in self._slots(0)], dtype=torch.float64)

    @property
    def x(self) -> Tensor:
        """The states, (T, n, *event), in the model's units."""
        return self._stack(1)

    @property
    def x0_hat(self) -> Tensor:
        """The denoiser's answers there, (T, n, *event)."""
        return self._stack(2)

    def _slots(self, chunk: int) -> list[tuple[float, Tensor, Tensor]]:
        if not self._chunks:
            raise RuntimeError("nothing recorded yet: pass the recorder as callback=")
        return [self._chunks[chunk][slot] for slot in sorted(self._chunks[chunk])]

    def _stack(self, field: int) -> Tensor:
        chunks = range(max(1, len(self._chunks)))
        kept = [[slot[field] for slot in self._slots(chunk)] for chunk in chunks]
        return torch.stack([torch.cat(pieces) for pieces in zip(*kept, strict=True)])

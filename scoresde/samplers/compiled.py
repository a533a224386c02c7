r"""Faster loops around the same table: one step compiled, or all of them in one CUDA graph.

Both give what the plain loop gives, to rounding, and fall back to it with a warning where they
cannot run. On a CPU a compiled step saves the passes over memory between the network and the
update; on a GPU with small batches the launching of kernels dominates, and a graph removes it.
"""

import copy
import warnings
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from ..autodiff import ordinary_tensors
from ..denoiser import Denoiser, onto
from ..noise import Noise
from ..sde import SDE
from .base import Callback, Sampler, TableSampler, Walk, tabulate
from .catalogue import View
from .table import Row, Table

__all__ = ["Captured", "Compiled"]

Step = Callable[..., tuple[Tensor, ...]]


@dataclass(frozen=True)
class _Faster(TableSampler):
    """A sampler with another loop; everything else is its own."""

    sampler: TableSampler

    def __post_init__(self) -> None:
        """Raise an error unless the sampler is a table."""
        if not isinstance(self.sampler, TableSampler):
            raise TypeError(
                f"expected a sampler with a fixed table of rows, got {self.sampler}: an adaptive "
                "one cannot be compiled as a whole; compile its network instead"
            )

    @property
    def order(self) -> int:
        """The sampler's order."""
        return self.sampler.order

    @property
    def convergence(self) -> int:
        """The sampler's order of convergence."""
        return self.sampler.convergence

    @property
    def noise(self) -> bool:
        """Whether the sampler draws fresh noise."""
        return self.sampler.noise

    @property
    def view(self) -> View:
        """The sampler's view."""
        return self.sampler.view

    @property
    def linear(self) -> bool:
        """Whether the sampler's steps are affine."""
        return self.sampler.linear

    @property
    def differentiable(self) -> bool:
        """False: a compiled or captured step is for inference."""
        return False

    @property
    def stages(self) -> int:
        """The sampler's rows of one step."""
        return self.sampler.stages

    def tabular(self, denoiser: Denoiser, ts: Tensor) -> bool:
        """Whether the sampler's steps along this grid are the table's."""
        return self.sampler.tabular(denoiser, ts)

    def table(self, sde: SDE, ts: Tensor) -> Table:
        """The sampler's table."""
        return self.sampler.table(sde, ts)


@dataclass(frozen=True)
class Compiled(_Faster):
    """A sampler whose step, network included, is one function under ``torch.compile`` (fullgraph).

    The times and the numbers of a row are tensors, so one compilation serves all rows. The first
    run compiles, for up to a minute; conditions bound to each sample compile anew for each chunk.

    Args:
        sampler: any that is a table.
        backend: the backend of ``torch.compile``.
    """

    backend: str = "inductor"

    def bind(self, denoiser: Denoiser, x: Tensor, ts: Tensor) -> Walk:
        """The loop over one compiled step."""
        if type(self.sampler).apply is not TableSampler.apply or not self.tabular(denoiser, ts):
            _warn(f"{self.sampler} has a step of its own")
            return self.sampler.bind(denoiser, x, ts)
        table, rows = tabulate(self.sampler, denoiser.sde, ts)
        times, depth = onto(table.t, x), table.b.shape[1]
        columns = [table.a, table.c, table.u, table.w, *table.b.unbind(1)]
        numbers = [onto(column, x) for column in columns]

        def walk(x: Tensor, noise: Noise, callback: Callback | None) -> Tensor:
            step: Step = torch.compile(_step, backend=self.backend, fullgraph=True)
            past = [torch.zeros_like(x) for _ in range(depth)]  # one shared would be compiled in
            for k, row in enumerate(rows):
                z = noise(k, row.t, row.s, x.shape, x.device, x.dtype) if row.c else None
                args = (denoiser, x, past, z, times[k], [column[k] for column in numbers])
                try:
                    after, *past = step(*args)
                except Exception as error:
                    if step is _step:
                        raise
                    _warn(f"one step of {self.sampler} did not compile ({_reason(error)})")
                    step = _step
                    after, *past = step(*args)
                if callback is not None and k % self.stages == 0:
                    x0_hat = row.x0_hat(x, past[0])
                    callback(k // self.stages, row.t, x, x0_hat)
                x = after
            if callback is not None:
                callback(k // self.stages + 1, row.s, x, x0_hat)
            return x

        return walk


def _step(
    denoiser: Denoiser,
    x: Tensor,
    past: list[Tensor],
    z: Tensor | None,
    t: Tensor,
    numbers: list[Tensor],
) -> tuple[Tensor, ...]:
    """One row: the state after it, and what is remembered, newest first."""
    a, c, u, w, *b = numbers
    past = [u * x + w * denoiser(x, t), *past[:-1]]
    x = a * x
    for factor, h in zip(b, past, strict=True):
        x = x + factor * h
    return (x if z is None else x + c * z, *past)


class _Graph(NamedTuple):
    """A captured loop, the memory that it reads (x, conditions, noise of its rows) and writes."""

    graph: torch.cuda.CUDAGraph
    x: Tensor
    conditions: list[Tensor]
    z: dict[int, Tensor]
    out: Tensor


@dataclass(frozen=True)
class Captured(_Faster):
    """A sampler whose whole loop is one CUDA graph, captured once and replayed for every chunk.

    The noise is drawn before the replay, by the same source and in the same order, into memory of
    its own: (rows with noise) x (numbers of a chunk). Conditions that count samples are copied
    there too, so that one graph serves the chunks of one size. Denoisers must not read the device,
    nor change their inputs' shapes; a callback needs the plain loop. One graph is kept, that of
    the last chunk's size: to keep it from one ``sample`` to the next, pass a ``Captured`` as the
    sampler.

    Args:
        sampler: any that is a table.
    """

    _graphs: dict[object, _Graph] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def bind(self, denoiser: Denoiser, x: Tensor, ts: Tensor) -> Walk:
        """The loop that replays the graph."""
        if x.device.type != "cuda":
            _warn(f"a CUDA graph needs a CUDA device, and x is on {x.device}")
            return self.sampler.bind(denoiser, x, ts)
        _, rows = tabulate(self.sampler, denoiser.sde, ts)
        key = (_identity(denoiser), tuple(ts.tolist()), x.shape, x.dtype, x.device)

        def walk(x: Tensor, noise: Noise, callback: Callback | None) -> Tensor:
            if callback is not None:
                _warn("a callback is called from Python, row by row")
                return self.sampler.bind(denoiser, x, ts)(x, noise, callback)
            if key not in self._graphs:
                self._graphs.clear()  # one at a time: each holds a chunk's memory
                self._graphs[key] = self._capture(denoiser, x, ts, rows)
            captured = self._graphs[key]
            captured.x.copy_(x)
            for mine, given in zip(captured.conditions, _conditions(denoiser), strict=True):
                mine.copy_(given)
            for k, z in captured.z.items():
                row = rows[k]
                z.copy_(noise(k, row.t, row.s, x.shape, x.device, x.dtype))
            captured.graph.replay()
            return captured.out.clone()

        return walk

    def _capture(self, denoiser: Denoiser, x: Tensor, ts: Tensor, rows: list[Row]) -> _Graph:
        # Not in inference mode: the state of the device's generator, which a graph takes hold of,
        # would become an inference tensor, and the next graph of the process could not write it.
        with ordinary_tensors():
            own = cast(Denoiser, _owning(denoiser, torch.clone))
            state, z = x.clone(), {k: torch.zeros_like(x) for k, row in enumerate(rows) if row.c}
            plain, given = self.sampler.bind(own, state, ts), lambda k, *_: z[k]
            aside = torch.cuda.Stream(x.device)
            aside.wait_stream(torch.cuda.current_stream(x.device))
            with torch.cuda.stream(aside):  # libraries allocate on their first call; graphs cannot
                for _ in range(2):
                    plain(state, given, None)
            torch.cuda.current_stream(x.device).wait_stream(aside)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                out = plain(state, given, None)
        return _Graph(graph, state, _conditions(own), z, out)


def _cuttable(thing: object) -> bool:
    """Whether a denoiser, or what it holds, is cut with the batch: only such hold conditions."""
    own = getattr(type(thing), "part", None)
    return own is not None and own is not Denoiser.part


def _owning(thing: object, visit: Callable[[Tensor], Tensor]) -> object:
    """A twin with ``visit`` applied to the conditions it holds; networks are shared."""
    if isinstance(thing, nn.Parameter):
        return thing
    if isinstance(thing, Tensor):
        return visit(thing)
    if isinstance(thing, dict):
        return type(thing)((name, _owning(value, visit)) for name, value in thing.items())
    if not _cuttable(thing):
        return thing
    twin = copy.copy(thing)
    vars(twin).update({name: _owning(value, visit) for name, value in vars(thing).items()})
    return twin


def _conditions(denoiser: Denoiser) -> list[Tensor]:
    """The tensors that a part of a denoiser holds, always in the same order."""
    found: list[Tensor] = []

    def visit(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    _owning(denoiser, visit)
    return found


def _identity(thing: object) -> Hashable:
    """A key that all parts of one denoiser share: all but the values of their conditions."""
    if isinstance(thing, Tensor) and not isinstance(thing, nn.Parameter):
        return thing.shape, thing.dtype, thing.device
    if isinstance(thing, dict):
        return tuple((name, _identity(value)) for name, value in thing.items())
    if _cuttable(thing):
        return type(thing), _identity(vars(thing))
    return thing if isinstance(thing, Hashable) else repr(thing)


def faster(sampler: Sampler, compile: bool, graph: bool) -> Sampler:
    """The sampler with the loops asked for; a graph of compiled steps where both are."""
    if compile:
        sampler = Compiled(sampler)  # type: ignore[arg-type]
    return Captured(sampler) if graph else sampler  # type: ignore[arg-type]


def _reason(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _warn(reason: str) -> None:
    warnings.warn(f"{reason}: the plain loop runs instead", RuntimeWarning, stacklevel=4)

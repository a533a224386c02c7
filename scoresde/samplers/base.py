r"""The base of all samplers: a walk along a time grid, and the table of numbers that most are.

A step goes from t to s. Every method on a fixed grid here, of one step or several, of one stage or
several, with a corrector or none, is a table of numbers: one row for each call of the denoiser,

    h_k = u x + w x0_hat(x, t),                     what the row remembers
    x  <- a x + sum_j b_j h_{k-j} + c z,            z ~ N(0, I),

with (a, b, c, u, w) functions of the grid alone. They are computed once, in float64, for the whole
grid, before the first step; the loop itself evaluates no schedule, allocates nothing but what the
network does, and never waits for the device.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache

import torch
from torch import Tensor

from .. import autodiff
from ..denoiser import Along, Denoiser
from ..noise import GeneratorNoise, Noise
from ..sde import SDE
from .table import Row, Table, check_table

__all__ = [
    "Callback",
    "Sampler",
    "TableSampler",
    "Walk",
    "among",
    "check_grid",
    "not_negative",
    "quiet",
    "tabulate",
]

Callback = Callable[[int, float, Tensor, Tensor], None]
"""``callback(k, t, x, x0_hat)``: called before step k with the state at t and the denoiser's
answer, and once more after the last step with the state at the end of the grid and the last
answer. Neither is written to afterwards, so they may be kept; for gradients, take their clones."""

Walk = Callable[[Tensor, Noise, Callback | None], Tensor]
"""A loop that is ready to run: (x, noise, callback) -> x at the end of the grid."""


class Sampler(ABC):
    """A frozen set of hyper-parameters that walks a grid of times with any denoiser.

    Attribute ``order``: the order of the method, and of convergence unless ``convergence`` says
    otherwise. ``noise``: whether fresh noise is drawn; those that draw none also walk an
    increasing grid, from data to noise.
    """

    @property
    @abstractmethod
    def order(self) -> int:
        """The order of the method."""

    @property
    def convergence(self) -> int:
        """Order in the step size in which the law of the samples converges (weak order).

        With the exact denoiser; of a method without noise the samples converge so themselves.
        """
        return self.order

    @property
    @abstractmethod
    def noise(self) -> bool:
        """Whether the sampler draws fresh noise."""

    def __call__(
        self,
        denoiser: Denoiser,
        x: Tensor,
        ts: Tensor,
        generator: torch.Generator | None = None,
        noise: Noise | None = None,
        callback: Callback | None = None,
    ) -> Tensor:
        """Walk exactly the grid, from x at ts[0] to the returned state at ts[-1].

        Args:
            denoiser: the model.
            x: the state at ts[0], (B, *), in the model's units; it is not written to.
            ts: times (n + 1,), decreasing (or increasing, for samplers without noise).
            generator: for the fresh noise, on the device of x; the global one if not given.
            noise: a noise source, in place of the generator.
            callback: see ``Callback``.

        Returns:
            The state at ts[-1], (B, *), of the dtype and on the device of x.
        """
        if not x.is_floating_point() or x.ndim < 1:
            raise TypeError(
                f"expected floating-point x (B, *), got {x.dtype} {tuple(x.shape)}: draw it from "
                "sde.prior(ts[0]).sample(shape)"
            )
        ts = check_grid(ts, denoiser.sde, increasing=not self.noise)
        with quiet(denoiser):
            x = self.walk(denoiser, x, ts, noise or GeneratorNoise(generator), callback)
        return x.clone()  # a tensor that may take part in gradients again

    @property
    def linear(self) -> bool:
        """Whether a step is affine in x and z when the denoiser is affine in x."""
        return True

    @abstractmethod
    def walk(
        self, denoiser: Denoiser, x: Tensor, ts: Tensor, noise: Noise, callback: Callback | None
    ) -> Tensor:
        """The loop itself, on a grid that has been checked (float64, CPU)."""


class TableSampler(Sampler):
    """A sampler that is a table; one that remembers nothing defines ``row`` alone."""

    @property
    def stages(self) -> int:
        """Rows of one step; the callback sees the first, whose state is that of the grid."""
        return 1

    def tabular(self, denoiser: Denoiser, ts: Tensor) -> bool:
        """Whether the walk along this grid is the table's."""
        return True

    def row(self, sde: SDE, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(a, b, c) of the one-step rows from t to s, float64 (n,) each."""
        raise NotImplementedError(f"{type(self).__name__} defines neither row() nor table()")

    def table(self, sde: SDE, ts: Tensor) -> Table:
        """All rows on the grid ts (n + 1,)."""
        t, s = ts[:-1], ts[1:]
        row = self.row(sde, t, s)
        if len(row) != 3:
            raise TypeError(
                f"expected row() of {type(self).__name__} to give (a, b, c), got {row}"
            )
        a, b, c = (torch.as_tensor(column, dtype=t.dtype).expand_as(t) for column in row)
        return Table.one_step(t, s, a, b, c)

    def walk(
        self, denoiser: Denoiser, x: Tensor, ts: Tensor, noise: Noise, callback: Callback | None
    ) -> Tensor:
        """The rows, one after the other."""
        return self.bind(denoiser, x, ts)(x, noise, callback)

    def bind(self, denoiser: Denoiser, x: Tensor, ts: Tensor) -> Walk:
        """The loop, with all that it needs but x itself computed and on the device of x."""
        table, rows = tabulate(self, denoiser.sde, ts)
        a, b = table.a, table.b[:, 0]
        alone = table.b.shape[1] == 1 and type(self).apply is TableSampler.apply
        step = denoiser.along(table.t, x, a + b * table.u, b * table.w) if alone else None
        remember = None if alone else denoiser.along(table.t, x, table.u, table.w)

        def walk(x: Tensor, noise: Noise, callback: Callback | None) -> Tensor:
            if step is not None and callback is None:
                return _march(step, rows, x, noise)
            ask = remember or denoiser.along(table.t, x, table.u, table.w)
            x, past = x.clone(), deque[Tensor](maxlen=table.b.shape[1])
            for k, row in enumerate(rows):
                h = ask(k, x)
                if h.data_ptr() == x.data_ptr():  # of a network that returns its input
                    h = h.clone()
                if callback is not None and k % self.stages == 0:
                    x0_hat = row.x0_hat(x, h)
                    callback(k // self.stages, row.t, x.clone(), x0_hat)
                past.appendleft(h)
                z = noise(k, row.t, row.s, x.shape, x.device, x.dtype) if row.c else None
                self.apply(x, past, row, z)
            if callback is not None:
                callback(k // self.stages + 1, row.s, x.clone(), x0_hat)
            return x

        return walk

    def apply(self, x: Tensor, past: Sequence[Tensor], row: Row, z: Tensor | None) -> None:
        """x <- a x + sum_j b_j past_j + c z, in place."""
        x.mul_(row.a)
        for b, h in zip(row.b, past, strict=False):
            if b:
                x.add_(h, alpha=b)
        if z is not None:
            x.add_(z, alpha=row.c)


@contextmanager
def quiet(denoiser: Denoiser) -> Iterator[None]:
    """No gradients: inference mode, or no_grad for a denoiser that calls torch.autograd inside.

    Nor where torch.func, which guidance may use anywhere, would answer with zeros (``autodiff``).
    """
    try:
        mode = denoiser.inference and autodiff.RIGHT_IN_INFERENCE
        with torch.no_grad(), torch.inference_mode(mode):
            yield
    except RuntimeError as error:
        if denoiser.inference and "inference" in str(error).lower():
            error.add_note(
                "samplers run in inference mode; if the denoiser or its guidance calls "
                "torch.autograd, set denoiser.inference = False (torch.func needs nothing)"
            )
        raise


def _march(step: Along, rows: list[Row], x: Tensor, noise: Noise) -> Tensor:
    """The loop of a sampler without memory: the denoiser is asked for the next state itself."""
    for k, row in enumerate(rows):
        x = step(k, x)
        if row.c:
            x = x.add(noise(k, row.t, row.s, x.shape, x.device, x.dtype), alpha=row.c)
    return x


def tabulate(sampler: "TableSampler", sde: SDE, ts: Tensor) -> tuple[Table, list[Row]]:
    """The checked table and its rows; those of frozen dataclasses are computed only once."""
    name = type(sampler).__name__
    if _is_frozen(sampler) and _is_frozen(sde):
        return _tabulate(sampler, sde, tuple(ts.tolist()), name)
    table = check_table(sampler.table(sde, ts), name)
    return table, table.rows()


@lru_cache(maxsize=64)
def _tabulate(
    sampler: "TableSampler", sde: SDE, times: tuple[float, ...], name: str
) -> tuple[Table, list[Row]]:
    table = check_table(sampler.table(sde, torch.tensor(times, dtype=torch.float64)), name)
    return table, table.rows()


def _is_frozen(part: object) -> bool:
    """Whether equal parameters mean equal tables: a frozen dataclass that can be hashed."""
    parameters = getattr(type(part), "__dataclass_params__", None)
    return bool(parameters and parameters.frozen) and isinstance(part, Hashable)


def check_grid(ts: Tensor, sde: SDE, increasing: bool = False) -> Tensor:
    """The grid as float64 on the CPU, or one clear error.

    Args:
        ts: times (n + 1,), strictly decreasing.
        sde: the process, whose t_max may not be passed.
        increasing: whether a strictly increasing grid will do as well.
    """
    ts = torch.as_tensor(ts).detach().to("cpu", torch.float64)
    if ts.ndim != 1 or len(ts) < 2:
        raise ValueError(f"expected a grid of times (n + 1,), n >= 1, got {tuple(ts.shape)}")
    step = ts.diff()
    if not (bool((step < 0).all()) or (increasing and bool((step > 0).all()))):
        if bool((step > 0).all()):
            raise ValueError(
                "expected a decreasing grid, got an increasing one: a sampler with noise cannot "
                "walk from data to noise; use DDIM(eta=0) or PFHeun()"
            )
        raise ValueError("expected a strictly monotone grid, got one that is not: sort it")
    low, high = float(ts.min()), float(ts.max())
    if low < 0 or high > sde.t_max * (1 + 1e-12):
        raise ValueError(
            f"expected times within [0, {sde.t_max:.6g}], got {low:.6g}..{high:.6g}: "
            f"build the grid with t_max={sde.t_max:.6g} (grids that take the sde do so)"
        )
    return ts


def among(name: str, value: object, choices: tuple[object, ...]) -> None:
    """Refuse a value that does not exist."""
    if value not in choices:
        raise ValueError(f"expected {name} among {choices}, got {value!r}")


def not_negative(name: str, value: float) -> None:
    """Refuse a negative amount of noise."""
    if not value >= 0:
        raise ValueError(f"expected {name} >= 0, got {value}: 0 is the probability-flow ODE")

r"""The base of all samplers: a walk along a time grid, and the table of numbers that most are.

A step goes from t to s. A sampler that calls the denoiser once a step is three numbers a row,

    x_s = a x_t + b x0_hat(x_t, t) + c z,        z ~ N(0, I),

with (a, b, c) functions of the grid alone. They are computed once, in float64, for the whole grid,
before the first step; the loop itself evaluates no schedule and never waits for the device.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from ..denoiser import Denoiser
from ..noise import GeneratorNoise, Noise
from ..sde import SDE

__all__ = ["Callback", "Row", "Sampler", "Table", "TableSampler", "check_grid"]

Callback = Callable[[int, float, Tensor, Tensor], None]
"""``callback(k, t, x, x0_hat)``: called before row k with the state at t and the denoiser's
answer, and once more after the last row with the state at the end of the grid and the last answer.
Neither tensor is written to afterwards, so they may be kept."""


class Row(NamedTuple):
    """One row of a ``Table``, as plain numbers."""

    t: float
    s: float
    a: float
    b: float
    c: float


@dataclass(frozen=True)
class Table:
    """The rows of a sampler on a grid: x <- a x + b x0_hat(x, t) + c z, float64 (R,) on the CPU.

    Attributes:
        t: where each row evaluates the denoiser.
        s: where it leads (s = t for a corrector).
        a: factor of x.
        b: factor of x0_hat.
        c: standard deviation of the fresh noise, in the units of x.
    """

    t: Tensor
    s: Tensor
    a: Tensor
    b: Tensor
    c: Tensor

    @property
    def columns(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """(t, s, a, b, c)."""
        return self.t, self.s, self.a, self.b, self.c

    def rows(self) -> list[Row]:
        """The table as plain numbers: a loop over them asks nothing of any device."""
        return [Row(*row) for row in zip(*(v.tolist() for v in self.columns), strict=True)]


class Sampler(ABC):
    """A frozen set of hyper-parameters that walks a grid of times with any denoiser.

    Class attribute ``order``: the order of convergence of the law of the samples (weak order) in
    the step size, with the exact denoiser. ``noise``: whether fresh noise is drawn; those that
    draw none also walk an increasing grid, from data to noise.
    """

    order: ClassVar[int]

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
        with torch.no_grad():
            return self.walk(denoiser, x, ts, noise or GeneratorNoise(generator), callback)

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
    """A sampler of one evaluation a row; subclasses define ``row``."""

    @abstractmethod
    def row(self, sde: SDE, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(a, b, c) of the steps from t to s, float64 (n,) each."""

    def table(self, sde: SDE, ts: Tensor) -> Table:
        """All rows on the grid ts (n + 1,)."""
        t, s = ts[:-1], ts[1:]
        row = self.row(sde, t, s)
        if len(row) != 3:
            raise TypeError(
                f"expected row() of {type(self).__name__} to give (a, b, c), got {row}"
            )
        a, b, c = (torch.as_tensor(column, dtype=t.dtype).expand_as(t) for column in row)
        return Table(t, s, a, b, c)

    def walk(
        self, denoiser: Denoiser, x: Tensor, ts: Tensor, noise: Noise, callback: Callback | None
    ) -> Tensor:
        """x <- a x + b x0_hat + c z, row by row."""
        table = _finite(self.table(denoiser.sde, ts), self)
        times = table.t.to(x.dtype).to(x.device, non_blocking=True).unbind()
        for k, row in enumerate(table.rows()):
            x0_hat = denoiser(x, times[k])
            if callback is not None:
                callback(k, row.t, x, x0_hat)
            z = noise(k, row.t, row.s, x.shape, x.device, x.dtype) if row.c else None
            x = self.apply(x, x0_hat, row, z)
        if callback is not None:
            callback(len(times), row.s, x, x0_hat)
        return x

    def apply(self, x: Tensor, x0_hat: Tensor, row: Row, z: Tensor | None) -> Tensor:
        """a x + b x0_hat + c z, into a new tensor."""
        x = (x * row.a).add_(x0_hat, alpha=row.b)
        return x if z is None else x.add_(z, alpha=row.c)


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


def _finite(table: Table, sampler: Sampler) -> Table:
    for name, column in zip("abc", table.columns[2:], strict=True):
        bad = (~torch.isfinite(column)).nonzero().flatten().tolist()
        if bad:
            t, s = float(table.t[bad[0]]), float(table.s[bad[0]])
            raise ValueError(
                f"expected finite rows, but {type(sampler).__name__} has no finite row from "
                f"t = {t:.4g} to {s:.4g} ({name} is {float(column[bad[0]])}): a row cannot start "
                "at t = 0, where sigma = 0 (start at 1e-6, or use PFHeun() with an exact law); of "
                "a sampler without noise it must be finite for s > t too"
            )
    return table

"""The table of numbers that a sampler on a fixed grid is; ``base`` says what the columns mean."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Row", "Table", "check_table", "to_zero", "widen"]


class Row(NamedTuple):
    """One row of a ``Table``, as plain numbers; b is the tuple of its factors, newest first."""

    t: float
    s: float
    a: float
    b: tuple[float, ...]
    c: float
    u: float
    w: float

    def x0_hat(self, x: Tensor, h: Tensor) -> Tensor:
        """The denoiser's answer that belongs to h = u x + w x0_hat."""
        return h if not self.u and self.w == 1 else (h - self.u * x) / self.w


@dataclass(frozen=True)
class Table:
    """The rows of a sampler on a grid, float64 on the CPU; see the head of this module.

    Attributes:
        t: where each row evaluates the denoiser, (R,).
        s: where it leads (s = t for a corrector), (R,).
        a: factor of x, (R,).
        b: factors of what this row and those before it remember, newest first, (R, K).
        c: standard deviation of the fresh noise, in the units of x, (R,).
        u: factor of x in what the row remembers, (R,).
        w: factor of x0_hat in it, (R,). u = 0 and w = 1 remember x0_hat itself.
    """

    t: Tensor
    s: Tensor
    a: Tensor
    b: Tensor
    c: Tensor
    u: Tensor
    w: Tensor

    @classmethod
    def one_step(cls, t: Tensor, s: Tensor, a: Tensor, b: Tensor, c: Tensor) -> "Table":
        """Rows x <- a x + b x0_hat + c z, all columns (R,)."""
        return cls(t, s, a, b[:, None], c, torch.zeros_like(t), torch.ones_like(t))

    @property
    def columns(self) -> tuple[Tensor, ...]:
        """(t, s, a, b, c, u, w)."""
        return self.t, self.s, self.a, self.b, self.c, self.u, self.w

    def rows(self) -> list[Row]:
        """The table as plain numbers: a loop over them asks nothing of any device."""
        t, s, a, b, c, u, w = (column.tolist() for column in self.columns)
        return list(map(Row, t, s, a, map(tuple, b), c, u, w))


def check_table(table: Table, name: str) -> Table:
    """The table, or one clear error that names the row which is not finite."""
    for letter, column in zip("abcuw", table.columns[2:], strict=True):
        bad = (
            (~torch.isfinite(column)).reshape(len(column), -1).any(1).nonzero().flatten().tolist()
        )
        if bad:
            t, s = float(table.t[bad[0]]), float(table.s[bad[0]])
            raise ValueError(
                f"expected finite rows, but {name} has no finite row from "
                f"t = {t:.4g} to {s:.4g} ({letter} is {column[bad[0]].tolist()}): a row cannot "
                "start at t = 0, where sigma = 0 (start at 1e-6, or use PFHeun() with an exact "
                "distribution); of a sampler without noise it must be finite for s > t too"
            )
    return table


def to_zero(table: Table | None, ts: Tensor) -> Table:
    """Rows with one more, to t = 0, where exponential solvers return x0_hat itself."""
    t, zero, one = ts[-2:-1], ts.new_zeros(1), ts.new_ones(1)
    last = Table.one_step(t, zero, zero, one, zero)
    if table is None:
        return last
    columns = [t, zero, zero, widen(last.b, table.b.shape[1]), zero, zero, one]
    return Table(*(torch.cat(pair) for pair in zip(table.columns, columns, strict=True)))


def widen(b: Tensor, columns: int) -> Tensor:
    """Factors (R, K) of a longer memory, by zeros."""
    return torch.nn.functional.pad(b, (0, columns - b.shape[1]))

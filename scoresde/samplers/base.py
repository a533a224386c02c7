r"""The base of all samplers: steps along a time grid, and the table of numbers that most are.

A step goes from t to s. Every method on a fixed grid here, of one step or several, of one stage or
several, with a corrector or none, is a table of numbers: one row for each call of the denoiser,

    h_k = u x + w x0_hat(x, t),                     what the row remembers
    x  <- a x + sum_j b_j h_{k-j} + c z,            z ~ N(0, I),

with (a, b, c, u, w) functions of the grid alone. They are computed once, in float64, for the whole
grid, before the first step; the loop itself evaluates no schedule, allocates nothing but the next
state and what the network does, and never waits for the device.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .. import autodiff
from ..denoiser import Along, Denoiser
from ..noise import GeneratorNoise, Noise
from ..sde import SDE
from .checks import (
    Array,
    among,
    check_grid,
    check_state,
    not_negative,
    taken,
    with_gradients,
)
from .table import Row, Table, check_table

if TYPE_CHECKING:
    from .catalogue import Listing, View

__all__ = [
    "Callback",
    "Sampler",
    "TableSampler",
    "Walk",
    "among",
    "check_grid",
    "check_parts",
    "not_negative",
    "quiet",
    "recording",
    "tabulate",
]

Callback = Callable[[int, float, Tensor, Tensor], None]
"""``callback(k, t, x, x0_hat)``: called before step k with the state at t and the denoiser's
answer, and once more after the last step with the state at the end of the grid and the last
answer. Neither is written to afterwards, so they may be kept; for gradients, take their clones."""

Walk = Callable[[Tensor, Noise, Callback | None], Tensor]
"""A loop that is ready to run: (x, noise, callback) -> x at the end of the grid."""


class Sampler(ABC):
    """A method with frozen hyper-parameters, which steps along a grid with any denoiser.

    Attribute ``order``: the order of the method, and of convergence unless ``convergence`` says
    otherwise. ``noise``: whether fresh noise is drawn; those that draw none also take an
    increasing grid, from data to noise.
    """

    @property
    @abstractmethod
    def order(self) -> int:
        """The order of the method."""

    @property
    def convergence(self) -> int:
        """Order in the step size in which the samples' distribution converges (weak order).

        With the exact denoiser; of a method without noise the samples converge so themselves.
        """
        return self.order

    @property
    @abstractmethod
    def noise(self) -> bool:
        """Whether the sampler draws fresh noise."""

    @property
    def view(self) -> "View":
        """The view it belongs to: "chain", "sde" or, without noise, "ode"."""
        return "sde" if self.noise else "ode"

    @classmethod
    def catalogue(cls) -> "tuple[Listing, ...]":
        """Entries of this class in tables and on the command line; none, by default."""
        return ()

    def __call__(
        self,
        denoiser: Denoiser,
        x: Tensor | Array,
        ts: Tensor,
        generator: torch.Generator | None = None,
        noise: Noise | None = None,
        callback: Callback | None = None,
        *,
        differentiable: bool = False,
    ) -> Tensor:
        """Step along exactly this grid, from x at ts[0] to the returned state at ts[-1].

        Args:
            denoiser: the model.
            x: the state at ts[0], (B, *), in the model's units, a tensor or an array; it is not
                written to, and taken to the dtype of the denoiser's parameters if it has any.
            ts: times (n + 1,), decreasing (or increasing, for samplers without noise).
            generator: for the fresh noise, on the device of x; the global one if not given.
            noise: a noise source, in place of the generator.
            callback: see ``Callback``.
            differentiable: whether the result carries gradients with respect to x, the parameters
                of the denoiser and its conditions. By default it carries none. Every step's
                activations are then kept; ``Checkpointed(denoiser)`` keeps the states alone.

        Returns:
            The state at ts[-1], (B, *), of the dtype and on the device that x was taken to.
        """
        x, ts = self.enter(denoiser, x, ts, differentiable)
        with recording(denoiser, differentiable):
            x = self.walk(denoiser, x, ts, noise or GeneratorNoise(generator), callback)
        # The clone of what was computed in inference mode may take part in gradients again.
        return with_gradients(x) if differentiable else x.clone()

    def enter(
        self, denoiser: Denoiser, x: Tensor | Array, ts: Tensor, differentiable: bool = False
    ) -> tuple[Tensor, Tensor]:
        """State and grid as the loop takes them, or one clear error."""
        check_parts(denoiser, self, differentiable)
        x = taken(x, denoiser)
        check_state(x, differentiable)
        return x, check_grid(ts, denoiser.sde, increasing=not self.noise)

    @property
    def linear(self) -> bool:
        """Whether a step is affine in x and z when the denoiser is affine in x."""
        return True

    @property
    def differentiable(self) -> bool:
        """Whether gradients pass: not where steps follow the samples, or particles are drawn."""
        return False

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

    @property
    def differentiable(self) -> bool:
        """True: the numbers of the table depend on the grid alone."""
        return True

    def tabular(self, denoiser: Denoiser, ts: Tensor) -> bool:
        """Whether the steps along this grid are the table's."""
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
            past = deque[Tensor](maxlen=table.b.shape[1])
            for k, row in enumerate(rows):
                past.appendleft(ask(k, x))
                if callback is not None and k % self.stages == 0:
                    x0_hat = row.x0_hat(x, past[0])
                    callback(k // self.stages, row.t, x.clone(), x0_hat)
                z = noise(k, row.t, row.s, x.shape, x.device, x.dtype) if row.c else None
                x = self.apply(x, past, row, z)
            if callback is not None:
                callback(k // self.stages + 1, row.s, x.clone(), x0_hat)
            return x

        return walk

    def apply(self, x: Tensor, past: Sequence[Tensor], row: Row, z: Tensor | None) -> Tensor:
        """a x + sum_j b_j past_j + c z, in new memory: x may be needed for a gradient."""
        x = x.mul(row.a)
        for b, h in zip(row.b, past, strict=False):
            if b:
                x.add_(h, alpha=b)
        if z is not None:
            x.add_(z, alpha=row.c)
        return x


@contextmanager
def quiet(denoiser: Denoiser) -> Iterator[None]:
    """No gradients: inference mode, or no_grad for a denoiser that calls torch.autograd inside.

    Nor where torch.func, which guidance may use anywhere, would answer with zeros (``autodiff``).
    """
    try:
        mode = denoiser.inference and autodiff.RIGHT_IN_INFERENCE
        with torch.inference_mode(mode), torch.no_grad():  # leaving it would let gradients in
            yield
    except RuntimeError as error:
        if denoiser.inference and "inference" in str(error).lower():
            error.add_note(
                "samplers run in inference mode; if the denoiser or its guidance calls "
                "torch.autograd, set denoiser.inference = False (torch.func needs nothing)"
            )
        raise


def recording(denoiser: Denoiser, differentiable: bool) -> AbstractContextManager[None]:
    """``quiet``, or nothing where gradients are wanted."""
    return nullcontext() if differentiable else quiet(denoiser)


def _march(step: Along, rows: list[Row], x: Tensor, noise: Noise) -> Tensor:
    """The loop of a sampler without memory: the denoiser is asked for the next state itself."""
    for k, row in enumerate(rows):
        x = step(k, x)
        if row.c:
            x = x.add(noise(k, row.t, row.s, x.shape, x.device, x.dtype), alpha=row.c)
    return x


def tabulate(sampler: "TableSampler", sde: SDE, ts: Tensor) -> tuple[Table, list[Row]]:
    """The checked table and its rows; those of frozen dataclasses are computed only once."""
    asked = _Asked((_identity(sampler), _identity(sde), tuple(ts.tolist())), sampler, sde)
    try:
        hash(asked)
    except TypeError:  # something in it can change
        return _tabulate.__wrapped__(asked)
    return _tabulate(asked)


@dataclass(frozen=True)
class _Asked:
    """A request for a table, told apart by all that the table depends on."""

    identity: tuple[object, object, tuple[float, ...]]
    sampler: "TableSampler" = field(compare=False)
    sde: SDE = field(compare=False)


@lru_cache(maxsize=64)
def _tabulate(asked: _Asked) -> tuple[Table, list[Row]]:
    with autodiff.ordinary_tensors():
        ts = torch.tensor(asked.identity[2], dtype=torch.float64)
        table = check_table(asked.sampler.table(asked.sde, ts), type(asked.sampler).__name__)
    return table, table.rows()


def _identity(part: object) -> object:
    """The class and all attributes of a frozen dataclass, of those within it too.

    Its own == sees the declared fields alone: not what a subclass keeps besides them. What is no
    frozen dataclass but belongs to us may change, and cannot be hashed.
    """
    parameters = getattr(type(part), "__dataclass_params__", None)
    if isinstance(part, Sampler | SDE) or parameters:
        if not (parameters and parameters.frozen):
            return [part]
        return type(part), tuple((name, _identity(v)) for name, v in vars(part).items())
    return part


def check_parts(denoiser: Denoiser, sampler: Sampler, differentiable: bool = False) -> None:
    """Raise an error for what is no denoiser or sampler, or for gradients that do not exist."""
    for part in (denoiser, sampler):
        if isinstance(part, type):
            raise TypeError(
                f"expected an instance, got the class {part.__name__}: write {part.__name__}(...)"
            )
    if isinstance(denoiser, Sampler) and isinstance(sampler, Denoiser):
        raise TypeError("expected the denoiser first and then the sampler: exchange them")
    for part, kind, such in (
        (denoiser, Denoiser, "EpsDenoiser(net, sde) or a GaussianMixture"),
        (sampler, Sampler, "DDIM()"),
    ):
        if not isinstance(part, kind):
            raise TypeError(
                f"expected a {kind.__name__.lower()}, such as {such}, got {type(part).__name__}"
            )
    if differentiable and not sampler.differentiable:
        raise TypeError(
            f"no gradients pass through {sampler}: its steps follow the samples, or are not "
            "run by torch's autograd; take a plain sampler on a fixed grid, such as DDIM()"
        )

r"""Guidance of a step instead of a score: the mean of the Gaussian that it draws is shifted."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from ...denoiser import Denoiser, Wrapper
from ...sde import SDE
from ..base import TableSampler, Walk
from ..table import Row, Table
from .onestep import Ancestral

__all__ = ["MeanShift"]


@dataclass(frozen=True)
class MeanShift(TableSampler):
    r"""DDPM's guided step: the gradient is taken where the unguided step leads, at its own time.

        mu = a x_t + b x0_hat(x_t, t),      x_s = mu + c^2 scale grad log h(mu, s) + c z.

    Its argument: the unguided step draws x_s from N(mu, c^2), the guided one from that times
    h(x_s, s)^scale, whose logarithm is linear nearby. It converges to the guided reverse SDE with
    order 1, as the same rows with the guided x0_hat do, and costs the same.

    Args:
        sampler: one evaluation and fresh noise a step; Ancestral() is DDPM.

    References:
        Sohl-Dickstein et al. 2015 (arXiv:1503.03585), sec. 2.5; Dhariwal and Nichol 2021
        (arXiv:2105.05233), eq. 10 and algorithm 1.
    """

    sampler: TableSampler = field(default_factory=Ancestral)
    order: ClassVar[int] = 1
    noise: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Raise an error for a sampler whose steps are not Gaussians."""
        if not (isinstance(self.sampler, TableSampler) and self.sampler.noise):
            raise ValueError(
                f"expected a sampler with noise in its steps, got {self.sampler!r}: without it "
                "there is nothing to shift; give the guided denoiser to the sampler itself"
            )

    @property
    def linear(self) -> bool:
        """False: a gradient need not be linear, nor the step that of the denoiser alone."""
        return False

    def table(self, sde: SDE, ts: Tensor) -> Table:
        """The sampler's table."""
        return self.sampler.table(sde, ts)

    def bind(self, denoiser: Denoiser, x: Tensor, ts: Tensor) -> Walk:
        """The sampler's own loop with the unguided denoiser, and every step shifted.

        Raises:
            TypeError: if the denoiser is no ``Wrapper`` with a pull, as ``Guided`` is.
        """
        if not isinstance(denoiser, Wrapper) or type(denoiser).pull is Wrapper.pull:
            raise TypeError(
                f"expected Guided(denoiser, log_h), whose gradient shifts the steps, or another "
                f"Wrapper that defines pull(x, t), got {type(denoiser).__name__}"
            )
        return _Shifted(self.sampler, denoiser.pull).bind(denoiser.denoiser, x, ts)


class _Shifted(TableSampler):
    """The loop of a ``MeanShift`` with its gradient at hand."""

    order: ClassVar[int] = 1
    noise: ClassVar[bool] = True

    def __init__(self, sampler: TableSampler, pull: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.sampler, self.pull = sampler, pull

    def table(self, sde: SDE, ts: Tensor) -> Table:
        """The sampler's table."""
        return self.sampler.table(sde, ts)

    def apply(self, x: Tensor, past: Sequence[Tensor], row: Row, z: Tensor | None) -> Tensor:
        """The row without noise, the shift, the noise."""
        x = self.sampler.apply(x, past, row, None)
        if z is None:
            return x
        return x.add(self.pull(x, x.new_full((), row.s)), alpha=row.c**2).add_(z, alpha=row.c)

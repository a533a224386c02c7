"""Where the times of a training step come from: small objects, called with the batch size.

All are stratified, one time in every n-th of the distribution, in random order: the same mean as
independent draws, with less noise. Times are float32 at least, whatever 16-bit dtype is asked
for: in bfloat16 the next number after 0.996 is 1, beyond the ``t_max`` of some processes.

References:
    Kingma et al. 2021, "Variational diffusion models" (arXiv:2107.00630), app. I.1.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from ..sde import SDE

__all__ = ["ChainTimes", "LogNormalTimes", "LogSNRTimes", "Times", "UniformTimes"]


class Times(Protocol):
    """Where the times of a training step come from."""

    def __call__(
        self, n: int, generator: torch.Generator | None, device: torch.device, dtype: torch.dtype
    ) -> Tensor:
        """Draw t, (n,), in that dtype or a wider one."""


def _stratified(
    n: int, generator: torch.Generator | None, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """n numbers in [0, n), one between any two integers, in random order."""
    wide = torch.promote_types(dtype, torch.float32)
    share = torch.rand(n, generator=generator, device=device, dtype=wide)
    return share.add_(torch.randperm(n, generator=generator, device=device))


@dataclass(frozen=True)
class UniformTimes:
    """t uniform on [t_eps, t_max], stratified: one in every n-th of the interval.

    Args:
        t_eps: earliest time, above 0, where the error of x0 says nothing about eps.
        t_max: latest time, at most the process' ``t_max``.

    References:
        Song et al. 2021 (arXiv:2011.13456), app. C: 1e-5 in training, 1e-3 in sampling.
    """

    t_eps: float = 1e-5
    t_max: float = 1.0

    def __call__(
        self, n: int, generator: torch.Generator | None, device: torch.device, dtype: torch.dtype
    ) -> Tensor:
        """Draw t, (n,)."""
        u = _stratified(n, generator, device, dtype)
        return u.mul_((self.t_max - self.t_eps) / n).add_(self.t_eps)


@dataclass(frozen=True)
class ChainTimes:
    """The times t_i = i/N of a chain, i uniform on 1..N, stratified: discrete training.

    Args:
        N: number of steps of the chain.
    """

    N: int = 1000

    def indices(self, n: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
        """Draw i in 1..N, (n,) long."""
        u = _stratified(n, generator, device, torch.float32)
        return (u * (self.N / n)).long().clamp_(max=self.N - 1) + 1

    def __call__(
        self, n: int, generator: torch.Generator | None, device: torch.device, dtype: torch.dtype
    ) -> Tensor:
        """Draw t = i/N, (n,)."""
        wide = torch.promote_types(dtype, torch.float32)
        return self.indices(n, generator, device).to(wide) / self.N


@dataclass(frozen=True)
class LogSNRTimes:
    """t uniform in log-SNR, stratified: importance sampling of the ``likelihood`` weight.

    For any error e(t), with L = log_snr(t_eps) - log_snr(t_max),

        E e = (1/L) int (g^2/sigma^2) e dt.

    Args:
        sde: the process.
        t_eps: earliest time, above 0.
        t_max: latest time; the process' own where None.
    """

    sde: SDE
    t_eps: float = 1e-5
    t_max: float | None = None

    @cached_property
    def ends(self) -> tuple[float, float]:
        """log-SNR at t_eps and at t_max."""
        ends = (self.t_eps, self.sde.t_max if self.t_max is None else self.t_max)
        high, low = self.sde.log_snr(torch.tensor(ends, dtype=torch.float64)).tolist()
        return high, low

    def __call__(
        self, n: int, generator: torch.Generator | None, device: torch.device, dtype: torch.dtype
    ) -> Tensor:
        """Draw t, (n,)."""
        high, low = self.ends
        u = _stratified(n, generator, device, dtype)
        return self.sde.time_of_log_snr(u.mul_((low - high) / n).add_(high))


@dataclass(frozen=True)
class LogNormalTimes:
    """log(sigma/alpha) ~ N(mean, std^2), stratified: the times of EDM, cut at both ends.

    Args:
        sde: the process.
        mean: mean of log(sigma/alpha).
        std: standard deviation of log(sigma/alpha).
        t_eps: earliest time, above 0.

    References:
        Karras et al. 2022 (arXiv:2206.00364), table 1, "noise distribution".
    """

    sde: SDE
    mean: float = -1.2
    std: float = 1.2
    t_eps: float = 1e-5

    def __call__(
        self, n: int, generator: torch.Generator | None, device: torch.device, dtype: torch.dtype
    ) -> Tensor:
        """Draw t, (n,)."""
        u = _stratified(n, generator, device, dtype) / n
        eps = torch.finfo(u.dtype).eps
        u = u.clamp(eps, 1 - eps)
        log_snr = -2 * (self.mean + self.std * torch.special.ndtri(u))
        high, low = LogSNRTimes(self.sde, self.t_eps).ends
        return self.sde.time_of_log_snr(log_snr.clamp(low, high))

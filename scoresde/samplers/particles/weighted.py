"""Sequential Monte Carlo: what samplers with weighted particles share.

The weights have heavy tails: most are soon carried by few particles. Where their effective number
falls below a share of all, particles are drawn anew in proportion to them (systematically: one
random number for all), and the weights are equal again.

References:
    Del Moral, Doucet and Jasra 2006 (sequential Monte Carlo samplers).
"""

import math
from abc import abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from ...denoiser import Denoiser
from ...noise import GeneratorNoise, Noise
from ..base import Callback, Sampler, quiet
from ..fixed.onestep import DDIM, Ancestral, EulerMaruyama, ReverseDiffusion

__all__ = ["Particles", "Weighted", "uniforms"]

Steps = EulerMaruyama | ReverseDiffusion | Ancestral | DDIM


class Particles(NamedTuple):
    """Weighted samples, and how the weights fared.

    Attributes:
        x: samples, (B, *).
        log_weights: normalised, (B,): their exponentials add to 1.
        ess: effective number of particles at each time before resampling, 1/sum W^2, (n,).
        resampled: whether they were drawn anew there, (n,).
        log_norm: log of the mean weight of all steps, (): of the integral of prod_i p_i(x)^{a_i}
            over x at the end of the grid, less that at its start.
    """

    x: Tensor
    log_weights: Tensor
    ess: Tensor
    resampled: Tensor
    log_norm: Tensor

    @property
    def weights(self) -> Tensor:
        """Weights of the samples, (B,); they add to 1."""
        return self.log_weights.exp()

    def mean(self, values: Tensor) -> Tensor:
        """Weighted mean of what belongs to the samples, (B, *) -> (*)."""
        mean: Tensor = torch.tensordot(self.weights, values, 1)
        return mean


@dataclass(frozen=True)
class Weighted(Sampler):
    """Sequential Monte Carlo in the steps of a reverse SDE: what particles with weights share.

    A subclass says in ``run`` how they move and what they weigh.

    Args:
        sampler: EulerMaruyama, ReverseDiffusion, Ancestral or DDIM(1): steps of the SDE.
        threshold: resample where the effective share of particles is below this, in [0, 1]; 0 is
            never (importance sampling), 1 is at every step at which they differ.
    """

    sampler: Steps = field(default_factory=EulerMaruyama)
    threshold: float = 0.5
    order: ClassVar[int] = 1
    noise: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Raise an error unless the steps are those of the reverse SDE."""
        if not isinstance(self.sampler, Steps) or getattr(self.sampler, "eta", 1.0) != 1:
            raise ValueError(
                "expected the steps of a reverse SDE, EulerMaruyama(), ReverseDiffusion(), "
                f"Ancestral() or DDIM(1.0), got {self.sampler!r}"
            )
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"expected a threshold in [0, 1], got {self.threshold}")

    @property
    def linear(self) -> bool:
        """False: particles are multiplied and die."""
        return False

    def solve(
        self,
        denoiser: Denoiser,
        x: Tensor,
        ts: Tensor,
        generator: torch.Generator | None = None,
        noise: Noise | None = None,
        callback: Callback | None = None,
    ) -> Particles:
        """Weighted samples with diagnostics; arguments as of a call.

        Raises:
            TypeError: if the denoiser does not say what its particles weigh.
        """
        x, ts = self.enter(denoiser, x, ts)
        with quiet(denoiser):
            out = self.run(denoiser, x, ts, noise or GeneratorNoise(generator), callback)
        return Particles(*(part.clone() for part in out))

    def walk(
        self, denoiser: Denoiser, x: Tensor, ts: Tensor, noise: Noise, callback: Callback | None
    ) -> Tensor:
        """Samples of equal weight: those of ``solve``, drawn anew by their weights."""
        out = self.run(denoiser, x, ts, noise, callback)
        u = uniforms(noise, len(ts), 1, x)
        return out.x.index_select(0, _systematic(out.weights, u[0]))

    @abstractmethod
    def run(
        self, denoiser: Denoiser, x: Tensor, ts: Tensor, noise: Noise, callback: Callback | None
    ) -> Particles:
        """The loop itself, on a grid that has been checked (float64, CPU)."""

    def weigh(self, log_w: Tensor, u: Tensor) -> tuple[Tensor, ...]:
        """(chosen (B,), their log weights, log mean weight, ESS, whether they were drawn anew).

        Both cases are computed and one is taken, so that the host need not know which.
        """
        n, gain = len(log_w), log_w.logsumexp(0) - math.log(len(log_w))
        weights = log_w.softmax(0)
        ess = 1 / weights.square().sum()
        few = ess < self.threshold * n * (1 - 1e-6)  # rounding must not part equal weights
        chosen = torch.where(few, _systematic(weights, u), torch.arange(n, device=u.device))
        return chosen, torch.where(few, 0.0, log_w - gain), gain, ess, few


def uniforms(noise: Noise, k: int, n: int, x: Tensor) -> Tensor:
    """n uniform numbers from one draw of noise, used again where it holds fewer."""
    z = noise(k, 0.0, 0.0, x.shape, x.device, x.dtype).flatten()
    u: Tensor = torch.special.ndtr(z.repeat(-(-n // len(z)))[:n])
    return u


def _systematic(weights: Tensor, u: Tensor) -> Tensor:
    """Indices (B,), i about B weights_i times: where the sums of weights pass (j + u)/B."""
    n = len(weights)
    sums = weights.cumsum(0)
    marks = (torch.arange(n, device=u.device) + u) / n
    return torch.searchsorted(sums / sums[-1], marks).clamp(max=n - 1)

r"""Particles with weights: the sampler that a guided law needs to be what it says.

Guidance multiplies densities p_i(x, t) to powers a_i that add to 1. Each p_i belongs to a reverse
SDE, whose steps from t to s are Gaussians of one width c about a x + b x0_hat_i. Their product,
to the same powers, is the guided step about a x + b sum_i a_i x0_hat_i, times a number:

    prod_i N(y; m_i, c^2)^{a_i} = N(y; sum_i a_i m_i, c^2) e^{dw},
    dw = (|sum_i a_i m_i|^2 - sum_i a_i |m_i|^2)/(2 c^2) = 1/2 (b sigma^2/(alpha c))^2 excess,
    excess = |sum_i a_i s_i|^2 - sum_i a_i |s_i|^2        (``scoresde.tilt``).

So particles that walk the guided steps and gather the weights e^{dw} have the law of the product
of the paths, prod_i P_i^{a_i}. All p_i have the same forward steps, so the ratio of two of these
path laws is p_i(x_0)/p_j(x_0), and their product ends in prod_i p_i(x_0)^{a_i}: the law that
guidance does not sample by itself. As the step goes to 0, dw -> 1/2 g^2 excess dt.

The weights have heavy tails: most are soon carried by few particles. Where their effective number
falls below a share of all, particles are drawn anew in proportion to them (systematically: one
random number for all), and the weights are equal again.

References:
    Skreta et al. 2025 (arXiv:2503.02819), Feynman-Kac correctors; Del Moral, Doucet and Jasra 2006
    (sequential Monte Carlo samplers).
"""

import math
from abc import abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from ..denoiser import Denoiser, onto
from ..noise import GeneratorNoise, Noise
from ..sde import SDE
from .base import Callback, Sampler, quiet, tabulate
from .onestep import DDIM, Ancestral, EulerMaruyama, ReverseDiffusion

__all__ = ["FeynmanKac", "Particles", "Weighted", "uniforms"]

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
        """Of the samples, (B,); they add to 1."""
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
        """Refuse steps that are not those of the reverse SDE."""
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


@dataclass(frozen=True)
class FeynmanKac(Weighted):
    r"""Sequential Monte Carlo for products of densities: samples p_0(x) p(y|x)^w itself.

    For ``Guided`` with a likelihood of the noisy state p(y | x_t), ``ClassifierFree``,
    ``Tempered`` and their compositions, with scores that are those of densities. (Of networks
    what is sampled is the tilted law only as far as theirs are; for an energy that is no
    likelihood there is ``TwistedSMC``.) At w = 1, or without guidance, all weights are equal, and
    this is the plain sampler.

    The samples of a batch are coupled: results depend on its size, and ``sample`` corrects each
    of its chunks by itself (give it chunk=n), with a bias that falls as 1/chunk. Weights are
    heavy-tailed: usable up to w of about 2; compare several seeds, for the spread of the samples
    says nothing of the error. The grid should be fine, some hundreds of steps.

    Args:
        sampler: EulerMaruyama, ReverseDiffusion, Ancestral or DDIM(1): steps of the SDE.
        threshold: resample where the effective share of particles is below this, in [0, 1]; 0 is
            never (importance sampling), 1 is at every step at which they differ.

    References:
        Skreta et al. 2025 (arXiv:2503.02819).
    """

    def run(
        self, denoiser: Denoiser, x: Tensor, ts: Tensor, noise: Noise, callback: Callback | None
    ) -> Particles:
        """Weigh by the excess at the start of each step, resample, take the guided step."""
        if type(denoiser).tilt is Denoiser.tilt:
            raise TypeError(
                f"expected a guided denoiser, with tilt(x, t), got {type(denoiser).__name__}: "
                "what nothing guides needs no correction; use EulerMaruyama()"
            )
        rows = _rows(self.sampler, denoiser.sde, ts)
        times, u = onto(ts, x), uniforms(noise, len(rows), len(rows), x)
        log_w, log_norm, seen = x.new_zeros(len(x)), x.new_zeros(()), []
        for k, row in enumerate(rows):
            tilt = denoiser.tilt(x, times[k])
            chosen, log_w, gain, *report = self.weigh(log_w + row.gain * tilt.excess, u[k])
            log_norm = log_norm + gain
            seen.append(report)
            if callback is not None:
                callback(k, row.t, x, row.x0_hat(x, tilt.score))
            x, score = x.index_select(0, chosen), tilt.score.index_select(0, chosen)
            before, x = x, row.a * x + row.b * score
            if row.c:
                x.add_(noise(k, row.t, row.s, x.shape, x.device, x.dtype), alpha=row.c)
        if callback is not None:
            callback(len(rows), row.s, x, row.x0_hat(before, score))
        ess, resampled = (torch.stack(column) for column in zip(*seen, strict=True))
        return Particles(x, log_w.log_softmax(0), ess, resampled, log_norm)


class _Row(NamedTuple):
    """x <- a x + b score + c z, as plain numbers, and what multiplies the excess."""

    t: float
    s: float
    a: float
    b: float
    c: float
    gain: float
    alpha: float
    sigma2: float

    def x0_hat(self, x: Tensor, score: Tensor) -> Tensor:
        """What the score says of the data."""
        return (x + self.sigma2 * score) / self.alpha


def _rows(sampler: Steps, sde: SDE, ts: Tensor) -> list[_Row]:
    """The table of one-step rows, with the score in the place of x0_hat."""
    table, _ = tabulate(sampler, sde, ts)
    alpha, sigma2, x0_factor = sde.alpha(table.t), sde.sigma2(table.t), table.b[:, 0]
    a, b = table.a + x0_factor / alpha, x0_factor * sigma2 / alpha
    gain = torch.where(table.c > 0, 0.5 * (b / table.c).square(), 0.0)
    columns = (table.t, table.s, a, b, table.c, gain, alpha, sigma2)
    return list(map(_Row, *(column.tolist() for column in columns)))


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

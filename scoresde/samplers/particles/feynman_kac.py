r"""Weights that correct guidance: with them the samples follow the tilted distribution.

Guidance multiplies densities p_i(x, t) to powers a_i that add to 1. Each p_i belongs to a reverse
SDE, whose steps from t to s are Gaussians of one width c about a x + b x0_hat_i. Their product,
to the same powers, is the guided step about a x + b sum_i a_i x0_hat_i, times a number:

    prod_i N(y; m_i, c^2)^{a_i} = N(y; sum_i a_i m_i, c^2) e^{dw},
    dw = (|sum_i a_i m_i|^2 - sum_i a_i |m_i|^2)/(2 c^2) = 1/2 (b sigma^2/(alpha c))^2 excess,
    excess = |sum_i a_i s_i|^2 - sum_i a_i |s_i|^2        (``scoresde.tilt``).

So particles that take the guided steps and gather the weights e^{dw} follow the product of the
path distributions, prod_i P_i^{a_i}. All p_i have the same forward steps, so the ratio of P_i to
P_j is p_i(x_0)/p_j(x_0), and their product ends in prod_i p_i(x_0)^{a_i}: the distribution that
guidance does not sample by itself. As the step goes to 0, dw -> 1/2 g^2 excess dt.

References:
    Skreta et al. 2025 (arXiv:2503.02819), Feynman-Kac correctors.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ...denoiser import Denoiser, onto
from ...noise import Noise
from ...sde import SDE
from ..base import Callback, tabulate
from .weighted import Particles, Steps, Weighted, uniforms

__all__ = ["FeynmanKac"]


@dataclass(frozen=True)
class FeynmanKac(Weighted):
    r"""Sequential Monte Carlo for products of densities: samples p_0(x) p(y|x)^w itself.

    For ``Guided`` with a likelihood of the noisy state p(y | x_t), ``ClassifierFree``,
    ``Tempered`` and their compositions, with scores that are those of densities. (With networks
    the tilted distribution is sampled only as far as theirs are; for an energy that is no
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
        """The prediction x0_hat, by Tweedie's formula."""
        return (x + self.sigma2 * score) / self.alpha


def _rows(sampler: Steps, sde: SDE, ts: Tensor) -> list[_Row]:
    """The table of one-step rows, with the score in the place of x0_hat."""
    table, _ = tabulate(sampler, sde, ts)
    alpha, sigma2, x0_factor = sde.alpha(table.t), sde.sigma2(table.t), table.b[:, 0]
    a, b = table.a + x0_factor / alpha, x0_factor * sigma2 / alpha
    gain = torch.where(table.c > 0, 0.5 * (b / table.c).square(), 0.0)
    columns = (table.t, table.s, a, b, table.c, gain, alpha, sigma2)
    return list(map(_Row, *(column.tolist() for column in columns)))

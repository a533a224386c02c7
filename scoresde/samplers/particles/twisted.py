r"""Particles steered by a guess of the likelihood, and weighted by how wrong the guess was.

The steps of a reverse SDE draw x_s from N(m(x_t), c^2); a measurement, a reward or a class
multiplies their distribution at the end by h_0(x). The function h_t(x) = E[h_0(x_0) | x_t = x]
would steer them there exactly, but there is only a guess of it, the twist. Shift every step by
c^2 grad log h_t, and weigh:

    x_s = m(x_t) + c^2 pull + c z,        pull ~ grad log h_t(x_t),
    dw  = log h_s(x_s) - log h_t(x_t) + log [N(x_s; m, c^2)/N(x_s; m + c^2 pull, c^2)]
        = log h_s(x_s) - log h_t(x_t) - c pull . z - 1/2 c^2 |pull|^2        (Girsanov).

The guesses between cancel in the sum of dw, whatever they are, and h_0 remains: with ever more
particles their distribution is that of the unguided steps times h_0, normalised, and the mean of
e^w its mass. A better guess makes equal weights sooner, that is all; for the true h_t they are
equal from the first step on, up to the finite size of the steps.

Where h_t is a power w of a likelihood of the noisy state, e^{dw} becomes the weight of
``FeynmanKac``: h^{1/w} is then a martingale of the unguided SDE, and Ito's formula leaves
dw = 1/2 g^2 w (w - 1) |grad log h^{1/w}|^2 dt.

References:
    Wu, Trippe, Naesseth, Blei and Cunningham 2023 (arXiv:2306.17775), algorithm 1.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ...denoiser import Denoiser, onto
from ...noise import Noise
from ..base import Callback, tabulate
from .weighted import Particles, Weighted, uniforms

__all__ = ["TwistedSMC"]


@dataclass(frozen=True)
class TwistedSMC(Weighted):
    r"""Sequential Monte Carlo for p_0(x) h(x): the posterior itself, of any prior.

    The denoiser says what h is and how to guess it on the way:

        DPS, PiGDM, MomentMatching     h = p(y | x0), guessed by N(y; A x0_hat, S): the posterior
        Guided                         h = e^{scale log_h(x, 0)}: a reward, an energy, a class

    The tilted distribution is the one that the unguided steps sample, network and grid included.
    Let the grid end at t = 0; where it ends before, h is taken at x0_hat there, as ``sample`` ends
    with last="denoise". ``solve`` returns weights, and log p(y) as ``log_norm``.

    The samples of a batch are coupled, and of one y or one label: results depend on the size of
    the batch, and ``sample`` treats each of its chunks by itself (give it chunk=n), with a bias
    that falls as 1/chunk. How many particles are enough depends on the guess: watch ``ess``, and
    compare seeds. In many dimensions few particles survive a guess that is poor.

    Args:
        sampler: EulerMaruyama, ReverseDiffusion, Ancestral or DDIM(1): steps of the SDE.
        threshold: resample where the effective share of particles is below this, in [0, 1]; 0 is
            never (importance sampling), 1 is at every step at which they differ.

    References:
        Wu et al. 2023 (arXiv:2306.17775), algorithm 1.
    """

    def run(
        self, denoiser: Denoiser, x: Tensor, ts: Tensor, noise: Noise, callback: Callback | None
    ) -> Particles:
        """Weigh by what the guess became, resample, take the shifted step."""
        if type(denoiser).twist is Denoiser.twist:
            raise TypeError(
                f"expected a denoiser with twist(x, t), as MomentMatching(denoiser, measurement) "
                f"or Guided(denoiser, log_h), got {type(denoiser).__name__}"
            )
        table, rows = tabulate(self.sampler, denoiser.sde, ts)
        times, u = onto(ts, x), uniforms(noise, len(rows), len(rows), x)
        gains = (denoiser.sde.sigma2(table.t) / denoiser.sde.alpha(table.t)).tolist()
        log_w, log_norm, seen = x.new_zeros(len(x)), x.new_zeros(()), []
        for k, row in enumerate(rows):
            x0_hat, pull, log_h = denoiser.twist(x, times[k])
            chosen, log_w, gain, *report = self.weigh(log_w + log_h, u[k])
            log_norm = log_norm + gain
            seen.append(report)
            if callback is not None:
                callback(k, row.t, x, x0_hat + gains[k] * pull)
            x, x0_hat, pull, log_h = (
                part.index_select(0, chosen) for part in (x, x0_hat, pull, log_h)
            )
            x, log_w = row.a * x + row.b[0] * x0_hat + row.c**2 * pull, log_w - log_h
            if row.c:
                z = noise(k, row.t, row.s, x.shape, x.device, x.dtype)
                x.add_(z, alpha=row.c)
                log_w = log_w - (pull * (row.c * z + 0.5 * row.c**2 * pull)).flatten(1).sum(1)
        log_w = log_w + denoiser.log_target(x, times[-1])
        if callback is not None:
            callback(len(rows), row.s, x, x0_hat + gains[-1] * pull)
        log_norm = log_norm + log_w.logsumexp(0) - math.log(len(x))
        ess, resampled = (torch.stack(column) for column in zip(*seen, strict=True))
        return Particles(x, log_w.log_softmax(0), ess, resampled, log_norm)

r"""Information along the process: entropy, Fisher information, what x_t still knows of x0.

For a linear process dX = f X dt + g dW, in nats:

    H = -E log p_t,      I_F = E|score|^2,      dH/dt = d f + g^2/2 I_F             (de Bruijn)
    I(x0; x_t) = H - d/2 log(2 pi e sigma^2),   dI/dt = 1/2 mmse d(snr)/dt          (I-MMSE)

Every function takes times of any shape and returns an ``Estimate`` (value, stderr) of that shape:
exact, with stderr 0, for one Gaussian in any dimension and for mixtures in one or two; from n
samples for other distributions. Those that need no density take a network too, with data x0
(n, *) in the model's units to average over.

>>> import torch
>>> from scoresde.data import gm1
>>> from scoresde.sde import VPSDE
>>> data, t = gm1(VPSDE()), torch.tensor([0.1, 1.0])
>>> entropy(data, t).value.round(decimals=6).tolist()
[1.337679, 1.418953]

References:
    Stam 1959; Guo, Shamai and Verdu 2005 (arXiv:cs/0412108), theorem 1.
"""

import math

import torch
from torch import Tensor

from ..denoiser import Denoiser
from ..distributions import Distribution
from ..estimate import Estimate
from ..losses import irreducible_loss, loss_by_time
from .averages import SAMPLES, average, check_times

__all__ = [
    "entropy",
    "entropy_rate",
    "fisher_information",
    "information_rate",
    "kl_to_prior",
    "mutual_information",
]


def entropy(
    law: Distribution, t: Tensor, n: int = SAMPLES, generator: torch.Generator | None = None
) -> Estimate:
    """Differential entropy H = -E log p_t in nats, of the shape of t.

    Args:
        law: the data, known exactly.
        t: times; 0 too, unless the distribution has point masses.
        n: number of samples where there is no quadrature.
        generator: random generator of the samples.
    """
    return average(law, t, lambda x, t: -law.log_prob(x, t), None, n, generator, quadratic=True)


def kl_to_prior(
    law: Distribution, t: Tensor, n: int = SAMPLES, generator: torch.Generator | None = None
) -> Estimate:
    """KL(p_t || prior_t) in nats: what it costs to start the reverse process at t from the prior.

    For a variance-preserving process the prior is the stationary N(0, I), and this is the free
    energy, in units of kT, that the process has still to lose.

    Args:
        law: the data, known exactly.
        t: times.
        n: number of samples where there is no quadrature.
        generator: random generator of the samples.
    """

    def excess(x: Tensor, t: Tensor) -> Tensor:
        return law.log_prob(x, t) - law.sde.prior(float(t)).log_prob(x)

    return average(law, t, excess, None, n, generator, quadratic=True)


def fisher_information(
    denoiser: Denoiser,
    t: Tensor,
    x0: Tensor | None = None,
    n: int = SAMPLES,
    generator: torch.Generator | None = None,
) -> Estimate:
    """I_F = E|score|^2 = -E div score, in 1/units of x squared, of the shape of t.

    Args:
        denoiser: an exact distribution; or a network, whose own score is squared.
        t: times; above 0 for a network.
        x0: data to average over, needed for a network.
        n: number of samples where there is no quadrature.
        generator: random generator of the samples.
    """
    square = lambda x, t: denoiser.score(x, t).square().flatten(1).sum(1)
    return average(denoiser, t, square, x0, n, generator, quadratic=True)


def entropy_rate(
    denoiser: Denoiser,
    t: Tensor,
    x0: Tensor | None = None,
    n: int = SAMPLES,
    generator: torch.Generator | None = None,
) -> Estimate:
    """De Bruijn's identity along the process: dH/dt = d f + g^2/2 I_F, in nats.

    Noise raises the entropy, the drift of a variance-preserving process (f < 0) lowers it.

    Args:
        denoiser: see ``fisher_information``, as are the rest.
        t: times.
        x0: data.
        n: number of samples.
        generator: random generator of the samples.
    """
    fisher = fisher_information(denoiser, t, x0, n, generator)
    f, g2 = denoiser.sde.rates(t.to(fisher.value))
    return Estimate(_dim(denoiser, x0) * f + 0.5 * g2 * fisher.value, 0.5 * g2 * fisher.stderr)


def mutual_information(
    law: Distribution, t: Tensor, n: int = SAMPLES, generator: torch.Generator | None = None
) -> Estimate:
    """I(x0; x_t) = H(p_t) - d/2 log(2 pi e sigma^2) in nats: what x_t still knows of x0.

    Args:
        law: the data, known exactly.
        t: times above 0, where it is infinite.
        n: number of samples where there is no quadrature.
        generator: random generator of the samples.
    """
    h = entropy(law, t, n, generator)
    noise = 0.5 * law.event.numel() * (1 + (2 * math.pi * law.sde.sigma2(t.to(h.value))).log())
    return Estimate(h.value - noise, h.stderr)


def information_rate(
    denoiser: Denoiser,
    t: Tensor,
    x0: Tensor | None = None,
    n: int = SAMPLES,
    generator: torch.Generator | None = None,
) -> Estimate:
    r"""The I-MMSE relation: how fast x_t forgets x0, in nats.

        dI(x0; x_t)/dt = 1/2 mmse d(snr)/dt = -g^2/(2 sigma^2) E|eps_hat - eps|^2.

    The eps loss is a rate of information: that of a network is never smaller than the exact one.

    Args:
        denoiser: an exact distribution, or a network with data.
        t: times above 0.
        x0: data to average over, needed for a network.
        n: number of samples where there is no quadrature.
        generator: random generator of the samples.
    """
    times = check_times(denoiser, t)
    if x0 is None and isinstance(denoiser, Distribution):
        loss = irreducible_loss(denoiser, times, n, generator)
    elif x0 is not None:
        loss = loss_by_time(denoiser, x0, times, generator)
    else:
        raise TypeError("expected data x0 (n, *) beside a network, got none: its loss needs them")
    value, stderr = (part.reshape(t.shape) for part in loss)
    at = t.to(value)
    factor = 0.5 * _dim(denoiser, x0) * denoiser.sde.g2(at) / denoiser.sde.sigma2(at)
    return Estimate(-factor * value, factor * stderr)


def _dim(denoiser: Denoiser, x0: Tensor | None) -> int:
    """Number of coordinates of one sample."""
    if x0 is not None:
        return x0[0].numel()
    assert isinstance(denoiser, Distribution)
    return denoiser.event.numel()

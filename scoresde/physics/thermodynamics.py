r"""Thermodynamics of the forward process: entropy production and the fluctuation theorem.

A variance-preserving process relaxes in a quadratic potential to pi = N(0, I), with KL(p_t || pi)
as its free energy (kT = 1). With s the score of p_t and B = -2 log alpha:

    dKL/dt = -g^2/2 E|s + x|^2 <= 0          what is lost is the entropy production
    e^{B(t)} KL_t never increases            the log-Sobolev inequality of pi
    Sigma = log (p_0/pi)(x_0) - log (p_T/pi)(x_T),    E e^{-Sigma} = 1,    E Sigma = KL_0 - KL_T

Sigma is the log ratio of a path's probability to that of its reverse, and depends on the two ends
alone because the kernel is reversible with respect to pi. DDPM's kernel is so at any beta_i;
Euler-Maruyama's is not: it has another stationary distribution.

References:
    Seifert 2005 (arXiv:cond-mat/0503686); Gross 1975 (log-Sobolev); Ho et al. 2020 (the chain).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..chain import DDPMChain
from ..denoiser import Denoiser
from ..distributions import Distribution, GaussianMixture
from ..estimate import Estimate
from ..sde import SDE, Prior, VariancePreserving
from .averages import SAMPLES, Function, average, integral
from .information import kl_to_prior

__all__ = [
    "ForwardKernel",
    "entropy_production",
    "entropy_production_rate",
    "relative_entropy_decay",
]

STATIONARY = Prior(1.0)


def entropy_production_rate(
    denoiser: Denoiser,
    t: Tensor,
    x0: Tensor | None = None,
    n: int = SAMPLES,
    generator: torch.Generator | None = None,
) -> Estimate:
    """-dKL(p_t || pi)/dt = g^2/2 E|score + x|^2 >= 0 in nats, of the shape of t.

    Args:
        denoiser: an exact distribution; or a network, whose own score is used.
        t: times; above 0 for a network.
        x0: data to average over, needed for a network, in the model's units.
        n: number of samples where there is no quadrature.
        generator: random generator of the samples.
    """
    _check_stationary(denoiser.sde)
    return average(denoiser, t, _dissipation(denoiser), x0, n, generator, quadratic=True)


def entropy_production(
    denoiser: Denoiser,
    start: float | None = None,
    stop: float | None = None,
    x0: Tensor | None = None,
    n: int = SAMPLES,
    generator: torch.Generator | None = None,
    nodes: int = 80,
) -> Estimate:
    """Total int g^2/2 E|score + x|^2 dt = KL(p_start || pi) - KL(p_stop || pi), () in nats.

    Args:
        denoiser: see ``entropy_production_rate``, as are those not named here.
        start: the earlier time; if not given, 0 if the score is finite there, else sde.t_eps.
        stop: the later time; sde.t_max if not given.
        x0: data.
        n: number of samples.
        generator: random generator of the samples.
        nodes: number of nodes of the quadrature in time.
    """
    sde = denoiser.sde
    _check_stationary(sde)
    if start is None:
        start = 0.0 if denoiser.regular else sde.t_eps
    stop = sde.t_max if stop is None else stop
    rate = _dissipation(denoiser)
    return integral(denoiser, start, stop, rate, x0, n, generator, quadratic=True, nodes=nodes)


def relative_entropy_decay(
    law: Distribution, t: Tensor, n: int = SAMPLES, generator: torch.Generator | None = None
) -> Estimate:
    """e^{B(t)} KL(p_t || pi) in nats: it never increases, and tends to |E x0|^2/2.

    So KL_t <= e^{-(B_t - B_s)} KL_s: the relative entropy is lost at least as fast as the
    variance of a mode of the drift, e^{-B}.

    Args:
        law: the data, known exactly.
        t: times.
        n: number of samples where there is no quadrature.
        generator: random generator of the samples.
    """
    _check_stationary(law.sde)
    kl = kl_to_prior(law, t, n, generator)
    growth = (-2 * law.sde.log_alpha(t.to(kl.value))).exp()
    return Estimate(growth * kl.value, growth * kl.stderr)


@dataclass(frozen=True)
class ForwardKernel:
    """The end of a forward path given its beginning: x = scale x0 + sqrt(var) z.

    Args:
        scale: factor in front of x0.
        var: variance of the noise.
    """

    scale: float
    var: float

    @classmethod
    def of_sde(cls, sde: SDE, t: float) -> "ForwardKernel":
        """The process itself up to t: alpha(t) and sigma(t)^2."""
        _check_stationary(sde)
        at = torch.tensor(t, dtype=torch.float64)
        return cls(float(sde.alpha(at)), float(sde.sigma2(at)))

    @classmethod
    def of_chain(cls, chain: DDPMChain) -> "ForwardKernel":
        """All steps x' = sqrt(1 - beta) x + sqrt(beta) z of DDPM's chain."""
        return cls._composed(chain, [math.sqrt(1 - beta) for beta in chain.betas])

    @classmethod
    def of_euler(cls, chain: DDPMChain) -> "ForwardKernel":
        """All steps x' = (1 - beta/2) x + sqrt(beta) z of Euler-Maruyama on the forward SDE."""
        return cls._composed(chain, [1 - beta / 2 for beta in chain.betas])

    @classmethod
    def _composed(cls, chain: DDPMChain, scales: list[float]) -> "ForwardKernel":
        scale, var = 1.0, 0.0
        for a, beta in zip(scales, chain.betas, strict=True):
            scale, var = a * scale, a * a * var + beta
        return cls(scale, var)

    def push(self, law: GaussianMixture) -> GaussianMixture:
        """The distribution of the end of a path whose beginning has this one."""
        eye = torch.eye(law.dim, dtype=law.means.dtype, device=law.means.device)
        covs = self.scale**2 * law.covs + self.var * eye
        return GaussianMixture(law.weights, self.scale * law.means, covs, law.sde)

    def path_entropy(self, law: GaussianMixture, x0: Tensor, x: Tensor) -> Tensor:
        """Sigma = log (p_0/pi)(x0) - log (p/pi)(x) in nats, p the exact density of x: (B,).

        Args:
            law: p_0.
            x0: where the paths begin, (B, *).
            x: where they end, (B, *).
        """
        begin = law.log_prob(x0) - STATIONARY.log_prob(x0)
        return begin - self.push(law).log_prob(x) + STATIONARY.log_prob(x)

    def fluctuation(self, law: GaussianMixture) -> Tensor:
        r"""E e^{-Sigma} over the paths, (), in closed form: 1 if the kernel is reversible.

            E e^{-Sigma} = int p(x) pi'(x)/pi(x) dx,      pi' = N(0, r), r = scale^2 + var,

        with pi' what the kernel makes of pi. It diverges (inf) where pi'/pi grows faster than p
        falls.

        Args:
            law: p_0, in any dimension.
        """
        r, end = self.scale**2 + self.var, self.push(law)
        excess = (1 - r) / r
        widened = 1 + excess * end.spectrum  # (K, e)
        turned = torch.einsum("kd,kde->ke", end.means.flatten(1), end.basis)
        exponent = -0.5 * (excess * turned.square() / widened + (r * widened).log()).sum(1)
        if bool((widened <= 0).any()):
            return torch.full_like(exponent[0], math.inf)
        return law.weights @ exponent.exp()


def _dissipation(denoiser: Denoiser) -> Function:
    """g^2/2 |score + x|^2."""

    def rate(x: Tensor, t: Tensor) -> Tensor:
        force = denoiser.score(x, t) + x
        return 0.5 * denoiser.sde.g2(t) * force.square().flatten(1).sum(1)

    return rate


def _check_stationary(sde: SDE) -> None:
    if not isinstance(sde, VariancePreserving):
        raise TypeError(
            f"expected a variance-preserving process, got {type(sde).__name__}: only these relax "
            "to a stationary N(0, I); use VPSDE, CosineVPSDE or the sde() of a chain"
        )

r"""The density of the probability-flow ODE's model: exact but for the integration.

    log p(x) = log p_T(x_T) + log |dx_T/dx|

along the path from x at t_eps to x_T at t_max. Two things are *not* errors of the integration and
are kept apart: which distribution x_T is compared with (the process's prior, or the exact p_T
where it is known), and the noise of a trace that is estimated by probes.
"""

import math
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from ..denoiser import Denoiser
from .flow import rademacher
from .latent import as_batch, carry, first_time
from .walks import Adaptive, Walk

__all__ = ["Likelihood", "Terminal", "bits_per_dim", "log_likelihood", "ode_likelihood"]


class Terminal(Protocol):
    """Any object that knows log p_t(x) in the model's units: a ``Distribution``, say."""

    def log_prob(self, x: Tensor, t: Tensor) -> Tensor:
        """log p_t(x), (B, *) -> (B,)."""


class Likelihood(NamedTuple):
    """The result of ``ode_likelihood``, (B,) in nats and in the user's units.

    Attributes:
        log_prob: the answer: ``under_law`` where ``prior`` was given, else ``under_prior``.
        standard_error: of log_prob, from the scatter over probes; 0 where the trace is exact,
            NaN for a single probe.
        under_prior: log p(x) with x_T ~ sde.prior(t_max), the model that is sampled.
        under_law: log p(x) with x_T from the distribution given as ``prior``; None without one.
            The difference of the two is the price of the prior, not of the integration.
        latent: x_T, (B, *), in the model's units.
        evaluations: calls of the network.
    """

    log_prob: Tensor
    standard_error: Tensor
    under_prior: Tensor
    under_law: Tensor | None
    latent: Tensor
    evaluations: int


def log_likelihood(
    denoiser: Denoiser,
    x: Tensor,
    walk: Walk | None = None,
    probes: Tensor | int | None = None,
    prior: Terminal | None = None,
    t_eps: float | None = None,
    generator: torch.Generator | None = None,
    differentiable: bool = False,
) -> Tensor:
    """log p(x) of the probability-flow ODE's model, (B,) in nats and in the user's units.

    The arguments are those of ``ode_likelihood``, which also returns the standard error over
    probes, the likelihood under both priors, the latent, and the number of evaluations. Without
    gradients, unless ``differentiable`` asks for them.

    >>> from scoresde.data import gauss
    >>> from scoresde.sde import VPSDE
    >>> x = torch.zeros(1, 2, requires_grad=True)
    >>> log_likelihood(gauss(VPSDE()), x).requires_grad
    False
    """
    return ode_likelihood(
        denoiser, x, walk, probes, prior, t_eps, generator, differentiable
    ).log_prob


def ode_likelihood(
    denoiser: Denoiser,
    x: Tensor,
    walk: Walk | None = None,
    probes: Tensor | int | None = None,
    prior: Terminal | None = None,
    t_eps: float | None = None,
    generator: torch.Generator | None = None,
    differentiable: bool = False,
) -> Likelihood:
    r"""The likelihood by the instantaneous change of variables, with all that belongs to it.

        log p_0(x_0) = log p_T(x_T) + int_0^T div(dx/dt) dt        along dx/dt = velocity(x, t).

    It is integrated in coordinates without singular ends (see ``likelihood.flow``). The trace is
    exact (an evaluation is one call of the network and d vjps: for up to some hundred dimensions)
    or Hutchinson's (one call and one vjp for each probe). A point that is not finite, or cannot be
    carried (``Adaptive``), has NaN for an answer and changes no other.

    Args:
        denoiser: the model; if it has an ``affine``, x is in the user's units and so is the
            density. Networks must be in evaluation mode if they have dropout.
        x: points (B, *), floating; brought to the dtype of the denoiser's weights if it has any,
            float32 at least.
        walk: how to integrate; ``Adaptive()`` if not given, ``Fixed(n)`` for a fixed grid.
        probes: None for the exact trace; a number of Rademacher probes to draw; or the probes
            themselves (P, B, *), with E[probe probe^T] = 1 (``torch.randn`` for Gaussian ones,
            whose variance is larger). They are kept along the path, so that the integrand is
            smooth and the result unbiased for any number of them.
        prior: a distribution whose ``log_prob(x, t)`` is exact at t_max; the process's own prior
            if not given. Both results are returned.
        t_eps: where the path begins. The result is the density of x_t at t_eps. Not given: 0 if
            the denoiser is regular there (an exact distribution), else 1e-6.
        generator: for the probes, on the device of x.
        differentiable: let gradients flow from the answers to x and to what the denoiser is made
            of: those of the discrete solution, steps and probes held fixed. All evaluations and
            their vjps are kept for the way back, so memory grows as their number (use probes,
            fewer points, or ``Fixed``); ``Adaptive`` evaluates about twice as often.

    References:
        Song et al. 2021 (arXiv:2011.13456), eq. 39; Chen et al. 2018 (arXiv:1806.07366), eq. 8.
    """
    x, affine = as_batch(denoiser, x), denoiser.affine
    z = x if affine is None else affine(x)
    trace, start = _probes(probes, z, generator), first_time(denoiser, t_eps)
    end = carry(denoiser, z, walk or Adaptive(), start, trace, differentiable=differentiable)
    with torch.set_grad_enabled(differentiable):
        change = end.growth.mean(1) - (0 if affine is None else affine.log_det(x))
        under_prior = denoiser.sde.prior(end.t).log_prob(end.x) + change
        under_law = None if prior is None else prior.log_prob(end.x, end.t) + change
        best = under_prior if under_law is None else under_law
        exact = isinstance(trace, str)
        error = torch.zeros_like(best) if exact else standard_error(end.growth)
    return Likelihood(best, error, under_prior, under_law, end.x, end.evaluations)


def bits_per_dim(
    denoiser: Denoiser,
    k: Tensor,
    levels: int,
    low: float,
    high: float,
    generator: torch.Generator | None = None,
    walk: Walk | None = None,
    probes: Tensor | int | None = None,
    prior: Terminal | None = None,
    t_eps: float | None = None,
    differentiable: bool = False,
) -> Tensor:
    r"""Bits per dimension of integer data, (B,), by uniform dequantisation.

    The model is of x = low + (high - low) (k + u)/levels with u ~ U[0, 1) independent, so

        bits = -[log p(x) + d log((high - low)/levels)]/(d log 2),

    whose mean over u is an upper bound of the discrete model's -log2 P(k)/d (Jensen), P(k) being
    the model's probability of the cell. The map is an argument: nothing is assumed to be an 8-bit
    image. For images scaled to [-1, 1]: levels=256, low=-1, high=1.

    Args:
        denoiser: the model of x, in the user's units.
        k: integers 0..levels - 1, (B, *).
        levels: number of values.
        low: the lower edge of the first cell, in the user's units.
        high: the upper edge of the last cell.
        generator: for u and the probes, on the device of k.
        walk: see ``ode_likelihood``, as are the rest.
        probes: exact trace if not given.
        prior: the exact distribution at t_max.
        t_eps: where the path begins.
        differentiable: carry gradients to what the denoiser is made of.

    References:
        Theis, van den Oord and Bethge 2016 (arXiv:1511.01844), sec. 3.1.
    """
    k = torch.as_tensor(k)
    _check_cells(k, levels, low, high)
    dtype = torch.get_default_dtype()
    u = torch.rand(k.shape, generator=generator, device=k.device, dtype=dtype)
    width = (high - low) / levels
    x = low + width * (k + u)
    log_p = log_likelihood(denoiser, x, walk, probes, prior, t_eps, generator, differentiable)
    return -(log_p / k.shape[1:].numel() + math.log(width)) / math.log(2)


def _probes(
    probes: Tensor | int | None, x: Tensor, generator: torch.Generator | None
) -> Tensor | str:
    """The argument of ``Flow``: the word for the exact trace, or the probes (P, B, *)."""
    if probes is None:
        return "exact"
    if isinstance(probes, int):
        return rademacher(probes, x, generator)
    if probes.shape[1:] != x.shape or not len(probes):
        raise ValueError(
            f"expected probes (P, {', '.join(map(str, x.shape))}), one for each sample, got "
            f"{tuple(probes.shape)}: pass a number to have them drawn"
        )
    return probes.to(x)


def standard_error(values: Tensor) -> Tensor:
    """Standard error of the mean over draws, (B, n) -> (B,); NaN for a single one."""
    if values.shape[1] == 1 or not len(values):
        return torch.full_like(values[:, 0], torch.nan)
    return values.std(1) / math.sqrt(values.shape[1])


def _check_cells(k: Tensor, levels: int, low: float, high: float) -> None:
    if k.is_floating_point() or k.is_complex() or k.ndim < 2:
        raise TypeError(f"expected integers k (B, *), got {k.dtype} {tuple(k.shape)}")
    if levels < 2 or not low < high:
        raise ValueError(
            f"expected levels >= 2 and low < high, got {levels} and {low}..{high}: levels=256, "
            "low=-1, high=1 for 8-bit images scaled to [-1, 1]"
        )
    if len(k) and (int(k.min()) < 0 or int(k.max()) >= levels):
        raise ValueError(
            f"expected integers 0..{levels - 1}, got {int(k.min())}..{int(k.max())}: give the "
            "number of levels that the data have"
        )

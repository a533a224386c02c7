r"""A bound of the reverse SDE's likelihood: the continuous-time ELBO.

The generative SDE (start at the prior, step back with the model's score, noise included) has a
density of its own. For every x0

    -log p_SDE(x0) <= -E log prior(x_T) - d log(alpha_T/alpha_eps)
                      + int_{lam(t_max)}^{lam(t_eps)} (E|eps_hat - z|^2 - d) dlam

with x_t = alpha x0 + sigma z. (For VP processes and s = sigma/alpha the last two terms are
int (E|eps_hat - z|^2 - d/(1 + s^2)) ds/s, which has no large parts that cancel; in general less
d log(r_T/r_eps), r^2 = alpha^2 + sigma^2. That is what is computed.) With the true score its mean
over the data is the entropy of the data plus KL(p_T || prior): no gap. It bounds the SDE, as
``DDPMChain.vlb`` bounds the chain; it does *not* bound the probability-flow ODE, whose -log p
exceeds it as soon as the score is wrong enough (a score 10 per cent too long on Gaussian data:
KL 0.497 against a bound of 0.057).

References:
    Song, Durkan, Murray and Ermon 2021 (arXiv:2101.09258), theorem 3; Kingma et al. 2021
    (arXiv:2107.00630), eq. 11 and 17; Huang, Lim and Courville 2021 (arXiv:2106.02808).
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ..denoiser import Denoiser
from .density import standard_error
from .latent import as_batch, first_time

__all__ = ["ELBO", "elbo"]

_Noise = Callable[[], Tensor]
"""Draws (draws, B, *), fresh or the same at each time."""


class ELBO(NamedTuple):
    """The bound -log p_SDE(x0) <= total, (B,) in nats and in the user's units.

    Attributes:
        total: prior + path.
        standard_error: of the total over draws of z; NaN for a single draw.
        prior: -E log prior(x_T) given x0, in closed form.
        path: the integral, with the terms of scale.
    """

    total: Tensor
    standard_error: Tensor
    prior: Tensor
    path: Tensor


def elbo(
    denoiser: Denoiser,
    x0: Tensor,
    nodes: int = 64,
    draws: int = 8,
    generator: torch.Generator | None = None,
    z: Tensor | None = None,
    t_eps: float | None = None,
    finest: float = 0.1,
    differentiable: bool = False,
) -> ELBO:
    r"""The continuous-time bound on -log p of the reverse SDE's model at each x0.

    In the variable log(1 + s/a) the integrand is smooth down to t = 0, so Gauss-Legendre nodes
    take the integral over time without noise. Only E over z is by draws, each used with
    both signs (which cancels its leading error near the data). At t_eps > 0 what is bounded is
    the mean, over x_t at t_eps given x0, of the model's -log p there.

    Args:
        denoiser: the model.
        x0: points (B, *), in the user's units.
        nodes: number of nodes in time; every draw costs two evaluations at each.
        draws: number of draws of z.
        generator: for z, on the device of x0.
        z: noise (draws, B, *) to use at all times in place of fresh draws: common random numbers
            for the comparison of two models.
        t_eps: lower end of time: 0 if the denoiser is regular there, else 1e-6, if not given.
        finest: a, about the smallest standard deviation in the data, in the model's units.
        differentiable: carry gradients to x0 and to what the denoiser is made of; all evaluations
            are then kept in memory.
    """
    x0 = as_batch(denoiser, x0)
    if nodes < 1 or draws < 1:
        raise ValueError(f"expected nodes >= 1 and draws >= 1, got {nodes} and {draws}")
    if z is not None and z.shape[1:] != x0.shape:
        raise ValueError(f"expected z (draws, *{tuple(x0.shape)}), got {tuple(z.shape)}")
    fresh = lambda: torch.randn(
        (draws, *x0.shape), generator=generator, device=x0.device, dtype=x0.dtype
    )
    noise = fresh if z is None else lambda: z.to(x0)
    affine, sde = denoiser.affine, denoiser.sde
    x = x0 if affine is None else affine(x0)
    ends = torch.tensor([first_time(denoiser, t_eps), sde.t_max], dtype=torch.float64)
    radius = sde.log_alpha(ends) + 0.5 * (-2 * sde.lam(ends)).exp().log1p()
    with torch.set_grad_enabled(differentiable):
        unit = 0.0 if affine is None else affine.log_det(x)
        path = _path(denoiser, x, ends, nodes, finest, noise)
        path = path - x.shape[1:].numel() * float(radius.diff()) + unit
        prior, mean = _cross_entropy(denoiser, x), path.mean(1)
        return ELBO(prior + mean, standard_error(path), prior, mean)


def _path(
    denoiser: Denoiser, x0: Tensor, ends: Tensor, nodes: int, finest: float, noise: _Noise
) -> Tensor:
    """int (|eps_hat - z|^2 - |z|^2/(1 + s^2)) ds/s of each draw, (B, draws)."""
    start, stop = ((-denoiser.sde.lam(ends)).exp() / finest).log1p().tolist()
    us, weights = _gauss_legendre(nodes, start, stop)
    s = finest * us.expm1()
    weights = weights * (1 + finest / s)  # ds/s = (1 + a/s) du
    times = denoiser.sde.time_of_log_snr(-2 * s.log()).to(x0.dtype)
    times = times.to(x0.device, non_blocking=True)
    rest = (1 / (1 + s * s)).tolist()
    total = torch.zeros((), dtype=x0.dtype, device=x0.device)
    for k, weight in enumerate(weights.tolist()):
        drawn = [_excess(denoiser, x0, times[k], z, rest[k]) for z in noise()]
        total = total + weight * torch.stack(drawn, 1)
    return total


def _excess(denoiser: Denoiser, x0: Tensor, t: Tensor, z: Tensor, rest: float) -> Tensor:
    """|eps_hat - z|^2 - rest |z|^2, mean over z and -z, (B,)."""
    error = torch.zeros_like(z)
    for one in (z, -z):
        eps = denoiser.eps(denoiser.sde.perturb(x0, t, one), t)
        error = error + 0.5 * (eps - one).square()
    return (error - rest * z.square()).flatten(1).sum(1)


def _cross_entropy(denoiser: Denoiser, x0: Tensor) -> Tensor:
    """-E log prior(x_T) given x0, (B,)."""
    sde = denoiser.sde
    t = torch.tensor(sde.t_max, dtype=torch.float64)
    prior, alpha = sde.prior(sde.t_max), float(sde.alpha(t))
    spread = x0.shape[1:].numel() * float(sde.sigma2(t)) / (2 * prior.std**2)
    return spread - prior.log_prob(alpha * x0)


def _gauss_legendre(n: int, start: float, stop: float) -> tuple[Tensor, Tensor]:
    """Nodes and weights on an interval, float64 (n,): eigenvalues of the Jacobi matrix.

    References:
        Golub and Welsch 1969.
    """
    k = torch.arange(1, n, dtype=torch.float64)
    off = k / (4 * k * k - 1).sqrt()
    nodes, vectors = torch.linalg.eigh(off.diag(1) + off.diag(-1))
    half = 0.5 * (stop - start)
    return start + half * (nodes + 1), 2 * half * vectors[0].square()

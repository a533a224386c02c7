r"""The discretisation bias of a sampler on Gaussian data, exact: no samples, no learning.

From exact data at t_max a sampler with the exact score ends in N(mu, S), known to rounding from
the table of its coefficients (``samplers.moments``), where the process has N(m, C):

    W2^2 = |mu - m|^2 + tr(S + C - 2 (C^{1/2} S C^{1/2})^{1/2})            (Bures)
    KL   = 1/2 [sum_i (rho_i - 1 - log rho_i) + (mu - m)^T S^{-1} (mu - m)],

rho the eigenvalues of S^{-1} C. Both are smooth at zero error, W2 of the order of the sampler and
KL(data || sampler) of twice it. Around a Gaussian guidance, temperature and measurements leave the
denoiser affine: against the distribution that was meant (``power_product``), what they do to a
sampler is a number too.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..comparison import Entry, entry_of
from ..denoiser import Denoiser
from ..distributions import GaussianMixture
from ..metrics import gaussian_w2
from ..samplers import VIEW_NAMES, Sampler, listings, moments
from ..sde import VariancePreserving

__all__ = ["Bias", "bias_entries", "exact_bias", "power_product"]


class Bias(NamedTuple):
    """How far the distribution of a sampler's output is from the exact one at the end of its grid.

    Attributes:
        w2: Wasserstein distance, in the units of x, ().
        kl: KL(exact || sampler) in nats, (); infinite where the sampler's covariance is singular.
        mean: mean of the sampler's output, (d,).
        cov: covariance of the sampler's output, (d, d).
    """

    w2: Tensor
    kl: Tensor
    mean: Tensor
    cov: Tensor


def exact_bias(
    sampler: Sampler,
    gaussian: Denoiser,
    ts: Tensor,
    start: tuple[Tensor, Tensor] | None = None,
    reference: GaussianMixture | None = None,
) -> Bias:
    """W2 and KL between p at ts[-1] and the distribution that a sampler ends in, no Monte Carlo.

    Args:
        sampler: any sampler whose steps are affine, with or without noise, correctors included.
        gaussian: the data, a mixture of one component, of any covariance; or another denoiser
            that is affine, such as one with guidance around it.
        ts: the grid.
        start: mean and covariance at ts[0]; if not given the exact ones of a Gaussian, so that
            the bias is that of the steps alone, and the prior's for another denoiser.
        reference: the Gaussian that is meant at t = 0, where the denoiser is not its own.

    Raises:
        TypeError: for a sampler whose steps depend on the samples.
        ValueError: for a denoiser that is not affine, one without a reference, or a wrong grid.
    """
    means, covs = moments(sampler, gaussian, ts, start)
    meant = gaussian if reference is None else reference
    if not isinstance(meant, GaussianMixture):
        raise ValueError(
            f"expected a reference beside a {type(gaussian).__name__}, got none: say which "
            "Gaussian is meant, such as power_product([c, u], [w, 1 - w])"
        )
    mean, cov = (moment.cpu() for moment in meant.marginal(ts[-1]))
    end = means[-1], covs[-1]
    return Bias(gaussian_w2(mean, cov, *end), _kl(mean, cov, *end), *end)


def power_product(
    gaussians: Sequence[GaussianMixture], powers: Sequence[float]
) -> GaussianMixture:
    r"""The Gaussian proportional to prod_i p_i^{a_i}: precisions add, C^{-1} = sum_i a_i C_i^{-1}.

    With powers (w, 1 - w) of a conditional and an unconditional one it is what guidance is meant
    to sample; with the single power 1/T what a temperature is.

    Args:
        gaussians: mixtures of one component each, with regular covariances and the same process.
        powers: a_i, of any sign.

    Raises:
        ValueError: if the product cannot be normalised.
    """
    first = gaussians[0]
    inverses = [a * torch.linalg.inv(p.covs[0]) for a, p in zip(powers, gaussians, strict=True)]
    means = [p.means[0].flatten() for p in gaussians]
    pull = torch.stack([c @ m for c, m in zip(inverses, means, strict=True)]).sum(0)
    root, failed = torch.linalg.cholesky_ex(torch.stack(inverses).sum(0))
    if failed:
        raise ValueError(
            f"expected powers whose product is a distribution, got {list(powers)}: the precisions "
            "add to one that is not positive, so there is no Gaussian to compare with"
        )
    mean = torch.cholesky_solve(pull[:, None], root)[:, 0].reshape(1, *first.event)
    return GaussianMixture(torch.ones(1), mean, torch.cholesky_inverse(root)[None], first.sde)


def _kl(mean: Tensor, cov: Tensor, other: Tensor, spread: Tensor) -> Tensor:
    """KL(N(mean, cov) || N(other, spread)), by rho - 1 so that small values keep their digits."""
    root, failed = torch.linalg.cholesky_ex(spread)
    if failed:
        return cov.new_tensor(math.inf)
    solve = torch.linalg.solve_triangular
    both = torch.cat([cov - spread, (mean - other)[:, None]], 1)
    half = solve(root, both, upper=False)
    excess = torch.linalg.eigvalsh(solve(root, half[:, :-1].mT, upper=False))
    kl: Tensor = 0.5 * ((excess - excess.log1p()).sum() + half[:, -1].square().sum())
    return kl


def bias_entries(gaussian: GaussianMixture, steps: Sequence[int]) -> list[Entry]:
    """The catalogue at several numbers of evaluations, by views: nothing is added at the end.

    Grids are those of ``comparison.entry_of``. Samplers whose steps are not affine have no exact
    bias and are left out, and so are chains where the process is none in equal times from 1 to 0.

    Args:
        gaussian: the data (the optimal variance needs their mmse).
        steps: evaluations of the denoiser, at most.
    """
    sde, views = gaussian.sde, list(VIEW_NAMES)
    if not (isinstance(sde, VariancePreserving) and sde.t_max == 1):
        views.remove("chain")
    found = [one for one in listings(gaussian) if one.view in views and one.sampler.linear]
    found.sort(key=lambda one: views.index(one.view))
    return [entry_of(one, sde, n, "stop") for n in steps for one in found if n >= one.cost]

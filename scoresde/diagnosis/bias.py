r"""The discretisation bias of a sampler on Gaussian data, exact: no samples, no learning.

From exact data at t_max a sampler with the exact score ends in N(mu, S), known to rounding from
the table of its coefficients (``samplers.moments``), where the process has N(m, C):

    W2^2 = |mu - m|^2 + tr(S + C - 2 (C^{1/2} S C^{1/2})^{1/2})            (Bures)
    KL   = 1/2 [sum_i (rho_i - 1 - log rho_i) + (mu - m)^T S^{-1} (mu - m)],

rho the eigenvalues of S^{-1} C. Both are smooth at zero error, W2 of the order of the sampler and
KL(data || sampler) of twice it.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..comparison import Entry
from ..grids import log_snr, uniform
from ..metrics import gaussian_w2
from ..mixture import GaussianMixture
from ..samplers import (
    DDIM,
    DEIS,
    ERSDE,
    PFRK4,
    Adams,
    Ancestral,
    DPMSolver,
    DPMSolverPP,
    EDMStochastic,
    EulerMaruyama,
    Langevin,
    PFEuler,
    PFHeun,
    PredictorCorrector,
    ReverseDiffusion,
    Sampler,
    SASolver,
    UniPC,
    moments,
    recommended,
)
from ..sde import VariancePreserving

__all__ = ["Bias", "bias_entries", "exact_bias"]


class Bias(NamedTuple):
    """How far the law of a sampler's output is from the truth at the end of its grid.

    Attributes:
        w2: Wasserstein distance, in the units of x, ().
        kl: KL(truth || sampler) in nats, (); infinite where the sampler's law is flat (singular).
        mean: of the sampler's law, (d,).
        cov: of the sampler's law, (d, d).
    """

    w2: Tensor
    kl: Tensor
    mean: Tensor
    cov: Tensor


def exact_bias(
    sampler: Sampler,
    gaussian: GaussianMixture,
    ts: Tensor,
    start: tuple[Tensor, Tensor] | None = None,
) -> Bias:
    """W2 and KL between p at ts[-1] and the law that a sampler ends in, without Monte Carlo.

    Args:
        sampler: any whose steps are affine, with or without noise, correctors included.
        gaussian: the data, a mixture of one component, of any covariance.
        ts: the grid.
        start: mean and covariance at ts[0]; the exact ones if not given, so that the bias is that
            of the steps alone.

    Raises:
        TypeError: for a sampler whose steps depend on the samples.
        ValueError: for a mixture of several components, or a wrong grid.
    """
    means, covs = moments(sampler, gaussian, ts, start)
    truth = gaussian.marginal(ts[-1])
    end = means[-1], covs[-1]
    return Bias(gaussian_w2(*truth, *end), _kl(*truth, *end), *end)


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
    """Every sampler at several numbers of evaluations, on its grid: nothing is added at the end.

    Grids are equal in log-SNR from t_max to t_eps, but for the chains, which walk down to t = 0 in
    equal times, and for the recommended solver, which has its own.

    Args:
        gaussian: the data (the optimal variance needs their mmse).
        steps: evaluations of the denoiser, at most.
    """
    sde, found = gaussian.sde, []
    variances: dict[str, Ancestral] = {
        "β̃": Ancestral(),
        "β": Ancestral("beta"),
        "optimal σ²": Ancestral("optimal", gaussian.mmse),
    }
    for n in steps:
        if isinstance(sde, VariancePreserving) and sde.t_max == 1:
            grid = uniform(n, 1.0, 0.0)
            found += [
                Entry(f"DDPM chain, {name}", "chain", by, grid, "stop")
                for name, by in variances.items()
            ]
        found += [
            Entry(name, "sde" if by.noise else "ode", by, log_snr(sde, n // cost), "stop")
            for name, (by, cost) in _SAMPLERS.items()
            if n >= cost
        ]
        found.append(Entry("Adams (recommended)", "ode", *recommended(sde, n), "stop"))
    return found


_SAMPLERS: dict[str, tuple[Sampler, int]] = {
    "Euler-Maruyama": (EulerMaruyama(), 1),
    "reverse diffusion": (ReverseDiffusion(), 1),
    "Euler-Maruyama + Langevin": (PredictorCorrector(EulerMaruyama(), Langevin()), 2),
    "reverse diffusion + Langevin": (PredictorCorrector(ReverseDiffusion(), Langevin()), 2),
    "DDIM + Langevin": (PredictorCorrector(DDIM(), Langevin()), 2),
    "DDIM, η = 1": (DDIM(1.0), 1),
    "DDIM, η = 0.5": (DDIM(0.5), 1),
    "SDE-DPM++ 2M": (DPMSolverPP(2, 1.0), 1),
    "SA-Solver": (SASolver(), 1),
    "ER-SDE 2": (ERSDE(2), 1),
    "EDM, churn 10": (EDMStochastic(10.0), 2),
    "DDIM, η = 0": (DDIM(), 1),
    "Euler": (PFEuler(), 1),
    "Heun": (PFHeun(), 2),
    "Runge-Kutta 4": (PFRK4(), 4),
    "DPM++ 2M": (DPMSolverPP(2), 1),
    "DPM++ 3M": (DPMSolverPP(3), 1),
    "DPM-Solver 3": (DPMSolver(3), 3),
    "UniPC 3": (UniPC(3), 1),
    "DEIS 3": (DEIS(3), 1),
    "Adams 4, 4": (Adams(4, 4), 1),
}
"""Name -> the sampler and its evaluations for each step."""

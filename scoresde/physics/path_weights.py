r"""Two reverse SDEs compared path by path: Girsanov, and what it bounds.

P is the true reverse SDE, started from p_T and driven by the score s; P_m is the model's, started
from the prior and driven by s_m. Both have the same noise g, so

    KL(P || P_m) = KL(p_T || prior) + 1/2 int g^2 E_p |s - s_m|^2 dt,

and forgetting all of a path but its end can only lower it: KL(p_0 || p_m^SDE) <= KL(P || P_m).
It says nothing about the probability-flow ODE of the same model. Two ODEs with different
velocities have mutually singular distributions of paths, so no such KL exists; and where the noise
of the SDE forgets an error of the score, the ODE carries it to the end (a score 10 per cent too
long on Gaussian data of variance 1/4: the bound is 0.057, the SDE's KL 0.009, the ODE's 0.497).

References:
    Song, Durkan, Murray and Ermon 2021 (arXiv:2101.09258), theorem 1.
"""

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from ..denoiser import Denoiser, anchor
from ..distributions import Distribution
from ..estimate import Estimate
from ..samplers.base import check_grid
from .averages import SAMPLES, Function, integral
from .information import kl_to_prior

__all__ = ["PathKL", "WeightedPaths", "path_kl", "weighted_paths"]


class PathKL(NamedTuple):
    """KL of the true reverse SDE's paths from the model's, in nats: an upper bound of that at 0.

    Attributes:
        prior: KL(p_T || prior).
        score: 1/2 int g^2 E|s - s_m|^2 dt, the part that learning can lower.
    """

    prior: Estimate
    score: Estimate

    @property
    def total(self) -> Estimate:
        """The sum; the two errors come from different samples."""
        error = (self.prior.stderr.square() + self.score.stderr.square()).sqrt()
        return Estimate(self.prior.value + self.score.value, error)


class WeightedPaths(NamedTuple):
    """Where paths end and how they are to be weighted, from ``weighted_paths``.

    Attributes:
        end: states at the end of the grid, (n, *), in the model's units.
        log_ratio: R = log dP/dP_m in nats, (n,).
    """

    end: Tensor
    log_ratio: Tensor


def path_kl(
    model: Denoiser,
    law: Distribution,
    t_eps: float | None = None,
    n: int = SAMPLES,
    generator: torch.Generator | None = None,
    nodes: int = 80,
) -> PathKL:
    """The Girsanov bound KL(p_0 || p_m^SDE) <= KL(p_T || prior) + 1/2 int g^2 E|s - s_m|^2 dt.

    Exact for a mixture in one or two dimensions, whatever the model; else from n samples.

    Args:
        model: the model to judge; conditions bound, in its own units.
        law: the reference distribution in those units, with the same process.
        t_eps: time at which the reverse process stops and the two distributions are compared; if
            not given, 0 if both are regular there, else sde.t_eps.
        n: number of samples where there is no quadrature.
        generator: random generator of the samples.
        nodes: number of nodes of the quadrature in time.

    References:
        Song, Durkan, Murray and Ermon 2021 (arXiv:2101.09258), theorem 1.
    """
    _check_process(model, law)
    sde = law.sde
    if t_eps is None:
        t_eps = 0.0 if model.regular and law.regular else sde.t_eps
    difference = score_difference(model, law)
    rate = lambda x, t: 0.5 * sde.g2(t) * difference(x, t).square().flatten(1).sum(1)
    prior = kl_to_prior(law, torch.tensor(sde.t_max), n, generator)
    return PathKL(prior, integral(law, t_eps, sde.t_max, rate, None, n, generator, nodes=nodes))


def weighted_paths(
    model: Denoiser,
    law: Distribution,
    ts: Tensor,
    n: int = SAMPLES,
    generator: torch.Generator | None = None,
) -> WeightedPaths:
    r"""n paths of the true reverse SDE, Euler-Maruyama on ts, with R = log dP/dP_m of each.

        R = log p_T(x_T)/prior(x_T) + sum_k [g^2 h/2 |D|^2 + g sqrt(h) D z],    D = s - s_m.

    On every grid E e^{-R} = 1 exactly, E[e^{-R} h(x)] is the mean of h over the ends of the
    model's own paths, and E R is the KL of the two path measures, which tends to ``path_kl``. The
    mean of e^{-R} is ruled by rare paths: trust it where R is of order one.

    Args:
        model: the model to judge.
        law: the reference distribution, with the same process.
        ts: decreasing times, from t_max to a time where both scores are finite.
        n: number of paths.
        generator: random generator of the samples and the noise, on the device of ``law``.
    """
    _check_process(model, law)
    grid, sde, difference = check_grid(ts, law.sde), law.sde, score_difference(model, law)
    x = law.sample(n, grid[0], generator=generator)
    ratio = law.log_prob(x, grid[0]) - sde.prior(float(grid[0])).log_prob(x)
    with torch.no_grad():
        for t, s in pairwise(grid.to(x)):
            z = torch.empty_like(x).normal_(generator=generator)
            noise = (sde.g2(t) * (t - s)).sqrt()
            kick = noise * difference(x, t)
            ratio = ratio + (0.5 * kick.square() + kick * z).flatten(1).sum(1)
            drift = sde.drift(x, t) - sde.g2(t) * law.score(x, t)
            x = x - (t - s) * drift + noise * z
    return WeightedPaths(x, ratio)


def score_difference(model: Denoiser, law: Distribution) -> Function:
    """s - s_m at states of ``law``, the model called in the dtype of its own parameters."""

    def difference(x: Tensor, t: Tensor) -> Tensor:
        own = anchor(model, x)
        return law.score(x, t) - model.score(x.to(own), t.to(own)).to(x)

    return difference


def _check_process(model: Denoiser, law: Distribution) -> None:
    both = (model.sde, law.sde)
    times = torch.linspace(law.sde.t_eps, law.sde.t_max, 9, dtype=torch.float64)
    mine, true = (torch.stack([sde.log_alpha(times), sde.sigma(times)]) for sde in both)
    if not torch.allclose(mine, true, rtol=1e-6, atol=1e-9):
        raise ValueError(
            f"expected one process, got {both[0]} for the model and {both[1]} for the reference: "
            "paths of two different noises cannot be compared"
        )

"""The figures of the demonstration, each in a light and a dark version."""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from ... import plots
from ...chain import DDPMChain
from ...comparison import Score, Truth, entry_of, measure
from ...denoiser import Denoiser
from ...distributions import GaussianMixture
from ...grids import quadratic, uniform
from ...metrics import gaussian_w2
from ...plots.density import WALKS
from ...samplers import Ancestral, Recorder, Sampler, listing, moments, sample
from ...sde import SDE

__all__ = [
    "convergence_of_network",
    "exact_convergence",
    "film",
    "first_axis",
    "paths",
    "prior_mismatch",
]

DRAWN = {
    "chain β̃": "ancestral",
    "chain β": "ancestral-beta",
    "Euler-Maruyama": "euler-maruyama",
    "DDIM": "ddim",
    "Heun": "pf-heun",
}
"""Name of a curve -> the sampler of the catalogue, by its word."""


def paths(
    model: Denoiser, n: int, seed: int, device: torch.device
) -> dict[str, tuple[Tensor, Tensor]]:
    """Times and states of the three walks from the same x_T, on grids dense near the data."""
    walked = {}
    for name, sampler in WALKS.items():
        recorder = Recorder()
        ts = quadratic(240, model.sde.t_max, model.sde.t_eps)
        sample(
            model,
            sampler,
            (n, 2),
            ts,
            seed=seed,
            device=device,
            callback=recorder,
            chunk=n,
            last="stop",
        )
        walked[name] = (recorder.times, recorder.x.cpu().double())
    return walked


def film(walked: Mapping[str, tuple[Tensor, Tensor]], law: GaussianMixture, path: Path) -> Path:
    """The animation of the three walks side by side."""
    times = walked["sde"][0]
    return plots.animation({name: x for name, (_, x) in walked.items()}, times, path, law=law)


def first_axis(law: GaussianMixture) -> GaussianMixture:
    """The exact marginal law of the first coordinate: a mixture on the line."""
    return GaussianMixture(law.weights, law.means[:, :1], law.covs[:, :1, :1], law.sde)


def convergence_of_network(
    model: Denoiser, truth: Truth, seed: int
) -> tuple[dict[str, tuple[list[float], list[float]]], dict[str, str]]:
    """Sliced W2 of the network's samples against evaluations; and the view of each curve."""
    chain, other = (10, 20, 50, 100, 200), (6, 11, 21, 51, 101)
    found = {name: listing(word) for name, word in DRAWN.items() if name != "chain β"}
    families = {
        name: [
            entry_of(one, model.sde, n)
            for n in (chain if one.view == "chain" else other)
            if n >= 5 * one.cost
        ]
        for name, one in found.items()
    }
    curves = {}
    for name, entries in families.items():
        scores: list[Score] = [measure(model, entry, truth, seed) for entry in entries]
        curves[name] = (
            [float(score.evaluations) for score in scores],
            [score.sliced_w2 for score in scores],
        )
    return curves, {name: entries[0].view for name, entries in families.items()}


def exact_convergence(
    law: GaussianMixture,
) -> tuple[dict[str, tuple[list[float], list[float]]], dict[str, str]]:
    """W2 between a sampler's exact output law and the data, for Gaussian data of the same spread.

    No network and no samples: the law after every step follows from the coefficient table. The
    classical DDPM (betas linear from 0.1/N to 20/N) walks its own chain, which is not the SDE's.
    """
    mean, cov = law.marginal()
    one = torch.ones(1), mean[None].cpu(), cov[None].cpu()
    on: Callable[[SDE], GaussianMixture] = lambda sde: GaussianMixture(*one, sde)
    data, steps = on(law.sde), [25, 50, 100, 200, 400, 800]
    curves, views = {}, dict[str, str]()
    for name, word in DRAWN.items():
        found = listing(word)
        grids = [uniform(k // found.cost, 1.0, 0.0) for k in steps]
        errors = [_law_distance(found.sampler, data, grid) for grid in grids]
        curves[name], views[name] = ([float(k) for k in steps], errors), found.view
    classical = []
    for k in steps:
        chain = DDPMChain.linear(k, 0.1 / k, 20 / k)
        classical.append(_law_distance(Ancestral("beta"), on(chain.sde()), chain.grid()))
    curves["DDPM linear, β"] = ([float(k) for k in steps], classical)
    views["DDPM linear, β"] = "chain"
    return curves, views


def _law_distance(sampler: Sampler, data: GaussianMixture, ts: Tensor) -> float:
    """W2 at the end of the grid, started from the prior."""
    d = data.dim
    start = torch.zeros(d, dtype=torch.float64), torch.eye(d, dtype=torch.float64)
    means, covs = moments(sampler, data, ts, start)
    return float(gaussian_w2(means[-1], covs[-1], *data.marginal()))


def prior_mismatch(law: GaussianMixture, sde: SDE) -> float:
    """KL(p_1 || prior) in nats, by quadrature (one or two dimensions)."""
    from ...metrics import kl_quadrature

    t = torch.tensor(sde.t_max, dtype=torch.float64)
    cpu = GaussianMixture(law.weights.cpu(), law.means.cpu(), law.covs.cpu(), sde)
    return float(
        kl_quadrature(
            lambda x: cpu.log_prob(x, t), sde.prior_log_prob, (-8.0, 8.0), d=cpu.dim, points=400
        )
    )

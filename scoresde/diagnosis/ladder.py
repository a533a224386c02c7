r"""Errors told apart: from the exact data to what a network's sampler returns, one step at a time.

    L_0  the exact data
    L_1  the exact score, fine grid, stopped at t_eps            truncation
    L_2  the same from the prior instead of p_{t_max}            prior mismatch
    L_3  the network on the fine grid                            learning
    L_4  the network on the user's grid                          discretisation

All rungs start from the same noise (and a sampler with noise is driven by one Brownian path), so
their differences are those of paired samples; only for a sampler with noise are the exact data
independent of the rest. For an observable d(L), a mean E[f(x)] or the squared sliced W2 to L_0,
the contributions d(L_k) - d(L_{k-1}) add up to the total by construction. They depend on the order
of the ladder, which is the one above. Distances between neighbouring rungs do not cancel: their
sum bounds the total, by the triangle inequality.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from ..denoiser import Denoiser, anchor
from ..distributions import Distribution, GaussianMixture
from ..estimate import Estimate
from ..grids import log_snr, optimized
from ..metrics import sliced_wasserstein
from ..samplers import Adams, BrownianPath, Sampler
from ..samplers.sampling import Ending, finish

__all__ = ["CAUSES", "Ladder", "Split", "climb", "contributions", "distances", "observables"]

CAUSES = ("truncation", "prior mismatch", "learning", "discretisation")
"""The cause of the error that each rung adds to the one before."""
Observable = Callable[[Tensor], Tensor]
"""x (n, *) -> one number for each sample (n,), whose mean is observed."""


@dataclass(frozen=True)
class Ladder:
    """The five distributions as samples, each (n, *), in the model's units.

    Attributes:
        law: the exact data.
        rungs: samples of L_0, ..., L_4.
        paired: whether sample i of the data belongs to sample i of the other rungs.
    """

    law: Distribution
    rungs: tuple[Tensor, ...]
    paired: bool


class Split(NamedTuple):
    """One observable of L_0, and what each cause adds to it, with bootstrap errors.

    Attributes:
        data: its value on the exact data.
        parts: truncation, prior mismatch, learning, discretisation, in its units.
        total: the value on L_4 minus that on L_0: the sum of the parts.
    """

    data: Tensor
    parts: tuple[Estimate, ...]
    total: Estimate


def climb(
    model: Denoiser,
    law: Distribution,
    sampler: Sampler,
    ts: Tensor,
    n: int = 4096,
    fine: int = 1000,
    seed: int = 0,
    last: Ending = "denoise",
    watch: Callable[[str], None] = lambda name: None,
) -> Ladder:
    """Sample the five distributions.

    Args:
        model: a network, trained on data that follow ``law`` in the model's units.
        law: the exact data distribution, with the process of the model.
        sampler: the user's sampler.
        ts: the user's grid; its end is t_eps of L_1 to L_4. (The fine grid of a sampler with
            noise is equal in log-SNR, and ends at sde.t_eps if the user's ends at 0.)
        n: number of samples.
        fine: number of steps of the fine grid, by ``Adams(4, 4)`` for a sampler without noise and
            by the sampler itself for one with it.
        seed: random seed of the samples of L_0, of x_T and of the noise.
        last: the user's ending, for L_1 to L_4 (see ``sample``).
        watch: called before each sampling run, which takes the time, with the denoiser's name.

    Raises:
        ValueError: if ``law`` is of another process, or the model has units of its own.
    """
    if model.sde != law.sde or model.affine is not None:
        raise ValueError(
            "expected the distribution of the model's own data and process, got "
            f"{law.sde} for {model.sde}{' and an affine map' if model.affine else ''}: "
            "train on that distribution itself (scoresde train --law NAME)"
        )
    kind = anchor(model, ts)
    device, start, end = kind.device, float(ts[0]), float(ts[-1])
    generator = torch.Generator(device).manual_seed(seed)
    t_max = torch.tensor(start, dtype=torch.float64, device=device)
    data, target = law.sample(n, generator=generator), law.sample(n, generator=generator)
    z = torch.randn(data.shape, generator=generator, dtype=data.dtype, device=device)
    exact, prior = law.sde.perturb(target, t_max, z), law.sde.prior(start).std * z
    noise = BrownianPath(seed, data.shape, device) if sampler.noise else None
    solver: Sampler = sampler if sampler.noise else Adams(4, 4)
    grid = _fine(law, fine, start, end, sampler.noise)

    @torch.no_grad()
    def walk(denoiser: Denoiser, x: Tensor, by: Sampler, on: Tensor, like: Tensor) -> Tensor:
        watch("the network" if denoiser is model else "the exact score")
        x = by(denoiser, x.to(like.dtype), on, noise=noise)
        return finish(denoiser, x, on, last).to(data.dtype)

    if not sampler.noise:  # the exact flow, so that this rung is paired with the others too
        data = walk(law, exact, solver, _fine(law, fine, start, 0.0, False), data)
    return Ladder(
        law,
        (
            data,
            walk(law, exact, solver, grid, data),
            walk(law, prior, solver, grid, data),
            walk(model, prior, solver, grid, kind),
            walk(model, prior, sampler, ts, kind),
        ),
        not sampler.noise,
    )


def _fine(law: Distribution, n: int, t_max: float, t_eps: float, noisy: bool) -> Tensor:
    if noisy:
        return log_snr(law.sde, n, t_max, t_eps or law.sde.t_eps)
    return optimized(law.sde, n, t_max=t_max, t_eps=t_eps)


def observables(law: Distribution) -> dict[str, Observable]:
    """The observables of each rung: -log p_0, the moments, the weights of the modes.

    Only a mixture is asked for -log p_0: outside of a bounded support it is infinite.
    """
    found: dict[str, Observable] = {}
    if isinstance(law, GaussianMixture):
        found["-log p (nats)"] = lambda x: -law.log_prob(x)
    for i in range(min(law.event.numel(), 3)):
        found[f"E[x{i + 1}]"] = partial(_power, i, 1)
        found[f"E[x{i + 1}^2]"] = partial(_power, i, 2)
    if isinstance(law, GaussianMixture) and 1 < len(law.weights) <= 8:
        for k in range(len(law.weights)):
            found[f"weight of mode {k}"] = partial(_mode, law, k)
    return found


def _power(i: int, exponent: int, x: Tensor) -> Tensor:
    return x.flatten(1)[:, i] ** exponent


def _mode(law: GaussianMixture, k: int, x: Tensor) -> Tensor:
    return law.posterior(x)[:, k]


def contributions(ladder: Ladder, repeats: int = 100, seed: int = 0) -> dict[str, Split]:
    """The part that each cause adds to each observable, and to the squared sliced W2 to the data.

    The errors are those of the bootstrap over samples; what is paired is resampled together. The
    parts of an observable add up to its total by construction.

    Args:
        ladder: the five distributions.
        repeats: number of resamplings of the bootstrap, at least 2.
        seed: random seed of the bootstrap.

    Returns:
        name -> its parts, in the observable's units.
    """
    if repeats < 2:
        raise ValueError(f"expected repeats >= 2, got {repeats}: one has no spread")
    generator = torch.Generator().manual_seed(seed)
    n = len(ladder.rungs[0])
    picks = [torch.randint(n, (2, n), generator=generator) for _ in range(repeats)]
    if ladder.paired:
        picks = [pick[:1].expand(2, n) for pick in picks]
    found = {}
    for name, observe in observables(ladder.law).items():
        values = torch.stack([observe(x) for x in ladder.rungs]).cpu()
        found[name] = _split(_means(values), picks, n)

    def squared(own: Tensor, other: Tensor) -> Tensor:
        data, *above = ladder.rungs
        values = [sliced_wasserstein(x[other], data[own]).square() for x in above]
        return torch.stack([torch.zeros_like(values[0]), *values]).cpu()

    found["squared sliced W2"] = _split(squared, picks, n)
    return found


def _means(values: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """Means of the rungs (5, n) over samples picked for the data and for those above."""
    return lambda own, other: torch.cat([values[:1, own].mean(1), values[1:, other].mean(1)])


def _split(values: Callable[[Tensor, Tensor], Tensor], picks: list[Tensor], n: int) -> Split:
    """Differences between neighbouring rungs and between the ends, with bootstrap errors."""
    all_of = torch.arange(n)
    rungs = values(all_of, all_of)
    again = torch.stack([_steps(values(*pick)) for pick in picks]).std(0)
    *parts, total = (Estimate(b, e) for b, e in zip(_steps(rungs), again, strict=True))
    return Split(rungs[0], tuple(parts), total)


def _steps(rungs: Tensor) -> Tensor:
    """Differences from rung to rung, and from the first to the last, (5,)."""
    return torch.cat([rungs.diff(), rungs[-1:] - rungs[:1]])


def distances(ladder: Ladder) -> tuple[Tensor, Tensor]:
    """Sliced W2 between neighbouring rungs, (4,), and from the data to the last one, ().

    The last is at most the sum of the first four: the triangle inequality, exact for samples.
    """
    near = [sliced_wasserstein(a, b) for a, b in pairwise(ladder.rungs)]
    return torch.stack(near), sliced_wasserstein(ladder.rungs[0], ladder.rungs[-1])

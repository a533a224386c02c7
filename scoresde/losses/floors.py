"""The loss against time, and the floor below which it cannot go: is the network learning?

References:
    Vincent 2011, sec. 4.2: the denoising loss is the explicit one plus a constant, the floor.
"""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from ..denoiser import Denoiser, anchor
from ..distributions import Distribution, GaussianMixture
from ..estimate import Estimate
from .matching import denoising_errors

__all__ = ["excess_loss", "irreducible_loss", "loss_by_time"]

CHUNK = 8192  # samples at a time: it bounds the memory of a mixture of many components


@torch.no_grad()
def loss_by_time(
    denoiser: Denoiser,
    x0: Tensor,
    ts: Tensor,
    generator: torch.Generator | None = None,
    **cond: Any,
) -> Estimate:
    """The eps loss per dimension at each time, the same noise at all of them.

    Args:
        denoiser: the model.
        x0: clean data in the model's units, (n, *).
        ts: times above 0, (T,).
        generator: random generator of the noise, on the device of x0.
        **cond: conditions that hold for all samples.
    """
    z = torch.empty_like(x0).normal_(generator=generator)
    pairs = list(zip(x0.split(CHUNK), z.split(CHUNK), strict=True))
    return _estimate(
        torch.cat([denoising_errors(denoiser, a, t, b, **cond) for a, b in pairs])
        for t in ts.to(x0)
    )


def irreducible_loss(
    law: Distribution, ts: Tensor, n: int = 65536, generator: torch.Generator | None = None
) -> Estimate:
    r"""The least eps loss per dimension that any denoiser can have at each time.

        E |E[eps | x_t] - eps|^2/d = SNR mmse/d = 1 - sigma^2 E|score|^2/d.

    By quadrature for a mixture in up to two dimensions and for one Gaussian, else the loss of the
    exact denoiser on n samples.

    Args:
        law: the data, known exactly.
        ts: times above 0, (T,).
        n: number of samples where there is no quadrature.
        generator: random generator of the samples, on the device of ``law``.
    """
    if isinstance(law, GaussianMixture) and (law.dim <= 2 or len(law.weights) == 1):
        ts = ts.to(law.means)
        floor = law.sde.log_snr(ts).exp() * law.mmse(ts)
        return Estimate(floor, torch.zeros_like(floor))
    return loss_by_time(law, law.sample(n, generator=generator), ts, generator)


@torch.no_grad()
def excess_loss(
    denoiser: Denoiser,
    law: Distribution,
    ts: Tensor,
    n: int = 4096,
    generator: torch.Generator | None = None,
) -> Estimate:
    """How far the eps loss per dimension lies above its floor: E|eps_hat - eps*|^2/d, (T,).

    Equals loss - ``irreducible_loss``, since eps* - z is orthogonal to every function of x_t,
    with a variance far below that of the difference.

    Args:
        denoiser: the model of these data, in its own units.
        law: the exact data distribution in those units, with the same process.
        ts: times above 0, (T,).
        n: number of samples.
        generator: random generator of the samples, on the device of ``law``.
    """

    def errors(t: Tensor) -> Tensor:
        x = law.sample(n, t, generator=generator)
        parts = [(denoiser.eps(p.to(kind), t.to(kind)) - law.eps(p, t)) for p in x.split(CHUNK)]
        return torch.cat(parts).square().flatten(1).mean(1)

    kind = anchor(denoiser, ts)
    return _estimate(errors(t) for t in ts.double())


def _estimate(samples: Iterable[Tensor]) -> Estimate:
    """Mean and standard error of each set of samples (n,)."""
    pairs = [(e.mean(), e.std() / math.sqrt(len(e))) for e in samples]
    value, stderr = (torch.stack(column) for column in zip(*pairs, strict=True))
    return Estimate(value, stderr)

r"""The probability-flow ODE in coordinates in which both of its ends are regular.

With s = sigma/alpha and r = sqrt(alpha^2 + sigma^2) put z = x/r and phi = atan(s). Then for every
process

    dz/dphi = v/r,        v = alpha eps - sigma x0_hat                          (a rotation)

without the rates f and g^2, and log p(z) falls along the path by the divergence of the right side.
The integration variable resolves all scales of the data alike, from the smallest, a, to b:

    u = log(1 + s/a) - log(1 + s/b),     s = a (e^u - 1)/(1 - e^u a/b),      0 <= u < log(b/a).

It is proportional to s below a (so t = 0 is an ordinary point), to lam = -log s in between and to
1/s above b, where a step in lam would be wasted on noise. In it

    dz/du   = w [ sqrt(1 + s^2) eps(r z, t) - s z ],           w = dphi/du,
    div_z   = w [ sqrt(1 + s^2) r tr(d eps/dx) - s d ].

References:
    Song et al. 2021 (arXiv:2011.13456), eq. 13 and 39 (the ODE and its likelihood); Salimans and
    Ho 2022 (arXiv:2202.00512), app. D (the angle); Grathwohl et al. 2019 (arXiv:1810.01367) and
    Hutchinson 1990 (the trace by probes).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from ..autodiff import differentiating
from ..denoiser import Denoiser, like
from ..sde import SDE

__all__ = ["Clock", "Flow", "Node", "pull_each", "rademacher"]


class Node(NamedTuple):
    """The ODE's numbers at one or more times: dz/du = gain eps(radius z, t) - pull z."""

    t: Tensor
    radius: Tensor
    gain: Tensor
    pull: Tensor


@dataclass(frozen=True)
class Clock:
    """The integration variable u of a process, see the head of this module.

    Args:
        sde: the process.
        finest: a, about the smallest standard deviation in the data, in the model's units.
        coarsest: b > a, a few times the largest.
    """

    sde: SDE
    finest: float = 0.1
    coarsest: float = 5.0

    def __post_init__(self) -> None:
        """Raise an error unless the scales are positive and in order."""
        if not 0 < self.finest < self.coarsest:
            raise ValueError(
                "expected scales 0 < finest < coarsest (standard deviations of the data in the "
                f"model's units), got {self.finest} and {self.coarsest}"
            )

    def u(self, t: Tensor) -> Tensor:
        """The clock at times t; u(0) = 0."""
        s = (-self.sde.lam(t)).exp()
        return (s / self.finest).log1p() - (s / self.coarsest).log1p()

    def s(self, u: Tensor) -> Tensor:
        """sigma/alpha when the clock shows u."""
        return self.finest * u.expm1() / (1 - self.finest / self.coarsest * u.exp())

    def rate(self, s: Tensor) -> Tensor:
        """du/ds."""
        return (self.coarsest - self.finest) / ((s + self.finest) * (s + self.coarsest))

    def time(self, s: Tensor) -> Tensor:
        """The time at which sigma/alpha = s."""
        return self.sde.time_of_log_snr(-2 * s.log())

    def node(self, u: Tensor) -> Node:
        """The ODE's numbers at u, each of the shape of u."""
        s = self.s(u)
        t, hypotenuse = self.time(s), (1 + s * s).sqrt()
        speed = 1 / (self.rate(s) * (1 + s * s))  # dphi/du
        return Node(t, self.sde.alpha(t) * hypotenuse, speed * hypotenuse, speed * s)


class Flow:
    """The right side of the ODE for z and, with a way to take the trace, for log p.

    Its state is y = (z, l) as one tensor (B, d + P): z flattened, and for each of P estimates of
    the trace the integral l of the divergence (P = 1 where it is exact, 0 where it is not asked).

    Args:
        denoiser: the model.
        event: shape of one sample.
        probes: None for no divergence, "exact", or (P, B, *event).
        clock: the integration variable.

    Attributes:
        evaluations: how often the network was called so far (vjps are not counted).
    """

    def __init__(
        self, denoiser: Denoiser, event: torch.Size, probes: Tensor | str | None, clock: Clock
    ) -> None:
        self.denoiser, self.event, self.probes, self.clock = denoiser, event, probes, clock
        self.dim = event.numel()
        self.evaluations = 0

    def start(self, z: Tensor) -> Tensor:
        """The state (z, 0) at the beginning of a path, z (B, *event)."""
        count = len(self.probes) if isinstance(self.probes, Tensor) else int(bool(self.probes))
        return torch.cat([z.flatten(1), z.new_zeros(len(z), count)], 1)

    def end(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """z (B, *event) and the integrals of the divergence (B, P)."""
        return y[:, : self.dim].reshape(-1, *self.event), y[:, self.dim :]

    def __call__(self, node: Node, y: Tensor) -> Tensor:
        """dy/du, (B, d + P)."""
        self.evaluations += 1
        z = y[:, : self.dim]
        gain, pull, radius = (like(c, z) for c in (node.gain, node.pull, node.radius))
        x = (radius * z).reshape(-1, *self.event)
        eps, trace = self._eps_and_trace(x, node.t.to(x.dtype))
        slope = gain * eps.flatten(1) - pull * z
        return torch.cat([slope, gain * radius * trace - pull * self.dim], 1)

    def _eps_and_trace(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        eps: Callable[[Tensor], Tensor] = partial(self.denoiser.eps, t=t)
        if self.probes is None:
            return eps(x), x.new_zeros(len(x), 0)
        if isinstance(self.probes, Tensor):
            return _trace_by_probes(eps, x, self.probes)
        return _exact_trace(eps, x)


def rademacher(n: int, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """n probes (n, B, *) of independent signs for x (B, *): the least variance of all (B, *)."""
    if n < 1:
        raise ValueError(f"expected at least one probe, got {n}: probes=None is the exact trace")
    signs = torch.randint(2, (n, *x.shape), generator=generator, device=x.device)
    return (2 * signs - 1).to(x.dtype)


def _exact_trace(field: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """field(x) and its divergence (B, 1): one call and d vjps.

    (Forward mode would carry d tangents in one pass, but torch 2.13 runs it in Python: three
    times slower on an exact distribution.)
    """
    axes = torch.eye(x.shape[1:].numel(), dtype=x.dtype, device=x.device)
    axes = axes.reshape(-1, 1, *x.shape[1:]).expand(-1, *x.shape)
    value, diagonal = _trace_by_probes(field, x, axes)
    return value, diagonal.sum(1, keepdim=True)


def _trace_by_probes(
    field: Callable[[Tensor], Tensor], x: Tensor, probes: Tensor
) -> tuple[Tensor, Tensor]:
    """field(x) and probe^T J probe for each probe, (B, P): one call and P vjps."""
    with differentiating():
        value, pull = torch.func.vjp(field, x)[:2]
        pulled = pull_each(pull, probes)
    return value, (pulled * probes).flatten(2).sum(2).T


def pull_each(pull: Callable[[Tensor], tuple[Tensor, ...]], rows: Tensor) -> Tensor:
    """The vjp of each row (P, B, *): of all at once, or in turn where a network has no such rule.

    ``vmap`` refuses networks that ask for the memory format of their inputs (torch 2.13), as the
    U-Nets of diffusers do. An error of the network's own comes again from the loop.
    """
    try:
        (pulled,) = torch.func.vmap(pull)(rows)
    except RuntimeError:
        pulled = torch.stack([pull(row)[0] for row in rows])
    return pulled

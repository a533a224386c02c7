"""Data to latents and back by the probability-flow ODE, and the paths between two points.

References:
    Song et al. 2021 (arXiv:2011.13456), sec. 4.3; Song, Meng and Ermon 2021 (arXiv:2010.02502),
    sec. 5.3 (interpolation on the sphere).
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ..denoiser import Denoiser
from .flow import Clock, Flow
from .walks import Adaptive, Walk

__all__ = ["Carried", "carry", "check_points", "decode", "encode", "interpolate"]


class Carried(NamedTuple):
    """Where the ODE brought a batch.

    Attributes:
        x: the state at the end, (B, *).
        growth: log |dx_end/dx_start| by each estimate of the trace, (B, P).
        t: the time at the end, ().
        evaluations: calls of the network.
    """

    x: Tensor
    growth: Tensor
    t: Tensor
    evaluations: int


def encode(
    denoiser: Denoiser, x0: Tensor, walk: Walk | None = None, t_eps: float | None = None
) -> Tensor:
    """The latent x_T of every point: the probability-flow ODE from data to noise.

    In one dimension it is the quantile map, F_T(x_T) = F_0(x_0).

    Args:
        denoiser: the model.
        x0: points (B, *), in the user's units if the denoiser has an ``affine``.
        walk: how to integrate; ``Adaptive()`` if not given.
        t_eps: where x0 stands: 0 if the denoiser is regular there, else 1e-6, if not given.

    Returns:
        x_T (B, *), in the model's units.
    """
    check_points(x0)
    x = x0 if denoiser.affine is None else denoiser.affine(x0)
    return carry(denoiser, x, walk or Adaptive(), first_time(denoiser, t_eps), None).x


def decode(
    denoiser: Denoiser, x_T: Tensor, walk: Walk | None = None, t_eps: float | None = None
) -> Tensor:
    """The point of every latent: the inverse of ``encode``, the same ODE walked back.

    Args:
        denoiser: the model.
        x_T: latents (B, *), in the model's units.
        walk: how to integrate.
        t_eps: where to stop.

    Returns:
        x_0 (B, *), in the user's units if the denoiser has an ``affine``.
    """
    check_points(x_T)
    walk, t_eps = walk or Adaptive(), first_time(denoiser, t_eps)
    x = carry(denoiser, x_T, walk, t_eps, None, back=True).x
    return x if denoiser.affine is None else denoiser.affine.inverse(x)


def interpolate(
    denoiser: Denoiser,
    a: Tensor,
    b: Tensor,
    n: int,
    walk: Walk | None = None,
    t_eps: float | None = None,
) -> Tensor:
    r"""n points of the data's own kind from a to b, by a path on the sphere of latents.

        x_T(w)/|x_T(w)| = [sin((1 - w) theta) a' + sin(w theta) b']/sin(theta),     w = 0..1,

    with a', b' the directions of both latents and theta the angle between them; the length goes
    evenly from one to the other. (A mean of two would be too short for a sample of the prior.)
    The ends are a and b again, to the accuracy of the walk. Between opposite latents, theta = pi,
    no great circle is the shortest, and the answer is NaN.

    Args:
        denoiser: the model; conditions bound to it must hold for all, () or numbers.
        a: where paths begin, (B, *).
        b: where they end, (B, *).
        n: number of points on each, ends included, at least 2.
        walk: how to integrate, both ways.
        t_eps: as for ``encode``.

    Returns:
        (n, B, *).
    """
    if a.shape != b.shape:
        raise ValueError(
            f"expected a and b of one shape (B, *), got {tuple(a.shape)} and {tuple(b.shape)}"
        )
    if n < 2:
        raise ValueError(f"expected n >= 2 points (both ends are among them), got {n}")
    latents = encode(denoiser, torch.cat([a, b]), walk, t_eps)
    first, last = latents.chunk(2)
    path = _on_the_sphere(first, last, n)
    return decode(denoiser, path.flatten(0, 1), walk, t_eps).reshape(n, *a.shape)


def carry(
    denoiser: Denoiser,
    x: Tensor,
    walk: Walk,
    t_eps: float,
    probes: Tensor | str | None,
    back: bool = False,
) -> Carried:
    """Walk from x at t_eps to t_max, or back, with the logarithm of the volume it spans."""
    clock = Clock(denoiser.sde, *walk.scales)
    ends = (t_eps, denoiser.sde.t_max)
    us = walk.grid(clock, *(ends[::-1] if back else ends))
    if float(us.min()) == 0 and not denoiser.regular:
        raise ValueError(
            "expected a path that begins above t = 0, where this denoiser is not known to be "
            "finite: use t_eps = 1e-6, the default"
        )
    start, end = (clock.node(u.to(x.dtype)) for u in us[[0, -1]])
    flow = Flow(denoiser, x.shape[1:], probes, clock)
    r0, r1 = (node.radius.to(x.device, non_blocking=True) for node in (start, end))
    with torch.no_grad():
        z, integrals = flow.end(walk(flow, flow.start(x / r0), us))
    growth = integrals + flow.dim * (r1 / r0).log()
    return Carried(z * r1, growth, end.t.to(x.device, non_blocking=True), flow.evaluations)


def first_time(denoiser: Denoiser, t_eps: float | None) -> float:
    """Where the data stand: as asked, else 0 for what is regular there, else 1e-6."""
    if t_eps is None:
        return 0.0 if denoiser.regular else 1e-6
    if not 0 <= t_eps < denoiser.sde.t_max:
        raise ValueError(f"expected 0 <= t_eps < {denoiser.sde.t_max:.6g}, got {t_eps}")
    return t_eps


def check_points(x: Tensor) -> None:
    """Refuse what is not a batch of points with coordinates that can be moved."""
    if not x.is_floating_point() or x.ndim < 2:
        raise TypeError(
            f"expected floating-point points (B, *), got {x.dtype} {tuple(x.shape)}: for integer "
            "data there is bits_per_dim; a single point needs a batch, x[None]"
        )


def _on_the_sphere(a: Tensor, b: Tensor, n: int) -> Tensor:
    """n great-circle combinations of a and b (B, *), (n, B, *)."""
    flat = torch.stack([a.flatten(1), b.flatten(1)])
    norms = flat.norm(dim=2, keepdim=True)
    (a1, b1), (long_a, long_b) = flat / norms, norms
    theta = (a1 * b1).sum(1, keepdim=True).clamp(-1, 1).arccos()
    w = torch.linspace(0, 1, n, dtype=a.dtype, device=a.device).reshape(-1, 1, 1)

    def share(w: Tensor) -> Tensor:
        """sin(w theta)/sin(theta), by sinc: for equal directions a straight line."""
        ratio: Tensor = (w * theta / torch.pi).sinc() / (theta / torch.pi).sinc()
        return w * ratio

    length = (1 - w) * long_a + w * long_b
    path: Tensor = length * (share(1 - w) * a1 + share(w) * b1)
    return path.reshape(n, *a.shape)

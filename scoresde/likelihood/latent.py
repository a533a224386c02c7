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

__all__ = ["Carried", "as_batch", "carry", "decode", "encode", "interpolate"]


class Carried(NamedTuple):
    """The end of the ODE for a batch.

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
    denoiser: Denoiser,
    x0: Tensor,
    walk: Walk | None = None,
    t_eps: float | None = None,
    differentiable: bool = False,
) -> Tensor:
    """The latent x_T of every point: the probability-flow ODE from data to noise.

    In one dimension it is the quantile map, F_T(x_T) = F_0(x_0).

    Args:
        denoiser: the model.
        x0: points (B, *), in the user's units if the denoiser has an ``affine``.
        walk: how to integrate; ``Adaptive()`` if not given.
        t_eps: where x0 stands: 0 if the denoiser is regular there, else 1e-6, if not given.
        differentiable: carry gradients, see ``ode_likelihood``.

    Returns:
        x_T (B, *), in the model's units.
    """
    x = as_batch(denoiser, x0)
    x = x if denoiser.affine is None else denoiser.affine(x)
    walk, t_eps = walk or Adaptive(), first_time(denoiser, t_eps)
    return carry(denoiser, x, walk, t_eps, None, differentiable=differentiable).x


def decode(
    denoiser: Denoiser,
    x_T: Tensor,
    walk: Walk | None = None,
    t_eps: float | None = None,
    differentiable: bool = False,
) -> Tensor:
    """The point of every latent: the inverse of ``encode``, the same ODE integrated back.

    Args:
        denoiser: the model.
        x_T: latents (B, *), in the model's units.
        walk: how to integrate.
        t_eps: where to stop.
        differentiable: carry gradients, see ``ode_likelihood``.

    Returns:
        x_0 (B, *), in the user's units if the denoiser has an ``affine``.
    """
    z = as_batch(denoiser, x_T)
    walk, t_eps = walk or Adaptive(), first_time(denoiser, t_eps)
    x = carry(denoiser, z, walk, t_eps, None, back=True, differentiable=differentiable).x
    return x if denoiser.affine is None else denoiser.affine.inverse(x)


def interpolate(
    denoiser: Denoiser,
    a: Tensor,
    b: Tensor,
    n: int,
    walk: Walk | None = None,
    t_eps: float | None = None,
    differentiable: bool = False,
) -> Tensor:
    r"""n points of the data's own kind from a to b, by a path on the sphere of latents.

        x_T(w)/|x_T(w)| = [sin((1 - w) theta) a' + sin(w theta) b']/sin(theta),     w = 0..1,

    with a', b' the directions of both latents and theta the angle between them; the length goes
    evenly from one to the other. (A mean of two would be too short for a sample of the prior.)
    The ends are a and b again, to the accuracy of the integration. Between latents that are
    opposite to rounding, theta = pi, no great circle is the shortest, and the answer of that pair
    is NaN, as where a latent is 0 and has no direction. If they miss it by less than the error of
    the integration, that error decides on the circle. In one dimension there are no circles, and
    no length to keep: the latents are joined by a straight line.

    Args:
        denoiser: the model; conditions bound to it must hold for all, () or numbers.
        a: where paths begin, (B, *).
        b: where they end, (B, *).
        n: number of points on each, ends included, at least 2.
        walk: how to integrate, both ways.
        t_eps: as for ``encode``.
        differentiable: carry gradients, see ``ode_likelihood``.

    Returns:
        (n, B, *).
    """
    a, b = (as_batch(denoiser, end) for end in (a, b))
    if a.shape != b.shape:
        raise ValueError(
            f"expected a and b of one shape (B, *), got {tuple(a.shape)} and {tuple(b.shape)}"
        )
    if n < 2:
        raise ValueError(f"expected n >= 2 points (both ends are among them), got {n}")
    latents = encode(denoiser, torch.cat([a, b]), walk, t_eps, differentiable)
    path = _on_the_sphere(latents[: len(a)], latents[len(a) :], n)
    return decode(denoiser, path.flatten(0, 1), walk, t_eps, differentiable).reshape(path.shape)


def carry(
    denoiser: Denoiser,
    x: Tensor,
    walk: Walk,
    t_eps: float,
    probes: Tensor | str | None,
    back: bool = False,
    differentiable: bool = False,
) -> Carried:
    """Integrate from x at t_eps to t_max, or back, with the logarithm of the change of volume.

    A point that is not finite is integrated as 0, so that it disturbs no other sample, and ends
    as NaN.
    """
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
    sound = x.flatten(1).isfinite().all(1)
    with torch.set_grad_enabled(differentiable):
        z, integrals = flow.end(walk(flow, flow.start(_or(x, sound, 0.0) / r0), us))
        growth = _or(integrals + flow.dim * (r1 / r0).log(), sound, torch.nan)
        x_end = _or(z * r1, sound, torch.nan)
    return Carried(x_end, growth, end.t.to(x.device, non_blocking=True), flow.evaluations)


def first_time(denoiser: Denoiser, t_eps: float | None) -> float:
    """The time of the data: as asked, else 0 for a denoiser that is regular there, else 1e-6."""
    if t_eps is None:
        return 0.0 if denoiser.regular else 1e-6
    if not 0 <= t_eps < denoiser.sde.t_max:
        raise ValueError(f"expected 0 <= t_eps < {denoiser.sde.t_max:.6g}, got {t_eps}")
    return t_eps


def as_batch(denoiser: Denoiser, x: Tensor) -> Tensor:
    """Points (B, *) in the dtype of the denoiser's weights if it has any, float32 at least.

    Raises:
        TypeError: for what is not a batch of points with coordinates that can be moved.
    """
    x = torch.as_tensor(x)
    if not x.is_floating_point() or x.ndim < 2:
        raise TypeError(
            f"expected floating-point points (B, *), got {x.dtype} {tuple(x.shape)}: for integer "
            "data there is bits_per_dim; a single point needs a batch, x[None]"
        )
    dtype = next((p.dtype for p in denoiser.parameters() if p.is_floating_point()), x.dtype)
    return x.to(torch.promote_types(dtype, torch.float32))


def _or(x: Tensor, sound: Tensor, value: float) -> Tensor:
    """x (B, *) where sound (B,), else the value."""
    return x.where(sound.reshape(-1, *[1] * (x.ndim - 1)), value)


def _on_the_sphere(a: Tensor, b: Tensor, n: int) -> Tensor:
    r"""n great-circle combinations of a and b (B, *), (n, B, *); a straight line if d = 1.

    With m and o the directions of a' + b' and b' - a', which stand at right angles,

        cos((w - 1/2) theta) m + sin((w - 1/2) theta) o,    theta = 2 atan2(|b' - a'|, |a' + b'|),

    keeps its digits for small angles and for those near pi, where m alone is badly known.
    """
    w = torch.linspace(0, 1, n, dtype=a.dtype, device=a.device).reshape(-1, 1, 1)
    flat_a, flat_b = a.flatten(1), b.flatten(1)
    if flat_a.shape[1] == 1:
        return ((1 - w) * flat_a + w * flat_b).reshape(n, *a.shape)
    long_a, long_b = (flat.norm(dim=1, keepdim=True) for flat in (flat_a, flat_b))
    unit_a, unit_b = flat_a / long_a, flat_b / long_b
    both, gap = unit_a + unit_b, unit_b - unit_a
    near, far = both.norm(dim=1, keepdim=True), gap.norm(dim=1, keepdim=True)
    middle = both / near.where(near > 64 * torch.finfo(a.dtype).eps, torch.nan)
    turn = (w - 0.5) * 2 * torch.atan2(far, near)
    across = gap / far.clamp(min=torch.finfo(a.dtype).tiny)
    path: Tensor = ((1 - w) * long_a + w * long_b) * (turn.cos() * middle + turn.sin() * across)
    return path.reshape(n, *a.shape)

r"""The exact distribution of a sampler's output where the denoiser is affine, without Monte Carlo.

For data N(m, C) the exact denoiser is affine, x0_hat = G x + o, and it stays so under everything
linear: guidance by a quadratic log h, temperature, classifier-free guidance of two Gaussians, a
linear measurement (``DPS``, ``PiGDM``, ``MomentMatching``). Every row of the table is then affine
too. On the state X = (x, h_1, ..., h_{K-1}) of a sampler that remembers K - 1 earlier rows,

    h_0 = (u + w G) x + w o,    x <- a x + sum_j b_j h_j + c z,    h_{j+1} <- h_j,
    X <- A X + d + c z,         mean <- A mean + d,      cov <- A cov A^T + c^2 P,

with P the projector on x. Discretisation bias is then a number, to rounding: orders of
convergence are read off it. G and o are the answers to 0 and to unit vectors. A sampler without a
table (``Replacement``) is asked the same way, one step after the other: of its state, and of each
of the numbers z_j that it draws, cov <- A cov A^T + sum_j B_j B_j^T.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..denoiser import Denoiser, anchor
from ..distributions import Distribution, GaussianMixture
from .base import Sampler, TableSampler, check_grid, quiet

__all__ = ["moments"]

PROBES, ROUNDING = 2, 1e-8
Step = tuple[Tensor, Tensor, Tensor]
"""(A, d, Q): X <- A X + d + noise of covariance Q."""


def moments(
    sampler: Sampler,
    gaussian: Denoiser,
    ts: Tensor,
    start: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Mean and covariance of the state before the first and after every row of a sampler.

    >>> from scoresde import DDIM, ClassifierFree, GaussianMixture, VPSDE, uniform
    >>> c, u = (GaussianMixture([1.0], [[0.0]], [[[v]]], VPSDE()) for v in (1.0, 2.0))
    >>> means, covs = moments(DDIM(), ClassifierFree(c, u, w=3.0), uniform(10))
    >>> print(f"{float(covs[-1]):.2f}")  # 0.25 in the limit of many steps
    0.13

    Args:
        sampler: any sampler whose steps are affine (all but the Langevin rule "song").
        gaussian: the data distribution, a mixture of one component, or any denoiser that is affine
            in x at every time, such as one with guidance around it.
        ts: the grid (n + 1,).
        start: mean (d,) and covariance (d, d) at ts[0]; if not given the exact ones there of a
            Gaussian, those of the prior for any other denoiser.

    Returns:
        means (R + 1, d) and covariances (R + 1, d, d) in float64 on the CPU, for R rows (R = n
        unless the sampler corrects).

    Raises:
        TypeError: for a sampler whose steps are not affine, or depend on those before.
        ValueError: for a denoiser that is not affine, or a wrong grid.
    """
    _refuse_mixtures(gaussian)
    if not sampler.linear:
        raise TypeError(f"{sampler} is not affine in x, so it has no moment recursion")
    ts = check_grid(ts, gaussian.sde, increasing=not sampler.noise)
    event = _event(gaussian, start)
    start = _start(gaussian, ts, event) if start is None else start
    mean, cov = (moment.double().cpu() for moment in start)
    d, means, covs = len(mean), [mean], [cov]
    with quiet(gaussian):
        steps = _steps(sampler, gaussian, ts, event)
    grow = steps[0][1].shape[0] - d  # what is remembered is nothing at first
    mean, cov = F.pad(mean, (0, grow)), F.pad(cov, (0, grow, 0, grow))
    for linear, shift, fresh in steps:
        mean = linear @ mean + shift
        cov = linear @ cov @ linear.T + fresh
        means.append(mean[:d])
        covs.append(cov[:d, :d])
    return torch.stack(means), torch.stack(covs)


def _refuse_mixtures(denoiser: Denoiser) -> None:
    """Raise an error for a mixture: of several far components a probe may see one alone."""
    for part in denoiser.modules():
        if isinstance(part, GaussianMixture) and len(part.weights) != 1:
            raise ValueError(
                f"expected a single Gaussian, got a mixture of {len(part.weights)}: "
                "its samples are not Gaussian; take gaussian.component(k)"
            )


def _event(denoiser: Denoiser, start: tuple[Tensor, Tensor] | None) -> torch.Size:
    """Shape of one sample: that of the distribution within, or of the start."""
    laws = [part for part in denoiser.modules() if isinstance(part, Distribution)]
    if laws:
        return laws[0].event
    if start is None:
        raise ValueError(
            f"expected start=(mean, cov) beside a {type(denoiser).__name__}, got none: only a "
            "distribution knows the shape of its samples"
        )
    return start[0].shape


def _start(denoiser: Denoiser, ts: Tensor, event: torch.Size) -> tuple[Tensor, Tensor]:
    """Exact mean and covariance at ts[0] of a Gaussian, those of the prior for others."""
    if isinstance(denoiser, GaussianMixture):
        return denoiser.marginal(ts[0])
    eye = torch.eye(event.numel(), dtype=torch.float64)
    return torch.zeros_like(eye[0]), denoiser.sde.prior(ts[0]).std ** 2 * eye


def _steps(sampler: Sampler, denoiser: Denoiser, ts: Tensor, event: torch.Size) -> list[Step]:
    """(A, d, Q) of every row."""
    if not (isinstance(sampler, TableSampler) and sampler.tabular(denoiser, ts)):
        steps = [_one_step(sampler, denoiser, ts[k : k + 2], event) for k in range(len(ts) - 1)]
        _check_apart(sampler, denoiser, ts, event, steps)
        return steps
    table, d = sampler.table(denoiser.sde, ts), event.numel()
    gain, offset = _affine_at(denoiser, table.t, event)
    eye, grow = torch.eye(d, dtype=torch.float64), d * (table.b.shape[1] - 1)
    new = _scaled(table.u, eye) + _scaled(table.w, gain)  # h_0 = new x + shift
    shift = table.w[:, None] * offset
    x = torch.cat([_scaled(b, eye) for b in table.b.unbind(1)], 2)
    x[:, :, :d] = _scaled(table.a, eye) + _scaled(table.b[:, 0], new)
    push = table.b[:, :1] * shift
    if grow:
        down = torch.eye(d + grow, dtype=torch.float64)[d:-d].expand(len(x), -1, -1)
        x = torch.cat([x, F.pad(new, (0, grow)), down], 1)
        push = torch.cat([push, shift, shift.new_zeros(len(x), grow - d)], 1)
    fresh = F.pad(eye, (0, grow, 0, grow))
    return [(*step, c**2 * fresh) for *step, c in zip(x, push, table.c.tolist(), strict=True)]


def _scaled(factor: Tensor, matrix: Tensor) -> Tensor:
    """(R,) times (d, d) or (R, d, d)."""
    return factor[:, None, None] * matrix


def _affine_at(denoiser: Denoiser, t: Tensor, event: torch.Size) -> tuple[Tensor, Tensor]:
    """Matrices (R, d, d) and shifts (R, d) of x0_hat at times (R,)."""
    x = _impulses(event).to(anchor(denoiser).device)
    times = t.repeat_interleave(len(x)).to(x)
    out = denoiser(x.repeat(len(t), *[1] * len(event)), times)
    return _affine(out.reshape(len(t), len(x), -1), type(denoiser).__name__)


def _one_step(sampler: Sampler, denoiser: Denoiser, pair: Tensor, event: torch.Size) -> Step:
    """A step by its answers to the state and to each of the numbers that it draws."""
    x, silent = _impulses(event).to(anchor(denoiser).device), _Draws()
    out = sampler(denoiser, x, pair, noise=silent).reshape(len(x), -1)
    linear, shift = _affine(out, f"{sampler} with {type(denoiser).__name__}")
    fresh = torch.zeros_like(linear)
    for k in range(silent.count):
        out = sampler(denoiser, torch.zeros_like(x), pair, noise=_Draws(k, x))
        push, _ = _affine(out.reshape(len(x), -1), str(sampler))
        fresh = fresh + push @ push.T
    return linear, shift, fresh


def _check_apart(
    sampler: Sampler, denoiser: Denoiser, ts: Tensor, event: torch.Size, steps: Sequence[Step]
) -> None:
    """Raise an error for a sampler whose steps depend on those before."""
    x = _impulses(event)[-1:]
    there = x.to(anchor(denoiser).device)
    whole, flat = sampler(denoiser, there, ts, noise=_Draws()).flatten().cpu(), x.flatten()
    for linear, shift, _ in steps:
        flat = linear @ flat + shift
    if not bool((whole - flat).abs().max() <= ROUNDING * (1 + flat.abs().max())):
        raise TypeError(
            f"expected steps that do not depend on those before, got {sampler}: its "
            "distribution is not that of its steps one by one"
        )


class _Draws:
    """A noise source of zeros, but for the k-th draw."""

    def __init__(self, k: int | None = None, z: Tensor | None = None) -> None:
        self.k, self.z, self.count = k, z, 0

    def __call__(
        self,
        k: int,
        t: float,
        s: float,
        shape: Sequence[int],
        device: torch.device,
        dtype: torch.dtype,
    ) -> Tensor:
        """Zeros, or z at its turn."""
        self.count += 1
        if self.z is not None and self.count - 1 == self.k:
            return self.z
        return torch.zeros(tuple(shape), device=device, dtype=dtype)


def _impulses(event: torch.Size) -> Tensor:
    """0, the unit vectors, and random points that probe, (1 + d + PROBES, *event)."""
    d, seed = event.numel(), torch.Generator().manual_seed(0)
    probes = torch.randn(PROBES, d, generator=seed, dtype=torch.float64)
    probes = probes * torch.arange(1, PROBES + 1)[:, None] ** 2
    basis = torch.cat([torch.zeros(1, d), torch.eye(d)]).double()
    return torch.cat([basis, probes]).reshape(-1, *event)


def _affine(out: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """Matrix (..., d, d) and shift (..., d) from the answers (..., 1 + d + PROBES, d)."""
    x, out = _impulses(out.shape[-1:]), out.cpu()
    zero, units, probed = out[..., 0, :], out[..., 1:-PROBES, :], out[..., -PROBES:, :]
    gain = (units - zero[..., None, :]).mT
    error = (x[-PROBES:] @ gain.mT + zero[..., None, :] - probed).abs().amax((-2, -1))
    if not bool((error <= ROUNDING * (1 + probed.abs().amax((-2, -1)))).all()):
        raise ValueError(
            f"expected a denoiser that is affine in x (of a single Gaussian, guided by what is "
            f"quadratic), got {name}: its samples are not Gaussian, so draw them"
        )
    return gain, zero

r"""The Fokker-Planck equation on a grid: the reference where no closed form exists.

A density on equal cells of a box is carried by  d_t p = -div(u p) + D lap p  with no flux through
the walls. Between two cells at distance w flows

    J = D/w [ B(-q) p_left - B(q) p_right ],       q = u w/D,       B(q) = q/(e^q - 1),

the exact flux where u, D and J are constant from one middle to the next. So for u = f x the
Gaussian that the process leaves alone is left alone by the cells, to rounding. The matrix of rates
has no negative entry off its diagonal and its columns add up to zero: mass is conserved, and an
implicit Euler step (theta = 1) keeps every density positive whatever its length. Each axis is
swept in turn (Strang), which makes every solve tridiagonal, in any dimension.

Errors: w^2 in space where D > 0; w where D = 0, as there the flux is upwind. In time h for theta =
1; h^2 for theta = 1/2 (Crank-Nicolson), which stays positive only while h times the largest rate
out of a cell, about 2 D/w^2, is below 2. No rational one-step method is of order two and positive
at every step.

References:
    Scharfetter and Gummel 1969, "Large-signal analysis of a silicon Read diode oscillator" (the
    flux); Chang and Cooper 1970 (the same idea for Fokker-Planck); Bolley and Crouzeix 1978 (the
    limit of order).
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..denoiser import Denoiser, anchor, like
from ..sde import SDE
from .cells import Cells
from .fields import Vector

__all__ = ["Transport", "denoising", "evolve", "noising"]

Array = NDArray[np.float64]
Rates = tuple[Array, Array]
"""Rates from every cell to the next and to the one before along an axis, lines by cells."""


@dataclass(frozen=True)
class Transport:
    """A drift and a diffusion, dX = u dt + sqrt(2 D) dW: what moves a density.

    Args:
        drift: u(x, t), points (N, d) and one time () -> (N, d), as a rate of change with t.
        diffusion: D(t) >= 0, () -> ().
        direction: 1 where t must increase, -1 where it must decrease, 0 where both have a meaning.
    """

    drift: Vector
    diffusion: Callable[[Tensor], Tensor]
    direction: int = 0


def noising(sde: SDE) -> Transport:
    """The forward process: u = f x, D = g^2/2."""
    return Transport(sde.drift, lambda t: 0.5 * sde.g2(t), 1)


def denoising(denoiser: Denoiser, noise: float = 1.0) -> Transport:
    r"""A way back: u = f x - (1 + noise^2)/2 g^2 score, D = noise^2 g^2/2.

    All have the same marginals if the score is exact, and no two if it is not: a guided, a
    mis-scaled or a learned score makes a different distribution by each. The density of the ODE
    is more accurate by its paths, ``cells.density(lambda x: flow_log_prob(denoiser)(x, t))``, than
    by the grid.

    Args:
        denoiser: the denoiser whose score is used; wrap it for guidance.
        noise: 1 for the reverse SDE, 0 for the probability-flow ODE (in either direction of
            time), in between or above for the others of the family.

    References:
        Song et al. 2021 (arXiv:2011.13456), eq. 6 and 13.
    """
    if not noise >= 0:
        raise ValueError(f"expected noise >= 0, got {noise}: 1 is the reverse SDE, 0 the ODE")
    sde = denoiser.sde

    def drift(x: Tensor, t: Tensor) -> Tensor:
        points = x.to(anchor(denoiser, x))
        f, g2 = (like(rate, x) for rate in sde.rates(t))
        score = denoiser.score(points, t.to(points)).to(x)
        return f * x - 0.5 * (1 + noise**2) * g2 * score

    return Transport(drift, lambda t: 0.5 * noise**2 * sde.g2(t), -1 if noise else 0)


def evolve(
    transport: Transport,
    cells: Cells,
    p: Tensor,
    ts: Tensor,
    substeps: int = 1,
    theta: float = 1.0,
) -> Tensor:
    """Densities at the times ts, (T, *counts) float64 on the CPU; the first is p itself.

    Rates are taken at the middle of each step, so that t = 0 is never asked for.

    >>> from scoresde.sde import VPSDE
    >>> cells, ts = Cells.cube(6.0, 60), torch.tensor([0.0, 1.0])
    >>> p = cells.density(lambda x: -0.5 * x[:, 0] ** 2)  # what the process leaves alone
    >>> torch.allclose(evolve(noising(VPSDE()), cells, p, ts)[1], p)
    True

    Args:
        transport: ``noising(sde)``, ``denoising(denoiser)``, or your own.
        cells: the box; what would leave it is reflected, so it must hold all of the mass.
        p: densities at the middles of the cells, (*counts), not negative.
        ts: times (T,), increasing for a noising and decreasing for a denoising transport.
        substeps: number of equal steps from each time to the next.
        theta: 1 for implicit Euler, 1/2 for Crank-Nicolson; see the head of this module.
    """
    _check(transport, cells, p, ts, substeps, theta)
    ts, state = ts.double().cpu(), p.detach().double().cpu().numpy()
    states = [state]
    with torch.no_grad():
        for start, end in pairwise(ts):
            h = (end - start) / substeps
            for k in range(substeps):
                state = _step(transport, cells, state, start + (k + 0.5) * h, float(h), theta)
            states.append(state)
    return torch.from_numpy(np.stack(states))


def _step(
    transport: Transport, cells: Cells, p: Array, middle: Tensor, h: float, theta: float
) -> Array:
    """Strang: sweep all axes but the last by half a step, the last by a whole one, and back."""
    size, sign, last = abs(h), float(np.sign(h)), cells.dim - 1
    rates = [_rates(transport, cells, axis, middle, sign) for axis in range(cells.dim)]
    for axis in range(last):
        p = _sweep(p, axis, rates[axis], 0.5 * size, theta)
    p = _sweep(p, last, rates[last], size, theta)
    for axis in reversed(range(last)):
        p = _sweep(p, axis, rates[axis], 0.5 * size, theta)
    return p


def _rates(transport: Transport, cells: Cells, axis: int, t: Tensor, sign: float) -> Rates:
    """D/w^2 B(-q) to the next cell and D/w^2 B(q) to the one before; 0 through the walls."""
    faces, w = cells.faces(axis), cells.widths[axis]
    shape = [n - (k == axis) for k, n in enumerate(cells.counts)]
    u = sign * transport.drift(faces, t)[:, axis].reshape(shape).movedim(axis, -1)
    u = u.reshape(-1, cells.counts[axis] - 1)
    diffusion = float(transport.diffusion(t))
    both = torch.zeros_like(u)  # B(|q|): what diffuses either way; upwind takes the rest
    if diffusion > 0:
        q = u.abs() * w / diffusion
        both = diffusion / w**2 * (q / torch.expm1(q)).where(q > 0, 1.0)
    right = torch.nn.functional.pad(both + u.clamp(min=0) / w, (0, 1))
    left = torch.nn.functional.pad(both + (-u).clamp(min=0) / w, (1, 0))
    return right.numpy(), left.numpy()


def _sweep(p: Array, axis: int, rates: Rates, h: float, theta: float) -> Array:
    """(1 - theta h L) p' = (1 + (1 - theta) h L) p along one axis, all its lines at once.

    Laid end to end the lines are one tridiagonal system: no rate leads from one to the next.
    """
    from scipy.linalg import solve_banded

    lines = np.moveaxis(p, axis, -1)
    right, left = (rate.ravel() for rate in rates)
    old = lines.ravel()
    target = old - (1 - theta) * h * _outflow(old, right, left)
    a = theta * h
    bands = np.stack((-a * left, 1 + a * (right + left), -a * right))
    new = solve_banded((1, 1), bands, target, overwrite_ab=True, check_finite=False)
    # once more through the fluxes: what leaves a cell enters the next, whatever was rounded
    new = target - a * _outflow(new, right, left)
    return np.moveaxis(new.reshape(lines.shape), -1, axis)


def _outflow(p: Array, right: Array, left: Array) -> Array:
    """-L p: what leaves every cell minus what enters it."""
    flux = right[:-1] * p[:-1] - left[1:] * p[1:]
    return np.diff(flux, prepend=0.0, append=0.0)


def _check(
    transport: Transport, cells: Cells, p: Tensor, ts: Tensor, substeps: int, theta: float
) -> None:
    if p.shape != cells.counts or not bool((torch.isfinite(p) & (p >= 0)).all()):
        raise ValueError(
            f"expected a finite density >= 0 of shape {cells.counts}, got {tuple(p.shape)}: "
            "cells.density(log_p) makes one"
        )
    steps = ts.diff() if ts.ndim == 1 and len(ts) > 1 else ts.new_zeros(1)
    sign = int(steps[0].sign())
    if not sign or not bool((steps.sign() == sign).all()) or sign == -transport.direction:
        way = {1: "increasing ", -1: "decreasing ", 0: ""}[transport.direction]
        raise ValueError(
            f"expected at least two {way}times, strictly monotone, got {ts.tolist()}: noising "
            "goes up in time, denoising down"
        )
    if substeps < 1 or not 0.5 <= theta <= 1:
        raise ValueError(
            f"expected substeps >= 1 and theta in [1/2, 1], got {substeps} and {theta}: theta=1 "
            "is positive at any step, 1/2 of second order"
        )

r"""Named laws along curves: spirals, moons, rings, swiss roll, each *defined* as a mixture.

A curve is cut into K pieces; on the middle of each sits a Gaussian elongated along the tangent,

    N(c_k, width^2 n n' + (0.55 length_k)^2 tau tau'),

which overlaps its neighbours so much that the density ripples by +-0.5 % along a straight piece
(+-1.7 % on the innermost ring). So these laws are not drawn by a script and then guessed at:
density, score, denoiser and loss floor are exact at every t. K is what an evaluation costs.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ..distributions import GaussianMixture
from ..sde import SDE

__all__ = ["moons", "rings", "spiral", "swiss_roll"]

Curve = Callable[[Tensor], Tensor]
"""From a parameter s in [0, 1], (n,), to points (n, 2)."""
OVERLAP, FINE = 0.55, 4096


def spiral(
    sde: SDE, turns: float = 2.0, arms: int = 1, k: int = 64, width: float = 0.06
) -> GaussianMixture:
    """Archimedean spiral from radius 0.3 to 2, uniform in arc length.

    Args:
        sde: the process.
        turns: how often each arm winds.
        arms: number of arms, evenly turned.
        k: number of Gaussians, over all arms.
        width: standard deviation across the curve.
    """

    def arm(start: float) -> Curve:
        return lambda s: _polar(0.3 + 1.7 * s, 2 * math.pi * (turns * s + start))

    return _along([arm(i / arms) for i in range(arms)], k, width, sde)


def moons(sde: SDE, k: int = 32, width: float = 0.1) -> GaussianMixture:
    """Two interleaved half circles of radius 1.4, as scikit-learn's, centred.

    Args:
        sde: the process.
        k: number of Gaussians, over both moons.
        width: standard deviation across the curve.
    """
    shift = torch.tensor([0.7, 0.35], dtype=torch.float64)

    def upper(s: Tensor) -> Tensor:
        return _polar(1.4, math.pi * s) - shift

    return _along([upper, lambda s: -upper(s)], k, width, sde)


def rings(
    sde: SDE, radii: Sequence[float] = (0.8, 1.4, 2.0), k: int = 84, width: float = 0.06
) -> GaussianMixture:
    """Concentric circles, each with the same mass per length.

    Args:
        sde: the process.
        radii: of the circles.
        k: number of Gaussians, shared out by length.
        width: standard deviation across the curve.
    """
    if not all(radius > 0 for radius in radii):
        raise ValueError(f"expected radii > 0, got {tuple(radii)}")

    def circle(radius: float) -> Curve:
        return lambda s: _polar(radius, 2 * math.pi * s)

    return _along([circle(radius) for radius in radii], k, width, sde)


def swiss_roll(sde: SDE, k: int = 48, width: float = 0.06) -> GaussianMixture:
    """The plane section of the swiss roll, radius 0.65 to 1.95 over 1.5 turns, uniform in angle.

    Unlike the spiral it is denser inside, as scikit-learn's.

    Args:
        sde: the process.
        k: number of Gaussians.
        width: standard deviation across the curve.
    """
    roll = lambda s: _polar(0.65 + 1.3 * s, math.pi * (1.5 + 3 * s))
    return _along([roll], k, width, sde, by_length=False)


def _polar(radius: Tensor | float, angle: Tensor) -> Tensor:
    return torch.stack((radius * angle.cos(), radius * angle.sin()), 1)


def _along(
    curves: Sequence[Curve], k: int, width: float, sde: SDE, by_length: bool = True
) -> GaussianMixture:
    """About k Gaussians on pieces of equal length, or of equal parameter and then equal mass."""
    if not (curves and k >= 1 and width >= 0):
        raise ValueError(
            f"expected a curve or more, k >= 1 and width >= 0, got {len(curves)}, {k} and {width}"
        )
    s = torch.linspace(0, 1, FINE + 1, dtype=torch.float64)
    lines = [curve(s) for curve in curves]
    arcs = [torch.cat((s[:1], line.diff(dim=0).norm(dim=1).cumsum(0))) for line in lines]
    total = sum(float(arc[-1]) for arc in arcs)
    counts = [max(1, round(k * float(arc[-1]) / total)) for arc in arcs]
    ways = [arc / arc[-1] if by_length else s for arc in arcs]
    pieces = [_pieces(*each) for each in zip(lines, ways, counts, strict=True)]
    means, chords = (torch.cat(parts) for parts in zip(*pieces, strict=True))
    length = chords.norm(dim=1)
    normals = chords.flip(1) * torch.tensor([-1.0, 1.0]) / length[:, None]
    covs = OVERLAP**2 * _outer(chords) + width**2 * _outer(normals)
    return GaussianMixture(length if by_length else torch.ones_like(length), means, covs, sde)


def _pieces(line: Tensor, way: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Middles and chords (count, 2) of equal pieces of a polyline (n, 2), way (n,) from 0 to 1."""
    stops = np.linspace(0, 1, 2 * count + 1)
    points = np.stack([np.interp(stops, way, coordinate) for coordinate in line.T], 1)
    ends, middles = torch.from_numpy(points[::2]), torch.from_numpy(points[1::2])
    return middles, ends.diff(dim=0)


def _outer(v: Tensor) -> Tensor:
    return v[:, :, None] * v[:, None, :]

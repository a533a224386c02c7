r"""Where probability flows, and which part of a learned score moves none.

With density p, drift f x and diffusion g^2/2 the Fokker-Planck equation is a conservation law,

    d_t p + div J = 0,      J = f x p - g^2/2 grad p = p velocity,

and velocity = f x - g^2/2 grad log p is that of the probability-flow ODE. It is the mean of the
two drifts of the diffusion, f x forwards in time and f x - g^2 grad log p backwards; half of their
difference, g^2/2 grad log p, is the osmotic velocity. Forwards and backwards the current is one
and the same field with opposite signs.

A true score is a gradient: its Jacobian is symmetric. A learned one need not be. Its error splits
in one way only into

    e = grad phi + r,     div(p r) = 0,     E_p |e|^2 = E_p |grad phi|^2 + E_p |r|^2,

(Helmholtz, with weight p). The second part stirs p without changing it: a path weight counts it,
the distribution of the samples, to first order, does not.

References:
    Nelson 1966, "Derivation of the Schroedinger equation from Newtonian mechanics" (current and
    osmotic velocity); Anderson 1982, "Reverse-time diffusion equation models" (the drift back).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..denoiser import Denoiser, like
from ..sde import SDE
from .cells import Cells
from .fields import Scalar, Vector, check_field, gradient, jacobian

if TYPE_CHECKING:
    from scipy.sparse import csr_array

__all__ = [
    "Helmholtz",
    "curl",
    "helmholtz",
    "osmotic_velocity",
    "probability_current",
    "stream_lines",
]


def probability_current(log_p: Scalar, sde: SDE, x: Tensor, t: Tensor) -> Tensor:
    """J = p (f x - g^2/2 grad log p), (B, *): probability per time and area, for growing t.

    Args:
        log_p: log density in nats, (x (B, *), t) -> (B,), differentiable by ``torch.func``.
        sde: the process.
        x: points (B, *), in the model's units.
        t: time, () or (B,).
    """
    check_field(x, t)
    f, g2 = (like(rate, x) for rate in sde.rates(t))
    score = gradient(lambda x: log_p(x, t), x)
    return like(log_p(x, t).exp(), x) * (f * x - 0.5 * g2 * score)


def osmotic_velocity(denoiser: Denoiser, x: Tensor, t: Tensor) -> Tensor:
    """g^2/2 score, (B, *), in units of x per time: up the density, what diffusion undoes.

    ``denoiser.velocity`` plus and minus it are the drifts of the SDE forwards and backwards.

    Args:
        denoiser: the denoiser whose score is used.
        x: points (B, *), in the model's units.
        t: time, () or (B,).
    """
    check_field(x, t)
    return 0.5 * like(denoiser.sde.g2(t), x) * denoiser.score(x, t)


def curl(score: Vector, x: Tensor, t: Tensor) -> Tensor:
    """Antisymmetric part (J - J^T)/2 of the Jacobian J_ij = d s_i/d x_j, (B, d, d).

    It is zero where and only where the field is, locally, a gradient. In two dimensions its entry
    (1, 0) is (d s_1/d x_0 - d s_0/d x_1)/2, half of the curl.

    Args:
        score: (x (B, *), t) -> (B, *), differentiable by ``torch.func``.
        x: points (B, *), in the model's units.
        t: time, () or (B,).
    """
    check_field(x, t)
    jac = jacobian(lambda x: score(x, t), x)[1]
    return 0.5 * (jac - jac.mT)


def stream_lines(
    field: Callable[[Tensor], Tensor], x: Tensor, length: float, steps: int = 100
) -> Tensor:
    """Lines along a field at one fixed time, (steps + 1, B, *), by arc length, from x on.

    dx/dl = field/|field| by the classical Runge-Kutta method, error (length/steps)^4. They are
    not the paths of particles where the field changes in time. A line stays where the field is 0.

    Args:
        field: (B, *) -> (B, *): a current or a velocity, at a time of your choice.
        x: where the lines begin, (B, *).
        length: length of each line, in the units of x; negative to go against the field.
        steps: number of steps, of equal length.
    """
    if steps < 1 or x.ndim < 2:
        raise ValueError(
            f"expected steps >= 1 and points (B, *), got {steps} and {tuple(x.shape)}"
        )
    h, lines = length / steps, [x]
    for _ in range(steps):
        k1 = _direction(field, x)
        k2 = _direction(field, x + 0.5 * h * k1)
        k3 = _direction(field, x + 0.5 * h * k2)
        k4 = _direction(field, x + h * k3)
        x = x + h / 6 * (k1 + 2 * (k2 + k3) + k4)
        lines.append(x)
    return torch.stack(lines)


@dataclass(frozen=True)
class Helmholtz:
    """A field e on the faces of cells, split under a density p: e = grad phi + r, div(p r) = 0.

    Args:
        cells: the box.
        potential: phi at the middles of the cells, (*counts), zero where p is largest.
        squares: E_p of |grad phi|^2 and of |r|^2.
    """

    cells: Cells
    potential: Tensor
    squares: tuple[float, float]

    @cached_property
    def share(self) -> float:
        """E_p|r|^2/E_p|e|^2 in [0, 1]: the part of the error that moves no probability."""
        return self.squares[1] / sum(self.squares)


def helmholtz(
    field: Callable[[Tensor], Tensor], log_p: Callable[[Tensor], Tensor], cells: Cells
) -> Helmholtz:
    r"""Split a field, such as the error of a score, into a gradient and what moves no probability.

    The potential solves div(p grad phi) = div(p e) on the cells, with no flux through the walls:
    the weighted least squares of grad phi against e. Error O(w^2) in each mean square.

    Args:
        field: e at one time, (N, d) -> (N, d), of float64 points: ``lambda x: net.score(x, t) -
            mixture.score(x, t)``; cast inside what is asked of a network in float32.
        log_p: log density at that time, up to a constant, (N, d) -> (N,).
        cells: a box that holds the density, in one or two dimensions, or coarse in three.
    """
    from scipy.sparse.linalg import spsolve

    with torch.no_grad():
        faces = [cells.faces(axis) for axis in range(cells.dim)]
        e = torch.cat([field(x)[:, axis] for axis, x in enumerate(faces)]).double().cpu()
        logs = torch.cat([log_p(x) for x in faces]).double().cpu()
    if not bool(torch.isfinite(e).all()) or not bool(e.any()):
        raise ValueError("expected a finite field that is not zero everywhere: nothing to split")
    # a floor far below anything that counts keeps empty corners solvable
    p = (logs - logs.max()).clamp(min=-60.0).exp()
    p = p / p.sum() * cells.dim
    grad = _gradient(cells)
    weighted = grad.T * p.numpy()
    ground = int(abs(weighted).sum(1).argmax())
    keep = [k for k in range(prod(cells.counts)) if k != ground]  # phi is 0 there
    potential = torch.zeros(prod(cells.counts), dtype=torch.float64)
    laplacian = (weighted @ grad).tocsc()[keep][:, keep]
    potential[keep] = torch.from_numpy(spsolve(laplacian, (weighted @ e.numpy())[keep]))
    slope = torch.from_numpy(grad @ potential.numpy())
    squares = float(p @ slope**2), float(p @ (e - slope) ** 2)
    return Helmholtz(cells, potential.reshape(cells.counts), squares)


def _direction(field: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    value = field(x)
    size = like(value.flatten(1).norm(dim=1), x)
    return value / size.where(size > 0, 1.0)


def _gradient(cells: Cells) -> "csr_array":
    """Differences between neighbours over their distance, one row for each inner face."""
    import scipy.sparse as sp

    blocks = []
    for axis, (n, w) in enumerate(zip(cells.counts, cells.widths, strict=True)):
        block = sp.diags_array([-1 / w, 1 / w], offsets=[0, 1], shape=(n - 1, n))
        before, after = prod(cells.counts[:axis]), prod(cells.counts[axis + 1 :])
        blocks.append(sp.kron(sp.kron(sp.eye_array(before), block), sp.eye_array(after)))
    return sp.vstack(blocks, format="csr")

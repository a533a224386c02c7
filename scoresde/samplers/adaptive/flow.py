r"""The probability-flow ODE with steps that follow a tolerance, in an angle instead of time.

With r^2 = alpha^2 + sigma^2, the point y = x/r = cos(phi) x0 + sin(phi) eps moves on an ellipse,

    phi = atan(sigma/alpha),        dy/dphi = -sin(phi) x0_hat + cos(phi) eps_hat = v/r,

so in the angle phi the velocity of the probability-flow ODE is the v-prediction: of the size of
the data at every time, from phi = 0 (data) to almost pi/2 (noise), for every process. In t it
falls by orders of magnitude along the way, in lam it does not reach the data.
``tests/test_adaptive.py`` counts what that saves.

References:
    Salimans and Ho 2022 (arXiv:2202.00512), appendix D: the angle and v where r = 1.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...autodiff import ordinary_tensors
from ...denoiser import Denoiser
from ...noise import Noise
from ..base import Callback, Sampler
from .embedded import integrate

__all__ = ["PFAdaptive", "check_end", "check_tolerances", "show"]

ORDERS = {"bosh3": 3, "dopri5": 5, "dopri8": 8, "RK45": 5, "DOP853": 8}
SCIPY = ("RK45", "DOP853")
MOST = 0.5 * math.pi - 1e-9  # just below the angle of pure noise


@dataclass(frozen=True)
class PFAdaptive(Sampler):
    r"""The probability-flow ODE by an embedded Runge-Kutta pair, in the angle of this module.

        dy/dphi = v/r,      |local error| <= atol + rtol |y|  (root mean square over the batch).

    Steps are chosen within the grid, whose inner times are interpolated and whose last is hit; a
    grid of two times is enough. An exact distribution is integrated to t = 0 (or from it), a
    network down to t > 0: its v at sigma = 0 is not defined. ``Counted`` tells the evaluations,
    to which a callback adds one for each interval of the grid.

    One step size serves the whole batch, so a sample depends on its neighbours at the level of
    the tolerance. The host asks the device once a step ("dopri8": some thirty times).

    Args:
        rtol: relative tolerance of a step.
        atol: absolute one, in the units of the data.
        method: "bosh3" (order 3) or "dopri5" (5), on the device of x; "dopri8" (8) of torchdiffeq,
            on it as well; "RK45" or "DOP853" of scipy, on the CPU and in float64, as a reference.
    """

    rtol: float = 1e-3
    atol: float = 1e-3
    method: Literal["bosh3", "dopri5", "dopri8", "RK45", "DOP853"] = "dopri5"
    noise: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Raise an error unless the tolerances and the method are valid."""
        check_tolerances(self.rtol, self.atol)
        if self.method not in ORDERS:
            raise ValueError(
                'expected method "bosh3", "dopri5" or "dopri8" (torchdiffeq), or "RK45" or '
                f'"DOP853" (scipy), got {self.method!r}'
            )

    @property
    def order(self) -> int:
        """Order of the pair; the error follows the tolerance."""
        return ORDERS[self.method]

    @property
    def linear(self) -> bool:
        """False: the steps depend on the samples."""
        return False

    def walk(
        self, denoiser: Denoiser, x: Tensor, ts: Tensor, noise: Noise, callback: Callback | None
    ) -> Tensor:
        """Integrate over the angles of the grid."""
        check_end(denoiser, ts)
        alpha, sigma = denoiser.sde.alpha(ts), denoiser.sde.sigma(ts)
        angles, r = torch.atan2(sigma, alpha), torch.hypot(sigma, alpha).tolist()
        solve = _scipy if self.method in SCIPY else _embedded
        solve = _torchdiffeq if self.method == "dopri8" else solve
        ys = solve(_Angle(denoiser, ts), x / r[0], angles, self)
        states: list[Tensor] = [y * scale for y, scale in zip(ys, r, strict=True)]
        if callback is not None:
            show(denoiser, ts.tolist(), states, callback)
        return states[-1]


class _Angle:
    """The right-hand side dy/dphi, within the times of a grid."""

    def __init__(self, denoiser: Denoiser, ts: Tensor) -> None:
        self.denoiser, self.low, self.high = denoiser, float(ts.min()), float(ts.max())

    def __call__(self, phi: float, y: Tensor) -> Tensor:
        """The slope; beyond the grid, where a solver may try its first step, that at its end."""
        sde, phi = self.denoiser.sde, min(max(phi, 0.0), MOST)
        log_snr = -2 * math.log(math.tan(phi)) if phi else math.inf
        time = sde.time_of_log_snr(torch.tensor(log_snr, dtype=torch.float64))
        time = time.clamp(self.low, self.high)
        alpha, sigma = float(sde.alpha(time)), float(sde.sigma(time))
        r, t = math.hypot(alpha, sigma), time.to(y.dtype).to(y.device, non_blocking=True)
        return self.denoiser.v(y * r, t) / r


def _embedded(
    slope: Callable[[float, Tensor], Tensor], y: Tensor, angles: Tensor, how: PFAdaptive
) -> Tensor:
    """States at all angles by a pair on the device of y."""
    try:
        return integrate(slope, y, angles.tolist(), how.method, how.rtol, how.atol)
    except FloatingPointError as error:
        raise _stuck(how, str(error)) from error


def _torchdiffeq(
    slope: Callable[[float, Tensor], Tensor], y: Tensor, angles: Tensor, how: PFAdaptive
) -> Tensor:
    """States at all angles, (n + 1, B, *); the last one is a step's end: nothing lies beyond."""
    with ordinary_tensors():
        from torchdiffeq import odeint

    angles = angles.to(y.device)
    try:
        out: Tensor = odeint(
            lambda phi, y: slope(float(phi), y),
            y,
            angles,
            rtol=how.rtol,
            atol=how.atol,
            method=how.method,
            options={"step_t": angles[-1:]},
        )
    except AssertionError as error:  # how torchdiffeq says that it cannot go on
        raise _stuck(how, str(error)) from error
    return out


def _scipy(
    slope: Callable[[float, Tensor], Tensor], y: Tensor, angles: Tensor, how: PFAdaptive
) -> Tensor:
    """The same by scipy, in float64 on the CPU but for the denoiser."""
    from scipy.integrate import solve_ivp

    def flat(phi: float, state: NDArray[np.float64]) -> NDArray[np.float64]:
        rate = slope(phi, torch.from_numpy(state).to(y).reshape(y.shape))
        out = np.asarray(rate.flatten().double().cpu().numpy())
        if not np.isfinite(out).all():  # scipy would go on for ever
            raise _stuck(how, f"not finite at phi = {phi:.4g}")
        return out

    span, at = (float(angles[0]), float(angles[-1])), angles.tolist()
    start = y.flatten().double().cpu().numpy()
    out = solve_ivp(flat, span, start, how.method, at, rtol=how.rtol, atol=how.atol)
    if not out.success:
        raise _stuck(how, out.message)
    return torch.from_numpy(out.y.T.copy()).to(y).reshape(len(at), *y.shape)


def _stuck(how: PFAdaptive, reason: str) -> RuntimeError:
    return RuntimeError(
        f"{how} could not meet its tolerance ({reason[:80]}): is the denoiser finite? In float32 "
        "tolerances below 1e-6 cannot be met"
    )


def show(denoiser: Denoiser, ts: list[float], states: list[Tensor], callback: Callback) -> None:
    """Call back at every time of the grid, at one evaluation an interval; x0_hat(x, 0) is x."""
    for k, (t, x) in enumerate(zip(ts[:-1], states, strict=False)):
        x0_hat = denoiser(x, torch.tensor(t, dtype=x.dtype).to(x.device)) if t else x
        callback(k, t, x, x0_hat)
    callback(len(ts) - 1, ts[-1], states[-1], x0_hat)


def check_tolerances(rtol: float, atol: float) -> None:
    """Raise an error for tolerances that no step can meet."""
    if not (rtol >= 0 and atol >= 0 and rtol + atol > 0):
        raise ValueError(f"expected tolerances >= 0, one of them > 0, got {rtol} and {atol}")


def check_end(denoiser: Denoiser, ts: Tensor) -> None:
    """Raise an error where the grid touches t = 0 and the score is not finite there."""
    if float(ts.min()) == 0 and not denoiser.regular:
        raise ValueError(
            "expected a grid within t > 0, got one that touches 0, where this denoiser's score is "
            'not finite: stop at 1e-4, and let sample(..., last="denoise") do the rest'
        )

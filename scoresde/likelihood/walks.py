"""Three ways to integrate the ODE: on a fixed grid, adaptively, and by torchdiffeq.

All step in the variable u of ``flow.Clock``, in both directions.

References:
    Hairer, Norsett and Wanner 1993, "Solving ordinary differential equations I", sec. II.4-5
    (Dormand-Prince 5(4), step control) and III.1 (Adams-Bashforth).
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from ..autodiff import ordinary_tensors
from .flow import Clock, Flow, Node

__all__ = ["Adaptive", "Fixed", "Torchdiffeq", "Walk"]


@dataclass(frozen=True, kw_only=True)
class Walk(ABC):
    """A method of integration with its settings.

    Args:
        scales: where steps are spent (``flow.Clock``): equal ones in lam while sigma/alpha is
            between these two, which are about the smallest standard deviation in the data (in
            the model's units) and a few times the largest. An exact distribution gains by
            (0.1, 1); a network's error at the noisy end is resolved by a larger second number.
    """

    scales: tuple[float, float] = (0.1, 5.0)

    def grid(self, clock: Clock, t: float, s: float) -> Tensor:
        """Values of the clock from t to s, first to last, float64 on the CPU."""
        return clock.u(torch.tensor([t, s], dtype=torch.float64))

    @abstractmethod
    def __call__(self, flow: Flow, y: Tensor, us: Tensor) -> Tensor:
        """Carry the state y (B, d + P) from us[0] to us[-1]."""


@dataclass(frozen=True, eq=False)
class Fixed(Walk):
    """Adams-Bashforth of order 4: one evaluation a step, after three steps of Runge-Kutta.

    n steps cost n + 9 evaluations (fewer for n < 3). Nothing on the device is read: the host never
    waits. Beside Runge-Kutta methods of order 4, 5 and 8 on the same grid it needs some two
    thirds of the evaluations; but like all explicit methods it is of no use where steps are long
    for the path, which between far modes and off the data they are: use ``Adaptive`` there.

    Args:
        n: number of steps, equal ones in u.
        ts: a grid of your own, times (n + 1,) in either order, in place of n. It is taken from
            data to noise or back as needed and says where the integration starts and stops.
    """

    n: int = 128
    ts: Tensor | Sequence[float] | None = None

    def grid(self, clock: Clock, t: float, s: float) -> Tensor:
        """Equal steps in u, or those of ``ts``."""
        if self.ts is None:
            if self.n < 1:
                raise ValueError(f"expected n >= 1 steps, got {self.n}")
            first, last = super().grid(clock, t, s).tolist()
            return torch.linspace(first, last, self.n + 1, dtype=torch.float64)
        ts = torch.as_tensor(self.ts).detach().to("cpu", torch.float64)
        ts = ts.flip(0) if ts.ndim == 1 and len(ts) and (ts[-1] > ts[0]) != (s > t) else ts
        _check_times(ts, clock.sde.t_max)
        return clock.u(ts)

    def __call__(self, flow: Flow, y: Tensor, us: Tensor) -> Tensor:
        """y <- y + sum_j weight_j slope_{k-j}."""
        steps, begin = us.diff(), min(3, len(us) - 1)
        nodes = _spread(flow.clock, us[:-1], y)
        middles = _spread(flow.clock, us[:begin] + 0.5 * steps[:begin], y)
        ends = _spread(flow.clock, us[1 : begin + 1], y)
        rows = adams_weights(us).tolist()
        slopes: list[Tensor] = []
        for k, h in enumerate(steps.tolist()):
            slopes = [*slopes, flow(nodes[k], y)][-4:]
            if k < begin:
                y = _classical(flow, y, slopes[-1], middles[k], ends[k], h)
            else:
                y = _add(y, slopes, rows[k - 3])
        return y


@dataclass(frozen=True)
class Adaptive(Walk):
    r"""Dormand-Prince 5(4) with a step size for each sample.

    Every sample keeps its own u and its own step, so its result does not depend on what else is
    in the batch, and a point in a difficult place does not slow the others' steps down. A step is
    taken where max(rms_i e_i, max_p e_p) <= 1, with e the embedded error over atol + rtol \|y\|,
    i the coordinates and p the log densities (in nats): the likelihood itself is controlled. The
    host looks once a step whether all have arrived. The network gets a time for each sample, (B,).
    A sample whose step shrinks to rounding, because the denoiser is not finite there, becomes NaN,
    alone. Where gradients are asked for, the steps are chosen without them and taken once more.

    Args:
        rtol: relative tolerance.
        atol: absolute tolerance, in model's units and in nats.
        max_steps: give up after so many, six evaluations each.
    """

    rtol: float = 1e-5
    atol: float = 1e-5
    max_steps: int = 5000

    def __post_init__(self) -> None:
        """Raise an error for tolerances that nothing can meet."""
        if not (self.rtol >= 0 and self.atol >= 0 and self.rtol + self.atol > 0):
            raise ValueError(f"expected tolerances > 0, got rtol {self.rtol}, atol {self.atol}")

    def __call__(self, flow: Flow, y: Tensor, us: Tensor) -> Tensor:
        """Step until every sample has arrived."""
        with torch.no_grad():
            end, steps = self._search(flow, y, *us[[0, -1]].tolist())
        return _retrace(flow, y, end, steps) if torch.is_grad_enabled() else end

    def _search(
        self, flow: Flow, y: Tensor, start: float, stop: float
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """The state at the end, and where each step began and how long it was, 0 if refused."""
        u, h = y.new_full((len(y),), start), y.new_full((len(y),), (stop - start) / 50)
        least = torch.finfo(y.dtype).eps * abs(stop - start)
        slope, steps = flow(flow.clock.node(u), y), []
        for _ in range(self.max_steps):
            last = h.abs() >= (stop - u).abs()
            h = torch.where(last, stop - u, h)
            new, new_slope, error = _dormand_prince(flow, u, y, slope, h)
            ratio = self._ratio(error, torch.maximum(y.abs(), new.abs()), flow.dim)
            taken = ratio <= 1
            lost = ~taken & (h.abs() < least)
            steps.append((u, h.where(taken, 0.0)))
            y = torch.where(taken[:, None], new, y).masked_fill(lost[:, None], torch.nan)
            slope = torch.where(taken[:, None], new_slope, slope)
            u = torch.where(taken, torch.where(last, stop, u + h), u).masked_fill(lost, stop)
            h = h * (0.9 * ratio**-0.2).clamp(0.2, 5.0)
            if bool((u == stop).all()):
                return y, steps
        raise RuntimeError(
            f"{int((u != stop).sum())} of {len(y)} samples had not arrived after "
            f"{self.max_steps} steps: loosen rtol and atol, or see whether the denoiser is "
            "finite there (it is asked from t_eps to t_max)"
        )

    def _ratio(self, error: Tensor, size: Tensor, dim: int) -> Tensor:
        """Error over tolerance of each sample, (B,); infinite where it is not a number."""
        scaled = error / (self.atol + self.rtol * size)
        rms = scaled[:, :dim].square().mean(1, keepdim=True).sqrt()
        worst = torch.cat([rms, scaled[:, dim:].abs()], 1).amax(1)
        return worst.nan_to_num(nan=torch.inf).clamp(min=1e-10)


@dataclass(frozen=True)
class Torchdiffeq(Walk):
    """An adaptive method of torchdiffeq, for the whole batch at once.

    One step size for all, chosen by the error norm over the whole batch: the result of a sample
    depends, within the tolerance, on the batch it came in, few difficult points are hidden among
    many easy ones, and one that cannot be integrated stops all. ``Adaptive`` has none of these
    defects; this is here for "dopri8" at tight tolerances, and to compare with.

    Args:
        method: its name in torchdiffeq.
        rtol: relative tolerance.
        atol: absolute tolerance.
    """

    method: str = "dopri5"
    rtol: float = 1e-5
    atol: float = 1e-5

    def __call__(self, flow: Flow, y: Tensor, us: Tensor) -> Tensor:
        """Call ``odeint``; it steps beyond the end and interpolates, so u is clamped."""
        with ordinary_tensors():
            from torchdiffeq import odeint

        ends = us[[0, -1]].to(y)
        low, high = ends.amin(), ends.amax()
        side = lambda u, y: flow(flow.clock.node(u.clamp(low, high)), y)
        if not len(y):
            return y
        try:
            path: Tensor = odeint(
                side, y, ends, rtol=self.rtol, atol=self.atol, method=self.method
            )
        except AssertionError as error:
            raise RuntimeError(
                f"torchdiffeq stopped ({error}): expected a denoiser that is finite along all "
                "paths from t_eps to t_max; Adaptive() finds the samples where it is not"
            ) from error
        return path[-1]


def _check_times(ts: Tensor, t_max: float) -> None:
    step = ts.diff() if ts.ndim == 1 else ts.new_zeros(1)
    if len(ts) < 2 or not (bool((step > 0).all()) or bool((step < 0).all())):
        raise ValueError(
            f"expected ts (n + 1,) strictly monotone, n >= 1, got shape {tuple(ts.shape)}: "
            "take log_snr(sde, n) or Fixed(n)"
        )
    if float(ts.min()) < 0 or float(ts.max()) > t_max * (1 + 1e-12):
        raise ValueError(
            f"expected ts within [0, {t_max:.6g}], got {float(ts.min()):.6g}.."
            f"{float(ts.max()):.6g}: grids that take the sde stop where it does"
        )


def adams_weights(us: Tensor) -> Tensor:
    r"""Weights (n - 3, 4) with which slopes at u_{k-3}..u_k integrate a cubic from u_k to u_{k+1}.

    In x = (u - u_k)/h the moments of the rule must be those of the integral,
    sum_j w_j x_j^m = h/(m + 1) for m = 0..3. On equal steps: h (-9, 37, -59, 55)/24.
    """
    if len(us) < 5:
        return us.new_zeros(0, 4)
    h = us.diff()[3:, None]
    x = (us[:-1].unfold(0, 4, 1) - us[3:-1, None]) / h
    powers = torch.arange(4, dtype=us.dtype)
    moments = (h / (powers + 1)).unsqueeze(-1)
    weights: Tensor = torch.linalg.solve(x[:, None] ** powers[:, None], moments)
    return weights.squeeze(-1)


def _spread(clock: Clock, us: Tensor, y: Tensor) -> list[Node]:
    """The nodes of a grid, computed in float64 on the host, on the device of y: one copy each."""
    columns = (c.to(y.dtype).to(y.device, non_blocking=True).unbind() for c in clock.node(us))
    return [Node(*row) for row in zip(*columns, strict=True)]


def _add(y: Tensor, slopes: Sequence[Tensor], factors: Sequence[float]) -> Tensor:
    for slope, factor in zip(slopes, factors, strict=True):
        if factor:
            y = y.add(slope, alpha=factor)
    return y


def _classical(flow: Flow, y: Tensor, first: Tensor, middle: Node, end: Node, h: float) -> Tensor:
    """One step of the Runge-Kutta method of order 4."""
    second = flow(middle, y.add(first, alpha=0.5 * h))
    third = flow(middle, y.add(second, alpha=0.5 * h))
    fourth = flow(end, y.add(third, alpha=h))
    return _add(y, [first, second, third, fourth], [h / 6, h / 3, h / 3, h / 6])


def _row(*entries: str) -> tuple[float, ...]:
    return tuple(float(Fraction(entry)) for entry in entries)


STAGES = (
    _row("1/5"),
    _row("3/40", "9/40"),
    _row("44/45", "-56/15", "32/9"),
    _row("19372/6561", "-25360/2187", "64448/6561", "-212/729"),
    _row("9017/3168", "-355/33", "46732/5247", "49/176", "-5103/18656"),
    _row("35/384", "0", "500/1113", "125/192", "-2187/6784", "11/84"),
)
"""Dormand and Prince 1980; the last row is the step of order 5 (first same as last)."""
ERROR = _row("71/57600", "0", "-71/16695", "71/1920", "-17253/339200", "22/525", "-1/40")
"""Order 5 minus order 4."""


def _retrace(flow: Flow, y: Tensor, end: Tensor, steps: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """The same steps with gradients; what was lost is NaN again."""
    moved = torch.stack([h for _, h in steps]).any(1).tolist()
    slope = flow(flow.clock.node(steps[0][0]), y)
    for (u, h), some in zip(steps, moved, strict=True):
        if some:
            y, slope, _ = _dormand_prince(flow, u, y, slope, h)
    return torch.where(end.isnan(), end, y)


def _dormand_prince(
    flow: Flow, u: Tensor, y: Tensor, slope: Tensor, h: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The state after steps h (B,) from u (B,), the slope there, and the embedded error."""
    slopes, wide = [slope], h[:, None]
    for row in STAGES:
        new = y + wide * _add(torch.zeros_like(y), slopes, row)
        slopes.append(flow(flow.clock.node(u + sum(row) * h), new))
    return new, slopes[-1], wide * _add(torch.zeros_like(y), slopes, ERROR)

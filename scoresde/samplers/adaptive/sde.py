r"""The reverse SDE with steps that follow a tolerance, sample by sample.

References:
    Jolicoeur-Martineau et al. 2021 (arXiv:2105.14080), algorithm 1: the solver.
    Rackauckas and Nie 2017 (Discrete Contin. Dyn. Syst. B 22, 2731): rejections without bias, a
    stack of known future.
"""

from dataclasses import dataclass
from itertools import count
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from ...denoiser import Denoiser
from ...noise import GeneratorNoise, Noise
from ...sde import like
from ..base import Callback, Sampler, quiet
from .flow import check_end, check_tolerances, show

__all__ = ["SDEAdaptive", "Solution", "reverse_drift"]

CHECK = 8  # steps between two looks at whether all samples have arrived
KNOWN = 12  # rejected pieces of a path that are remembered for each sample


@dataclass(frozen=True)
class SDEAdaptive(Sampler):
    r"""The reverse SDE by Euler and improved Euler, every sample with its own steps.

        x1 = x - h b(x, t) + g(t) W,            b = f x - g^2 score,    W ~ N(0, h),
        x2 = x - h b(x1, t - h) + g(t - h) W,   proposal (x1 + x2)/2,
        e^2 = [(h/2)(b(x, t) - b(x1, t - h))]^2 + [(g(t) - g(t - h))/2]^2 h,
        E^2 = mean over the event of [e/max(atol, rtol max(|x1|, |x_previous|))]^2,
        accepted if E <= 1;                     h <- 0.9 h E^{-0.9}.

    Two things differ from the paper, both so that the distribution is right. It draws a new W
    after a rejection, which would favour small ones: here a rejected W stays on the sample's
    path, and the shorter step taken instead is drawn from the Brownian bridge to it. And its e is
    |x2 - x1|/2, in which drift and noise may cancel by chance: with few coordinates such steps
    are found, and taken, often enough to be seen in the variance (it doubles for KarrasSDE in one
    dimension). Should a sample hold 12 rejected pieces at a time, its next step is taken whatever
    its error.

    A sample depends on its own noise alone, not on its neighbours: its k-th try draws the k-th
    number of its stream, and none waits for others at the times of the grid. Two evaluations a
    step for the whole batch until the last sample has arrived; those that have, wait. The host
    asks the device whether all have arrived once every 8 steps and nothing else. A
    ``BrownianPath`` cannot drive it, for its steps differ from sample to sample: it draws
    independent noise from one.

    Args:
        rtol: relative tolerance of a step.
        atol: absolute one, in the units of the data.
        first: first step, in t.
        max_steps: most steps of one sample for each interval of the grid; more are an error.

    References:
        Jolicoeur-Martineau et al. 2021, algorithm 1 (rtol 0.02 to 0.1 and atol 1/256 for images).
    """

    rtol: float = 0.02
    atol: float = 0.02
    first: float = 0.01
    max_steps: int = 10_000
    order: ClassVar[int] = 1
    noise: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Raise an error unless the tolerances and the step settings are valid."""
        check_tolerances(self.rtol, self.atol)
        if not (self.first > 0 and self.max_steps > 0):
            raise ValueError(f"expected first > 0 and max_steps > 0, got {self}")

    @property
    def linear(self) -> bool:
        """False: the steps depend on the samples."""
        return False

    def solve(
        self,
        denoiser: Denoiser,
        x: Tensor,
        ts: Tensor,
        generator: torch.Generator | None = None,
        noise: Noise | None = None,
    ) -> "Solution":
        """The samples with the evaluations that each of them took; arguments as in a call."""
        x, ts = self.enter(denoiser, x, ts)
        with quiet(denoiser):
            x, steps = self._solve(denoiser, x, ts, noise or GeneratorNoise(generator), None)
        return Solution(x.clone(), 2 * steps)

    def walk(
        self, denoiser: Denoiser, x: Tensor, ts: Tensor, noise: Noise, callback: Callback | None
    ) -> Tensor:
        """Every sample from one time of the grid to the next, at its own pace."""
        return self._solve(denoiser, x, ts, noise, callback)[0]

    def _solve(
        self, denoiser: Denoiser, x: Tensor, ts: Tensor, noise: Noise, callback: Callback | None
    ) -> tuple[Tensor, Tensor]:
        """The samples and their numbers of steps (B,).

        None waits for another at a time of the grid: its k-th try is the k-th of the loop, so
        that which numbers it draws depends on itself alone.
        """
        check_end(denoiser, ts)
        n, grid, times = len(ts) - 1, ts.tolist(), ts.to(x)
        path, before, at = _Path(x), x, times[0].repeat(len(x))
        h, shown = torch.full_like(at, self.first), _Shown(x, n) if callback else None
        reached, slack = torch.zeros_like(path.sample), 1e3 * torch.finfo(h.dtype).eps
        steps = reached
        for k in count():
            moving = reached < n
            if k % CHECK == 0 and not bool(moving.any()):
                break
            if k == self.max_steps * n:
                raise RuntimeError(
                    f"expected all samples to arrive within {k} steps, but {int(moving.sum())} "
                    "did not: is the denoiser finite? Else raise rtol and atol, or max_steps"
                )
            s = times[(reached + 1).clamp(max=n)]
            step = torch.minimum(torch.minimum(h, at - s), path.known())
            w = path.reveal(step, noise(k, grid[0], grid[0], x.shape, x.device, x.dtype))
            later = torch.where(at - s > step * (1 + slack), at - step, s)
            new, euler, gap = _improved_euler(denoiser, x, at, later, w)
            error = self._error(gap, euler, before)
            accept = (error <= 1) | path.full()
            arrived = moving & accept & (later == s)
            path.settle(accept, arrived)
            keep = like(accept, x).bool()
            x, before = torch.where(keep, new, x), torch.where(keep, euler, before)
            at = torch.where(accept, later, at)
            h = torch.where(moving, _next_step(h, step, error, accept), h)
            reached, steps = reached + arrived, steps + moving
            if shown is not None:
                shown.keep(x, reached, arrived)
        if callback is not None and shown is not None:
            show(denoiser, grid, shown.states(), callback)
        return x, steps

    def _error(self, gap: Tensor, euler: Tensor, before: Tensor) -> Tensor:
        """E of every sample; infinite where it is not a number."""
        allowed = torch.maximum(euler.abs(), before.abs()).mul(self.rtol).clamp(min=self.atol)
        error = (gap / allowed).square().flatten(1).mean(1).sqrt()
        return error.nan_to_num(nan=torch.inf)


class Solution(NamedTuple):
    """Samples of an adaptive solver, and what they cost.

    Attributes:
        x: samples, (B, *).
        evaluations: evaluations of the denoiser that each sample took, (B,).
    """

    x: Tensor
    evaluations: Tensor


class _Shown:
    """The states of a batch at the times of a grid, each kept when its sample arrives there."""

    def __init__(self, x: Tensor, n: int) -> None:
        self.sample, self.n = torch.arange(len(x), device=x.device), n
        self.kept = x.new_zeros(n + 2, *x.shape)  # the last for those that are on their way
        self.kept[0] = x

    def keep(self, x: Tensor, reached: Tensor, arrived: Tensor) -> None:
        """Keep x (B, *) where a sample has arrived at its time number ``reached``."""
        self.kept[torch.where(arrived, reached, self.n + 1), self.sample] = x

    def states(self) -> list[Tensor]:
        """The state at every time of the grid."""
        return list(self.kept[:-1].unbind())


class _Path:
    """The Brownian paths of a batch, each revealed piece by piece, with a memory of rejections.

    What has been revealed and rejected is a stack of pieces (length, increment), the nearest on
    top. A new piece is drawn freely if the stack is empty, else as a bridge within the top piece.
    """

    def __init__(self, x: Tensor) -> None:
        self.sample = torch.arange(len(x), device=x.device)
        self.depth = torch.zeros_like(self.sample)
        self.length = x.new_zeros(KNOWN + 1, len(x))
        self.increment = x.new_zeros(KNOWN + 1, *x.shape)

    def known(self) -> Tensor:
        """Length of the top piece, beyond which no step may go; infinite where there is none."""
        top = self.length[(self.depth - 1).clamp(min=0), self.sample]
        return torch.where(self.depth > 0, top, torch.inf)

    def full(self) -> Tensor:
        """Where one more rejection could not be remembered."""
        return self.depth > KNOWN

    def reveal(self, h: Tensor, z: Tensor) -> Tensor:
        """The increment over the next h <= ``known`` of each path, from z ~ N(0, I)."""
        at = (self.depth - 1).clamp(min=0), self.sample
        some, length, whole = self.depth > 0, self.length[at], self.increment[at]
        share = torch.where(some, h / length, 0)
        std = (h * (1 - share)).sqrt()  # of a bridge; of a free piece where the share is 0
        w = like(share, z) * whole + like(std, z) * z
        rest = some & (h < length)
        self.length[at] = torch.where(some, length - h, 0)
        self.increment[at] = whole - w
        self.depth = self.depth - some.long() + rest.long() + 1
        at = self.depth - 1, self.sample
        self.length[at], self.increment[at] = h, w
        return w

    def settle(self, accept: Tensor, arrived: Tensor) -> None:
        """Forget the pieces that were used; at the end of an interval, what rounding left."""
        self.depth = torch.where(arrived, 0, self.depth - accept.long())


def reverse_drift(denoiser: Denoiser, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """(f x - g^2 score, g) of the reverse SDE dX = (f X - g^2 score) dt + g dW, t () or (B,)."""
    f, g2 = (like(rate, x) for rate in denoiser.sde.rates(t))
    return f * x - g2 * denoiser.score(x, t), g2.sqrt()


def _improved_euler(
    denoiser: Denoiser, x: Tensor, t: Tensor, s: Tensor, w: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """(improved Euler, Euler, size of their difference) from t to s on the increment w."""
    h = like(t - s, x)
    drift, g = reverse_drift(denoiser, x, t)
    euler = x - h * drift + g * w
    late_drift, late_g = reverse_drift(denoiser, euler, s)
    turn, swing = 0.5 * h * (drift - late_drift), 0.5 * (late_g - g)
    gap = (turn.square() + swing.square() * h).sqrt()
    return euler + turn + swing * w, euler, gap


def _next_step(h: Tensor, step: Tensor, error: Tensor, accept: Tensor) -> Tensor:
    """0.9 step E^{-0.9}; a step that was cut short and accepted does not lower the next."""
    wanted = step * (0.9 * error.clamp(min=1e-9) ** -0.9).clamp(0.1, 10.0)
    return torch.where(accept & (step < h), torch.maximum(wanted, h), wanted)

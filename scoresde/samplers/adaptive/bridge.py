r"""The solvers of torchsde on the reverse SDE, and one Brownian path for all samplers.

Both stand on a Brownian motion W(t), 0 <= t <= 1, and the step from t down to s takes

    z = (W(t) - W(s))/sqrt(t - s) ~ N(0, I),

so in the time u = -t of the steps, B(u) = -W(-u) is a Brownian motion, dX = ... + g dB, and
every solver on every grid that asks the same path is driven by the same noise.

References:
    Li et al. 2020 (arXiv:2001.01328), and Kidger et al. 2021 (arXiv:2105.13493), torchsde and its
    Brownian Interval; Rossler 2010 (SIAM J. Numer. Anal. 48), SRA1, the "srk" of additive noise.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ...autodiff import ordinary_tensors
from ...denoiser import Denoiser
from ...noise import BlockNoise, Noise, _hash, block_size
from ..base import Callback, Sampler
from .sde import reverse_drift

__all__ = ["BrownianPath", "TorchSDE"]

SAME_TIME = 1e-12  # times that differ by less are one: grids agree only to rounding


class BrownianPath:
    r"""Noise read off one Brownian path, the same at every step size: z = (W_t - W_s)/sqrt(t - s).

    Steps may be cut, joined and asked for in any order: increments add up, whoever asks (the
    chain, the SDE, torchsde, on any grid). A corrector, which stands still (t = s), gets numbers
    of its own, independent of the path and fixed by the seed and by its k.

    The path is drawn in float64 and cast to what is asked for. That of sample i depends on the
    seed, on i and **on the questions asked before**: to give two runs the same path, give them
    the same object. (Two objects of one seed agree only if asked the same questions in the same
    order, as the chunks of one run do.) All increments are kept, unless ``cache`` says how many.

    Args:
        seed: any integer.
        shape: (n, *event), that of the state.
        device: where to draw.
        first: number of the first sample, a multiple of ``block_size(event)``, as in BlockNoise.
        cache: increments to keep for each block (others are computed again, more slowly); all of
            them if None, which takes 16 bytes a number for each of them.

    References:
        Kidger et al. 2021, sec. 4 (the Brownian Interval).
    """

    def __init__(
        self,
        seed: int,
        shape: Sequence[int],
        device: torch.device | str | None = None,
        first: int = 0,
        cache: int | None = None,
    ) -> None:
        """Seed one path for each block of samples."""
        with ordinary_tensors():
            from torchsde import BrownianInterval

        self.seed, self.shape, self.first = seed, torch.Size(shape), first
        self.device = torch.device(device or "cpu")
        size = block_size(self.shape[1:])
        if first % size:
            raise ValueError(
                f"expected first to be a multiple of the block of {size}, got {first}"
            )
        blocks = range(first // size, math.ceil((first + self.shape[0]) / size))
        self.intervals = [
            BrownianInterval(
                t0=0.0,
                t1=1.0,
                size=(size, *self.shape[1:]),
                dtype=torch.float64,
                device=self.device,
                entropy=_hash(seed, block),
                tol=SAME_TIME,
                cache_size=cache,
                levy_area_approximation="space-time",
            )
            for block in blocks
        ]

    def __call__(
        self,
        k: int,
        t: float,
        s: float,
        shape: Sequence[int],
        device: torch.device,
        dtype: torch.dtype,
    ) -> Tensor:
        """Return z of the given shape, device and dtype."""
        if tuple(shape) != self.shape:
            raise ValueError(
                f"expected a state of shape {tuple(self.shape)}, as this path was made for, got "
                f"{tuple(shape)}: make one path for each shape, and of a chunk pass its first"
            )
        if t == s:
            apart = BlockNoise(_hash(self.seed, k), shape[0], shape[1:], self.device, self.first)
            return apart.draw(self.device, torch.float64).to(device, dtype)
        return (self.increment(t, s) / math.sqrt(abs(t - s))).to(device, dtype)

    def increment(self, t: float, s: float) -> Tensor:
        """W(t) - W(s) for t > s, float64 (n, *event); W(s) - W(t) for s > t."""
        low, high = min(t, s), max(t, s)
        return self._join([interval(low, high) for interval in self.intervals])

    def area(self, t: float, s: float) -> tuple[Tensor, Tensor]:
        r"""(W(t) - W(s), \int_s^t (W(t) - W(r)) dr) for t > s: the second is what SRK asks for.

        On the way from t down to s it is the integral of the path's increment since t.
        """
        pairs = [interval(s, t, return_U=True) for interval in self.intervals]
        w, since_s = (self._join(list(part)) for part in zip(*pairs, strict=True))
        return w, (t - s) * w - since_s

    def _join(self, blocks: list[Tensor]) -> Tensor:
        return torch.cat(blocks)[: self.shape[0]]


@dataclass(frozen=True)
class TorchSDE(Sampler):
    r"""The reverse SDE by a solver of torchsde: dX = (f X - g^2 score) dt + g dW from t down to s.

        "euler"      strong and weak order 1, 1 evaluation a step: EulerMaruyama, to rounding
        "milstein"   the same: the noise is additive
        "srk"        SRA1, strong order 1.5 and weak order 2, 2 evaluations a step

    A cross-check, and the way to a strong order above 1; ``EulerMaruyama`` is many times faster.

    With a plain noise source each step has its own z (and "srk" a second one, asked for as a
    corrector's); with a ``BrownianPath`` all come from the path. Steps chosen by tolerance
    (``adaptive``) always need one: they make it from a number that the source draws.

    Args:
        method: which solver.
        adaptive: choose steps within each interval of the grid, by step doubling (three steps for
            each one tried), one step size for the whole batch.
        rtol: its relative tolerance.
        atol: its absolute tolerance, in the units of the data.

    References:
        Rossler 2010 (SRA1); Burrage and Burrage 2002 (step doubling with PI control).
    """

    method: Literal["euler", "milstein", "srk"] = "srk"
    adaptive: bool = False
    rtol: float = 1e-2
    atol: float = 1e-2
    noise: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Raise an error for an unknown method."""
        if self.method not in ("euler", "milstein", "srk"):
            raise ValueError(
                f'expected method "euler", "milstein" or "srk", got {self.method!r}: the others '
                "of torchsde are for Stratonovich equations"
            )

    @property
    def order(self) -> int:
        """Weak order."""
        return 2 if self.method == "srk" else 1

    @property
    def linear(self) -> bool:
        """False: there is no table from which ``moments`` could read its distribution."""
        return False

    def walk(
        self, denoiser: Denoiser, x: Tensor, ts: Tensor, noise: Noise, callback: Callback | None
    ) -> Tensor:
        """One ``sdeint`` for each interval of the grid: its time runs from 0 to 1 in each."""
        with ordinary_tensors():
            from torchsde import sdeint

        if self.adaptive and not isinstance(noise, BrownianPath):
            noise = BrownianPath(_seed(noise, x, float(ts[0])), x.shape, x.device)
        x0_hat, grid = x, ts.tolist()
        for k, (t, s) in enumerate(pairwise(grid)):
            if callback is not None:
                x0_hat = denoiser(x, torch.tensor(t, dtype=x.dtype).to(x.device))
                callback(k, t, x, x0_hat)
            row = _Row(denoiser, x, t, s)
            out = sdeint(
                row,
                x.flatten(1) if x.ndim > 1 else x[:, None],
                torch.tensor([0.0, 1.0], dtype=torch.float64),
                bm=_RowPath(noise, x, k, t, s),
                method=self.method,
                dt=0.1 if self.adaptive else 1.0,
                adaptive=self.adaptive,
                rtol=self.rtol,
                atol=self.atol,
            )
            x = out[-1].reshape(x.shape)
        if callback is not None:
            callback(len(grid) - 1, grid[-1], x, x0_hat)
        return x


class _Row:
    """The reverse SDE from t to s as torchsde wants it: time u in [0, 1], state (B, d).

    dX = -h b(X, t - u h) du + sqrt(h) g(t - u h) dB,    h = t - s,    b = f x - g^2 score.
    """

    noise_type, sde_type = "additive", "ito"

    def __init__(self, denoiser: Denoiser, x: Tensor, t: float, s: float) -> None:
        self.denoiser, self.shape, self.t, self.h = denoiser, x.shape, t, t - s
        self.last: tuple[float, Tensor, Tensor] | None = None

    def f(self, u: Tensor, y: Tensor) -> Tensor:
        """Drift; torchsde asks at the start of a step more than once."""
        if self.last is None or self.last[0] != float(u) or self.last[1] is not y:
            drift, _ = reverse_drift(self.denoiser, y.reshape(self.shape), self._time(u, y))
            self.last = float(u), y, (-self.h * drift).reshape(y.shape)
        return self.last[2]

    def g_prod(self, u: Tensor, y: Tensor, v: Tensor) -> Tensor:
        """Diffusion times v, coordinate by coordinate: no matrix is built."""
        g2 = self.denoiser.sde.g2(self._time(u, y).double())
        return v * (self.h * g2).sqrt().to(y.dtype)

    def _time(self, u: Tensor, y: Tensor) -> Tensor:
        return torch.tensor(self.t - self.h * float(u), dtype=y.dtype).to(y.device)


class _RowPath:
    """The noise of one row as the Brownian motion B(u), 0 <= u <= 1, that torchsde asks for."""

    levy_area_approximation = "space-time"

    def __init__(self, noise: Noise, x: Tensor, k: int, t: float, s: float) -> None:
        self.noise, self.x, self.k, self.t, self.h = noise, x, k, t, t - s
        self.shape = (len(x), x[0].numel())

    def __call__(
        self, ua: Tensor, ub: Tensor, return_U: bool = False, return_A: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """The increment over [ua, ub]; with return_U the integral of the increment since ua."""
        if isinstance(self.noise, BrownianPath):
            w, area = self.noise.area(self.t - self.h * float(ua), self.t - self.h * float(ub))
            w, area = w / self.h**0.5, area / self.h**1.5
        else:  # a fixed step asks once, for the whole row: W = z, U = W/2 + z'/sqrt(12)
            w = self._draw(self.t - self.h)
            area = 0.5 * w + self._draw(self.t) / 12**0.5 if return_U else w
        w, area = (v.to(self.x).reshape(self.shape) for v in (w, area))
        return (w, area) if return_U else w

    def _draw(self, s: float) -> Tensor:
        x = self.x
        return self.noise(self.k, self.t, s, x.shape, x.device, x.dtype).clone()


def _seed(noise: Noise, x: Tensor, t: float) -> int:
    """A seed from the first number that a source draws."""
    first = noise(0, t, t, x.shape, x.device, x.dtype).flatten()[0]
    return int(first.double().cpu().view(torch.int64))

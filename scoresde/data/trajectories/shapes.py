r"""Drawn by hand and by bacteria: closed splines, and run-and-tumble."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .family import Family, GaussianFamily, normal, not_negative, positive

__all__ = ["RunAndTumble", "Splines"]


@dataclass(frozen=True)
class Splines(GaussianFamily):
    """Closed curves, twice differentiable: periodic cubic splines through random knots.

    A spline is linear in its knots, and the knots are N(0, size^2), so the curves are Gaussian of
    rank 2 knots. The last point is the first.

    Args:
        length: number of times.
        duration: of one round, without unit.
        knots: number of knots, equally spaced in time, at least 3.
        size: standard deviation of each coordinate of a knot, in the unit of x.

    References:
        de Boor 1978, "A Practical Guide to Splines", ch. 4.
    """

    knots: int = 6
    size: float = 1.0

    def __post_init__(self) -> None:
        """Refuse too few knots."""
        super().__post_init__()
        if self.knots < 3:
            raise ValueError(f"expected at least 3 knots of a closed spline, got {self.knots}")
        positive(size=self.size)

    @property
    def root(self) -> Tensor:
        """The curve of each single knot, (L, knots)."""
        eye = torch.eye(self.knots, dtype=torch.float64)
        ahead, behind = eye.roll(1, 1), eye.roll(-1, 1)  # row i picks knot i + 1, i - 1
        bend: Tensor = torch.linalg.solve((behind + 4 * eye + ahead) / 6, behind - 2 * eye + ahead)
        u = torch.linspace(0, self.knots, self.length, dtype=torch.float64)
        i = u.long().clamp(max=self.knots - 1)
        s = (u - i)[:, None]
        j, r = (i + 1) % self.knots, 1 - s
        lines = r * eye[i] + s * eye[j]
        curve: Tensor = lines + (r**3 - r) / 6 * bend[i] + (s**3 - s) / 6 * bend[j]
        return self.size * curve


@dataclass(frozen=True)
class RunAndTumble(Family):
    r"""A bacterium: straight runs of constant speed, and tumbles into a fresh direction.

    Tumbles come at a constant rate (a Poisson process) and forget the direction wholly, so

        <v(s) . v(t)> = speed^2 e^{-rate |t - s|},
        E|x(t) - x(0)|^2 = 2 speed^2/rate^2 (rate t - 1 + e^{-rate t}).

    Every tumble is placed exactly in time, between the times of observation too.

    Args:
        length: number of times.
        duration: in seconds.
        speed: in micrometres per second.
        rate: tumbles per second.
        start: standard deviation of each coordinate of x(0), in micrometres.

    References:
        Berg and Brown 1972; Berg 1993, "Random Walks in Biology", ch. 6.
    """

    duration: float = 4.0
    speed: float = 20.0
    rate: float = 1.0
    start: float = 5.0

    def __post_init__(self) -> None:
        """Refuse what neither runs nor tumbles."""
        super().__post_init__()
        positive(speed=self.speed, rate=self.rate)
        not_negative(start=self.start)

    def __call__(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw n paths, (n, L, 2), in micrometres."""
        expected = self.rate * self.duration
        # more tumbles than these come with probability < 1e-15
        most = math.ceil(expected + 10 * math.sqrt(expected) + 35)
        origin, headings = normal(generator, n, 1, 2), normal(generator, n, most + 1, 2)
        waits = torch.empty(n, most, dtype=origin.dtype, device=origin.device)
        tumbles = (waits.exponential_(self.rate, generator=generator)).cumsum(1)  # (n, most)
        velocity = self.speed * torch.nn.functional.normalize(headings, dim=2)
        runs = torch.cat((tumbles[:, :1], tumbles.diff(dim=1)), 1)[..., None] * velocity[:, :-1]
        turns = torch.cat((torch.zeros_like(runs[:, :1]), runs.cumsum(1)), 1)  # x at the tumbles
        begins = torch.cat((torch.zeros_like(tumbles[:, :1]), tumbles), 1)
        times = self.times.to(origin.device).expand(n, -1).contiguous()
        k = torch.searchsorted(tumbles, times)  # the run that goes on at each time
        since = times - begins.gather(1, k)
        k2 = k[..., None].expand(-1, -1, 2)
        return (
            self.start * origin + turns.gather(1, k2) + since[..., None] * velocity.gather(1, k2)
        )

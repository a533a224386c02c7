r"""Averages over p_t, and their integrals over time, from which the other modules are built.

Exact where that is possible: by 2 d points for quadratic functions of one Gaussian, by adaptive
quadrature for a mixture in one or two dimensions. Elsewhere by samples alpha x0 + sigma z
(the same x0 and z at all times, so that an integral over time has a standard error too).
"""

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from ..denoiser import Denoiser
from ..distributions import Distribution, GaussianMixture
from ..estimate import Estimate
from ..sde import SDE

__all__ = ["SAMPLES", "average", "check_times", "integral", "time_nodes"]

Function = Callable[[Tensor, Tensor], Tensor]
"""(x, t) -> (B,) for states x (B, *) at the time t ()."""
Nodes = Callable[[GaussianMixture, Tensor], tuple[Tensor, Tensor]]
"""(mixture, t) -> nodes (M, *event) and their weights (M,), that sum to one."""
SAMPLES = 16384
"""Number of samples to average over where there is no quadrature."""
CHUNK = 4096


def average(
    denoiser: Denoiser,
    t: Tensor,
    function: Function,
    x0: Tensor | None = None,
    n: int = SAMPLES,
    generator: torch.Generator | None = None,
    quadratic: bool = False,
) -> Estimate:
    """E function(x_t, t) at each time, of the shape of t, with its standard error (0 if exact).

    Args:
        denoiser: an exact distribution; or a network, for which x0 is needed.
        t: times, of any shape.
        function: a function of states and one time.
        x0: data to average over in place of the distribution, (n, *), in the model's units.
        n: number of samples where the distribution has no exact rule.
        generator: random generator of the samples.
        quadratic: whether the function is quadratic in x where the distribution is Gaussian.
    """
    times = check_times(denoiser, t)
    rows = [
        _estimate(row) for row in _rows(denoiser, times, function, x0, n, generator, quadratic)
    ]
    value, stderr = (torch.stack(column).reshape(t.shape) for column in zip(*rows, strict=True))
    return Estimate(value, stderr)


def integral(
    denoiser: Denoiser,
    start: float,
    stop: float,
    function: Function,
    x0: Tensor | None = None,
    n: int = SAMPLES,
    generator: torch.Generator | None = None,
    quadratic: bool = False,
    nodes: int = 80,
) -> Estimate:
    """int E function(x_t, t) dt from start to stop, (), with its standard error.

    Args:
        denoiser: see ``average``, as are those not named here.
        start: the earlier time.
        stop: the later time.
        function: a function of states and one time.
        x0: data.
        n: number of samples.
        generator: random generator of the samples.
        quadratic: see ``average``.
        nodes: number of quadrature nodes in time.
    """
    ts, dt = time_nodes(denoiser.sde, start, stop, nodes)
    rows = _rows(denoiser, ts, function, x0, n, generator, quadratic)
    return _estimate(
        sum((w * row for w, row in zip(dt.tolist(), rows, strict=True)), ts.new_zeros(()))
    )


def time_nodes(
    sde: SDE, start: float, stop: float, nodes: int, finest: float = 0.1
) -> tuple[Tensor, Tensor]:
    """Gauss-Legendre nodes in log(1 + s/finest), s = sigma/alpha, and their weights dt.

    Early times, where the distribution has its fine structure, get their share of nodes; and what
    is smooth at t = 0 stays so.
    """
    if not 0 <= start < stop <= sde.t_max * (1 + 1e-12):
        raise ValueError(f"expected 0 <= start < stop <= {sde.t_max:.6g}, got {start} and {stop}")
    ends = torch.tensor([start, stop], dtype=torch.float64)
    low, high = ((-sde.lam(ends)).exp() / finest).log1p().tolist()
    unit, weights = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(nodes))
    s = finest * (low + 0.5 * (high - low) * (unit + 1)).expm1()
    ts = sde.time_of_log_snr(-2 * s.log())
    d_log_s = 0.5 * (high - low) * weights * (1 + finest / s)
    return ts, d_log_s * 2 * sde.sigma2(ts) / sde.g2(ts)  # d(log s)/dt = g^2/(2 sigma^2)


def check_times(denoiser: Denoiser, t: Tensor) -> Tensor:
    """The times flat, in float64 on the CPU; raise an error if one is out of range."""
    times = torch.as_tensor(t).detach().to("cpu", torch.float64).flatten()
    low, high = float(times.min()), float(times.max())
    if low < 0 or high > denoiser.sde.t_max * (1 + 1e-12):
        raise ValueError(f"expected times within [0, {denoiser.sde.t_max:.6g}], got {low}..{high}")
    if low == 0 and not denoiser.regular:
        raise ValueError(
            "expected times above 0, got 0: there the score of a network or of a point mass is "
            "not finite; start at sde.t_eps"
        )
    return times


def _rows(
    denoiser: Denoiser,
    ts: Tensor,
    function: Function,
    x0: Tensor | None,
    n: int,
    generator: torch.Generator | None,
    quadratic: bool,
) -> Iterator[Tensor]:
    """At each time the exact mean, (1,), or the values of all samples, (n,)."""
    if isinstance(denoiser, GaussianMixture) and x0 is None:
        gaussian = quadratic and len(denoiser.weights) == 1
        if gaussian or denoiser.dim <= 2:
            nodes = _sigma_points if gaussian else _cells
            yield from (_exact(denoiser, t, function, nodes) for t in ts.to(denoiser.means))
            return
    x0 = _data(denoiser, x0, n, generator)
    z = torch.empty_like(x0).normal_(generator=generator)
    for t in ts.to(x0):
        yield _apply(function, denoiser.sde.perturb(x0, t, z), t)


def _data(
    denoiser: Denoiser, x0: Tensor | None, n: int, generator: torch.Generator | None
) -> Tensor:
    """The data given, or samples of the distribution."""
    if x0 is None:
        if not isinstance(denoiser, Distribution):
            raise TypeError(
                f"expected data x0 beside a {type(denoiser).__name__}, got none: only an exact "
                "distribution can be sampled at every time; pass x0 (n, *) in the model's units"
            )
        x0 = denoiser.sample(n, generator=generator)
    if len(x0) < 2:
        raise ValueError(f"expected n >= 2 samples, got {len(x0)}: one has no standard error")
    return x0


def _exact(law: GaussianMixture, t: Tensor, function: Function, nodes: Nodes) -> Tensor:
    """The sum over nodes, (1,)."""
    x, weights = nodes(law, t)
    pairs = zip(x.split(CHUNK), weights.split(CHUNK), strict=True)
    parts = [w @ _apply(function, y, t) for y, w in pairs]
    return torch.stack(parts).sum(0, keepdim=True)


def _cells(law: GaussianMixture, t: Tensor) -> tuple[Tensor, Tensor]:
    """The mixture's own rule, weighted with p_t."""
    rule = law._quadrature(t)
    x = rule.x.reshape(-1, *law.event)
    return x, rule.weights * _apply(law.log_prob, x, t).exp()


def _sigma_points(law: GaussianMixture, t: Tensor) -> tuple[Tensor, Tensor]:
    """2 d equally weighted points with the mean and covariance of one Gaussian."""
    mean, cov = law.marginal(t)
    spectrum, basis = torch.linalg.eigh(cov)
    arms = (basis * (law.dim * spectrum).sqrt()).mT
    x = torch.cat([mean + arms, mean - arms]).reshape(-1, *law.event)
    return x, torch.full_like(x.flatten(1)[:, 0], 1 / len(x))


@torch.no_grad()
def _apply(function: Function, x: Tensor, t: Tensor) -> Tensor:
    return torch.cat([function(part, t) for part in x.split(CHUNK)])  # bounded memory


def _estimate(row: Tensor) -> Estimate:
    """Mean and standard error of samples; a single value is exact."""
    if len(row) == 1:
        return Estimate(row[0], torch.zeros_like(row[0]))
    return Estimate(row.mean(), row.std() / math.sqrt(len(row)))

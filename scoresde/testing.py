"""The public battery: what every process, denoiser and sampler must satisfy.

Our own tests run these on all of ours; run them on yours. Each raises AssertionError with the
statement that failed. Everything is computed in float64 against closed forms, nothing is timed.

    >>> from scoresde import VPSDE
    >>> check_sde(VPSDE())
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .denoiser import Denoiser
from .distributions import GaussianMixture
from .grids import log_snr
from .prediction import QUANTITIES, Quantity
from .samplers import PredictorCorrector, Sampler, TableSampler, moments
from .sde import SDE, VPSDE, like

__all__ = ["check_denoiser", "check_sampler", "check_sde", "fitted_order", "law_error"]

DATA_MEAN, DATA_VAR = 0.8, 0.25


def check_sde(sde: SDE) -> None:
    """Check a forward process.

    alpha(0) = 1 and sigma(0) = 0; log-SNR decreases; f and g^2 agree with finite differences of
    the path and g^2 >= 0; the inverse of log-SNR; the transition kernels compose and carry the
    marginals; float32 agrees with float64 to 1e-5; the prior is that of t_max.
    """
    assert isinstance(sde, SDE), f"expected an instance of SDE, such as VPSDE(), got {sde!r}"
    zero = torch.zeros(1, dtype=torch.float64)
    _close(sde.alpha(zero), 1.0, "alpha(0) = 1")
    _close(sde.sigma(zero), 0.0, "sigma(0) = 0")
    assert 0 < sde.t_eps < sde.t_max <= 1, f"0 < t_eps < t_max <= 1: {sde.t_eps}, {sde.t_max}"
    t = torch.linspace(sde.t_eps, sde.t_max, 101, dtype=torch.float64)
    assert bool((sde.alpha(t) > 0).all()), "alpha > 0 up to t_max"
    rise = (sde.log_snr(t).diff() >= 0).nonzero().flatten().tolist()
    assert not rise, f"log-SNR must decrease, but does not near t = {float(t[rise[0]]):.4g}"
    _close(sde.sigma2(t), sde.sigma(t).square(), "sigma2 = sigma^2", 1e-12)
    _close(sde.time_of_log_snr(sde.log_snr(t)), t, "time_of_log_snr inverts log_snr", 1e-9)
    _check_drift(sde, t[1:-1])
    _check_kernels(sde, t)
    for name in ("alpha", "sigma", "log_snr"):
        function = getattr(sde, name)
        what = f"{name} in float32 (use expm1 and log1p, or VariancePreserving)"
        _close(function(t.float()).double(), function(t.float().double()), what, 1e-5)
    assert sde.prior(sde.t_max).std > 0, "the prior has a width"


def _check_drift(sde: SDE, t: Tensor) -> None:
    h = 1e-6 * torch.minimum(t, 1 - t).clamp(min=1e-3)
    slope = (sde.log_alpha(t + h) - sde.log_alpha(t - h)) / (2 * h)
    _close(sde.f(t), slope, "f = d(log alpha)/dt", 1e-4)
    slope = (sde.sigma2(t + h) - sde.sigma2(t - h)) / (2 * h)
    _close(
        sde.g2(t) + 2 * sde.f(t) * sde.sigma2(t), slope, "d(sigma^2)/dt = g^2 + 2 f sigma^2", 1e-4
    )
    assert bool((sde.g2(t) >= 0).all()), "g^2 >= 0: the forward process only adds noise"


def _check_kernels(sde: SDE, t: Tensor) -> None:
    r, s, u = t[:-2:7], t[1:-1:7], t[2::7]
    (a1, c1), (a2, c2), (a3, c3) = sde.transition(r, s), sde.transition(s, u), sde.transition(r, u)
    _close(a1 * a2, a3, "kernels compose (scale)", 1e-10)
    _close((a2 * c1).square() + c2.square(), c3.square(), "kernels compose (variance)", 1e-8)
    _close(a1 * sde.alpha(r), sde.alpha(s), "kernels carry alpha", 1e-10)
    _close((a1 * sde.sigma(r)).square() + c1.square(), sde.sigma2(s), "kernels carry sigma", 1e-8)
    x0, z = torch.randn(2, len(t), 2, 3, dtype=torch.float64).unbind()
    expected = like(sde.alpha(t), x0) * x0 + like(sde.sigma(t), x0) * z
    _close(sde.perturb(x0, t, z), expected, "perturb", 1e-12)


def check_denoiser(denoiser: Denoiser, x: Tensor, rtol: float = 1e-8) -> None:
    """Check a denoiser at a batch of states.

    ``predict`` gives eps, v, score and velocity as they follow from x0_hat, which is what a call
    gives, and so do their own methods; ``along`` a grid gives what a call gives at each time; a
    time () and a time (B,) give the same; a sample's answer does not depend on its neighbours;
    dtype and shape are kept.

    Args:
        denoiser: with its conditions bound, if it has any.
        x: states (B, *), B >= 2, float64 for the default tolerance.
        rtol: relative tolerance of the identities.
    """
    sde = denoiser.sde
    ts = torch.linspace(max(sde.t_eps, 0.05 * sde.t_max), sde.t_max, 5, dtype=torch.float64)
    with torch.no_grad():
        along = denoiser.along(ts, x)
        for k, time in enumerate(ts.tolist()):
            t = torch.tensor(time, dtype=x.dtype, device=x.device)
            x0_hat = denoiser(x, t)
            assert x0_hat.shape == x.shape and x0_hat.dtype == x.dtype, "x0_hat is like x"
            _check_quantities(denoiser, x, t, x0_hat, rtol)
            _close(along(k, x), x0_hat, f"along at t = {time:.3g}", rtol)
            _close(denoiser(x, t.expand(len(x))), x0_hat, "a time for each sample", rtol)
            half = slice(0, len(x) // 2)
            _close(denoiser.part(half)(x[half], t), x0_hat[half], "samples are independent", rtol)


def _check_quantities(
    denoiser: Denoiser, x: Tensor, t: Tensor, x0_hat: Tensor, rtol: float
) -> None:
    """The five predictions by their definitions, and the methods that ask for them."""
    sde, at = denoiser.sde, f"at t = {float(t):.3g}"
    alpha, sigma = sde.alpha(t), sde.sigma(t)
    eps = (x - alpha * x0_hat) / sigma
    expected: dict[Quantity, Tensor] = {
        "x0": x0_hat,
        "eps": eps,
        "v": alpha * eps - sigma * x0_hat,
        "score": -eps / sigma,
        "velocity": sde.drift(x, t) + 0.5 * sde.g2(t) * eps / sigma,
    }
    for quantity in QUANTITIES:
        _close(denoiser.predict(quantity, x, t), expected[quantity], f"{quantity} {at}", rtol)
        if quantity != "x0":
            _close(
                getattr(denoiser, quantity)(x, t), expected[quantity], f"{quantity}() {at}", rtol
            )


def check_sampler(sampler: Sampler, sde: SDE | None = None, slack: float = 0.15) -> None:
    """Check a sampler on Gaussian data, where its distribution is known without Monte Carlo.

    It converges with its stated ``order`` (slope over 80 to 640 steps of the log-SNR grid, within
    ``slack``; at least that order for predictor-correctors); its samples follow ``moments`` within
    5 standard errors; it leaves its input alone, repeats itself with the same seed, takes any
    event shape, takes an increasing grid if and only if it draws no noise, and calls the
    denoiser once for every row of its table.

    Args:
        sampler: the sampler to check.
        sde: the process, VPSDE() if not given.
        slack: allowed deviation of the slope.
    """
    assert isinstance(sampler, Sampler), f"expected an instance of Sampler, got {sampler!r}"
    assert hasattr(sampler, "order"), f"{type(sampler).__name__} states no order: order = 1, say"
    law = GaussianMixture.isotropic(
        torch.ones(1), torch.full((1, 1), DATA_MEAN), math.sqrt(DATA_VAR), sde or VPSDE()
    )
    if sampler.linear:
        _check_order(sampler, law, slack)
        _check_law(sampler, law)
    _check_walk(sampler, law)


def law_error(sampler: Sampler, law: GaussianMixture, ts: Tensor) -> float:
    """Distance of mean and covariance at the end of the grid from the reference (exact start)."""
    means, covs = moments(sampler, law, ts)
    mean, cov = law.marginal(ts[-1])
    return math.hypot(float((means[-1] - mean).norm()), float((covs[-1] - cov).norm()))


def fitted_order(steps: list[int], errors: list[float]) -> float:
    """Slope of -log(error) on log(steps) by least squares."""
    x = torch.tensor(steps, dtype=torch.float64).log()
    y = torch.tensor(errors, dtype=torch.float64).log()
    return float(-((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum())


def _check_order(sampler: Sampler, law: GaussianMixture, slack: float) -> None:
    stated = sampler.convergence
    steps = [40, 80, 160, 320] if stated > 2 else [80, 160, 320, 640]
    errors = [law_error(sampler, law, log_snr(law.sde, n)) for n in steps]
    if max(errors) < 1e-12:
        return  # exact on this distribution
    order = fitted_order(steps, errors)
    # Two biases may cancel for a while, and on a log-SNR grid methods of odd order gain one.
    faster = isinstance(sampler, PredictorCorrector) or stated > 2
    assert order >= stated - slack and (faster or order <= stated + slack), (
        f"{sampler}: stated order {stated}, measured {order:.3f} from errors {errors}"
    )


def _check_law(sampler: Sampler, law: GaussianMixture, n: int = 20_000) -> None:
    ts = log_snr(law.sde, 12)
    generator = torch.Generator().manual_seed(0)
    x = sampler(law, law.sample(n, ts[0], generator), ts, generator=generator)
    means, covs = moments(sampler, law, ts)
    mean, var = means[-1, 0], covs[-1, 0, 0]
    assert abs(float(x.mean() - mean)) < 5 * float(var / n) ** 0.5, "mean as in moments"
    assert abs(float(x.var() - var)) < 5 * float(var) * (2 / n) ** 0.5, "variance as in moments"


def _check_walk(sampler: Sampler, law: GaussianMixture) -> None:
    ts = log_snr(law.sde, 6)
    x = law.sample(64, ts[0], torch.Generator().manual_seed(1))
    before = x.clone()
    seeded: Callable[[], torch.Generator] = lambda: torch.Generator().manual_seed(2)
    calls: list[tuple[int, float]] = []
    counting = _Counting(law)
    out = sampler(counting, x, ts, seeded(), callback=lambda k, t, *_: calls.append((k, t)))
    assert torch.equal(x, before), "the input is not written to"
    assert out.shape == x.shape and out.dtype == x.dtype, "the output is like the input"
    again = sampler(_Counting(law), x, ts, seeded())
    _close(again, out, "the same seed gives the same samples", 1e-12)
    if isinstance(sampler, TableSampler):
        rows = len(sampler.table(law.sde, ts).t)
        assert counting.calls == rows, f"one evaluation a row: {counting.calls} for {rows} rows"
        assert len(calls) - 1 == -(-rows // sampler.stages), "the callback sees every step"
    assert calls[0] == (0, float(ts[0])) and calls[-1][1] == float(ts[-1]), "both ends are shown"
    if sampler.noise:
        fresh = not torch.equal(sampler(_Counting(law), x, ts), out)
        assert fresh, f"{sampler} says noise = True but draws none: make it False, or a property"
        try:
            sampler(law, x, ts.flip(0))
        except ValueError:
            return
        raise AssertionError("an increasing grid must be refused by a sampler with noise")
    there_and_back = sampler(law, sampler(law, x, ts.flip(0)), ts)
    assert bool(torch.isfinite(there_and_back).all()), "an increasing grid is integrated"


class _Counting(Denoiser):
    """Counts the evaluations of a distribution."""

    def __init__(self, law: GaussianMixture) -> None:
        super().__init__(law.sde)
        self.law, self.calls, self.regular = law, 0, law.regular

    def forward(self, x: Tensor, t: Tensor, **cond: object) -> Tensor:
        self.calls += 1
        return self.law(x, t)


def _close(actual: Tensor, expected: Tensor | float, what: str, rtol: float = 1e-9) -> None:
    expected = torch.as_tensor(expected, dtype=actual.dtype, device=actual.device)
    scale = 1e-12 + float(expected.abs().max())
    error = float((actual - expected).abs().max())
    assert error <= rtol * scale, f"{what}: off by {error:.3g} where the scale is {scale:.3g}"

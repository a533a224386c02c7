r"""Samplers of one evaluation a step, each of them a row (a, b, c) of the same table.

Notation: from t to s < t; alpha_t, sigma_t, lam = log(alpha/sigma); h = t - s in the t-formulas;

    E = 1 - e^{-2 (lam_s - lam_t)} = sigma_{t|s}^2/sigma_t^2,

the share of the noise at t that came in between s and t. For a variance-preserving process
sigma_{t|s}^2 = 1 - abar_t/abar_s, the beta_i of DDPM. x0_hat is the denoiser's answer at (x_t, t).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ...chain import Variance
from ...denoiser import Denoiser
from ...sde import SDE
from ..base import TableSampler
from ..catalogue import Listing, View
from ..checks import taken

__all__ = ["DDIM", "Ancestral", "EulerMaruyama", "PFEuler", "ReverseDiffusion", "fit_variance"]


@dataclass(frozen=True)
class EulerMaruyama(TableSampler):
    r"""Euler-Maruyama on the reverse SDE.

        x_s = x_t - h (f x_t - g^2 score) + g sqrt(h) z,      score = (alpha x0_hat - x)/sigma^2.

    Weak order 1 (strong order 1 too: the noise is additive).

    References:
        Anderson 1982; Song et al. 2021 (arXiv:2011.13456), eq. 6.
    """

    order: ClassVar[int] = 1
    noise: ClassVar[bool] = True

    @classmethod
    def catalogue(cls) -> tuple[Listing, ...]:
        """The reverse SDE, as plainly as can be."""
        return (Listing("Euler-Maruyama", cls(), "sde", place=4),)

    def row(self, sde: SDE, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The Euler row of the reverse SDE."""
        h, g2 = t - s, sde.g2(t)
        gain = h * g2 / sde.sigma2(t)
        return 1 - h * sde.f(t) - gain, gain * sde.alpha(t), (h * g2).sqrt()


@dataclass(frozen=True)
class PFEuler(TableSampler):
    r"""Euler in t on the probability-flow ODE: x_s = x_t - h (f x_t - g^2/2 score). Order 1.

    References:
        Song et al. 2021, eq. 13.
    """

    order: ClassVar[int] = 1
    noise: ClassVar[bool] = False

    @classmethod
    def catalogue(cls) -> tuple[Listing, ...]:
        """Under its short name."""
        return (Listing("Euler", cls(), "ode", word="pf-euler", place=12),)

    def row(self, sde: SDE, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The Euler row of the ODE."""
        h = t - s
        gain = 0.5 * h * sde.g2(t) / sde.sigma2(t)
        return 1 - h * sde.f(t) - gain, gain * sde.alpha(t), torch.zeros_like(t)


@dataclass(frozen=True)
class ReverseDiffusion(TableSampler):
    r"""Song's predictor: the forward step's own drift and noise, run backwards.

        x_s = (2 - alpha_t/alpha_s) x_t + sigma_{t|s}^2 score + sigma_{t|s} z.

    Order 1. (Song et al. use beta(t_i)/N for beta_i; here the exact one of the grid.)

    References:
        Song et al. 2021, eq. 46 and algorithms 2 and 3.
    """

    order: ClassVar[int] = 1
    noise: ClassVar[bool] = True

    @classmethod
    def catalogue(cls) -> tuple[Listing, ...]:
        """Under its name in the paper."""
        return (Listing("reverse diffusion", cls(), "sde", place=5),)

    def row(self, sde: SDE, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The forward step's drift and noise, reversed."""
        share, alpha_t = _share(sde, t, s), sde.alpha(t)
        return 2 - alpha_t / sde.alpha(s) - share, share * alpha_t, sde.sigma(t) * share.sqrt()


@dataclass(frozen=True)
class Ancestral(TableSampler):
    r"""DDPM's reverse step: the posterior q(x_s | x_t, x0) with x0_hat in the place of x0.

        x_s = (sigma_s^2 alpha_t)/(sigma_t^2 alpha_s) x_t + alpha_s E x0_hat + sqrt(V) z,
        V = sigma_s^2 E           "posterior" (beta~): exact for a point mass
            sigma_t^2 E           "beta": exact for data N(0, I)
            sigma_s^2 E + (alpha_s E)^2 mmse    "optimal": exact variance for Gaussian data

    Order 1; on a uniform grid down to 0, "posterior" has a log(N)/N term.

    Args:
        variance: which of the three.
        mmse: for "optimal": t -> E|x0 - x0_hat|^2 per dimension, in squared units of x; exact
            from ``GaussianMixture.mmse``, estimated by ``fit_variance`` for a network.

    References:
        Ho et al. 2020 (arXiv:2006.11239), eq. 6-7; Bao et al. 2022 (arXiv:2201.06503), eq. 7.
    """

    variance: Variance = "posterior"
    mmse: Callable[[Tensor], Tensor] | None = None
    order: ClassVar[int] = 1
    noise: ClassVar[bool] = True
    view: ClassVar[View] = "chain"

    def __post_init__(self) -> None:
        """Raise an error for an unknown variance, or an optimal one without its mmse."""
        if self.variance not in ("posterior", "beta", "optimal"):
            raise ValueError(
                f'expected variance "posterior", "beta" or "optimal", got {self.variance!r}'
            )
        if (self.variance == "optimal") != (self.mmse is not None):
            raise ValueError(
                'variance "optimal" and mmse go together: pass mmse=mixture.mmse, or '
                "mmse=fit_variance(denoiser, ts, x0) for a network"
            )

    @classmethod
    def catalogue(cls) -> tuple[Listing, ...]:
        """One for each variance; the optimal one is that of the data."""
        return (
            Listing("DDPM chain, β̃", cls(), "chain", word="ancestral", place=1),
            Listing("DDPM chain, β", cls("beta"), "chain", word="ancestral-beta", place=2),
            Listing(
                "DDPM chain, optimal σ²",
                cls(),
                "chain",
                common=False,
                place=3,
                tuned=lambda data: cls("optimal", data.mmse),
            ),
        )

    def row(self, sde: SDE, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The posterior mean, with the chosen variance."""
        share, alpha_s = _share(sde, t, s), sde.alpha(s)
        a = sde.sigma2(s) / sde.sigma2(t) * (sde.alpha(t) / alpha_s)
        b = alpha_s * share
        var = (sde.sigma2(t) if self.variance == "beta" else sde.sigma2(s)) * share
        if self.mmse is not None:
            var = var + b.square() * self.mmse(t)
        return a, b, var.sqrt()


@dataclass(frozen=True)
class DDIM(TableSampler):
    r"""DDIM: from the deterministic map (eta = 0) to DDPM with beta~ (eta = 1), and beyond.

        x_s = alpha_s x0_hat + sqrt(sigma_s^2 - q) eps_hat + sqrt(q) z,
        q = eta^2 sigma_s^2 E,        eps_hat = (x_t - alpha_t x0_hat)/sigma_t.

    eta = 0 is the exponential Euler step of the probability-flow ODE. Order 1. eta > 1 needs
    eta^2 E <= 1 on every step (small steps that end above t = 0).

    Args:
        eta: amount of fresh noise, >= 0.

    References:
        Song, Meng and Ermon 2021 (arXiv:2010.02502), eq. 12 and 16.
    """

    eta: float = 0.0
    order: ClassVar[int] = 1

    def __post_init__(self) -> None:
        """Raise an error for a negative eta."""
        if not self.eta >= 0:
            raise ValueError(f"expected eta >= 0, got {self.eta}: 0 is the ODE, 1 is DDPM")

    @property
    def noise(self) -> bool:
        """Fresh noise is drawn unless eta = 0."""
        return self.eta > 0

    @property
    def view(self) -> View:
        """With noise, on whatever grid, it is a Markov chain; none is the ODE's."""
        return "chain" if self.noise else "ode"

    @classmethod
    def catalogue(cls) -> tuple[Listing, ...]:
        """With noise in equal steps of log-SNR, where it approaches the SDE, and without."""
        return (
            Listing("DDIM, η = 1", cls(1.0), "sde", place=9),
            Listing("DDIM, η = 0.5", cls(0.5), "sde", word="ddim-half", place=10),
            Listing("DDIM, η = 0", cls(), "ode", word="ddim", place=11),
        )

    def row(self, sde: SDE, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The DDIM row; sigma_s/sigma_t = e^{-(lam_s - lam_t)} alpha_s/alpha_t."""
        share, sigma_s, alpha_s = _share(sde, t, s), sde.sigma(s), sde.alpha(s)
        kept = 1 - self.eta**2 * share  # of sigma_s^2, what is not drawn afresh
        if bool((kept < -1e-12).any()):
            raise ValueError(
                f"expected eta^2 (1 - e^(-2 h)) <= 1 on every step, got eta = {self.eta} and "
                f"{float(self.eta**2 * share.max()):.4g}: take eta <= 1, or smaller steps"
            )
        a = sigma_s / sde.sigma(t) * kept.clamp(min=0).sqrt()
        return a, alpha_s - a * sde.alpha(t), self.eta * sigma_s * share.clamp(min=0).sqrt()


@dataclass(frozen=True)
class TabulatedMMSE:
    """t -> E|x0 - x0_hat|^2 per dimension through given points, linear in between.

    Args:
        times: increasing.
        values: the error at each time, in squared units of the data.
    """

    times: tuple[float, ...]
    values: tuple[float, ...]

    def __call__(self, t: Tensor) -> Tensor:
        """Interpolate; exact at the given times, constant beyond them."""
        times, values = (torch.tensor(v, dtype=t.dtype) for v in (self.times, self.values))
        if len(times) == 1:
            return values.expand_as(t)
        i = torch.searchsorted(times, t.contiguous()).clamp(1, len(times) - 1)
        u = ((t - times[i - 1]) / (times[i] - times[i - 1])).clamp(0, 1)
        return values[i - 1] + u * (values[i] - values[i - 1])


def fit_variance(
    denoiser: Denoiser, ts: Tensor, x0: Tensor, generator: torch.Generator | None = None
) -> TabulatedMMSE:
    """The denoising error E|x0 - x0_hat|^2 per dimension at each time of a grid, from data.

    Args:
        denoiser: the model whose ``Ancestral("optimal")`` this is for.
        ts: the grid on which it will be used.
        x0: data in the model's units, (n, *), a tensor or an array, unseen in training if
            possible.
        generator: for the noise, on the device of x0.

    References:
        Bao et al. 2022, eq. 8, in terms of x0 instead of eps.
    """
    times = sorted(t for t in ts.tolist() if t > 0)
    x0, values = taken(x0, denoiser), []
    with torch.no_grad():
        for time in times:
            t = torch.full((), time, dtype=x0.dtype, device=x0.device)
            z = torch.randn(x0.shape, generator=generator, dtype=x0.dtype, device=x0.device)
            values.append((x0 - denoiser(denoiser.sde.perturb(x0, t, z), t)).square().mean())
    return TabulatedMMSE(tuple(times), tuple(torch.stack(values).tolist()))


def _share(sde: SDE, t: Tensor, s: Tensor) -> Tensor:
    """E = 1 - e^{-2 (lam_s - lam_t)}; 1 where s = 0."""
    return -torch.expm1(sde.log_snr(t) - sde.log_snr(s))

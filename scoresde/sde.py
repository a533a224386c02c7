r"""Forward processes: one Gaussian path, from which every SDE follows.

All processes here are linear, so a sample at time t is

    x_t = alpha(t) x0 + sigma(t) eps,        eps ~ N(0, I),

with t in [0, 1], 0 = data, 1 = noise. Two functions, ``log_alpha`` and ``sigma``, define the
process; the SDE  dX = f(t) X dt + g(t) dW  that has these marginals is then

    f = d(log alpha)/dt,        g^2 = d(sigma^2)/dt - 2 f sigma^2,

and both derivatives are taken by forward-mode differentiation, so no textbook drift is written
down twice. Logarithmic signal-to-noise ratio: log_snr = log(alpha^2/sigma^2) = 2 lam.

References:
    Song et al. 2021, "Score-based generative modeling through SDEs" (arXiv:2011.13456), sec. 3.
    Karras et al. 2022, "Elucidating the design space" (arXiv:2206.00364), appendix B.
"""

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .autodiff import differentiating

__all__ = [
    "SDE",
    "VESDE",
    "VPSDE",
    "CosineVPSDE",
    "KarrasSDE",
    "Prior",
    "StraightPath",
    "SubVPSDE",
    "VariancePreserving",
    "like",
    "warn_of_start",
]

MISMATCH = 1e-2  # nats for each coordinate, above which a start from the prior gives a warning


def like(coefficient: Tensor, x: Tensor) -> Tensor:
    """A coefficient () or (B,) in the shape and dtype to multiply x (B, *): the one such rule.

    Raises:
        ValueError: if the coefficient has neither no dimension nor one of length B.
    """
    coefficient = coefficient.to(x.dtype)
    if coefficient.ndim == 0:
        return coefficient
    if coefficient.shape != x.shape[:1]:
        raise ValueError(
            f"expected a time () or ({len(x)},) for x of shape {tuple(x.shape)}, "
            f"got {tuple(coefficient.shape)}: pass one time for all, or one for each sample"
        )
    return coefficient.reshape(-1, *[1] * (x.ndim - 1))


@dataclass(frozen=True)
class Prior:
    """The Gaussian N(0, std^2 I) from which a reverse process starts.

    Args:
        std: standard deviation, in the units of x.
    """

    std: float

    def sample(
        self,
        shape: Sequence[int],
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """Draw std * z, z ~ N(0, I), of the given shape."""
        z = torch.randn(tuple(shape), generator=generator, device=device, dtype=dtype)
        return z * self.std

    def log_prob(self, x: Tensor) -> Tensor:
        """log N(x; 0, std^2 I) in nats, summed over an event: (B, *) -> (B,)."""
        x = x.reshape(len(x), x.shape[1:].numel())
        norm = x.shape[1] * (0.5 * math.log(2 * math.pi) + math.log(self.std))
        return -0.5 * (x / self.std).square().sum(1) - norm


class SDE(ABC):
    """The process dX = f X dt + g dW whose marginals are x_t = alpha x0 + sigma eps.

    A subclass is a frozen dataclass of floats that defines ``log_alpha`` and ``sigma``; all else
    is derived. Where sigma behaves as sqrt(t) at the origin, override ``sigma2`` as well (its
    derivative is finite where that of sigma is not). Every function of time maps a tensor of any
    shape to one of the same shape, dtype and device.
    """

    @property
    def t_max(self) -> float:
        """The last time at which the reverse process can start: alpha(t_max) > 0."""
        return 1.0

    @property
    def t_eps(self) -> float:
        """The time at which samplers stop by default."""
        return 1e-3

    @abstractmethod
    def log_alpha(self, t: Tensor) -> Tensor:
        """log alpha(t), with log_alpha(0) = 0."""

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        """Standard deviation of x_t given x0, with sigma(0) = 0, in the units of the data."""

    def sigma2(self, t: Tensor) -> Tensor:
        """sigma(t)^2, differentiable at t = 0."""
        return self.sigma(t).square()

    def alpha(self, t: Tensor) -> Tensor:
        """alpha(t) = exp(log_alpha(t)), the factor in front of x0."""
        return self.log_alpha(t).exp()

    def f(self, t: Tensor) -> Tensor:
        """Linear drift rate f = d(log alpha)/dt."""
        return self.rates(t)[0]

    def g2(self, t: Tensor) -> Tensor:
        """Squared diffusion g^2 = d(sigma^2)/dt - 2 f sigma^2."""
        return self.rates(t)[1]

    def rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """(f, g^2) at once, by one forward-mode differentiation of (log alpha, sigma^2)."""
        path = lambda t: (self.log_alpha(t), self.sigma2(t))
        # with Python's numbers, a () tangent would become float64; an expanded t is refused
        at = torch.atleast_1d(t).contiguous()
        with differentiating():
            values, slopes = torch.func.jvp(path, (at,), (torch.ones_like(at),))[:2]
        (_, sigma2), (f, slope) = values, slopes
        return f.reshape(t.shape), (slope - 2 * f * sigma2).reshape(t.shape)

    def beta(self, t: Tensor) -> Tensor:
        """beta = -2 f: the rate of a variance-preserving process (there g^2 = beta too)."""
        return -2 * self.f(t)

    def log_snr(self, t: Tensor) -> Tensor:
        """log(alpha^2/sigma^2) in nats; decreases from +inf at t = 0."""
        return 2 * self.log_alpha(t) - self.sigma2(t).log()

    def lam(self, t: Tensor) -> Tensor:
        """log(alpha/sigma) = log_snr/2, the variable of the exponential solvers."""
        return 0.5 * self.log_snr(t)

    def time_of_log_snr(self, log_snr: Tensor) -> Tensor:
        """The time t in [0, 1] with log_snr(t) = the given value (inverse of ``log_snr``).

        By bisection down to the last bit; a process with a closed form overrides it.
        """
        low, high = torch.zeros_like(log_snr), torch.ones_like(log_snr)
        for _ in range(80):
            middle = 0.5 * (low + high)
            earlier = self.log_snr(middle) > log_snr  # too little noise: the time lies above
            low, high = torch.where(earlier, middle, low), torch.where(earlier, high, middle)
        return 0.5 * (low + high)

    def drift(self, x: Tensor, t: Tensor) -> Tensor:
        """Forward drift f(t) x, in units of x (time has none)."""
        return like(self.f(t), x) * x

    def perturb(self, x0: Tensor, t: Tensor, z: Tensor) -> Tensor:
        """The state x_t = alpha(t) x0 + sigma(t) z for x0 and z of shape (B, *), t () or (B,)."""
        return like(self.alpha(t), x0) * x0 + like(self.sigma(t), x0) * z

    def transition(self, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        r"""Exact forward kernel from s to t >= s: x_t = scale x_s + std z. Returns (scale, std).

            scale = alpha_t/alpha_s,     std^2 = sigma_t^2 - scale^2 sigma_s^2
                                               = sigma_t^2 (1 - e^{-2 (lam_s - lam_t)}),

        the second form without cancellation.
        """
        scale = (self.log_alpha(t) - self.log_alpha(s)).exp()
        return scale, self.sigma(t) * (-torch.expm1(self.log_snr(t) - self.log_snr(s))).sqrt()

    def prior(self, t: Tensor | float) -> Prior:
        """The Gaussian to start the reverse process from at time t: N(0, I) unless overridden."""
        return Prior(1.0)

    def prior_mismatch(self, t: Tensor | float, mean_square: float = 1.0) -> float:
        r"""The most that a start from the prior at t costs, in nats for each coordinate.

            KL(p_t || prior) <= E KL(p(x_t | x0) || prior)
                              = 1/2 [(alpha^2 E|x0|^2/d + sigma^2)/std^2 - 1 - log(sigma^2/std^2)]

        The reverse SDE with the exact score makes it no larger. Where the distribution of the data
        is known ``physics.kl_to_prior`` is the KL itself.

        Args:
            t: where the reverse process starts, above 0.
            mean_square: E|x0|^2/d, 1 for data that were standardised.
        """
        at = torch.as_tensor(t, dtype=torch.float64)
        var = self.prior(at).std ** 2
        signal = float(self.alpha(at)) ** 2 * mean_square / var
        noise = float(self.sigma2(at)) / var
        return 0.5 * (signal + noise - 1 - math.log(noise))

    def prior_log_prob(self, x: Tensor) -> Tensor:
        """log density in nats of the prior at t_max: (B, *) -> (B,)."""
        return self.prior(self.t_max).log_prob(x)


def warn_of_start(sde: SDE, t: Tensor | float) -> None:
    """Warn, once per line of user code, if x_t is not the noise that a sampler starts from."""
    cost = sde.prior_mismatch(t)
    if cost > MISMATCH:
        share = float(sde.alpha(torch.as_tensor(t, dtype=torch.float64)) ** 2)
        warnings.warn(
            f"the start is not noise: at t = {float(t):.4g} alpha^2 = {share:.2g} of the data's "
            f"variance is left, and starting from the prior costs up to KL = {cost:.2g} nats for "
            "each coordinate of standardised data; start later, take a longer chain "
            "(DDPMChain.linear() has 1000 steps), or pass the sampler exact states at that time",
            UserWarning,
            stacklevel=3,
        )


class VariancePreserving(SDE):
    """A process with alpha^2 + sigma^2 = 1: only ``log_alpha`` is left to define."""

    def sigma2(self, t: Tensor) -> Tensor:
        """sigma^2 = 1 - alpha^2, by expm1: exact to rounding for small t."""
        return -torch.expm1(2 * self.log_alpha(t))

    def sigma(self, t: Tensor) -> Tensor:
        """sigma = sqrt(1 - alpha^2)."""
        return self.sigma2(t).sqrt()


class _VarianceExploding(SDE):
    """A process with alpha = 1, started from N(0, sigma(t)^2 I)."""

    def log_alpha(self, t: Tensor) -> Tensor:
        """Zero: the data are not scaled."""
        return torch.zeros_like(t)

    def log_snr(self, t: Tensor) -> Tensor:
        """-2 log sigma: in 16 bits sigma^2 may not be representable."""
        return -2 * self.sigma(t).log()

    def prior(self, t: Tensor | float) -> Prior:
        """N(0, sigma(t)^2 I)."""
        return Prior(float(self.sigma(torch.as_tensor(t, dtype=torch.float64))))


@dataclass(frozen=True)
class VPSDE(VariancePreserving):
    """Variance-preserving SDE with a linear rate: dX = -beta/2 X dt + sqrt(beta) dW.

        beta(t) = beta_min + (beta_max - beta_min) t,   B(t) = int_0^t beta,   alpha = e^{-B/2}.

    Args:
        beta_min: rate at t = 0 (per unit of t), not negative.
        beta_max: rate at t = 1, positive.

    References:
        Song et al. 2021, eq. 11 and 32; DDPM (Ho et al. 2020) with beta_i = 1 - e^{-int beta}.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        """Raise an error unless log-SNR decreases at these rates."""
        if not (self.beta_min >= 0 and self.beta_max > 0):
            raise ValueError(
                "expected beta_min >= 0 and beta_max > 0, "
                f"got {self.beta_min} and {self.beta_max}: rates cannot be negative"
            )

    def log_alpha(self, t: Tensor) -> Tensor:
        """-B(t)/2 with B = beta_min t + (beta_max - beta_min) t^2/2."""
        return -0.5 * t * (self.beta_min + 0.5 * (self.beta_max - self.beta_min) * t)

    def rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """-beta/2 and beta, without a derivative."""
        beta = self.beta_min + (self.beta_max - self.beta_min) * t
        return -0.5 * beta, beta

    def time_of_log_snr(self, log_snr: Tensor) -> Tensor:
        """Closed form: B = log(1 + e^{-log_snr}), and t is the stable root of a quadratic."""
        big_b = torch.nn.functional.softplus(-log_snr, threshold=40.0)
        slope = self.beta_max - self.beta_min
        return 2 * big_b / (self.beta_min + (self.beta_min**2 + 2 * slope * big_b).sqrt())


@dataclass(frozen=True)
class CosineVPSDE(VariancePreserving):
    r"""Variance-preserving SDE of the cosine schedule.

        alpha(t) = cos(theta_t)/cos(theta_0),    theta_t = (pi/2)(t + s)/(1 + s).

    alpha(1) = 0, so the process starts at t_max, where alpha = 1e-3. The rate is never capped.

    Args:
        s: offset that keeps the first steps from being too small.

    References:
        Nichol and Dhariwal 2021 (arXiv:2102.09672), eq. 17.
    """

    s: float = 0.008

    def __post_init__(self) -> None:
        """Raise an error unless the offset is positive."""
        if not self.s > 0:
            raise ValueError(f"expected an offset s > 0, got {self.s}: the paper uses 0.008")

    @property
    def t_max(self) -> float:
        """The time at which alpha = 1e-3."""
        return (1 + self.s) * (2 / math.pi) * math.acos(1e-3 * math.cos(self._theta0)) - self.s

    @property
    def _theta0(self) -> float:
        return 0.5 * math.pi * self.s / (1 + self.s)

    def sigma2(self, t: Tensor) -> Tensor:
        """sin(theta_t - theta_0) sin(theta_t + theta_0)/cos(theta_0)^2: no cancellation at 0."""
        turn = 0.5 * math.pi / (1 + self.s) * t
        return turn.sin() * (turn + 2 * self._theta0).sin() / math.cos(self._theta0) ** 2

    def log_alpha(self, t: Tensor) -> Tensor:
        """log of cos(theta_t)/cos(theta_0), written so that neither end loses digits."""
        late = (0.5 * math.pi / (1 + self.s) * (1 - t)).sin().log() - math.log(
            math.cos(self._theta0)
        )
        return torch.where(t < 0.5, 0.5 * torch.log1p(-self.sigma2(t)), late)

    def time_of_log_snr(self, log_snr: Tensor) -> Tensor:
        """Closed form: the angle from theta_0 to theta_t, by its sine and cosine."""
        cos0, sin0 = math.cos(self._theta0), math.sin(self._theta0)
        sigma2 = torch.sigmoid(-log_snr)
        cos, sin = cos0 * torch.sigmoid(log_snr).sqrt(), (sin0**2 + cos0**2 * sigma2).sqrt()
        rise = cos0**2 * sigma2 / (sin * cos0 + cos * sin0)  # sin(theta_t - theta_0)
        return torch.atan2(rise, cos * cos0 + sin * sin0) * (1 + self.s) * (2 / math.pi)


@dataclass(frozen=True)
class SubVPSDE(SDE):
    """Sub-VP SDE: the mean of the VP-SDE, and sigma = 1 - e^{-B} (its square).

    Args:
        beta_min: rate at t = 0.
        beta_max: rate at t = 1.

    References:
        Song et al. 2021, eq. 12: g^2 = beta (1 - e^{-2B}).
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        """Raise an error unless the VP-SDE takes these rates."""
        VPSDE(self.beta_min, self.beta_max)

    def log_alpha(self, t: Tensor) -> Tensor:
        """-B(t)/2, as for the VP-SDE."""
        return VPSDE(self.beta_min, self.beta_max).log_alpha(t)

    def sigma(self, t: Tensor) -> Tensor:
        """1 - e^{-B}."""
        return -torch.expm1(2 * self.log_alpha(t))

    def time_of_log_snr(self, log_snr: Tensor) -> Tensor:
        """Closed form: sigma/alpha = 2 sinh(B/2), where B is that of the VP-SDE."""
        big_b = 2 * torch.asinh(0.5 * (-0.5 * log_snr).exp())
        return VPSDE(self.beta_min, self.beta_max).time_of_log_snr(-torch.expm1(big_b).log())


@dataclass(frozen=True)
class VESDE(_VarianceExploding):
    """Variance-exploding SDE: sigma^2 = s(t)^2 - s(0)^2 with s = s_min (s_max/s_min)^t.

    Args:
        s_min: smallest noise scale, in the units of the data.
        s_max: largest noise scale, in the units of the data.

    References:
        Song et al. 2021, eq. 30-31: g^2 = d(s^2)/dt.
    """

    s_min: float = 0.01
    s_max: float = 50.0

    def __post_init__(self) -> None:
        """Raise an error unless the scales are positive and grow."""
        if not 0 < self.s_min < self.s_max:
            raise ValueError(f"expected 0 < s_min < s_max, got {self.s_min} and {self.s_max}")

    def sigma2(self, t: Tensor) -> Tensor:
        """s(t)^2 (1 - (s_min/s_max)^{2t}), by expm1: no factor exceeds s_max^2."""
        return self._scale(t).square() * -torch.expm1(-2 * self._growth * t)

    def sigma(self, t: Tensor) -> Tensor:
        """sqrt(s(t)^2 - s(0)^2), which is representable where its square may not be."""
        return self._scale(t) * (-torch.expm1(-2 * self._growth * t)).sqrt()

    def time_of_log_snr(self, log_snr: Tensor) -> Tensor:
        """Closed form: sigma^2 = e^{-log_snr}, and log(1 + sigma^2/s_min^2) by softplus."""
        ratio = -log_snr - 2 * math.log(self.s_min)
        return torch.nn.functional.softplus(ratio, threshold=40.0) / (2 * self._growth)

    @property
    def _growth(self) -> float:
        return math.log(self.s_max / self.s_min)

    def _scale(self, t: Tensor) -> Tensor:
        """s(t) = s_min (s_max/s_min)^t."""
        return self.s_min * (self._growth * t).exp()


@dataclass(frozen=True)
class KarrasSDE(_VarianceExploding):
    """The process of EDM with time proportional to noise: alpha = 1, sigma = sigma_max t.

    Args:
        sigma_max: noise at t = 1, in the units of the data.

    References:
        Karras et al. 2022, table 1, column "Ours" (sigma(t) = t, here rescaled to [0, 1]).
    """

    sigma_max: float = 80.0

    def __post_init__(self) -> None:
        """Raise an error unless the scale is positive."""
        if not self.sigma_max > 0:
            raise ValueError(f"expected sigma_max > 0, got {self.sigma_max}")

    @property
    def t_eps(self) -> float:
        """The time at which sigma = 0.002 for the default sigma_max."""
        return 2.5e-5

    def sigma(self, t: Tensor) -> Tensor:
        """sigma_max t."""
        return self.sigma_max * t

    def time_of_log_snr(self, log_snr: Tensor) -> Tensor:
        """Closed form: sigma = e^{-log_snr/2}."""
        return (-0.5 * log_snr).exp() / self.sigma_max


@dataclass(frozen=True)
class StraightPath(SDE):
    """The straight path of flow matching: x_t = (1 - t) x0 + t eps, t up to 0.999.

    References:
        Lipman et al. 2023 (arXiv:2210.02747); Liu et al. 2023 (arXiv:2209.03003).
    """

    @property
    def t_max(self) -> float:
        """0.999, where alpha = 1e-3."""
        return 0.999

    def log_alpha(self, t: Tensor) -> Tensor:
        """log(1 - t)."""
        return torch.log1p(-t)

    def sigma(self, t: Tensor) -> Tensor:
        """t, in the units of the data."""
        return t

    def time_of_log_snr(self, log_snr: Tensor) -> Tensor:
        """Closed form: (1 - t)/t = e^{log_snr/2}."""
        return torch.sigmoid(-0.5 * log_snr)

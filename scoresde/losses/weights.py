r"""Weightings of the denoising loss, as weights w(sde, t) of the eps error.

As a weight of the x0 error each is w SNR, with SNR = alpha^2/sigma^2. Those that take a number
are frozen dataclasses: they compare, print and pickle as what they are.

References:
    Kingma and Gao 2023 (arXiv:2303.00848), table 1: the weightings compared.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..sde import SDE

__all__ = [
    "Weight",
    "edm",
    "flow_matching",
    "likelihood",
    "min_snr",
    "simple",
    "snr_plus_one",
    "v_weight",
    "x0_weight",
]

Weight = Callable[[SDE, Tensor], Tensor]
"""(sde, t) -> weight of the eps error, elementwise."""


def simple(sde: SDE, t: Tensor) -> Tensor:
    """1: the loss of DDPM. As a weight of the x0 error: SNR.

    References:
        Ho et al. 2020 (arXiv:2006.11239), eq. 14.
    """
    return torch.ones_like(t)


def x0_weight(sde: SDE, t: Tensor) -> Tensor:
    """1/SNR: the plain error of x0. As a weight of the x0 error: 1."""
    return (-sde.log_snr(t)).exp()


def snr_plus_one(sde: SDE, t: Tensor) -> Tensor:
    """1 + 1/SNR; equals ``v_weight`` where alpha^2 + sigma^2 = 1. Of the x0 error: SNR + 1.

    References:
        Salimans and Ho 2022 (arXiv:2202.00512), sec. 4.
    """
    return 1 + x0_weight(sde, t)


def v_weight(sde: SDE, t: Tensor) -> Tensor:
    """(alpha^2 + sigma^2)^2/alpha^2: the plain error of v, any process. Of the x0 error: x SNR."""
    alpha2, sigma2 = sde.alpha(t).square(), sde.sigma2(t)
    return (alpha2 + sigma2).square() / alpha2


def flow_matching(sde: SDE, t: Tensor) -> Tensor:
    r"""g^4/(4 sigma^2): the plain error of the ODE's velocity. Of the x0 error: x SNR.

    1/(1 - t)^2 on the straight path.

    References:
        Lipman et al. 2023 (arXiv:2210.02747), eq. 9.
    """
    return (0.5 * sde.g2(t)).square() / sde.sigma2(t)


def likelihood(sde: SDE, t: Tensor) -> Tensor:
    """g^2/sigma^2 = -d log_snr/dt: d/2 times the integrated loss bounds -log p (nats).

    As a weight of the x0 error: -d SNR/dt. Its integral over t diverges at 0 like log(1/t):
    ``LogSNRTimes`` with ``simple`` is the same loss without the large weights.

    References:
        Song, Durkan et al. 2021 (arXiv:2101.09258), eq. 7; Kingma et al. 2021 (VDM), eq. 17.
    """
    return sde.g2(t) / sde.sigma2(t)


@dataclass(frozen=True)
class min_snr:
    """min(1, gamma/SNR). As a weight of the x0 error: min(SNR, gamma).

    Args:
        gamma: the largest weight of the x0 error, positive.

    References:
        Hang et al. 2023 (arXiv:2303.09556), eq. 8.

    >>> from scoresde import VPSDE
    >>> min_snr(5.0)(VPSDE(), torch.tensor([0.02, 0.5]))
    tensor([0.0300, 1.0000])
    """

    gamma: float = 5.0

    def __post_init__(self) -> None:
        """Raise an error unless gamma is positive."""
        _check_positive("gamma", self.gamma)

    def __call__(self, sde: SDE, t: Tensor) -> Tensor:
        """The weight of the eps error, elementwise."""
        return (self.gamma * x0_weight(sde, t)).clamp(max=1)


@dataclass(frozen=True)
class edm:
    r"""1 + s^2/d^2, s = sigma/alpha, d = sigma_data. Of the x0 error: (s^2 + d^2)/(s d)^2.

    With d = 1 it is ``snr_plus_one``. Karras et al. draw t by ``LogNormalTimes``.

    Args:
        sigma_data: standard deviation of the data, positive.

    References:
        Karras et al. 2022 (arXiv:2206.00364), table 1, "loss weighting".
    """

    sigma_data: float = 1.0

    def __post_init__(self) -> None:
        """Raise an error unless sigma_data is positive."""
        _check_positive("sigma_data", self.sigma_data)

    def __call__(self, sde: SDE, t: Tensor) -> Tensor:
        """The weight of the eps error, elementwise."""
        return 1 + x0_weight(sde, t) / self.sigma_data**2


def _check_positive(name: str, value: float) -> None:
    if not (isinstance(value, int | float) and value > 0):
        raise ValueError(f"expected a number {name} > 0, got {value!r}")

r"""Denoising score matching: one squared error, its weightings, and where its times come from.

Every parametrization is trained by the same error, that of eps,

    e(x0, t, z) = |eps_hat(x_t, t) - z|^2/d,        x_t = alpha x0 + sigma z,
    loss = E w(t) e,

for the errors of the other predictions are multiples of it (SNR = alpha^2/sigma^2):

    |x0_hat - x0|^2 = e d/SNR,    |v_hat - v|^2 = e d (alpha^2 + sigma^2)^2/alpha^2,
    |score_hat - score(x_t | x0)|^2 = e d/sigma^2.

A weight is a function (sde, t) -> w of the eps error; its docstring also gives it as a
weight of the x0 error, which is w SNR. The loss cannot reach zero: its least value at t is
SNR mmse(t)/d (``irreducible_loss``), so what tells learning is the excess over it.

References:
    Vincent 2011 (denoising score matching); Song et al. 2021 (arXiv:2011.13456), eq. 7;
    Kingma and Gao 2023 (arXiv:2303.00848), table 1: the weightings compared.
"""

from ..estimate import Estimate
from .floors import excess_loss, irreducible_loss, loss_by_time
from .matching import denoising_errors, denoising_loss
from .times import ChainTimes, LogNormalTimes, LogSNRTimes, Times, UniformTimes
from .weights import (
    Weight,
    edm,
    flow_matching,
    likelihood,
    min_snr,
    simple,
    snr_plus_one,
    v_weight,
    x0_weight,
)

__all__ = [
    "ChainTimes",
    "Estimate",
    "LogNormalTimes",
    "LogSNRTimes",
    "Times",
    "UniformTimes",
    "Weight",
    "denoising_errors",
    "denoising_loss",
    "edm",
    "excess_loss",
    "flow_matching",
    "irreducible_loss",
    "likelihood",
    "loss_by_time",
    "min_snr",
    "simple",
    "snr_plus_one",
    "v_weight",
    "x0_weight",
]

r"""Inverse problems: samples of x0 given y = A x0 + noise, with a model of x0 alone.

    measurement = Measurement(Mask(known), y, std=0.1)          what was measured
    MomentMatching(denoiser, measurement)                       a denoiser, for any sampler
    sample(Observed(denoiser, measurement), RePaint(), ...)     a sampler of its own
    samplers.TwistedSMC()                                       weights that correct a denoiser
    posterior(mixture, measurement)                             the exact one, for mixtures

None of the methods samples the posterior exactly but for Gaussian priors; ``posterior`` measures
by how much each does not, and with ``TwistedSMC`` and many particles they do.
"""

from .editing import sdedit
from .fourier import Blur, Fourier
from .measurement import Measurement, Observed, log_evidence, posterior
from .methods import DPS, MomentMatching, PiGDM
from .operators import (
    BlockAverage,
    Grey,
    Linear,
    Mask,
    Matrix,
    random_projection,
)
from .walks import DDRM, RePaint, Replacement

__all__ = [
    "DDRM",
    "DPS",
    "BlockAverage",
    "Blur",
    "Fourier",
    "Grey",
    "Linear",
    "Mask",
    "Matrix",
    "Measurement",
    "MomentMatching",
    "Observed",
    "PiGDM",
    "RePaint",
    "Replacement",
    "log_evidence",
    "posterior",
    "random_projection",
    "sdedit",
]

"""The former place of ``GaussianMixture``, and of ``Distribution`` as ``Law``."""

from . import distributions
from .deprecated import moved

__getattr__ = moved(
    __name__, GaussianMixture=distributions.GaussianMixture, Law=distributions.Distribution
)

"""Where errors come from: told apart for a network, exact for every sampler on Gaussian data."""

from .bias import Bias, bias_entries, exact_bias, power_product
from .ladder import CAUSES, Ladder, Split, climb, contributions, distances, observables

__all__ = [
    "CAUSES",
    "Bias",
    "Ladder",
    "Split",
    "bias_entries",
    "climb",
    "contributions",
    "distances",
    "exact_bias",
    "observables",
    "power_product",
]

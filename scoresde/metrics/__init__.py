"""Distances between samples and laws, each to be read beside its noise floor.

Every metric takes tensors (n, *), flattened to points (n, d), and returns a tensor () on the
device of x, or an ``Estimate`` (value, standard error) where a law is known exactly.

    between samples         wasserstein, sliced_wasserstein, energy_distance, mmd, kl_knn,
                            kl_histogram
    sample against law      nll_gap, kl_histogram, mode_weights, mode_coverage
    law against law         kl_exact, kl_quadrature, gaussian_w2
    the floor of any        floor
"""

from .divergence import kl_exact, kl_histogram, kl_knn, kl_quadrature, nll_gap
from .estimates import Estimate, Floor, floor
from .kernels import energy_distance, mmd
from .modes import mode_coverage, mode_weights
from .transport import gaussian_w2, sliced_wasserstein, wasserstein

__all__ = [
    "Estimate",
    "Floor",
    "energy_distance",
    "floor",
    "gaussian_w2",
    "kl_exact",
    "kl_histogram",
    "kl_knn",
    "kl_quadrature",
    "mmd",
    "mode_coverage",
    "mode_weights",
    "nll_gap",
    "sliced_wasserstein",
    "wasserstein",
]

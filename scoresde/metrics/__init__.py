"""Distances between samples and laws, each to be read beside its noise floor.

Every metric takes samples (n, *), flattened to points (n, d), and returns a tensor () on the
device of x, or an ``Estimate`` (value, standard error) where a law is known exactly. Samples are
tensors or arrays of floating-point numbers; 16-bit ones are taken to float32, and of two dtypes
the wider is used.

    between samples         wasserstein, sliced_wasserstein, energy_distance, mmd, kl_knn,
                            kl_histogram
    sample against law      nll_gap, kl_histogram, mode_weights, mode_coverage
    law against law         kl_exact, kl_quadrature, gaussian_w2
    between sets of paths   those in PATH_METRICS, conservation_metrics; all at once: judge
    the floor of any        floor
"""

from ..estimate import Estimate
from .divergence import kl_exact, kl_histogram, kl_knn, kl_quadrature, nll_gap
from .estimates import Floor, floor
from .judgement import Judgement, Verdict, judge, noise_floor
from .kernels import energy_distance, mmd
from .modes import mode_coverage, mode_weights
from .motion import (
    arc_length,
    mean_squared_displacement,
    power_spectrum,
    spread,
    turning,
    two_time_covariance,
    velocity_autocorrelation,
)
from .paths import (
    PATH_METRICS,
    arc_length_w1,
    autocorrelation_error,
    conservation_error,
    conservation_metrics,
    covariance_error,
    displacement_error,
    marginal_w1,
    mean_error,
    path_mmd,
    signature_mmd,
    spectrum_error,
    turning_w1,
)
from .signatures import signature
from .transport import gaussian_w2, sliced_wasserstein, wasserstein

__all__ = [
    "PATH_METRICS",
    "Estimate",
    "Floor",
    "Judgement",
    "Verdict",
    "arc_length",
    "arc_length_w1",
    "autocorrelation_error",
    "conservation_error",
    "conservation_metrics",
    "covariance_error",
    "displacement_error",
    "energy_distance",
    "floor",
    "gaussian_w2",
    "judge",
    "kl_exact",
    "kl_histogram",
    "kl_knn",
    "kl_quadrature",
    "marginal_w1",
    "mean_error",
    "mean_squared_displacement",
    "mmd",
    "mode_coverage",
    "mode_weights",
    "nll_gap",
    "noise_floor",
    "path_mmd",
    "power_spectrum",
    "signature",
    "signature_mmd",
    "sliced_wasserstein",
    "spectrum_error",
    "spread",
    "turning",
    "turning_w1",
    "two_time_covariance",
    "velocity_autocorrelation",
    "wasserstein",
]

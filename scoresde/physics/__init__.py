"""The physics of diffusion models, computed: each quantity one function with one equation."""

from typing import TYPE_CHECKING

from .. import distributions
from ..deprecated import moved
from .cells import Cells
from .copies import Memorisation, memorisation
from .critical import Criterion, clone_probability, collapse_time, speciation_time
from .currents import (
    Helmholtz,
    curl,
    helmholtz,
    osmotic_velocity,
    probability_current,
    stream_lines,
)
from .fokker_planck import density_residual, flow_log_prob, log_density_residual, score_residual
from .grid_solver import Transport, denoising, evolve, noising
from .information import (
    entropy,
    entropy_rate,
    fisher_information,
    information_rate,
    kl_to_prior,
    mutual_information,
)
from .path_weights import PathKL, WeightedPaths, path_kl, weighted_paths
from .thermodynamics import (
    ForwardKernel,
    entropy_production,
    entropy_production_rate,
    relative_entropy_decay,
)

__all__ = [
    "Cells",
    "Criterion",
    "ForwardKernel",
    "Helmholtz",
    "Memorisation",
    "PathKL",
    "Transport",
    "WeightedPaths",
    "clone_probability",
    "collapse_time",
    "curl",
    "denoising",
    "density_residual",
    "entropy",
    "entropy_production",
    "entropy_production_rate",
    "entropy_rate",
    "evolve",
    "fisher_information",
    "flow_log_prob",
    "helmholtz",
    "information_rate",
    "kl_to_prior",
    "log_density_residual",
    "memorisation",
    "mutual_information",
    "noising",
    "osmotic_velocity",
    "path_kl",
    "probability_current",
    "relative_entropy_decay",
    "score_residual",
    "speciation_time",
    "stream_lines",
    "weighted_paths",
]

if not TYPE_CHECKING:  # so that a misspelt name still is one to a type checker
    __getattr__ = moved(__name__, Empirical=distributions.Empirical)

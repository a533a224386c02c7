"""Samplers: frozen hyper-parameters that walk a time grid with any denoiser."""

from .base import Callback, Row, Sampler, Table, TableSampler
from .corrector import Langevin, PredictorCorrector
from .law import moments
from .ode import PFRK4, PFHeun, RungeKutta
from .onestep import DDIM, Ancestral, EulerMaruyama, PFEuler, ReverseDiffusion, fit_variance
from .sampling import Recorder, sample

__all__ = [
    "DDIM",
    "PFRK4",
    "Ancestral",
    "Callback",
    "EulerMaruyama",
    "Langevin",
    "PFEuler",
    "PFHeun",
    "PredictorCorrector",
    "Recorder",
    "ReverseDiffusion",
    "Row",
    "RungeKutta",
    "Sampler",
    "Table",
    "TableSampler",
    "fit_variance",
    "moments",
    "sample",
]

"""Samplers: frozen hyper-parameters that walk a time grid with any denoiser."""

from .base import Callback, Row, Sampler, Table, TableSampler
from .corrector import Langevin, PredictorCorrector
from .ersde import ERSDE, er_phi
from .exponential import DEIS, DPMSolverPP, Exponential, SASolver, UniPC
from .law import moments
from .ode import PFRK4, PFHeun, RungeKutta
from .onestep import DDIM, Ancestral, EulerMaruyama, PFEuler, ReverseDiffusion, fit_variance
from .sampling import Recorder, sample
from .stages import DPMSolver, EDMStochastic

__all__ = [
    "DDIM",
    "DEIS",
    "ERSDE",
    "PFRK4",
    "Ancestral",
    "Callback",
    "DPMSolver",
    "DPMSolverPP",
    "EDMStochastic",
    "EulerMaruyama",
    "Exponential",
    "Langevin",
    "PFEuler",
    "PFHeun",
    "PredictorCorrector",
    "Recorder",
    "ReverseDiffusion",
    "Row",
    "RungeKutta",
    "SASolver",
    "Sampler",
    "Table",
    "TableSampler",
    "UniPC",
    "er_phi",
    "fit_variance",
    "moments",
    "sample",
]

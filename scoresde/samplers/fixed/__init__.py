"""Samplers on a fixed grid: each of them a table of numbers, see ``samplers.base``."""

from .adams import Adams
from .corrector import Langevin, PredictorCorrector
from .ersde import ERSDE, er_phi
from .exponential import DEIS, DPMSolverPP, Exponential, SASolver, UniPC
from .ode import PFRK4, PFHeun, RungeKutta
from .onestep import DDIM, Ancestral, EulerMaruyama, PFEuler, ReverseDiffusion, fit_variance
from .shift import MeanShift
from .stages import DPMSolver, EDMStochastic

__all__ = [
    "DDIM",
    "DEIS",
    "ERSDE",
    "PFRK4",
    "Adams",
    "Ancestral",
    "DPMSolver",
    "DPMSolverPP",
    "EDMStochastic",
    "EulerMaruyama",
    "Exponential",
    "Langevin",
    "MeanShift",
    "PFEuler",
    "PFHeun",
    "PredictorCorrector",
    "ReverseDiffusion",
    "RungeKutta",
    "SASolver",
    "UniPC",
    "er_phi",
    "fit_variance",
]

"""Samplers: frozen hyper-parameters that walk a time grid with any denoiser."""

from .adams import Adams
from .adaptive import Counted, PFAdaptive
from .adaptive_sde import SDEAdaptive, Solution
from .base import Callback, Sampler, TableSampler
from .bridge import BrownianPath, TorchSDE
from .checkpointed import Checkpointed
from .compiled import Captured, Compiled
from .corrector import Langevin, PredictorCorrector
from .ersde import ERSDE, er_phi
from .exponential import DEIS, DPMSolverPP, Exponential, SASolver, UniPC
from .law import moments
from .ode import PFRK4, PFHeun, RungeKutta
from .onestep import DDIM, Ancestral, EulerMaruyama, PFEuler, ReverseDiffusion, fit_variance
from .particles import FeynmanKac, Particles
from .recommend import Plan, recommended
from .sampling import Recorder, sample
from .shift import MeanShift
from .stages import DPMSolver, EDMStochastic
from .table import Row, Table
from .twisted import TwistedSMC

__all__ = [
    "DDIM",
    "DEIS",
    "ERSDE",
    "PFRK4",
    "Adams",
    "Ancestral",
    "BrownianPath",
    "Callback",
    "Captured",
    "Checkpointed",
    "Compiled",
    "Counted",
    "DPMSolver",
    "DPMSolverPP",
    "EDMStochastic",
    "EulerMaruyama",
    "Exponential",
    "FeynmanKac",
    "Langevin",
    "MeanShift",
    "PFAdaptive",
    "PFEuler",
    "PFHeun",
    "Particles",
    "Plan",
    "PredictorCorrector",
    "Recorder",
    "ReverseDiffusion",
    "Row",
    "RungeKutta",
    "SASolver",
    "SDEAdaptive",
    "Sampler",
    "Solution",
    "Table",
    "TableSampler",
    "TorchSDE",
    "TwistedSMC",
    "UniPC",
    "er_phi",
    "fit_variance",
    "moments",
    "recommended",
    "sample",
]

"""Samplers: methods with frozen hyper-parameters that step along a grid with any denoiser."""

from .adaptive import BrownianPath, PFAdaptive, SDEAdaptive, Solution, TorchSDE
from .base import Callback, Sampler, TableSampler
from .catalogue import VIEW_NAMES, Listing, View, ViewName, listing, listings
from .checkpointed import Checkpointed
from .compiled import Captured, Compiled
from .counted import Counted
from .fixed import (
    DDIM,
    DEIS,
    ERSDE,
    PFRK4,
    Adams,
    Ancestral,
    DPMSolver,
    DPMSolverPP,
    EDMStochastic,
    EulerMaruyama,
    Exponential,
    Langevin,
    MeanShift,
    PFEuler,
    PFHeun,
    PredictorCorrector,
    ReverseDiffusion,
    RungeKutta,
    SASolver,
    UniPC,
    er_phi,
    fit_variance,
)
from .law import moments
from .particles import FeynmanKac, Particles, TwistedSMC
from .recommend import Plan, recommended
from .sampling import Recorder, sample
from .table import Row, Table

__all__ = [
    "DDIM",
    "DEIS",
    "ERSDE",
    "PFRK4",
    "VIEW_NAMES",
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
    "Listing",
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
    "View",
    "ViewName",
    "er_phi",
    "fit_variance",
    "listing",
    "listings",
    "moments",
    "recommended",
    "sample",
]

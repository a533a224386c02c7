"""Diffusion models in continuous time: one Gaussian path, walked as a chain, an SDE or an ODE."""

from importlib.metadata import version

from .chain import ChainSDE, DDPMChain
from .denoiser import (
    Affine,
    Denoiser,
    EDMDenoiser,
    EpsDenoiser,
    Given,
    ScoreDenoiser,
    VDenoiser,
    X0Denoiser,
)
from .grids import karras, log_snr, quadratic, uniform
from .mixture import GaussianMixture
from .samplers import (
    DDIM,
    PFRK4,
    Ancestral,
    EulerMaruyama,
    Langevin,
    PFEuler,
    PFHeun,
    PredictorCorrector,
    Recorder,
    ReverseDiffusion,
    fit_variance,
    moments,
    sample,
)
from .sde import SDE, VESDE, VPSDE, CosineVPSDE, KarrasSDE, StraightPath, SubVPSDE

__version__ = version("scoresde")

__all__ = [
    "DDIM",
    "PFRK4",
    "SDE",
    "VESDE",
    "VPSDE",
    "Affine",
    "Ancestral",
    "ChainSDE",
    "CosineVPSDE",
    "DDPMChain",
    "Denoiser",
    "EDMDenoiser",
    "EpsDenoiser",
    "EulerMaruyama",
    "GaussianMixture",
    "Given",
    "KarrasSDE",
    "Langevin",
    "PFEuler",
    "PFHeun",
    "PredictorCorrector",
    "Recorder",
    "ReverseDiffusion",
    "ScoreDenoiser",
    "StraightPath",
    "SubVPSDE",
    "VDenoiser",
    "X0Denoiser",
    "fit_variance",
    "karras",
    "log_snr",
    "moments",
    "quadratic",
    "sample",
    "uniform",
]

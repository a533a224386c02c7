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
from .guidance import ClassifierFree, Guided, classifier_log_prob
from .losses import denoising_loss
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
from .training import fit, fit_classifier, load, load_weights, save

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
    "ClassifierFree",
    "CosineVPSDE",
    "DDPMChain",
    "Denoiser",
    "EDMDenoiser",
    "EpsDenoiser",
    "EulerMaruyama",
    "GaussianMixture",
    "Given",
    "Guided",
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
    "classifier_log_prob",
    "denoising_loss",
    "fit",
    "fit_classifier",
    "fit_variance",
    "karras",
    "load",
    "load_weights",
    "log_snr",
    "moments",
    "quadratic",
    "sample",
    "save",
    "uniform",
]

"""Training, and what it leaves on disk."""

from .classifier import (
    ClassifierFit,
    accuracy,
    fit_classifier,
    load_classifier,
    save_classifier,
)
from .config import (
    DenoiserConfig,
    NetConfig,
    Parametrization,
    Process,
    describe,
    from_json,
    to_json,
)
from .files import load, load_weights, save
from .fitting import Fit, LossByTime, fit
from .paths import fit_paths

__all__ = [
    "ClassifierFit",
    "DenoiserConfig",
    "Fit",
    "LossByTime",
    "NetConfig",
    "Parametrization",
    "Process",
    "accuracy",
    "describe",
    "fit",
    "fit_classifier",
    "fit_paths",
    "from_json",
    "load",
    "load_classifier",
    "load_weights",
    "save",
    "save_classifier",
    "to_json",
]

r"""Guidance: a denoiser tilted towards what is wanted, itself a denoiser.

Multiplying the density at every time by h(x, t)^scale adds to the score,

    score  -> score + scale grad_x log h(x, t),
    x0_hat -> x0_hat + scale sigma^2/alpha grad_x log h(x, t),

so every sampler works with it unchanged. With scale 1 and h = p(y | x_t = x) it is the exact
conditional denoiser (Bayes). With any other scale the tilted densities p_t p(y|x_t)^scale are not
the forward process of any data distribution: what comes out is neither p_0 p(y|x)^scale nor the
same for ODE and SDE. ``samplers.FeynmanKac`` samples the tilted distribution itself, from what
``tilt`` says here.

    Guided, classifier_log_prob, on_denoised      a classifier, an energy, a reward
    ClassifierFree, Rescaled                      two models of one network; autoguidance
    Tempered                                      a power of the density itself

Each wraps a denoiser, so they compose: Guided(ClassifierFree(c, u, 2.0), log_h).

References:
    Dhariwal and Nichol 2021 (arXiv:2105.05233), sec. 4; Ho and Salimans 2022 (arXiv:2207.12598);
    Bradley and Nakkiran 2024 (arXiv:2408.09000): which distribution guidance samples.
"""

from ..tilt import Tilt
from .energy import (
    ClassifierLogProb,
    Guided,
    LogH,
    OnDenoised,
    Reward,
    classifier_log_prob,
    on_denoised,
    tilt_of,
)
from .free import ClassifierFree, Rescaled
from .temperature import Tempered

__all__ = [
    "ClassifierFree",
    "ClassifierLogProb",
    "Guided",
    "LogH",
    "OnDenoised",
    "Rescaled",
    "Reward",
    "Tempered",
    "Tilt",
    "classifier_log_prob",
    "on_denoised",
    "tilt_of",
]

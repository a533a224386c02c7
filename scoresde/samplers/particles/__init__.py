"""Particles with weights: samplers of tilted distributions and posteriors, exact for many."""

from .feynman_kac import FeynmanKac
from .twisted import TwistedSMC
from .weighted import Particles, Weighted

__all__ = ["FeynmanKac", "Particles", "TwistedSMC", "Weighted"]

"""Solvers whose steps follow a tolerance, and torchsde's, under one Brownian path."""

from .bridge import BrownianPath, TorchSDE
from .flow import PFAdaptive
from .sde import SDEAdaptive, Solution

__all__ = ["BrownianPath", "PFAdaptive", "SDEAdaptive", "Solution", "TorchSDE"]

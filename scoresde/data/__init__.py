"""Data: named laws whose truth is known at every time, and the user's own points.

``LAWS`` maps a name to a function of the process that returns the exact law:

>>> from scoresde.sde import VPSDE
>>> LAWS["ring"](VPSDE()).sample(3).shape
torch.Size([3, 2])

``TRAJECTORIES`` maps a name to a family of paths:

>>> TRAJECTORIES["kepler"]()(3).shape
torch.Size([3, 64, 2])
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from .. import distributions
from ..deprecated import moved
from ..distributions import Distribution
from ..sde import SDE
from .checkerboard import checkerboard
from .curves import moons, rings, spiral, swiss_roll
from .gaussians import (
    aniso3,
    gauss,
    gm1,
    gm2,
    grid,
    ring,
    three_modes,
    two_gaussians,
    two_modes,
)
from .points import load_points
from .trajectories import (
    TRAJECTORIES,
    Brownian,
    Chirp,
    DampedOscillator,
    DoublePendulum,
    DoubleWell,
    DrivenOscillator,
    Family,
    GaussianFamily,
    Kepler,
    Labelled,
    Larmor,
    Lissajous,
    OrnsteinUhlenbeck,
    RingDown,
    RunAndTumble,
    Splines,
    ThermalOscillator,
    load_trajectories,
    save_wav,
)

__all__ = [
    "LAWS",
    "TRAJECTORIES",
    "Brownian",
    "Chirp",
    "DampedOscillator",
    "DoublePendulum",
    "DoubleWell",
    "DrivenOscillator",
    "Family",
    "GaussianFamily",
    "Kepler",
    "Labelled",
    "Larmor",
    "Lissajous",
    "OrnsteinUhlenbeck",
    "RingDown",
    "RunAndTumble",
    "Splines",
    "ThermalOscillator",
    "aniso3",
    "checkerboard",
    "gauss",
    "gm1",
    "gm2",
    "grid",
    "load_points",
    "load_trajectories",
    "moons",
    "ring",
    "rings",
    "save_wav",
    "spiral",
    "swiss_roll",
    "three_modes",
    "two_gaussians",
    "two_modes",
]

LAWS: dict[str, Callable[[SDE], Distribution]] = {
    "gm1": gm1,
    "two_modes": two_modes,
    "three_modes": three_modes,
    "gauss": gauss,
    "two_gaussians": two_gaussians,
    "ring": ring,
    "grid": grid,
    "spiral": spiral,
    "two_spirals": lambda sde: spiral(sde, arms=2, turns=1.25),
    "moons": moons,
    "rings": rings,
    "swiss_roll": swiss_roll,
    "checkerboard": checkerboard,
    "gm2": gm2,
    "aniso3": aniso3,
}
"""The distributions of one (the first three) and two dimensions, by name."""

if not TYPE_CHECKING:  # so that a misspelt name still is one to a type checker
    __getattr__ = moved(__name__, Boxes=distributions.Boxes)

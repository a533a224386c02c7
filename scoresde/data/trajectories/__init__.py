"""Trajectories: families of paths (n, L, 2) with physical parameters, and the user's own.

A family is called with a number of paths, and can be given to ``fit`` as it is:

>>> orbits = Kepler(length=32)
>>> orbits(5).shape, orbits.times[-1]
(torch.Size([5, 32, 2]), tensor(1., dtype=torch.float64))

The Gaussian ones know their exact law under every process:

>>> from scoresde.sde import VPSDE
>>> OrnsteinUhlenbeck().law(VPSDE()).event
torch.Size([64, 2])
"""

from .classes import Labelled
from .family import Family, GaussianFamily
from .gaussian import Brownian, OrnsteinUhlenbeck, ThermalOscillator
from .mechanics import Kepler, Larmor
from .oscillators import DampedOscillator, DrivenOscillator, Lissajous
from .pendulum import DoublePendulum
from .recorded import holds_trajectories, load_trajectories, save_wav
from .shapes import RunAndTumble, Splines
from .signals import Chirp, RingDown
from .wells import DoubleWell

__all__ = [
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
    "holds_trajectories",
    "load_trajectories",
    "save_wav",
]

TRAJECTORIES: dict[str, type[Family]] = {
    "brownian": Brownian,
    "ornstein_uhlenbeck": OrnsteinUhlenbeck,
    "thermal_oscillator": ThermalOscillator,
    "lissajous": Lissajous,
    "damped_oscillator": DampedOscillator,
    "driven_oscillator": DrivenOscillator,
    "splines": Splines,
    "kepler": Kepler,
    "larmor": Larmor,
    "double_pendulum": DoublePendulum,
    "double_well": DoubleWell,
    "run_and_tumble": RunAndTumble,
    "ring_down": RingDown,
    "chirp": Chirp,
}
"""The families by name, Gaussian ones first; called without arguments each is at its default."""

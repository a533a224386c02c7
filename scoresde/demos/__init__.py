"""Demonstrations: each a module with a frozen dataclass of options whose ``run`` does the work.

``DEMOS`` maps the name on the command line to that class. A new one is a new module and a line.
"""

from .points import PointsDemo
from .trajectories import TrajectoriesDemo

__all__ = ["DEMOS", "PointsDemo", "TrajectoriesDemo"]

DEMOS = {"points": PointsDemo, "trajectories": TrajectoriesDemo}
"""The class of each demonstration, by its name on the command line."""

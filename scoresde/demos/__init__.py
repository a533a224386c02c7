"""Demonstrations: each a module with a frozen dataclass of options whose ``run`` does the work.

``DEMOS`` maps the name on the command line to that class. A new one is a new module and a line.
"""

from .points import PointsDemo

__all__ = ["DEMOS", "PointsDemo"]

DEMOS = {"points": PointsDemo}

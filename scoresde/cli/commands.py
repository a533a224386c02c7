"""The commands on runs, by name; a new one is a module and a line."""

from .diagnose import Diagnose
from .info import Info
from .judge import Compare, Evaluate
from .lab import Lab
from .sampling import Sample
from .train import Train

__all__ = ["COMMANDS"]

COMMANDS = {
    "train": Train,
    "sample": Sample,
    "compare": Compare,
    "evaluate": Evaluate,
    "diagnose": Diagnose,
    "info": Info,
    "lab": Lab,
}
"""The class of each command."""

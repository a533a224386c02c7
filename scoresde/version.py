"""The version, where a tree that is only copied has it too."""

__version__ = "0.1.0"

"""The version, where a tree that is only copied has it too."""

__all__ = ["__version__"]

__version__ = "0.1.0"

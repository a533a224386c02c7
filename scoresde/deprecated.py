"""Former names of public things: found for one minor version, with a warning."""

import warnings
from collections.abc import Callable
from typing import Any

__all__ = ["moved"]


def moved(module: str, **things: Any) -> Callable[[str], Any]:
    """A module's ``__getattr__`` that answers former names with what they are called today.

        __getattr__ = moved(__name__, OldName=NewName)

    Args:
        module: name of the module.
        things: the object that each former name stands for today.
    """

    def find(name: str) -> object:
        if name not in things:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        thing = things[name]
        place = f"{thing.__module__}.{thing.__qualname__}"
        warnings.warn(f"{module}.{name} is now {place}", DeprecationWarning, stacklevel=2)
        return thing

    return find

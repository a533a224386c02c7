"""Files appear whole or not at all."""

import os
from collections.abc import Callable
from pathlib import Path

__all__ = ["atomically"]


def atomically(path: str | Path, write: Callable[[Path], object]) -> Path:
    """Let ``write`` fill a file beside the path, then put it in its place in one step.

    If writing fails (a full disk, say), an earlier file is left as it was and nothing else
    remains. The folder is made where it is missing.

    Args:
        path: the path of the finished file.
        write: called with the path of the file to fill.

    Returns:
        The path.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write(part)
        with part.open("rb+") as written:
            os.fsync(written.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return path

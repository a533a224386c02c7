"""The user's own points from a file."""

import csv
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["load_points"]

Array = NDArray[Any]


def load_points(path: str | Path, key: str | None = None) -> Tensor:
    """Read points (n, d) from an npy, npz or csv file, as float64.

    A csv file (also .txt, .tsv) may have a header, comment lines beginning with #, and commas,
    semicolons, tabs or spaces between its numbers. Arrays of Python objects are never unpickled.

    Args:
        path: the file; its ending says the format.
        key: which array of an npz file, if it holds several; "x" if it holds one of that name.

    Returns:
        The points, (n, d), in the units of the file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it cannot be read, or is not a table of finite numbers, at least two rows,
            in which every column varies. The message says which row or column.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"expected a file of points, got nothing at {path}")
    try:
        array = read_array(path, key)
        _check(array)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: {error}") from error
    return torch.from_numpy(array.astype(np.float64))


def read_array(path: Path, key: str | None) -> Array:
    """The array of an npy, npz or csv file, as it stands there."""
    match path.suffix.lower():
        case ".npy" | ".npz":
            return _read_numpy(path, key)
        case ".csv" | ".tsv" | ".txt":
            return _read_text(path.read_text(encoding="utf-8-sig"))
    raise ValueError(f"expected a name ending in .npy, .npz or .csv, got {path.suffix!r}")


def _read_numpy(path: Path, key: str | None) -> Array:
    with path.open("rb") as file:
        if path.suffix.lower() == ".npy" and file.read(6) != b"\x93NUMPY":
            raise ValueError("expected an .npy file, got something else: is it text? name it .csv")
        file.seek(0)
        arrays = np.load(file, allow_pickle=False)
        if isinstance(arrays, np.ndarray):
            return arrays
        names = list(arrays)
        if key is None and "x" in names:
            key = "x"
        if key is None and len(names) != 1:
            raise ValueError(
                f"expected one array, got {names}: name the one to read 'x' in "
                "the file, or pass key="
            )
        if key is not None and key not in names:
            raise ValueError(f"expected an array named {key!r}, got {names}")
        array: Array = arrays[key or names[0]]
        return array


def _read_text(text: str) -> Array:
    lines = {i: line for i, line in enumerate(text.splitlines(), 1) if line.split("#")[0].strip()}
    if not lines:
        raise ValueError("expected rows of numbers, got an empty file")
    mark = max("\t;,", key=lambda mark: sum(mark in line for line in lines.values()))
    rows = {i: _fields(line, mark) for i, line in lines.items()}
    first = next(iter(rows))
    if not any(_is_number(field) for field in rows[first]):
        del rows[first]  # a header
    width = len(next(iter(rows.values()), []))
    for i, row in rows.items():
        if len(row) != width:
            raise ValueError(
                f"line {i}: expected {width} numbers as in the rows above, got {len(row)}"
            )
    return np.array([_numbers(i, row) for i, row in rows.items()]).reshape(len(rows), width)


def _fields(line: str, mark: str) -> list[str]:
    return next(csv.reader([line], delimiter=mark)) if mark in line else line.split()


def _numbers(i: int, row: list[str]) -> list[float]:
    for j, field in enumerate(row, 1):
        if not _is_number(field):
            raise ValueError(f"line {i}, column {j}: expected a number such as 1.5, got {field!r}")
    return [float(field) for field in row]


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def _check(array: Array) -> None:
    """Refuse what is no table of finite, varying numbers."""
    if array.dtype.kind not in "iuf":
        raise ValueError(f"expected real numbers, got an array of {array.dtype}")
    if array.ndim != 2:
        raise ValueError(
            f"expected an array (n, d), a row for each point, got shape {array.shape}: reshape it"
        )
    n, d = array.shape
    if n < 2 or d < 1:
        raise ValueError(f"expected at least two points and one column, got shape {array.shape}")
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        i, j = bad[0] + 1
        raise ValueError(
            f"expected finite numbers, got {len(bad)} that are NaN or infinite, the first in "
            f"row {i}, column {j}: remove or repair those rows"
        )
    constant = np.flatnonzero((array == array[0]).all(0)) + 1
    if len(constant):
        raise ValueError(
            f"expected every column to vary, got a single value in column(s) {constant.tolist()}: "
            "remove them, they need no model"
        )

"""The user's own trajectories from a file, and signals to a sound file."""

import re
import wave
import zipfile
from itertools import takewhile
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...files import atomically
from ..points import read_array

__all__ = ["holds_trajectories", "load_trajectories", "save_wav"]

Array = NDArray[Any]
HEADER = ["trajectory", "time"]
Track = tuple[Array, Array]
"""Times (l,) and positions (l, C) of one trajectory."""


def load_trajectories(
    path: str | Path, key: str | None = None, resample: int | None = None
) -> Tensor:
    """Read trajectories (n, L, C) from an npy, npz or csv file, as float64.

    An npy or npz file holds an array (n, L, C), its times equally spaced. A csv file has a row
    for each position and the columns: number of the trajectory, time, x, y (one coordinate or
    more), rows in any order, with or without a header. Its trajectories must share a length and
    equally spaced times (starting whenever they like), unless they are resampled.

    Args:
        path: the file; its ending says the format.
        key: which array of an npz file, if it holds several.
        resample: number of times L onto which each trajectory is interpolated linearly, equally
            spaced over its own duration. Where trajectories last unequally long, this stretches
            time: shape is kept, speed is not.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it cannot be read, or its trajectories do not fit into one tensor of finite
            numbers. The message says which one, and how to mend it.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"expected a file of trajectories, got nothing at {path}")
    if resample is not None and resample < 2:
        raise ValueError(f"expected resample >= 2 times, got {resample}")
    try:
        array = read_array(path, key)
        _check_numbers(array)
        tracks = _from_stack(array) if array.ndim == 3 else _from_table(array, path)
        _check_order(tracks)
        if resample is None:
            _check_ladder(tracks)
        else:
            tracks = {name: _resampled(track, resample) for name, track in tracks.items()}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: {error}") from error
    return torch.from_numpy(np.stack([x for _, x in tracks.values()]))


def holds_trajectories(path: str | Path) -> bool:
    """Whether a file says that it holds trajectories; False for all else.

    An npy or npz file says it by an array (n, L, C), a csv file by a header that begins with
    ``trajectory,time``: without one its rows are points.
    """
    path = Path(path)
    try:
        if path.suffix.lower() in (".npy", ".npz"):
            return read_array(path, None).ndim == 3
        if path.suffix.lower() not in (".csv", ".tsv", ".txt"):
            return False
        with path.open(encoding="utf-8-sig") as file:
            return any(map(_is_header, takewhile(_before_numbers, file)))
    except (ValueError, OSError, EOFError, zipfile.BadZipFile):
        return False  # whoever reads it as points says what is wrong


def write_table(file: IO[bytes], paths: Array, times: Array | None = None) -> None:
    """Write paths (n, L, C) as the csv that ``load_trajectories`` reads, with a header.

    Args:
        file: open for writing.
        paths: in the user's units.
        times: (L,), shared by all; 0, 1, ..., L-1 if not given.
    """
    n, length, channels = paths.shape
    ladder = np.arange(length) if times is None else times
    table = np.c_[
        np.repeat(np.arange(n), length), np.tile(ladder, n), paths.reshape(n * length, channels)
    ]
    names = list("xyz"[:channels]) if channels <= 3 else [f"x{i}" for i in range(1, channels + 1)]
    header = ",".join([*HEADER, *names])
    np.savetxt(file, table, delimiter=",", fmt="%.9g", header=header, comments="")


def save_wav(path: str | Path, signal: Tensor, rate: int) -> Path:
    """Write a signal as a mono wav file of 16 bits, whole or not at all.

    Args:
        path: of the file.
        signal: (L,) or (L, 1), within [-1, 1].
        rate: samples per second; to hear a short signal, repeat it or choose a lower rate.

    Returns:
        The path.
    """
    flat = signal.detach().double().cpu().flatten()
    if flat.numel() == 0 or signal.numel() != len(signal) or not float(flat.abs().max()) <= 1:
        raise ValueError(
            f"expected a signal (L,) or (L, 1) of finite values within [-1, 1], got shape "
            f"{tuple(signal.shape)}: take one signal and divide by signal.abs().max()"
        )
    if rate != int(rate) or rate < 1:
        raise ValueError(f"expected a whole number of samples per second, got {rate}")
    samples = (flat * 32767).round().numpy().astype("<i2")

    def write(part: Path) -> None:
        with wave.open(str(part), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(int(rate))
            file.writeframes(samples.tobytes())

    return atomically(path, write)


def _before_numbers(line: str) -> bool:
    """Whether a line of a csv is blank, a comment or a header."""
    return not re.match(r"\s*[-+.\d]", line)


def _is_header(line: str) -> bool:
    """Whether a line names the columns trajectory, time, ...; also behind # or in quotes."""
    return re.split(r"[,;\s]+", re.sub(r'["#]', " ", line.lower()).strip())[:2] == HEADER


def _from_stack(array: Array) -> dict[float, Track]:
    times = np.arange(array.shape[1], dtype=np.float64)
    return {float(i): (times, x.astype(np.float64)) for i, x in enumerate(array)}


def _from_table(array: Array, path: Path) -> dict[float, Track]:
    """Rows (trajectory, time, x, ...) put together, each trajectory in the order of its times."""
    if path.suffix.lower() in (".npy", ".npz") or array.ndim != 2 or array.shape[1] < 3:
        raise ValueError(
            "expected an array (n, L, C) in npy or npz, or the columns trajectory, time, x, y in "
            f"csv, got shape {array.shape}"
        )
    rows = array[np.lexsort((array[:, 1], array[:, 0]))].astype(np.float64)
    names, first = np.unique(rows[:, 0], return_index=True)
    parts = np.split(rows, first[1:])
    return {float(i): (p[:, 1], p[:, 2:]) for i, p in zip(names, parts, strict=True)}


def _resampled(track: Track, length: int) -> Track:
    times, x = track
    new = np.linspace(times[0], times[-1], length)
    return new, np.stack([np.interp(new, times, column) for column in x.T], 1)


def _check_numbers(array: Array) -> None:
    if array.dtype.kind not in "iuf":
        raise ValueError(f"expected real numbers, got an array of {array.dtype}")
    if array.size == 0:
        raise ValueError(f"expected trajectories, got an array of shape {array.shape}")
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        raise ValueError(
            f"expected finite numbers, got {len(bad)} that are NaN or infinite, the first at "
            f"{tuple((bad[0] + 1).tolist())}, counted from 1: remove or repair those trajectories"
        )


def _check_order(tracks: dict[float, Track]) -> None:
    for name, (times, _) in tracks.items():
        if len(times) < 2:
            raise ValueError(
                f"expected at least two times in each trajectory, got {len(times)} in {name:g}: "
                "leave it out"
            )
        if not (np.diff(times) > 0).all():
            raise ValueError(
                f"expected times that increase, got one twice in trajectory {name:g}: "
                "remove the repeated row"
            )


def _check_ladder(tracks: dict[float, Track]) -> None:
    """Refuse lengths that differ and times that are not equally spaced and shared."""
    names, ladders = list(tracks), [times for times, _ in tracks.values()]
    first, shortest = ladders[0], min(map(len, ladders))
    even = np.linspace(0, first[-1] - first[0], len(first))
    for name, times in zip(names, ladders, strict=True):
        if len(times) != len(first):
            raise ValueError(
                f"expected trajectories of one length, got {len(first)} times in trajectory "
                f"{names[0]:g} and {len(times)} in {name:g}: pass resample={shortest}"
            )
        if np.abs(times - times[0] - even).max() > 1e-3 * even[1]:
            raise ValueError(
                "expected equally spaced times, the same steps in all trajectories, got others "
                f"in trajectory {name:g}: pass resample={len(times)}"
            )

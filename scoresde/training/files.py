"""Denoisers on disk: tensors and plain values, nothing pickled, written whole or not at all.

A file is one dictionary: ``format``, ``config`` (the JSON of a ``DenoiserConfig``, or None) and
``weights`` (a state dict). Checkpoints of ``fit`` add ``training`` and can be loaded alike. What
stands around a network (``torch.compile``, ``DistributedDataParallel``, ``Autocast``) is seen
through: a file holds the network alone, and goes into one that is wrapped or not.
"""

import copy
import io
from pathlib import Path
from typing import Any, cast

import torch

from ..denoiser import Affine, Denoiser
from ..files import atomically
from ..nets import bare
from .config import DenoiserConfig, describe, from_json, to_json

__all__ = ["alone", "load", "load_weights", "read", "save", "write"]

FORMAT = 1


def save(path: str | Path, denoiser: Denoiser, config: DenoiserConfig | None = None) -> None:
    """Write a denoiser to one file, so that ``load`` rebuilds it.

    Args:
        path: of the file; an earlier one stays intact until the new one is complete.
        denoiser: its weights and units are stored, in their dtype.
        config: its recipe; found by ``describe`` if not given. A denoiser that has none (of a
            network of your own) is stored as weights alone, for ``load_weights``.

    Raises:
        OSError: if the file cannot be written; an earlier one is unharmed.
    """
    write(path, pack(denoiser, config))


def load(path: str | Path, device: torch.device | str = "cpu") -> Denoiser:
    """The denoiser that ``save`` or a checkpoint of ``fit`` stored, in evaluation mode.

    Args:
        path: of the file.
        device: where to put it.

    Raises:
        ValueError: if the file is not one of scoresde, is damaged, or holds weights alone.
    """
    stored = read(path, device)
    if stored["config"] is None:
        raise ValueError(
            f"expected a file that holds a denoiser, but {path} holds weights alone (of a network "
            "that is not scoresde's own): build the denoiser, then load_weights(denoiser, path)"
        )
    try:
        config = from_json(DenoiserConfig, stored["config"])
    except ValueError as error:
        raise ValueError(f"cannot read the denoiser in {path}: {error}") from None
    weights = stored["weights"]
    affine = Affine(weights["affine.mean"], weights["affine.scale"]) if config.affine else None
    denoiser = config.build(affine)
    dtype = next(w.dtype for name, w in weights.items() if name.startswith("net."))
    denoiser.net.to(device=device, dtype=dtype)
    _fill(denoiser, weights, path)
    return denoiser.eval()


def load_weights(denoiser: Denoiser, path: str | Path) -> None:
    """Copy stored weights into a denoiser built the same way.

    Raises:
        ValueError: if the file is not one of scoresde, is damaged, or does not fit.
    """
    _fill(denoiser, read(path)["weights"], path)


def _fill(denoiser: Denoiser, weights: dict[str, torch.Tensor], path: str | Path) -> None:
    try:
        alone(denoiser).load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(
            f"expected weights of the same network and units, but those in {path} do not fit: "
            + " ".join(str(error).split())
        ) from None


def alone(denoiser: Denoiser) -> Denoiser:
    """The denoiser around its network alone, with the same weights."""
    denoiser = cast(Denoiser, bare(denoiser))
    net = denoiser._modules.get("net")
    if net is None or bare(net) is net:
        return denoiser
    twin = copy.copy(denoiser)
    twin._modules = {**denoiser._modules, "net": bare(net)}
    return twin


def pack(denoiser: Denoiser, config: DenoiserConfig | None = None) -> dict[str, Any]:
    """What ``save`` writes."""
    denoiser = alone(denoiser)
    if config is None:
        try:
            config = describe(denoiser)
        except TypeError:
            config = None
    recipe = None if config is None else to_json(config)
    return {"format": FORMAT, "config": recipe, "weights": denoiser.state_dict()}


def write(path: str | Path, content: dict[str, Any]) -> None:
    """Write a dictionary of tensors and plain values: whole, or not at all.

    Raises:
        OSError: if it cannot be written (no space, no permission); what was at ``path`` before
            is unharmed.
    """
    buffer = io.BytesIO()
    torch.save(content, buffer)
    try:
        atomically(path, lambda part: part.write_bytes(buffer.getbuffer()))
    except OSError as error:
        raise OSError(
            error.errno, f"could not write {path} ({error.strerror}); an earlier file is unharmed"
        ) from error


def read(path: str | Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """What ``write`` wrote; runs no code from the file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not one of scoresde, or damaged.
    """
    data = Path(path).read_bytes()
    try:
        if not data.startswith(b"PK"):
            raise ValueError("not an archive")
        content = torch.load(io.BytesIO(data), map_location=device, weights_only=True)
    except Exception as error:  # there is no telling what a foreign file provokes
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"expected a file written by scoresde, but {path} is foreign or damaged: {reason}"
        ) from None
    if not (isinstance(content, dict) and {"format", "config", "weights"} <= content.keys()):
        raise ValueError(
            f"expected a file written by scoresde, but {path} holds something else: "
            "weights of a plain network go in by net.load_state_dict(torch.load(path))"
        )
    if content["format"] != FORMAT:
        raise ValueError(
            f"expected {path} to have format {FORMAT}, got {content['format']}: "
            "it was written by another version of scoresde"
        )
    return content

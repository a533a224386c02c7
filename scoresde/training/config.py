"""What a denoiser is made of, as one tree of frozen dataclasses, and that tree as JSON.

    DenoiserConfig(process=VPSDE(0.1, 20.0), net=MLPConfig(dim=2), parametrization="eps")

A process describes itself; a network carries its recipe as ``net.config``, a frozen dataclass
with ``build()``. A new kind of either is one more member of the union below, nothing else.
"""

import json
import types
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from ..chain import ChainSDE
from ..denoiser import (
    Affine,
    Denoiser,
    EDMDenoiser,
    EpsDenoiser,
    ScoreDenoiser,
    VDenoiser,
    X0Denoiser,
)
from ..nets import ConcatMLPConfig, MLPConfig, TransformerConfig, UNet1dConfig
from ..sde import VESDE, VPSDE, CosineVPSDE, KarrasSDE, StraightPath, SubVPSDE

__all__ = [
    "DenoiserConfig",
    "NetConfig",
    "Parametrization",
    "Process",
    "describe",
    "from_json",
    "to_json",
]

Process = VPSDE | CosineVPSDE | SubVPSDE | VESDE | KarrasSDE | StraightPath | ChainSDE
"""The processes that can be stored."""
NetConfig = MLPConfig | ConcatMLPConfig | UNet1dConfig | TransformerConfig
"""The recipes of networks that can be stored."""
Parametrization = Literal["eps", "x0", "v", "score", "edm"]
"""What the network predicts."""

DENOISERS: dict[
    Parametrization, type[EpsDenoiser | X0Denoiser | VDenoiser | ScoreDenoiser | EDMDenoiser]
] = {
    "eps": EpsDenoiser,
    "x0": X0Denoiser,
    "v": VDenoiser,
    "score": ScoreDenoiser,
    "edm": EDMDenoiser,
}


@dataclass(frozen=True)
class DenoiserConfig:
    """A denoiser but for its weights.

    Args:
        process: the SDE.
        net: the recipe of the network.
        parametrization: what the network predicts.
        sigma_data: standard deviation of the data, for "edm" alone.
        affine: whether an ``Affine`` map to the user's units is stored with the weights.
        format: number of this layout.
    """

    process: Process
    net: NetConfig
    parametrization: Parametrization = "eps"
    sigma_data: float = 1.0
    affine: bool = False
    format: int = 1

    def build(self, affine: Affine | None = None) -> Denoiser:
        """A denoiser with fresh weights, and the given units."""
        kind, net = DENOISERS[self.parametrization], self.net.build()
        if issubclass(kind, EDMDenoiser):
            return kind(net, self.process, affine, self.sigma_data)
        return kind(net, self.process, affine)


def describe(denoiser: Denoiser) -> DenoiserConfig:
    """The recipe of a denoiser.

    Raises:
        TypeError: if its class, process or network is not among those that can be stored.
    """
    sde, net = denoiser.sde, getattr(denoiser, "net", None)
    recipe = getattr(net, "config", None)
    kinds = [name for name, kind in DENOISERS.items() if type(denoiser) is kind]
    if not (kinds and isinstance(sde, Process) and isinstance(recipe, NetConfig)):
        raise TypeError(
            "expected a denoiser of a process and a network that can be stored, got "
            f"{type(denoiser).__name__} of {type(sde).__name__} and {type(net).__name__}: "
            "see scoresde.training.config, or store the weights alone and rebuild the rest"
        )
    sigma_data = denoiser.sigma_data if isinstance(denoiser, EDMDenoiser) else 1.0
    return DenoiserConfig(sde, recipe, kinds[0], sigma_data, denoiser.affine is not None)


_T = TypeVar("_T")


def to_json(tree: object) -> str:
    """A tree of frozen dataclasses as JSON; each carries the name of its class as "type"."""
    return json.dumps(_encode(tree), indent=2)


def from_json(kind: type[_T], text: str) -> _T:
    """The tree of dataclass ``kind`` that ``to_json`` wrote.

    Raises:
        ValueError: naming the entry that is missing, unknown, of the wrong type or too new.
    """
    try:
        raw = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"expected JSON written by scoresde, got other text: {error}") from None
    return cast(_T, _decode(kind, raw, kind.__name__))


def _encode(value: object) -> object:
    if is_dataclass(value):
        entries = {f.name: _encode(getattr(value, f.name)) for f in fields(value) if f.init}
        return {"type": type(value).__name__, **entries}
    if isinstance(value, tuple | list):
        return [_encode(item) for item in value]
    return value


def _decode(hint: object, raw: object, where: str) -> object:
    """The value of type ``hint`` that ``raw`` stands for; ``where`` names it in errors."""
    if isinstance(hint, type) and is_dataclass(hint):
        return _decode_dataclass(hint, raw, where)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _decode(_member(arguments, raw, where), raw, where)
    if origin is Literal and raw in arguments:
        return raw
    if origin in (tuple, list) and isinstance(raw, list):
        items = [_decode(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(raw)]
        return items if origin is list else tuple(items)
    if hint is float and type(raw) is int:
        return float(raw)
    if hint is type(raw):
        return raw
    raise ValueError(f"expected {where} to be {_name(hint)}, got {raw!r}")


def _decode_dataclass(kind: type, raw: object, where: str) -> object:
    if not isinstance(raw, dict) or raw.get("type") != kind.__name__:
        got = raw.get("type") if isinstance(raw, dict) else raw
        raise ValueError(f"expected {where} to be a {kind.__name__}, got {got!r}")
    known = {f.name: f for f in fields(kind) if f.init}
    entries = {name: value for name, value in raw.items() if name != "type"}
    if "format" in known and entries.get("format") != known["format"].default:
        raise ValueError(
            f"expected {where} of format {known['format'].default}, got {entries.get('format')}: "
            "it was written by another version of scoresde"
        )
    needed = [n for n, f in known.items() if f.default is f.default_factory is MISSING]
    missing = [n for n in needed if n not in entries]
    unknown = [n for n in entries if n not in known]
    if missing or unknown:
        raise ValueError(f"expected all of {where}: missing {missing}, not known {unknown}")
    hints = get_type_hints(kind)
    return kind(**{n: _decode(hints[n], v, f"{where}.{n}") for n, v in entries.items()})


def _member(members: tuple[object, ...], raw: object, where: str) -> object:
    """The member of a union that ``raw`` says it is."""
    got = raw.get("type") if isinstance(raw, dict) else type(raw).__name__
    for member in members:
        if got == _name(member) or (member is float and got == "int"):
            return member
    names = ", ".join(_name(member) for member in members)
    raise ValueError(f"expected {where} to be one of {names}, got {got!r}")


def _name(hint: object) -> str:
    """Of a class, its own; of Literal["a", "b"] and the like, as they are written."""
    return hint.__name__ if isinstance(hint, type) else str(hint)

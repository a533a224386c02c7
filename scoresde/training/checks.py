"""What ``fit`` and ``fit_classifier`` refuse at the door: one sentence each."""

import operator

import torch
from torch import Tensor, nn

from ..denoiser import Denoiser, VDenoiser
from ..losses import Times, Weight, v_weight
from ..sde import SDE
from .config import NetConfig

__all__ = [
    "check_counts",
    "check_denoiser",
    "check_module",
    "check_process",
    "check_recipe",
    "check_seed",
    "check_times",
    "check_weight",
    "is_whole",
]

LOOK = 65536
"""Times drawn for a look: stratified ones come close to both ends."""


def is_whole(value: object) -> bool:
    """Whether it is a whole number, of Python or numpy (a truth value is none)."""
    return hasattr(value, "__index__") and not isinstance(value, bool | Tensor)


def check_counts(**counts: int) -> None:
    """Refuse what is not a positive whole number."""
    for name, count in counts.items():
        if not (is_whole(count) and count >= 1):
            raise ValueError(f"expected {name} to be a positive integer, got {count!r}")


def check_seed(seed: int) -> int:
    """The seed as Python's own number."""
    if not (is_whole(seed) and -(2**63) <= seed < 2**64):
        raise ValueError(f"expected seed to be an integer of 64 bits, got {seed!r}")
    return operator.index(seed)


def check_denoiser(denoiser: Denoiser) -> None:
    """Refuse what is no denoiser of a process: a bare network, a class."""
    if not isinstance(denoiser, Denoiser):
        raise TypeError(
            f"expected a denoiser, got {_what(denoiser)}: say what the network predicts and for "
            "which process, as EpsDenoiser(net, VPSDE()) does"
        )
    check_process(denoiser.sde)
    if isinstance(getattr(denoiser, "net", None), type):
        raise TypeError(f"expected a denoiser of a network, got one of {_what(denoiser.net)}")


def check_module(net: nn.Module) -> None:
    """Refuse what is no network."""
    if not isinstance(net, nn.Module):
        raise TypeError(f"expected a network, an nn.Module, got {_what(net)}")


def check_process(sde: SDE) -> None:
    """Refuse what is no process."""
    if not isinstance(sde, SDE):
        raise TypeError(f"expected a process, such as VPSDE(), got {_what(sde)}")


def check_recipe(net: NetConfig) -> None:
    """Refuse what is no recipe of a network: a network, a class."""
    if isinstance(net, type) or not hasattr(net, "build"):
        raise TypeError(f"expected a recipe, such as UNet1dConfig(2), got {_what(net)}")


def check_times(times: Times, latest: float, like: Tensor) -> Tensor:
    """The times of a large batch, once they are (n,) numbers in [0, latest].

    They are drawn from numbers of their own: the run does not notice.
    """
    if not callable(times) or isinstance(times, type):
        raise TypeError(f"expected times such as UniformTimes(), got {_what(times)}")
    generator = torch.Generator(like.device).manual_seed(0)
    with torch.random.fork_rng([like.device] if like.is_cuda else []):
        t = times(LOOK, generator, like.device, like.dtype)
    if t.shape != (LOOK,):
        raise ValueError(
            f"expected times(n, ...) to draw (n,), one for each sample, got {tuple(t.shape)} for "
            f"n = {LOOK}"
        )
    low, high = float(t.min()), float(t.max())
    if not (low >= 0 and high <= latest + 1e-6):  # as exactly as float32 can say it
        raise ValueError(f"expected times in [0, {latest:.6g}], got {low:.6g} to {high:.6g}")
    return t


def check_weight(denoiser: Denoiser, weight: Weight, t: Tensor) -> None:
    """Refuse a weight that is not finite, and times where the loss says nothing about x0."""
    if not callable(weight) or isinstance(weight, type):
        raise TypeError(f"expected a weight (sde, t) -> (n,), such as edm(), got {_what(weight)}")
    sde, of_v = denoiser.sde, isinstance(denoiser, VDenoiser)
    last = float(t.max())
    if last > sde.t_max + 1e-6 and not of_v:
        raise ValueError(
            f"expected times up to t_max = {sde.t_max:.6g} of {sde}, got {last:.6g}: beyond it "
            "alpha falls to 0, x is noise alone, and its eps says nothing about x0. Stop at "
            "t_max, or predict v (VDenoiser)"
        )
    values = weight(sde, t)
    finite = values.isfinite()
    if not finite.all() and not (of_v and weight is v_weight):
        k = int(finite.expand_as(t).byte().argmin())
        raise ValueError(
            f"expected a weight that is finite at all times, got {values.expand_as(t)[k]} at "
            f"t = {t[k]:.6g}: stop earlier, or take another (the v_weight of a VDenoiser is the "
            "plain error of v, finite where alpha = 0)"
        )


def _what(value: object) -> str:
    """What a thing is, in an error."""
    if isinstance(value, type):
        return f"the class {value.__name__}: make one, {value.__name__}(...)"
    return type(value).__name__

"""Seeing through what stands around a network: torch.compile, data parallelism, autocast."""

from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from .precision import Autocast

__all__ = ["bare"]


def bare(net: nn.Module) -> nn.Module:
    """The network within ``torch.compile``, ``DistributedDataParallel`` and ``Autocast``."""
    inner = getattr(net, "_orig_mod", None)  # torch.compile's name for it
    if isinstance(net, DataParallel | DistributedDataParallel):
        inner = net.module
    elif isinstance(net, Autocast):
        inner = net.net
    return bare(inner) if isinstance(inner, nn.Module) else net

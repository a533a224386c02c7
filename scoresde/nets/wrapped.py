"""Seeing through what stands around a network: torch.compile, data parallelism, autocast."""

from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from .precision import Autocast

__all__ = ["bare", "unwrapped"]


def unwrapped(net: nn.Module) -> nn.Module:
    """The network within ``torch.compile``, ``DistributedDataParallel`` and ``DataParallel``."""
    inner = getattr(net, "_orig_mod", None)  # torch.compile's name for it
    if isinstance(net, DataParallel | DistributedDataParallel):
        inner = net.module
    return unwrapped(inner) if isinstance(inner, nn.Module) else net


def bare(net: nn.Module) -> nn.Module:
    """The network alone: without ``Autocast``, too."""
    net = unwrapped(net)
    return bare(net.net) if isinstance(net, Autocast) else net

"""Where a tensor lives: a mark on its storage; and the log of what makes the host wait."""

import collections
import os
import sys
import warnings

import torch

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
PACKAGE = f"{os.sep}scoresde{os.sep}"
HERE = os.path.dirname(__file__)
TESTS = os.path.dirname(HERE) + os.sep


class State:
    """What the emulated device knows."""

    def __init__(self):
        self.log = collections.Counter()  # (kind, what, where) -> times
        self.sync_debug = 0
        self.warned = False  # of the prototype, once a process
        self.capturing = None  # the graph being recorded
        self.target = None  # device of the factory in progress
        self.generator = None  # that of the call in progress
        self.captures = 0


STATE = State()


def parse(device):
    """cuda is cuda:0, an integer a CUDA device."""
    found = torch.device("cuda", device) if isinstance(device, int) else torch.device(device)
    return CUDA if found.type == "cuda" else found


def storage(tensor):
    """The storage below torch.func's wrappers; None where there is none."""
    functorch = torch._C._functorch
    while functorch.is_functorch_wrapped_tensor(tensor):
        tensor = functorch.get_unwrapped(tensor)
    try:
        return tensor.untyped_storage()
    except (NotImplementedError, RuntimeError):
        return None


def home(tensor):
    """The device that a tensor is to live on."""
    return getattr(storage(tensor), "_emulated", CPU)


def mark(tree, device):
    """Let the tensors of a tree live on a device; returns the tree."""
    for tensor in tensors(tree):
        at = storage(tensor)
        if at is None:
            continue
        if device.type == "cuda":
            at._emulated = device
        elif hasattr(at, "_emulated"):
            del at._emulated
    return tree


def tensors(tree):
    """The tensors in nested tuples, lists and dictionaries (pytrees do it ten times slower)."""
    if isinstance(tree, tuple | list):
        return [tensor for node in tree for tensor in tensors(node)]
    if isinstance(tree, dict):
        return tensors(tuple(tree.values()))
    return [tree] if isinstance(tree, torch.Tensor) else []


def neutral(tensor):
    """Forward mode's zeros, made in C++ on the true device, and what follows from them alone."""
    expanded = tensor.numel() > 1 and not any(tensor.stride())
    return tensor._is_zerotensor() or expanded or getattr(storage(tensor), "_neutral", False)


def line():
    """The innermost line of the package under test, else of whatever is not torch."""
    frame, other = sys._getframe(1), None
    while frame is not None:
        name = frame.f_code.co_filename
        if PACKAGE in name and not name.startswith(TESTS):
            return f"{name.split(PACKAGE, 1)[1]}:{frame.f_lineno}"
        ours = name.startswith(HERE) or f"{os.sep}torch{os.sep}" in name or name.startswith("<")
        if other is None and not ours:
            other = f"({os.path.basename(name)}:{frame.f_lineno})"
        frame = frame.f_back
    return other or "?"


def note(kind, what):
    """Log an event under the line that caused it."""
    STATE.log[kind, what, line()] += 1


def waits(what):
    """The host waits for the device here: logged, and refused where that was asked for."""
    note("wait", what)
    if STATE.capturing is not None:
        raise RuntimeError(f"CUDA error: not permitted when stream is capturing ({what})")
    if STATE.sync_debug == 2:
        raise RuntimeError(f"called a synchronizing CUDA operation ({what} at {line()})")
    if STATE.sync_debug == 1:
        warnings.warn(f"called a synchronizing CUDA operation ({what})", stacklevel=3)


def from_host(what, blocking):
    """A copy from pageable host memory, for which a blocking call waits."""
    note("copy", what)
    if STATE.capturing is not None:
        raise RuntimeError(f"CUDA error: host memory read while capturing ({what} at {line()})")
    if blocking:
        waits(what)


def counts(kind):
    """How often an event of a kind ("wait", "copy", "scalar", "race") was logged, by line."""
    found = collections.Counter()
    for (own, _, at), times in STATE.log.items():
        if own == kind:
            found[at] += times
    return found

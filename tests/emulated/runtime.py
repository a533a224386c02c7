"""torch.cuda as seen from Python: generators, streams, graphs; switching the device on and off."""

import contextlib
import time
import warnings

import torch
from torch.utils._python_dispatch import _disable_current_modes

from .marks import CUDA, STATE, home, line, parse, tensors, waits
from .moves import Moves
from .operations import Operations


class Generator(torch._C.Generator):
    """A generator of a device; its numbers are those of the CPU's."""

    def __new__(cls, device="cpu"):
        made = super().__new__(cls, "cpu")
        made._emulated = parse(device)
        return made

    def __init__(self, device="cpu"):
        pass

    @property
    def device(self):
        return self._emulated


class Stream:
    """One that does everything at once."""

    def __init__(self, device=None, priority=0, **_):
        self.device = CUDA

    def wait_stream(self, other): ...

    def wait_event(self, event): ...

    def synchronize(self):
        waits("Stream.synchronize")

    def record_event(self, event=None):
        return event or Event()

    def query(self):
        return True


class Event:
    """A point in time."""

    def __init__(self, *_, **__): ...

    def record(self, stream=None):
        self.at = time.perf_counter()

    def synchronize(self):
        waits("Event.synchronize")

    def elapsed_time(self, other):
        return 1e3 * (other.at - self.at)

    def wait(self, stream=None): ...


class CUDAGraph:
    """Operations in the order in which they were recorded, and what they read and wrote."""

    def __init__(self, keep_graph=False):
        self.operations, self.generators = [], []

    def register_generator_state(self, generator):
        self.generators.append(generator)

    def replay(self):
        with torch.inference_mode(), _disable_current_modes():
            for func, args, kwargs, out in self.operations:
                again = func(*args, **kwargs)
                for was, now in zip(tensors(out), tensors(again), strict=True):
                    if was.data_ptr() != now.data_ptr():
                        was.copy_(now)

    def reset(self):
        self.operations = []

    def pool(self):
        return (0, 1)


@contextlib.contextmanager
def graph(recorded, pool=None, stream=None, capture_error_mode="global"):
    """Record within. The generator's state is made here: in inference mode it would be spoilt."""
    if torch.is_inference_mode_enabled():
        raise RuntimeError(
            f"captured in inference mode (at {line()}): the generator's state becomes an "
            "inference tensor, and the next capture outside of it fails"
        )
    STATE.capturing, STATE.captures = recorded, STATE.captures + 1
    try:
        yield
    finally:
        STATE.capturing = None


def set_sync_debug_mode(mode):
    """Let waits pass, warn or raise."""
    STATE.sync_debug = {"default": 0, "warn": 1, "error": 2}.get(mode, mode)
    if not STATE.warned:
        STATE.warned = True
        warnings.warn(  # as torch/csrc/cuda/Module.cpp does
            "Synchronization debug mode is a prototype feature and does not yet detect all "
            "synchronizing operations",
            stacklevel=2,
        )


def synchronize(device=None):
    """Allowed under sync debug, not while capturing."""
    if STATE.capturing is not None:
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing")


class Properties:
    """Of a card that is not there."""

    name, total_memory, multi_processor_count, major, minor = "Emulated", 80 * 2**30, 132, 9, 0


NOTHING = lambda *a, **k: None
PATCHES = {
    "is_available": lambda: True, "is_initialized": lambda: True, "device_count": lambda: 1,
    "current_device": lambda: 0, "get_device_name": lambda d=None: "Emulated",
    "get_device_capability": lambda d=None: (9, 0),
    "get_device_properties": lambda d=None: Properties,
    "is_bf16_supported": lambda *a, **k: True, "mem_get_info": lambda d=None: (80 * 2**30,) * 2,
    "max_memory_allocated": lambda d=None: 0, "memory_allocated": lambda d=None: 0,
    "manual_seed_all": lambda seed: STATE.default.manual_seed(seed),
    "get_rng_state": lambda d=None: STATE.default.get_state(),
    "set_rng_state": lambda s, d=None: STATE.default.set_state(s),
    "get_rng_state_all": lambda: [STATE.default.get_state()],
    "set_rng_state_all": lambda s: STATE.default.set_state(s[0]),
    "Stream": Stream, "Event": Event, "CUDAGraph": CUDAGraph, "graph": graph,
    "current_stream": lambda d=None: Stream(), "default_stream": lambda d=None: Stream(),
    "stream": lambda s: contextlib.nullcontext(), "synchronize": synchronize,
    "set_sync_debug_mode": set_sync_debug_mode, "get_sync_debug_mode": lambda: STATE.sync_debug,
    "is_current_stream_capturing": lambda: STATE.capturing is not None,
    "set_device": NOTHING, "_lazy_init": NOTHING, "init": NOTHING, "empty_cache": NOTHING,
    "manual_seed": NOTHING, "seed_all": NOTHING, "reset_peak_memory_stats": NOTHING,
}  # fmt: skip


def _loading(load):
    def loading(file, map_location=None, **kwargs):
        found = load(file, map_location="cpu", **kwargs)
        if map_location is None or parse(map_location).type == "cpu":
            return found
        there = lambda leaf: leaf.cuda() if isinstance(leaf, torch.Tensor) else leaf
        return torch.utils._pytree.tree_map(there, found)

    return loading


class Autocast(torch.autocast):
    """That of the host, where cuda is asked for."""

    def __init__(self, device_type, *args, **kwargs):
        super().__init__("cpu" if device_type == "cuda" else device_type, *args, **kwargs)


def _grouped(group):
    """torch's grouping of tensors for its foreach functions is in C++, by the true device."""

    def grouped(*args, **kwargs):
        found = {}
        for (_, dtype), (lists, indices) in group(*args, **kwargs).items():
            for j in range(len(lists[0])):
                at = home(next(one[j] for one in lists if one and one[j] is not None))
                mine, own = found.setdefault((at, dtype), ([[] for _ in lists], []))
                own.extend(indices[j : j + 1])
                for kept, one in zip(mine, lists, strict=True):
                    kept.extend(one[j : j + 1])
        return found

    return grouped


class _Installed:
    """What is to be undone."""

    def __init__(self):
        self.stack = contextlib.ExitStack()
        self.stack.enter_context(_patched())
        STATE.default = Generator("cuda").manual_seed(0)
        self.stack.enter_context(Operations())
        self.stack.enter_context(Moves())


@contextlib.contextmanager
def _patched():
    import torch._dynamo  # it lists torch's functions when it is imported: before they change

    eager = lambda f=None, **_: f if f is not None else (lambda g: g)
    patches = {(torch.cuda, name): value for name, value in PATCHES.items()}
    patches |= {(torch, "Generator"): Generator, (torch, "compile"): eager}
    patches |= {(torch, "load"): _loading(torch.load), (torch, "autocast"): Autocast}
    name = "_group_tensors_by_device_and_dtype"
    patches[torch._C, name] = _grouped(getattr(torch._C, name))
    were = {key: getattr(*key) for key in patches}
    try:
        for (owner, name), value in patches.items():
            setattr(owner, name, value)
        yield
    finally:
        for (owner, name), value in were.items():
            setattr(owner, name, value)


_installed = []


def install():
    """A CUDA device is there from now on."""
    if not _installed:
        _installed.append(_Installed())


def uninstall():
    """It is gone."""
    while _installed:
        _installed.pop().stack.close()
    STATE.sync_debug, STATE.capturing, STATE.target = 0, None, None
    STATE.log.clear()


@contextlib.contextmanager
def device():
    """A CUDA device within; gives the state, whose log says where the host waited."""
    install()
    try:
        yield STATE
    finally:
        uninstall()

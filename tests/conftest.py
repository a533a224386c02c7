"""What every test stands on: float64, one thread, its own seed, and no trace left behind."""

import json
import os
import random
import re
from contextlib import contextmanager
from dataclasses import is_dataclass
from pathlib import Path

os.environ["MPLBACKEND"] = "Agg"  # before anything imports matplotlib

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

import emulated

torch.set_num_threads(1)
settings.register_profile(
    "strict",
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # ours hold for all examples
)
settings.load_profile("strict")

aten = torch.ops.aten


def pytest_collection_modifyitems(items):
    """Skip what only a real GPU can show where there is none."""
    if not torch.cuda.is_available():
        skip = pytest.mark.skip(reason="needs a real CUDA device")
        for item in items:
            if item.get_closest_marker("real_gpu"):
                item.add_marker(skip)


def pytest_make_parametrize_id(val):
    """Name functions without their addresses: all workers must find the same tests."""
    if is_dataclass(val) or callable(val):
        return re.sub(r"<function |<locals>\.| at 0x[0-9a-f]+>", "", str(val))
    return None


@pytest.fixture(autouse=True)
def cuda(request):
    """Give a test marked `gpu` its device: a real one, or else the emulated one."""
    if request.node.get_closest_marker("gpu") and not torch.cuda.is_available():
        with emulated.device():
            yield
    else:
        yield


@pytest.fixture
def no_waiting():
    """Give the context manager `with no_waiting(): ...`, in which a wait for the device raises."""

    @contextmanager
    def refused():
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")

    return refused


@pytest.fixture(autouse=True)
def clean_state(cuda):
    """Default to float64, seed every generator, and put everything back afterwards."""
    dtype, numpy_state, python_state = (
        torch.get_default_dtype(),
        np.random.get_state(),
        random.getstate(),
    )
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(0)
        np.random.seed(0)
        random.seed(0)
        torch.set_default_dtype(torch.float64)
        yield
    torch.set_default_dtype(dtype)
    np.random.set_state(numpy_state)
    random.setstate(python_state)


@pytest.fixture
def float32(clean_state):
    """Let a test run in float32, the default of its users."""
    torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="session")
def reference():
    """Give the independently computed numbers, by name: reference["P01"]["expected"]."""
    path = Path(__file__).parent / "reference" / "public.json"
    return {item["id"]: item for item in json.loads(path.read_text(encoding="utf-8"))["items"]}


class NoSync(TorchDispatchMode):
    """Refuse every operation that would make the host wait for the device.

    With tensors given, only reading them, or what was computed from them, is refused:
    they stand for what lives on the device, and the rest (a time grid) for the host.
    `tolist` and `numpy` on the CPU do not pass the dispatcher and are not seen.
    """

    READS = (
        aten._local_scalar_dense,  # item(), float(), bool(), if
        aten.is_nonzero,
        aten.equal,
        aten.allclose,
        aten.nonzero,
        aten.masked_select,
        aten.unique_dim,
        aten._unique2,
        aten.unique_consecutive,
    )

    def __init__(self, *on_device):
        super().__init__()
        self.all = not on_device
        self.on_device = WeakTensorKeyDictionary()
        self._mark(on_device)

    def _mark(self, tree):
        for leaf in tree_leaves(tree):
            if isinstance(leaf, torch.Tensor):
                self.on_device[leaf] = True

    def _is_on_device(self, tree):
        tensors = [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]
        return self.all or any(t in self.on_device for t in tensors)

    def _waits(self, func, args):
        packet = func.overloadpacket
        if packet in (aten.index, aten.index_put, aten.index_put_):
            return any(i is not None and i.dtype == torch.bool for i in args[1])
        if packet is aten.repeat_interleave:
            return True  # unless the size of its output is given, it reads the counts
        return packet in self.READS

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if not self._is_on_device((args, kwargs)):
            return func(*args, **kwargs)
        if self._waits(func, args):
            raise AssertionError(f"{func} makes the host wait for the device")
        out = func(*args, **kwargs)
        self._mark(out)
        if func._schema.is_mutable:
            self._mark((args, kwargs))
        return out


@pytest.fixture
def no_sync():
    """Give the context manager `with no_sync(x): ...`, see NoSync."""
    return NoSync

"""The rules of single operations: one device each, a CUDA kernel for each, and who waits."""

import functools
import os

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from .marks import (
    CPU,
    CUDA,
    STATE,
    from_host,
    home,
    line,
    mark,
    neutral,
    note,
    storage,
    tensors,
    waits,
)

aten = torch.ops.aten
READS = {
    aten._local_scalar_dense, aten.is_nonzero, aten.equal, aten.allclose, aten.nonzero,
    aten.masked_select, aten.unique_dim, aten._unique2, aten.unique_consecutive, aten.bincount,
    aten._linalg_check_errors, aten.linalg_eig, aten.nonzero_numpy, aten.histc,
    aten._linalg_eigh, aten.linalg_lstsq, aten._linalg_svd,  # cusolver or magma, and checks
}  # fmt: skip
MIXES = {  # take tensors of several devices
    aten.copy_, aten._to_copy, aten.set_, aten.resize_as_, aten.fill_, aten.masked_fill,
    aten.masked_fill_, aten.index_fill, aten.index_fill_, aten.lift_fresh, aten._copy_from,
}  # fmt: skip
SCALARS = {aten.where, aten.clamp, aten.clamp_min, aten.clamp_max, aten.lerp, aten.lerp_}
INDEXING = {aten.index, aten.index_put, aten.index_put_}
RANDOM = {aten.native_dropout, aten.bernoulli}


class Operations(TorchDispatchMode):
    """Every operation below autograd passes here."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        given = tensors((args, kwargs))
        there = any(home(t) is not CPU for t in given)
        at = STATE.target or (CUDA if there else CPU)
        if there:
            at = self._check(func, args, kwargs, given, at)
        if "generator" in _names(func) or func.overloadpacket in RANDOM:
            kwargs = _with_generator(func, args, kwargs, at)
        out = func(*args, **kwargs)
        if at.type == "cuda":
            mark(out, at)
            if STATE.capturing is not None:
                STATE.capturing.operations.append((func, args, kwargs, out))
        elif given and all(map(neutral, given)):
            for tensor in tensors(out):
                if (kept := storage(tensor)) is not None:
                    kept._neutral = True
        return out

    def _check(self, func, args, kwargs, given, at):
        """Refuse what CUDA refuses, log what waits; returns the device of the result."""
        packet = func.overloadpacket
        here = [t for t in given if home(t) is CPU and not neutral(t)]
        if here and packet not in MIXES:
            _mixing(func, args, here)
        if packet in (aten.copy_, aten._to_copy) and STATE.target is None:
            at = home(args[0])
            if packet is aten.copy_ and here:
                blocking = not (args[2] if len(args) > 2 else kwargs.get("non_blocking"))
                if at.type == "cuda":
                    from_host("copy_ to the device", blocking)
                else:
                    waits("copy_ to the host")
        if packet in READS:
            waits(str(packet).removeprefix("aten."))
        if packet in INDEXING:
            _indices(packet, args)
        if packet is aten.repeat_interleave and not kwargs.get("output_size") and len(args) < 3:
            waits("repeat_interleave")
        if no_cuda_kernel(func):
            raise NotImplementedError(f"{func} has no CUDA kernel (at {line()})")
        return at


@functools.cache
def _names(func):
    return [argument.name for argument in func._schema.arguments]


def _mixing(func, args, here):
    """Refuse tensors of the host among those of the device, but for the exceptions of CUDA."""
    packet = func.overloadpacket
    on_device = isinstance(args[0], torch.Tensor) and home(args[0]).type == "cuda"
    scalars = all(t.ndim == 0 for t in here)
    if packet in INDEXING:
        indices = {id(i) for i in args[1] if i is not None}
        rest = [t for t in here if id(t) not in indices]
        if on_device and all(t.ndim == 0 for t in rest):
            return
    elif scalars and (torch.Tag.pointwise in func.tags or packet in SCALARS):
        if on_device or not func._schema.is_mutable:  # a () of the host is a number to a kernel
            if packet in SCALARS:
                note("scalar", str(packet))
            return
    raise RuntimeError(
        "Expected all tensors to be on the same device, but found at least two devices, cuda:0 "
        f"and cpu! ({func}: on the cpu {[tuple(t.shape) for t in here]}, at {line()})"
    )


def _indices(packet, args):
    for index in args[1]:
        if index is None:
            continue
        filled = packet is not aten.index and args[2].ndim == 0  # a masked fill does not count
        if index.dtype == torch.bool and not filled:
            waits(f"{packet} by a mask".removeprefix("aten."))
        elif home(index).type == "cpu":
            from_host("indices on the host", True)


def _with_generator(func, args, kwargs, at):
    """The arguments, with the device's own generator where none is given; or an error."""
    names = _names(func)
    generator = kwargs.get("generator")
    if generator is None and "generator" in names and len(args) > names.index("generator"):
        generator = args[names.index("generator")]
    if generator is None:
        if at.type == "cuda" and "generator" in names and func.overloadpacket not in RANDOM:
            kwargs["generator"] = STATE.default
        return kwargs
    generator = STATE.generator or generator  # C++ hands on another object
    own = getattr(generator, "_emulated", CPU)
    if own.type != at.type:
        raise RuntimeError(
            f"Expected a '{at.type}' device type for generator but found '{own.type}' "
            f"(at {line()})"
        )
    captured = STATE.capturing is not None and generator is not STATE.default
    if captured and generator not in STATE.capturing.generators:
        raise RuntimeError("generator is not registered with the graph being captured")
    return kwargs


@functools.cache
def no_cuda_kernel(func):
    """Whether the CPU has a kernel of its own and CUDA has none."""
    schema = func._schema
    if "for_cpu" in schema.name:  # chosen inside a composite by the true device
        return False
    name = schema.name + (f".{schema.overload_name}" if schema.overload_name else "")
    if not name.startswith("aten::"):
        return False
    if torch.version.cuda:
        composite = ("", "NonFunctional")
        keys = ["CUDA", "CompositeImplicitAutograd"]
        keys += [f"CompositeExplicitAutograd{kind}" for kind in composite]
        return not any(torch._C._dispatch_has_kernel_for_dispatch_key(name, k) for k in keys)
    return name.removeprefix("aten::") in _only_on_cpus()


@functools.cache
def _only_on_cpus():
    """Names of the operations whose entry in torch's table lists a CPU kernel and no other."""
    import torchgen
    import yaml

    folder = os.path.join(os.path.dirname(torchgen.__file__), "packaged", "ATen", "native")
    with open(os.path.join(folder, "native_functions.yaml")) as file:
        entries = yaml.load(file, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    found = set()
    others = {"CUDA", "CompositeExplicitAutograd", "CompositeImplicitAutograd"}
    for entry in entries:
        keys = {key.strip() for names in entry.get("dispatch", {}) for key in names.split(",")}
        if "CPU" in keys and not keys & others and "structured_delegate" not in entry:
            found.add(entry["func"].split("(")[0])
    return found

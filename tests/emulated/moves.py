"""What names a device: ``to`` and its kin, factories, getters; numpy, which wants the host."""

import torch
from torch.overrides import TorchFunctionMode

from .marks import CPU, CUDA, STATE, from_host, home, line, mark, note, parse, tensors, waits

BASE = torch._C.TensorBase
TO, PARSE_TO = torch.Tensor.to, torch._C._nn._parse_to
GETTERS = {
    "device": home,
    "is_cuda": lambda tensor: home(tensor).type == "cuda",
    "is_cpu": lambda tensor: home(tensor).type == "cpu",
}
FROM_DATA = {torch.tensor, torch.as_tensor, torch.asarray}


class Moves(TorchFunctionMode):
    """Every function of torch passes here before it is taken apart."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        generators = [a for a in (*args, *kwargs.values()) if isinstance(a, torch._C.Generator)]
        if not generators:
            return self.call(func, args, kwargs)
        saved, STATE.generator = STATE.generator, generators[0]
        try:
            return self.call(func, args, kwargs)
        finally:
            STATE.generator = saved

    def call(self, func, args, kwargs):
        """Answer in the device's place, or let torch answer."""
        name = getattr(func, "__name__", "")
        if args and isinstance(args[0], torch.Tensor):
            if name == "__get__":
                label = getattr(getattr(func, "__self__", None), "__name__", "")
                if label in GETTERS:
                    return GETTERS[label](args[0])
            own = TENSORS.get(func) or TENSORS_BY_NAME.get(name)
            if own is not None:
                return own(func, args, kwargs)
        if func is PARSE_TO:  # of Module.to: it only sorts its arguments
            return func(*args, **kwargs)
        if kwargs.get("device") is not None or func in FROM_DATA:
            return _factory(func, args, kwargs)
        return func(*args, **kwargs)


def move(tensor, device, out, non_blocking=False):
    """``out`` (the tensor after any change of dtype), as living on another device."""
    if home(tensor).type == device.type:
        return out
    if device.type == "cuda":
        from_host("to(cuda)", not non_blocking)
    else:
        waits("to(cpu)")
        if non_blocking:
            note("race", "to(cpu, non_blocking=True)")  # the numbers may not be there yet
    saved, STATE.target = STATE.target, device
    capturing, STATE.capturing = STATE.capturing, None
    try:
        return mark(torch.clone(out), device)
    finally:
        STATE.target, STATE.capturing = saved, capturing


def _to(func, args, kwargs):
    tensor, *rest = args
    kwargs.pop("memory_format", None)
    non_blocking, copy = kwargs.pop("non_blocking", False), kwargs.pop("copy", False)
    device, dtype, other = (kwargs.pop(name, None) for name in ("device", "dtype", "other"))
    flags = [a for a in rest if isinstance(a, bool)]
    for a in rest:
        if isinstance(a, torch.Tensor):
            other = a
        elif isinstance(a, torch.dtype):
            dtype = a
        elif a is not None and not isinstance(a, bool):
            device = a
    non_blocking, copy = [*flags, *(non_blocking, copy)[len(flags) :]]
    if other is not None:
        device, dtype = home(other), other.dtype
    device = home(tensor) if device is None else parse(device)
    moved = move(tensor, device, tensor if dtype is None else TO(tensor, dtype), non_blocking)
    return torch.clone(moved) if copy and moved is tensor else moved


def _cuda(func, args, kwargs):
    return move(args[0], CUDA, args[0], kwargs.get("non_blocking", False))


def _cpu(func, args, kwargs):
    return move(args[0], CPU, args[0])


def _get_device(func, args, kwargs):
    return 0 if home(args[0]).type == "cuda" else -1


def _type(func, args, kwargs):
    found = func(*args, **kwargs)
    there = len(args) == 1 and home(args[0]).type == "cuda"
    return found.replace("torch.", "torch.cuda.") if there else found


def _numpy(func, args, kwargs):
    if home(args[0]).type == "cuda":
        raise TypeError(
            "can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy the "
            f"tensor to host memory first. (at {line()})"
        )
    return func(*args, **kwargs)


def _tolist(func, args, kwargs):
    if home(args[0]).type == "cuda":
        waits("tolist")
    return func(*args, **kwargs)


def _deepcopy(func, args, kwargs):
    return mark(func(*args, **kwargs), home(args[0]))


def _new_tensor(func, args, kwargs):
    device = parse(kwargs.pop("device", None) or home(args[0]))
    if device.type == "cuda":
        from_host("new_tensor", True)
    return mark(func(*args, device="cpu", **kwargs), device)


TENSORS = {
    TO: _to,
    torch.Tensor.cuda: _cuda,
    torch.Tensor.cpu: _cpu,
    BASE.get_device: _get_device,
    BASE.type: _type,
}
TENSORS_BY_NAME = {
    "numpy": _numpy,
    "__array__": _numpy,
    "tolist": _tolist,
    "__deepcopy__": _deepcopy,
    "pin_memory": lambda func, args, kwargs: args[0],
    "new_tensor": _new_tensor,
}


def _factory(func, args, kwargs):
    device = kwargs.pop("device", None)
    target = None if device is None else parse(device)
    if target is not None and target.type == "meta":
        return func(*args, device=device, **kwargs)
    if func in FROM_DATA:
        return _from_data(func, args, kwargs, target)
    saved, STATE.target = STATE.target, target
    try:
        return mark(func(*args, device="cpu", **kwargs), target)
    finally:
        STATE.target = saved


def _from_data(func, args, kwargs, target):
    """torch.tensor and its kin: of tensors, of numbers, of lists of either."""
    data = args[0]
    if isinstance(data, torch.Tensor):
        out = func(*args, **kwargs)
        if func is torch.tensor:
            mark(out, home(data))
        return move(data, target or home(data), out)
    if any(home(tensor).type == "cuda" for tensor in tensors(data)):
        waits(f"{func.__name__} of tensors on the device")
    out = func(*args, **kwargs)
    if target is None or target.type == "cpu":
        return out
    from_host(f"{func.__name__}(data, device=cuda)", True)
    return mark(out.clone(), target)

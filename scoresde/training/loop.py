r"""The optimisation loop under ``fit`` and ``fit_classifier``.

Each step is Adam on a clipped gradient, then the average of the weights,

    ema <- ema + (1 - decay_k) (weights - ema),      decay_k = min(decay, (1 + k)/(10 + k)),

whose decay starts small, so that short runs do not remember where they started. The rate warms
up over the first steps and falls to zero as a cosine. Between two readings of the loss the host
never waits for the device.

References:
    Loshchilov and Hutter 2017 (arXiv:1608.03983), eq. 5 (cosine); the decay as in TensorFlow's
    ExponentialMovingAverage with num_updates.
"""

import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from itertools import compress
from operator import not_
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from .checks import check_counts, check_seed
from .history import Row

__all__ = ["Average", "Loop", "rate", "training"]

WARM_UP = 100  # steps of the rate, a tenth of the run at most


def rate(k: int, steps: int) -> float:
    """Share of the learning rate in step k of 0..steps-1: linear warm-up, then a cosine to 0."""
    warm = min(1.0, (k + 1) / min(WARM_UP, max(1, steps // 10)))
    return warm * 0.5 * (1 + math.cos(math.pi * k / steps))


_mixing = lru_cache(maxsize=1)(get_ema_multi_avg_fn)  # made anew only while the decay changes


class Average:
    """The moving average of a module's weights and floating-point buffers, as a module.

    It is taken in float32 at least: in bfloat16 steps below 1/256 of a weight round away. What
    is not a finite number when the run begins (a mask of infinities, a counter) is not averaged
    but copied. ``AveragedModel`` of torch computes the same (with ``use_buffers``) but lists all
    tensors anew at every step, which costs 4 % of a small net's step; here they are listed once.

    Args:
        module: copied; the copy is in evaluation mode.
        decay: largest decay.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module, self.decay, self.updates = copy.deepcopy(module).eval(), decay, 0
        pairs = list(zip(_tensors(self.module), _tensors(module), strict=True))
        finite = [_is_finite(mine) for mine, _ in pairs]
        self.shown, self.theirs = ([pair[k] for pair in compress(pairs, finite)] for k in (0, 1))
        self.copied = list(compress(pairs, map(not_, finite)))
        self.mine = [a.to(torch.promote_types(a.dtype, torch.float32)) for a in self.shown]
        self.narrow = any(a is not b for a, b in zip(self.mine, self.shown, strict=True))

    def update(self) -> None:
        """One step towards the module's present weights."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        theirs = self.theirs
        if self.narrow:
            theirs = [a.to(b.dtype) for a, b in zip(theirs, self.mine, strict=True)]
        _mixing(decay)(self.mine, theirs, None)
        self.updates += 1

    def settled(self) -> nn.Module:
        """The averaged module; what is not averaged in it is that of the original."""
        wide = zip(self.shown, self.mine, strict=True) if self.narrow else ()
        for mine, value in (*wide, *self.copied):
            mine.copy_(value)
        return self.module


class Loop:
    """Steps of one optimisation, and all of its state.

    Args:
        module: trained in place.
        steps: length of the run.
        lr: largest learning rate.
        ema: decay of the average.
        clip: largest norm of the gradient, or None.
        seed: an integer.
    """

    def __init__(
        self, module: nn.Module, steps: int, lr: float, ema: float, clip: float | None, seed: int
    ) -> None:
        _check(steps, lr, ema, clip)
        seed = check_seed(seed)
        self.module, self.steps, self.lr, self.clip = module, steps, lr, clip
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        if not self.parameters:
            raise ValueError(
                f"expected a module with weights to train, got {type(module).__name__}"
            )
        self.like = self.parameters[0].detach()
        self.optimizer = _adam(self.parameters, lr)
        self.average = Average(module, ema)
        self.generator = torch.Generator(self.like.device).manual_seed(seed)
        self.done, self.seconds = 0, 0.0

    def step(self, loss: Callable[[torch.Generator], Tensor]) -> Tensor:
        """One step; returns the loss, on the device."""
        self.optimizer.zero_grad()
        value = loss(self.generator)
        value.backward()
        if self.clip is not None:
            nn.utils.clip_grad_norm_(self.parameters, self.clip)
        self.optimizer.param_groups[0]["lr"] = self.lr * rate(self.done, self.steps)
        self.optimizer.step()
        self.average.update()
        self.done += 1
        return value.detach()

    def run(self, loss: Callable[[torch.Generator], Tensor], *every: int) -> Iterator[Row]:
        """Run to the end, stopping for a reading at the multiples of each number in ``every``.

        Raises:
            FloatingPointError: if the loss is not finite at a reading.
        """
        wide = torch.promote_types(self.like.dtype, torch.float32)
        while self.done < self.steps:
            stop = min(self.steps, *(self.done - self.done % n + n for n in every))
            start, first = time.perf_counter(), self.done
            total = self.like.new_zeros((), dtype=wide)  # in 16 bits losses would not add up
            while self.done < stop:
                total += self.step(loss)
            mean = float(total) / (stop - first)  # waits for the device
            self.seconds += time.perf_counter() - start
            if not math.isfinite(mean):
                raise FloatingPointError(
                    f"expected a finite loss, got {mean} between steps {first} and {stop}: "
                    f"lower lr (now {self.lr}), clip gradients, or look at the data and the weight"
                )
            lr = self.lr * rate(self.done - 1, self.steps)
            yield {"step": self.done, "loss": mean, "lr": lr, "seconds": self.seconds}
        self.optimizer.zero_grad()  # leaves no gradients behind

    def state_dict(self) -> dict[str, Any]:
        """All that the next step depends on but the averaged module."""
        state = {
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.mine,
            "generator": self.generator.get_state(),
            "rng": torch.get_rng_state(),
            "done": self.done,
            "updates": self.average.updates,
            "seconds": self.seconds,
        }
        if self.like.is_cuda:
            state["cuda_rng"] = torch.cuda.get_rng_state(self.like.device)
        return state

    def load_state_dict(self, state: Mapping[str, Any], average: Mapping[str, Tensor]) -> None:
        """Continue from a state, and the weights of the averaged module."""
        self.module.load_state_dict(state["module"])
        self.average.module.load_state_dict(average)
        stored = state.get("average", self.average.shown)  # earlier files have it in 16 bits
        for mine, value in zip(self.average.mine, stored, strict=True):
            mine.copy_(value)
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"].cpu())
        torch.set_rng_state(state["rng"].cpu())
        if "cuda_rng" in state and self.like.is_cuda:
            torch.cuda.set_rng_state(state["cuda_rng"].cpu(), self.like.device)
        self.done, self.average.updates = state["done"], state["updates"]
        self.seconds = state["seconds"]


@contextmanager
def training(module: nn.Module, seed: int) -> Iterator[None]:
    """Training mode and seeded global generators within; both as they were found afterwards."""
    modes = [(part, part.training) for part in module.modules()]
    devices = [p.device for p in module.parameters() if p.is_cuda][:1]
    try:
        with torch.random.fork_rng(devices):
            torch.manual_seed(check_seed(seed))
            module.train()
            yield
    finally:
        for part, mode in modes:
            part.training = mode


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*(p.data for p in module.parameters()), *module.buffers()]


def _is_finite(a: Tensor) -> bool:
    return a.is_floating_point() and bool(a.isfinite().all())


def _adam(parameters: list[nn.Parameter], lr: float) -> torch.optim.Adam:
    """Fused where the device and dtype have it."""
    try:
        return torch.optim.Adam(parameters, lr=lr, fused=True)
    except RuntimeError:
        return torch.optim.Adam(parameters, lr=lr)


def _check(steps: int, lr: float, ema: float, clip: float | None) -> None:
    check_counts(steps=steps)
    if not lr > 0 or not 0 <= ema < 1 or (clip is not None and not clip > 0):
        raise ValueError(
            f"expected lr > 0, 0 <= ema < 1 and clip > 0 or None, got {lr}, {ema} and {clip}"
        )

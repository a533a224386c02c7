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
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from .history import Row

__all__ = ["Average", "Loop", "check_counts", "rate", "training"]

WARM_UP = 100  # steps of the rate, a tenth of the run at most


def rate(k: int, steps: int) -> float:
    """Share of the learning rate in step k of 0..steps-1: linear warm-up, then a cosine to 0."""
    warm = min(1.0, (k + 1) / min(WARM_UP, max(1, steps // 10)))
    return warm * 0.5 * (1 + math.cos(math.pi * k / steps))


_mixing = lru_cache(maxsize=1)(get_ema_multi_avg_fn)  # made anew only while the decay changes


class Average:
    """The moving average of a module's weights and floating-point buffers, as a module.

    ``AveragedModel`` of torch computes the same (with ``use_buffers``) but lists all tensors anew
    at every step, which costs 4 % of a small net's step; here they are listed once.

    Args:
        module: copied; the copy is in evaluation mode.
        decay: largest decay.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module, self.decay, self.updates = copy.deepcopy(module).eval(), decay, 0
        self.original = module
        self.mine, self.theirs = _floats(self.module), _floats(module)

    def update(self) -> None:
        """One step towards the module's present weights."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        _mixing(decay)(self.mine, self.theirs, None)
        self.updates += 1

    def settled(self) -> nn.Module:
        """The averaged module; its integer buffers (counters) are those of the original."""
        for mine, theirs in zip(self.module.buffers(), self.original.buffers(), strict=True):
            if not mine.is_floating_point():
                mine.copy_(theirs)
        return self.module


class Loop:
    """Steps of one optimisation, and all of its state.

    Args:
        module: trained in place.
        steps: length of the run.
        lr: largest learning rate.
        ema: decay of the average.
        clip: largest norm of the gradient, or None.
        seed: of everything drawn.
    """

    def __init__(
        self, module: nn.Module, steps: int, lr: float, ema: float, clip: float | None, seed: int
    ) -> None:
        _check(steps, lr, ema, clip)
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
        while self.done < self.steps:
            stop = min(self.steps, *(self.done - self.done % n + n for n in every))
            start, first, total = time.perf_counter(), self.done, self.like.new_zeros(())
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
        """All that the next step depends on but the average's own weights."""
        state = {
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
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
        """Continue from a state, and the weights of the average."""
        self.module.load_state_dict(state["module"])
        self.average.module.load_state_dict(average)
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
            torch.manual_seed(seed)
            module.train()
            yield
    finally:
        for part, mode in modes:
            part.training = mode


def _floats(module: nn.Module) -> list[Tensor]:
    tensors = [*(p.data for p in module.parameters()), *module.buffers()]
    return [a for a in tensors if a.is_floating_point()]


def _adam(parameters: list[nn.Parameter], lr: float) -> torch.optim.Adam:
    """Fused where the device and dtype have it."""
    try:
        return torch.optim.Adam(parameters, lr=lr, fused=True)
    except RuntimeError:
        return torch.optim.Adam(parameters, lr=lr)


def check_counts(**counts: int) -> None:
    """Refuse what is not a positive integer."""
    for name, count in counts.items():
        if not (isinstance(count, int) and count >= 1):
            raise ValueError(f"expected {name} to be a positive integer, got {count!r}")


def _check(steps: int, lr: float, ema: float, clip: float | None) -> None:
    check_counts(steps=steps)
    if not lr > 0 or not 0 <= ema < 1 or (clip is not None and not clip > 0):
        raise ValueError(
            f"expected lr > 0, 0 <= ema < 1 and clip > 0 or None, got {lr}, {ema} and {clip}"
        )

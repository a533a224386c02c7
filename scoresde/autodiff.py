"""Derivatives in inference mode: whether torch.func may be trusted there, and what to do if not.

Samplers run in inference mode, and guidance, drifts and likelihoods differentiate inside it. In
torch 2.11 ``torch.func`` answers there with zeros, without a word: the rates f and g^2 of a
process vanish, and so does guidance. One question to torch, at import, tells.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

__all__ = ["RIGHT_IN_INFERENCE", "differentiating", "ordinary_tensors", "right_in_inference"]


def right_in_inference() -> bool:
    """Whether torch.func differentiates in inference mode: d(x^2)/dx at 1, both ways, is 2."""
    square = lambda x: x * x
    with torch.inference_mode():
        one = torch.ones(())
        forwards = torch.func.jvp(square, (one,), (one,))[1]
        backwards = torch.func.grad(square)(one)
    return float(forwards) == 2 and float(backwards) == 2


RIGHT_IN_INFERENCE = right_in_inference()
"""The answer of ``right_in_inference`` in this process."""


def differentiating() -> AbstractContextManager[object]:
    """``with differentiating(): torch.func...`` leaves inference mode where it would spoil that.

    Gradients that reach outside stay off, as they are in inference mode.
    """
    if RIGHT_IN_INFERENCE or torch.compiler.is_compiling():  # traced outside of inference mode
        return nullcontext()
    return ordinary_tensors() if torch.is_inference_mode_enabled() else nullcontext()


@contextmanager
def ordinary_tensors() -> Iterator[None]:
    """``with ordinary_tensors():`` what is made here and kept may take part in gradients later.

    For tables that are cached, and for libraries imported on first use: those met first in
    inference mode would keep their constants as inference tensors, and nothing computed from them
    could be differentiated afterwards.
    """
    with torch.inference_mode(False), torch.no_grad():
        yield

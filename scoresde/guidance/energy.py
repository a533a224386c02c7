r"""Guidance by a gradient: a classifier, an energy, a reward.

    score  -> score + scale grad_x log h(x, t),
    x0_hat -> x0_hat + scale sigma^2/alpha grad_x log h(x, t).

The gradient is ``torch.func``'s: it works in inference mode (``autodiff``) and inside a compiled
step.
"""

import copy
import math
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..autodiff import differentiating
from ..denoiser import Along, Denoiser, Wrapper, onto
from ..prediction import Quantity, tilted
from ..tilt import Tilt, dot

__all__ = [
    "ClassifierLogProb",
    "Guided",
    "LogH",
    "OnDenoised",
    "Reward",
    "classifier_log_prob",
    "on_denoised",
    "tilt_of",
]

LogH = Callable[[Tensor, Tensor], Tensor]
"""(x, t) -> log h, x (B, *), t () or (B,), out (B,): each entry of its own sample alone."""
Reward = Callable[[Tensor], Tensor]
"""x0 -> log h, (B, *) -> (B,): each entry of its own sample alone."""
_F = TypeVar("_F")


class Guided(Wrapper):
    """A denoiser with scale grad_x log h added to its score; regular where that one is.

    Args:
        denoiser: the unguided one.
        log_h: (x, t) -> (B,), differentiable by ``torch.func``. If it holds tensors that count
            samples, give it ``part(index)`` and ``samples``, how many, as ``classifier_log_prob``
            does; if it calls torch.autograd, an attribute ``inference = False``.
        scale: strength; 0 is no guidance, 1 is Bayes where h is a likelihood.
    """

    def __init__(self, denoiser: Denoiser, log_h: LogH, scale: float = 1.0) -> None:
        super().__init__(denoiser)
        self.log_h, self.scale = log_h, scale
        self.inference = denoiser.inference and getattr(log_h, "inference", True)

    def pull(self, x: Tensor, t: Tensor) -> Tensor:
        """scale grad_x log h(x, t), of the shape of x, in 1/units of x."""
        return self.scale * self.gradient(x, t)

    def gradient(self, x: Tensor, t: Tensor) -> Tensor:
        """grad_x log h(x, t), of the shape of x, in 1/units of x."""
        return self._gradient(x, t)[0]

    def _gradient(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """grad_x log h and log h."""

        def total(x: Tensor) -> tuple[Tensor, Tensor]:
            log_h = self.log_h(x, t)
            if log_h.shape != x.shape[:1]:
                raise ValueError(
                    f"expected log_h(x, t) of shape ({len(x)},), one number for each sample, "
                    f"got {tuple(log_h.shape)}"
                )
            return log_h.sum(), log_h

        with differentiating():
            gradient, log_h = torch.func.grad(total, has_aux=True)(x)
        return gradient, log_h

    def predict(self, quantity: Quantity, x: Tensor, t: Tensor, **cond: Any) -> Tensor:
        """The prediction of the denoiser within, with the pull added to its score."""
        inner = self.denoiser.predict(quantity, x, t, **cond)
        return tilted(self.sde, quantity, t, inner, self.pull(x, t))

    def along(
        self, ts: Tensor, x: Tensor, u: Tensor | None = None, w: Tensor | None = None, **cond: Any
    ) -> Along:
        """The answers u x + w (x0_hat + sigma^2/alpha pull), with all gains at hand."""
        evaluate, times = self.denoiser.along(ts, x, u, w, **cond), onto(ts, x)
        gain = self.sde.sigma2(ts) / self.sde.alpha(ts)
        gains = (gain if w is None else w * gain).tolist()
        return lambda k, x: evaluate(k, x).add(self.pull(x, times[k]), alpha=gains[k])

    def tilt(self, x: Tensor, t: Tensor, **cond: Any) -> Tilt:
        """q (p h)^scale/p^scale: right where h = p(y | x_t), whose p h is a density of its own."""
        inner, pull = self.denoiser.tilt(x, t, **cond), self.gradient(x, t)
        more = 2 * dot(inner.base, pull) + dot(pull, pull)  # |s + pull|^2 - |s|^2
        score = inner.score + self.scale * pull
        return Tilt(score, inner.square + self.scale * more, inner.base)

    def twist(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x0_hat unguided, the pull, and scale log h of which it is the gradient, (B,)."""
        x0_hat, inner, log_h = self.denoiser.twist(x, t)
        gradient, more = self._gradient(x, t)
        return x0_hat, inner + self.scale * gradient, log_h + self.scale * more

    def log_target(self, x: Tensor, t: Tensor) -> Tensor:
        """scale log h(x, t), (B,): log of the factor on the samples' distribution."""
        return self.scale * self.log_h(x, t) + self.denoiser.log_target(x, t)

    @property
    def samples(self) -> int | None:
        """The number of samples of the denoiser within, or of log h where it says so."""
        return super().samples or getattr(self.log_h, "samples", None)

    def part(self, index: slice) -> "Guided":
        """Guide these samples of a batch."""
        return Guided(self.denoiser.part(index), _part(self.log_h, index), self.scale)


class OnDenoised:
    """log h(x, t) = reward(x0_hat(x, t)): see ``on_denoised``.

    Args:
        denoiser: the one to be guided.
        reward: x0 -> (B,).
    """

    def __init__(self, denoiser: Denoiser, reward: Reward) -> None:
        self.denoiser, self.reward = denoiser, reward
        self.inference = denoiser.inference and getattr(reward, "inference", True)

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """The reward of what x looks like it will become, (B,)."""
        return self.reward(self.denoiser(x, t))

    @property
    def samples(self) -> int | None:
        """The number of samples of the denoiser, or of the reward where it says so."""
        return self.denoiser.samples or getattr(self.reward, "samples", None)

    def part(self, index: slice) -> "OnDenoised":
        """The same for these samples of a batch."""
        return OnDenoised(self.denoiser.part(index), _part(self.reward, index))


def on_denoised(denoiser: Denoiser, reward: Reward) -> OnDenoised:
    r"""log h of a reward of clean data: ``Guided(denoiser, on_denoised(denoiser, reward))``.

        grad_x log h = (d x0_hat/dx)^T grad reward(x0_hat),

    where d x0_hat/dx = alpha Cov[x0 | x_t]/sigma^2 for an exact denoiser. The reward of the mean
    is not the log of the mean of its exponential, so even with scale 1 this does not sample
    p_0 e^reward.

    Args:
        denoiser: the one to be guided; a step costs its gradient and two evaluations.
        reward: x0 -> (B,), of data in the model's units; with ``part(index)`` if it holds tensors
            that count samples.

    References:
        Chung et al. 2023 (arXiv:2209.14687), eq. 11: the same approximation for a measurement.
    """
    return OnDenoised(denoiser, reward)


class ClassifierLogProb:
    """log p(y | x_t = x) of a classifier, as ``Guided`` takes it.

    Args:
        classifier: (x, t) -> logits (B, K).
        y: label 0..K-1 for all, an int, or one for each sample, (B,) long.
    """

    def __init__(self, classifier: Callable[[Tensor, Tensor], Tensor], y: Tensor | int) -> None:
        self.classifier, self.y = classifier, _labels(y, getattr(classifier, "classes", math.inf))

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """log softmax of the logits at y, (B,) in nats."""
        log_p = self.classifier(x, t).log_softmax(1)
        if isinstance(self.y, int):
            return log_p[:, self.y]
        if self.y.ndim and len(self.y) != len(x):
            raise ValueError(
                f"expected a label for each of {len(x)} samples, got {len(self.y)}: "
                "bind a single label, or as many as there are samples"
            )
        return log_p.gather(1, self.y.expand(len(x))[:, None])[:, 0]

    @property
    def samples(self) -> int | None:
        """How many labels there are; None for one label for all."""
        return None if isinstance(self.y, int) or self.y.ndim == 0 else len(self.y)

    def part(self, index: slice) -> "ClassifierLogProb":
        """The labels of these samples of a batch."""
        if isinstance(self.y, int) or self.y.ndim == 0:
            return self
        twin = copy.copy(self)  # what was checked once need not be again
        twin.y = self.y[index]
        return twin


def _labels(y: Tensor | int, classes: float) -> Tensor | int:
    """Labels, once they are whole numbers 0..classes-1: an int, or (B,) long."""
    labels = torch.as_tensor(math.nan if isinstance(y, str) else y)
    if labels.dtype.is_floating_point or labels.dtype == torch.bool:
        raise ValueError(f"expected a label 0, 1, ... or (B,) of them, whole numbers, got {y!r}")
    wrong = labels[(labels < 0) | (labels >= classes)].flatten()
    if len(wrong):
        last = "" if classes == math.inf else classes - 1
        raise ValueError(f"expected labels 0..{last} of the classifier, got {int(wrong[0])}")
    single = labels.ndim == 0 and not isinstance(y, Tensor)
    return int(labels) if single else labels.long()


def _part(function: _F, index: slice) -> _F:
    """The same function for these samples of a batch."""
    cut: Callable[[slice], _F] | None = getattr(function, "part", None)
    return cut(index) if cut else function


def classifier_log_prob(
    classifier: Callable[[Tensor, Tensor], Tensor], y: Tensor | int
) -> ClassifierLogProb:
    """log h of classifier guidance: ``Guided(denoiser, classifier_log_prob(net, y), scale)``.

    Args:
        classifier: noise-conditional, (x, t) -> logits (B, K), from ``fit_classifier``, say.
        y: label 0..K-1 for all, an int, or one for each sample, (B,) long.

    Raises:
        ValueError: if a label is no such number.
    """
    return ClassifierLogProb(classifier, y)


def tilt_of(denoiser: Denoiser, x: Tensor, t: Tensor, **cond: Any) -> Tilt:
    """Deprecated: ``denoiser.tilt(x, t, **cond)``, which this is."""
    return denoiser.tilt(x, t, **cond)

r"""Guidance: a denoiser tilted towards what is wanted, itself a denoiser.

Multiplying the density at every time by h(x, t)^scale adds to the score,

    score  -> score + scale grad_x log h(x, t),
    x0_hat -> x0_hat + scale sigma^2/alpha grad_x log h(x, t),

so every sampler works with it unchanged. With scale 1 and h = p(y | x_t = x) it is the exact
conditional denoiser (Bayes). With any other scale the tilted densities p_t p(y|x_t)^scale are not
the forward process of any data law: what comes out is neither p_0 p(y|x)^scale nor the same for
ODE and SDE.

References:
    Dhariwal and Nichol 2021 (arXiv:2105.05233), sec. 4; Ho and Salimans 2022 (arXiv:2207.12598);
    Bradley and Nakkiran 2024 (arXiv:2408.09000): which law guidance samples.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .denoiser import Along, Denoiser, Given, Wrapper, _spread, like, onto

__all__ = ["ClassifierFree", "ClassifierLogProb", "Guided", "LogH", "classifier_log_prob"]

LogH = Callable[[Tensor, Tensor], Tensor]
"""(x, t) -> log h, x (B, *), t () or (B,), out (B,): each entry of its own sample alone."""


class Guided(Wrapper):
    """A denoiser with scale grad_x log h added to its score; regular where that one is.

    Args:
        denoiser: the unguided one.
        log_h: (x, t) -> (B,), differentiable by ``torch.func``. If it holds tensors that count
            samples, give it ``part(index)``, as ``classifier_log_prob`` does.
        scale: strength; 0 is no guidance, 1 is Bayes where h is a likelihood.
    """

    def __init__(self, denoiser: Denoiser, log_h: LogH, scale: float = 1.0) -> None:
        super().__init__(denoiser)
        self.log_h, self.scale = log_h, scale

    def pull(self, x: Tensor, t: Tensor) -> Tensor:
        """scale grad_x log h(x, t), of the shape of x, in 1/units of x."""

        def total(x: Tensor) -> Tensor:
            log_h = self.log_h(x, t)
            if log_h.shape != x.shape[:1]:
                raise ValueError(
                    f"expected log_h(x, t) of shape ({len(x)},), one number for each sample, "
                    f"got {tuple(log_h.shape)}"
                )
            return log_h.sum()

        gradient: Tensor = torch.func.grad(total)(x)
        return self.scale * gradient

    def forward(self, x: Tensor, t: Tensor, **cond: Any) -> Tensor:
        """x0_hat + sigma^2/alpha pull."""
        gain = like(self.sde.sigma2(t) / self.sde.alpha(t), x)
        x0_hat: Tensor = self.denoiser(x, t, **cond)
        return x0_hat + gain * self.pull(x, t)

    def along(
        self, ts: Tensor, x: Tensor, u: Tensor | None = None, w: Tensor | None = None, **cond: Any
    ) -> Along:
        """U x + w (x0_hat + sigma^2/alpha pull), with the gains of all times at hand."""
        evaluate, times = self.denoiser.along(ts, x, u, w, **cond), onto(ts, x)
        gain = self.sde.sigma2(ts) / self.sde.alpha(ts)
        gains = (gain if w is None else w * gain).tolist()
        return lambda k, x: evaluate(k, x).add(self.pull(x, times[k]), alpha=gains[k])

    def eps(self, x: Tensor, t: Tensor, **cond: Any) -> Tensor:
        """Eps - sigma pull."""
        return self.denoiser.eps(x, t, **cond) - like(self.sde.sigma(t), x) * self.pull(x, t)

    def v(self, x: Tensor, t: Tensor, **cond: Any) -> Tensor:
        """V - (sigma/alpha) (alpha^2 + sigma^2) pull."""
        alpha, sigma = self.sde.alpha(t), self.sde.sigma(t)
        gain = like(sigma / alpha * (alpha**2 + self.sde.sigma2(t)), x)
        return self.denoiser.v(x, t, **cond) - gain * self.pull(x, t)

    def score(self, x: Tensor, t: Tensor, **cond: Any) -> Tensor:
        """Score + pull."""
        return self.denoiser.score(x, t, **cond) + self.pull(x, t)

    def velocity(self, x: Tensor, t: Tensor, **cond: Any) -> Tensor:
        """Velocity - g^2/2 pull."""
        half_g2 = like(0.5 * self.sde.g2(t), x)
        return self.denoiser.velocity(x, t, **cond) - half_g2 * self.pull(x, t)

    def part(self, index: slice) -> "Guided":
        """Guide these samples of a batch."""
        cut = getattr(self.log_h, "part", None)
        log_h = cut(index) if cut else self.log_h
        return Guided(self.denoiser.part(index), log_h, self.scale)


class ClassifierLogProb:
    """log p(y | x_t = x) of a classifier, as ``Guided`` takes it.

    Args:
        classifier: (x, t) -> logits (B, K).
        y: label for all, an int, or one for each sample, (B,) long.
    """

    def __init__(self, classifier: Callable[[Tensor, Tensor], Tensor], y: Tensor | int) -> None:
        self.classifier, self.y = classifier, y

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

    def part(self, index: slice) -> "ClassifierLogProb":
        """The labels of these samples of a batch."""
        if isinstance(self.y, int) or self.y.ndim == 0:
            return self
        return ClassifierLogProb(self.classifier, self.y[index])


def classifier_log_prob(
    classifier: Callable[[Tensor, Tensor], Tensor], y: Tensor | int
) -> ClassifierLogProb:
    """log h of classifier guidance: ``Guided(denoiser, classifier_log_prob(net, y), scale)``.

    Args:
        classifier: noise-conditional, (x, t) -> logits (B, K), from ``fit_classifier``, say.
        y: label for all, an int, or one for each sample, (B,) long.
    """
    return ClassifierLogProb(classifier, y)


class ClassifierFree(Wrapper):
    r"""Classifier-free guidance, u + w (c - u) of the conditional c and the unconditional u.

    w = 1 is the plain conditional model, w = 0 the unconditional one, w > 1 guides. (Ho and
    Salimans write (1 + w') c - w' u, so w = 1 + w'; Dhariwal and Nichol's scale is w too.) All
    predictions are affine in x0_hat, so the same mixture holds for each of them.

    Where both are bindings of one denoiser, both are evaluated in one batch of 2B.

    Args:
        conditional: ``Given(denoiser, y=labels)``, say.
        unconditional: ``Given(denoiser, y=K)`` with "no label" = K, or any other denoiser.
        w: strength.
    """

    def __init__(self, conditional: Denoiser, unconditional: Denoiser, w: float) -> None:
        super().__init__(conditional)
        self.unconditional, self.w = unconditional, w
        self.regular = conditional.regular and unconditional.regular

    def forward(self, x: Tensor, t: Tensor, **cond: Any) -> Tensor:
        """x0_hat of the mixture."""
        return self._mix(lambda d, *a, **k: d(*a, **k), x, t, cond)

    def eps(self, x: Tensor, t: Tensor, **cond: Any) -> Tensor:
        """Eps of the mixture."""
        return self._mix(lambda d, *a, **k: d.eps(*a, **k), x, t, cond)

    def v(self, x: Tensor, t: Tensor, **cond: Any) -> Tensor:
        """V of the mixture."""
        return self._mix(lambda d, *a, **k: d.v(*a, **k), x, t, cond)

    def score(self, x: Tensor, t: Tensor, **cond: Any) -> Tensor:
        """Score of the mixture."""
        return self._mix(lambda d, *a, **k: d.score(*a, **k), x, t, cond)

    def velocity(self, x: Tensor, t: Tensor, **cond: Any) -> Tensor:
        """Velocity of the mixture."""
        return self._mix(lambda d, *a, **k: d.velocity(*a, **k), x, t, cond)

    def part(self, index: slice) -> "ClassifierFree":
        """Guide these samples of a batch."""
        return ClassifierFree(self.denoiser.part(index), self.unconditional.part(index), self.w)

    def _mix(
        self, ask: Callable[..., Tensor], x: Tensor, t: Tensor, cond: dict[str, Any]
    ) -> Tensor:
        c, u = self.denoiser, self.unconditional
        both = {} if cond else _both(c, u, x)
        if both:
            times = torch.cat([t, t]) if t.ndim else t
            first, second = ask(c.denoiser, torch.cat([x, x]), times, **both).chunk(2)
        else:
            first, second = ask(c, x, t, **cond), ask(u, x, t, **cond)
        return second + self.w * (first - second)


def _both(c: Denoiser, u: Denoiser, x: Tensor) -> dict[str, Tensor]:
    """Conditions for a batch of 2B, if c and u bind the same names on one denoiser; else none."""
    if not (isinstance(c, Given) and isinstance(u, Given) and c.denoiser is u.denoiser):
        return {}
    if c.cond.keys() != u.cond.keys() or type(c.denoiser).part is not Denoiser.part:
        return {}  # with a part of its own it holds what belongs to B samples, not to 2B
    both = {}
    for name in c.cond:
        first, second = _spread(c.cond[name], x), _spread(u.cond[name], x)
        if not (isinstance(first, Tensor) and isinstance(second, Tensor)):
            return {}
        both[name] = torch.cat([first, second])
    return both

r"""Guidance by two models instead of a gradient: classifier-free, rescaled, autoguidance."""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from ..denoiser import Along, Denoiser, Given, Wrapper, blend, for_each, like, numbers
from ..prediction import Quantity
from ..tilt import Tilt, alone

__all__ = ["ClassifierFree", "Rescaled"]


class ClassifierFree(Wrapper):
    r"""Classifier-free guidance, u + w (c - u) of the conditional c and the unconditional u.

    w = 1 is the plain conditional model, w = 0 the unconditional one, w > 1 guides. (Ho and
    Salimans write (1 + w') c - w' u, so w = 1 + w'; Dhariwal and Nichol's scale is w too.) All
    predictions are affine in x0_hat, so the same mixture holds for each of them.

    Autoguidance is the same mixture of a model c and a weaker version u of it, under one
    condition: smaller, or trained for a shorter time.

    Where both are bindings of one denoiser, both are evaluated in one batch of 2B. Samplers do
    not evaluate u at the times outside the interval.

    Args:
        conditional: ``Given(denoiser, y=labels)``, say.
        unconditional: ``Given(denoiser, y=K)`` with "no label" = K, or any other denoiser.
        w: strength.
        interval: (low, high), the times at which to guide, ends included; at others w = 1. All
            times if not given.

    References:
        Ho and Salimans 2022 (arXiv:2207.12598), eq. 6; Kynkäänniemi et al. 2024
        (arXiv:2404.07724), the interval; Karras et al. 2024 (arXiv:2406.02507), autoguidance.
    """

    def __init__(
        self,
        conditional: Denoiser,
        unconditional: Denoiser,
        w: float,
        interval: tuple[float, float] | None = None,
    ) -> None:
        super().__init__(conditional)
        low, high = interval or (0.0, 1.0)
        if not 0 <= low < high <= 1:
            raise ValueError(f"expected an interval 0 <= low < high <= 1 of times, got {interval}")
        self.unconditional, self.w, self.interval = unconditional, w, interval
        self.regular = conditional.regular and unconditional.regular
        self.inference = conditional.inference and unconditional.inference

    def strength(self, t: Tensor) -> Tensor:
        """w within the interval, 1 outside it, at times of any shape."""
        w = torch.full_like(t, self.w)
        if self.interval is None:
            return w
        low, high = self.interval
        return torch.where((t >= low) & (t <= high), w, 1.0)

    def predict(self, quantity: Quantity, x: Tensor, t: Tensor, **cond: Any) -> Tensor:
        """The mixture of what both predict."""
        c, u = self.pair(quantity, x, t, cond)
        return torch.lerp(u, c, like(self.strength(t), x))

    def along(
        self, ts: Tensor, x: Tensor, u: Tensor | None = None, w: Tensor | None = None, **cond: Any
    ) -> Along:
        """The mixture of both along the grid; of the conditional alone where w = 1."""
        c, strengths = self.denoiser.along(ts, x, u, w, **cond), self.strength(ts).tolist()
        ask = self.pair_along(ts, x, u, w, cond)

        def evaluate(k: int, x: Tensor) -> Tensor:
            if strengths[k] == 1:
                return c(k, x)
            first, second = ask(k, x)
            return torch.lerp(second, first, strengths[k])

        return evaluate

    def tilt(self, x: Tensor, t: Tensor, **cond: Any) -> Tilt:
        """u^{1-w} c^w."""
        if self._one_batch(x, cond)[0] is not None:
            c, u = map(alone, self.pair("score", x, t, cond))
        else:
            c, u = (d.tilt(x, t, **cond) for d in (self.denoiser, self.unconditional))
        w = self.strength(t)
        score = torch.lerp(u.score, c.score, like(w, x))
        return Tilt(score, torch.lerp(u.square, c.square, w.to(x.dtype)), u.base)

    @property
    def samples(self) -> int | None:
        """The number of samples of either model."""
        return super().samples or self.unconditional.samples

    def part(self, index: slice) -> "ClassifierFree":
        """Guide these samples of a batch."""
        c, u = self.denoiser.part(index), self.unconditional.part(index)
        return ClassifierFree(c, u, self.w, self.interval)

    def pair(
        self, quantity: Quantity, x: Tensor, t: Tensor, cond: dict[str, Any]
    ) -> tuple[Tensor, Tensor]:
        """The predictions of both models, the conditional first."""
        model, both = self._one_batch(x, cond)
        if model is not None:
            times = torch.cat([t, t]) if t.ndim else t
            c, u = model.predict(quantity, torch.cat([x, x]), times, **both).chunk(2)
        else:
            c, u = (d.predict(quantity, x, t, **cond) for d in (self.denoiser, self.unconditional))
        return c, u

    def pair_along(
        self, ts: Tensor, x: Tensor, u: Tensor | None, w: Tensor | None, cond: dict[str, Any]
    ) -> Callable[[int, Tensor], tuple[Tensor, ...]]:
        """(k, x) -> what both answer at the k-th time, u_k x + w_k x0_hat of each."""
        model, both = self._one_batch(x, cond)
        if model is not None:
            twice = model.along(ts, torch.cat([x, x]), u, w, **both)
            return lambda k, x: twice(k, torch.cat([x, x])).chunk(2)
        pair = [d.along(ts, x, u, w, **cond) for d in (self.denoiser, self.unconditional)]
        return lambda k, x: tuple(ask(k, x) for ask in pair)

    def _one_batch(
        self, x: Tensor, cond: dict[str, Any]
    ) -> tuple[Denoiser | None, dict[str, Tensor]]:
        """The denoiser that both bind and its conditions for a batch of 2B; None if there is none.

        One with a part of its own holds what belongs to B samples, not to 2B.
        """
        c, u = self.denoiser, self.unconditional
        if cond or not (isinstance(c, Given) and isinstance(u, Given)):
            return None, {}
        if c.denoiser is not u.denoiser or c.cond.keys() != u.cond.keys():
            return None, {}
        if type(c.denoiser).part is not Denoiser.part:
            return None, {}
        both = {
            name: _join(for_each(c.cond[name], x), for_each(u.cond[name], x)) for name in c.cond
        }
        known = {name: value for name, value in both.items() if value is not None}
        return (c.denoiser, known) if len(known) == len(both) else (None, {})


class Rescaled(Wrapper):
    r"""Classifier-free guidance whose x0_hat keeps the spread of the conditional one.

        x0_hat -> [phi std(c)/std(x0_hat) + 1 - phi] x0_hat,

    std over the numbers of one sample. A remedy against the oversaturated images of large w; it
    has no meaning for points of the plane. A sample whose numbers are all equal, as is every event
    of one coordinate, has no spread to restore, and stays. Samplers do not evaluate u at the times
    outside the interval.

    Args:
        guided: the mixture to rescale.
        phi: 0 leaves it, 1 restores the spread in full.

    References:
        Lin et al. 2023 (arXiv:2305.08891), sec. 3.4.
    """

    def __init__(self, guided: ClassifierFree, phi: float = 0.7) -> None:
        if not isinstance(guided, ClassifierFree) or not 0 <= phi <= 1:
            raise ValueError(
                "expected a ClassifierFree to rescale and 0 <= phi <= 1, got "
                f"{type(guided).__name__} and {phi}"
            )
        super().__init__(guided)
        self.phi, self.regular = phi, False

    @property
    def guided(self) -> ClassifierFree:
        """The mixture."""
        return cast(ClassifierFree, self.denoiser)

    def forward(self, x: Tensor, t: Tensor, **cond: Any) -> Tensor:
        """x0_hat of the mixture, rescaled."""
        c, u = self.guided.pair("x0", x, t, cond)
        return self._rescaled(torch.lerp(u, c, like(self.guided.strength(t), x)), c)

    def along(
        self, ts: Tensor, x: Tensor, u: Tensor | None = None, w: Tensor | None = None, **cond: Any
    ) -> Along:
        """The answers u x + w x0_hat; of the conditional alone, not rescaled, where w = 1."""
        alone = self.guided.denoiser.along(ts, x, u, w, **cond)
        strengths, us, ws = self.guided.strength(ts).tolist(), *numbers(ts, u, w)
        ask = self.guided.pair_along(ts, x, None, None, cond)

        def evaluate(k: int, x: Tensor) -> Tensor:
            if strengths[k] == 1:
                return alone(k, x)
            c, v = ask(k, x)
            return blend(x, us[k], self._rescaled(torch.lerp(v, c, strengths[k]), c), ws[k])

        return evaluate

    def _rescaled(self, mixed: Tensor, c: Tensor) -> Tensor:
        std, wanted = _std(mixed), _std(c)
        spreads = std > 0
        ratio = (wanted / std.where(spreads, 1.0)).where(spreads, 1.0)
        return mixed * like(self.phi * ratio + 1 - self.phi, mixed)


def _std(x: Tensor) -> Tensor:
    """Standard deviation of each sample's numbers, (B, *) -> (B,); 0 where it is only rounding."""
    flat = x.flatten(1)
    std = flat.std(1, correction=0)
    return std.where(std > 8 * torch.finfo(x.dtype).eps * flat.abs().amax(1), 0.0)


def _join(first: object, second: object) -> Tensor | None:
    """Conditions of two batches as those of one, if they are of one kind."""
    if not (isinstance(first, Tensor) and isinstance(second, Tensor)):
        return None
    if first.ndim == 2 and second.ndim == 1:  # one number, "no vector", for all entries
        second = second[:, None].expand_as(first)
    return torch.cat([first, second]) if first.shape[1:] == second.shape[1:] else None

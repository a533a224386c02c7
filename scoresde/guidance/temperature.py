r"""A power of the density itself: sharper or broader samples of one model."""

from typing import Any

from torch import Tensor

from ..denoiser import Along, Denoiser, Wrapper, like
from ..prediction import Quantity, factors
from ..tilt import Tilt

__all__ = ["Tempered"]


class Tempered(Wrapper):
    r"""The score divided by a temperature, as of the densities p_t^{1/T}.

        score -> score/T,      x0_hat -> (1 - 1/T) x/alpha + x0_hat/T.

    T < 1 sharpens, T > 1 broadens. p_t^{1/T} is not the forward process of p_0^{1/T}: from N(0, 1)
    the ODE on data N(0, c) ends with variance e^B (c/(e^B + c - 1))^{1/T}, B = int beta, which
    vanishes with e^{-B} for T < 1, and the SDE with another one (docs/theory/guidance.md). Started
    at p_1^{1/T}, N(0, T) where p_1 = N(0, 1), ``samplers.FeynmanKac`` samples p_0^{1/T}.

    Args:
        denoiser: the model.
        temperature: T > 0; 1 is the model itself.
    """

    def __init__(self, denoiser: Denoiser, temperature: float) -> None:
        if not temperature > 0:
            raise ValueError(f"expected temperature > 0, got {temperature}: 1 is the model itself")
        super().__init__(denoiser)
        self.temperature = temperature

    @property
    def power(self) -> float:
        """1/T."""
        return 1 / self.temperature

    def predict(self, quantity: Quantity, x: Tensor, t: Tensor, **cond: Any) -> Tensor:
        """Q/T + (1 - 1/T) a x, where Q = a x + b score."""
        out = self.power * self.denoiser.predict(quantity, x, t, **cond)
        a, _ = factors(self.sde, "score", quantity, t)
        return out if a is None else out + (1 - self.power) * like(a, x) * x

    def along(
        self, ts: Tensor, x: Tensor, u: Tensor | None = None, w: Tensor | None = None, **cond: Any
    ) -> Along:
        """(u + w (1 - 1/T)/alpha) x + (w/T) x0_hat."""
        rest = (1 - self.power) / self.sde.alpha(ts)
        rest = rest if w is None else w * rest
        share = ts.new_full(ts.shape, self.power) if w is None else self.power * w
        return self.denoiser.along(ts, x, rest if u is None else u + rest, share, **cond)

    def tilt(self, x: Tensor, t: Tensor, **cond: Any) -> Tilt:
        """q^{1/T}."""
        inner = self.denoiser.tilt(x, t, **cond)
        return Tilt(self.power * inner.score, self.power * inner.square, inner.base)

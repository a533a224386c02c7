r"""How a guided denoiser is made of unguided ones: what its correction needs to know.

Guidance multiplies densities p_i(x, t), each the forward process of a law of its own, to powers:

    q_t = p_1^{a_1} p_2^{a_2} ...,        grad log q_t = a_1 s_1 + a_2 s_2 + ...

Each log p_i obeys the Fokker-Planck equation, in which the score enters squared. So log q_t obeys
it too but for the difference between the square of the sum and the sum of the squares,

    excess = |sum_i a_i s_i|^2 - sum_i a_i |s_i|^2,

and a walk guided by grad log q_t must be weighted with exp(1/2 int g^2 excess dt) to follow q_t.
For p^{1-w} p(.|y)^w it is w (w - 1) |s_y - s|^2: nothing where w is 0 or 1.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..denoiser import Denoiser

__all__ = ["Tilt", "tilt_of", "twist_of"]


class Tilt(NamedTuple):
    """A product of powers of densities, at given points.

    Attributes:
        score: sum_i a_i s_i, (B, *), in 1/units of x.
        square: sum_i a_i |s_i|^2, (B,).
        base: the score of the unguided law, (B, *), which a likelihood multiplies.
    """

    score: Tensor
    square: Tensor
    base: Tensor

    @property
    def excess(self) -> Tensor:
        """|score|^2 - square, (B,): what its Fokker-Planck equation misses."""
        return dot(self.score, self.score) - self.square


def tilt_of(denoiser: Denoiser, x: Tensor, t: Tensor, **cond: Any) -> Tilt:
    """What a denoiser says of itself; one that says nothing is a law, to the power 1."""
    own = getattr(denoiser, "tilt", None)
    if own is not None:
        tilt: Tilt = own(x, t, **cond)
        return tilt
    return alone(denoiser.score(x, t, **cond))


def twist_of(denoiser: Denoiser, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """x0_hat unguided, pull and log h; of one that says nothing, its own x0_hat and zeros.

    So ``samplers.TwistedSMC`` takes whatever is innermost and twists nothing for a law, a network
    too, to be multiplied by all that is around it.
    """
    own: Any = getattr(denoiser, "twist", None)
    if own is not None:
        twist: tuple[Tensor, Tensor, Tensor] = own(x, t)
        return twist
    return denoiser(x, t), torch.zeros_like(x), x.new_zeros(len(x))


def alone(score: Tensor) -> Tilt:
    """One law, to the power 1."""
    return Tilt(score, dot(score, score), score)


def dot(a: Tensor, b: Tensor) -> Tensor:
    """a . b of every sample, (B, *) and (B, *) -> (B,)."""
    return (a * b).flatten(1).sum(1)

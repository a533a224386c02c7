r"""A guided denoiser as a product of unguided ones: the terms that its correction needs.

Guidance multiplies densities p_i(x, t), each the forward process of a distribution of its own, to
powers:

    q_t = p_1^{a_1} p_2^{a_2} ...,        grad log q_t = a_1 s_1 + a_2 s_2 + ...

Each log p_i obeys the Fokker-Planck equation, in which the score enters squared. So log q_t obeys
it too but for the difference between the square of the sum and the sum of the squares,

    excess = |sum_i a_i s_i|^2 - sum_i a_i |s_i|^2,

and a path guided by grad log q_t must be weighted with exp(1/2 int g^2 excess dt) to follow q_t.
For p^{1-w} p(.|y)^w it is w (w - 1) |s_y - s|^2: nothing where w is 0 or 1.
"""

from typing import NamedTuple

from torch import Tensor

__all__ = ["Tilt", "alone", "dot"]


class Tilt(NamedTuple):
    """A product of powers of densities, at given points.

    Attributes:
        score: sum_i a_i s_i, (B, *), in 1/units of x.
        square: sum_i a_i |s_i|^2, (B,).
        base: the score of the unguided distribution, (B, *), which a likelihood multiplies.
    """

    score: Tensor
    square: Tensor
    base: Tensor

    @property
    def excess(self) -> Tensor:
        """|score|^2 - square, (B,): the term that its Fokker-Planck equation lacks."""
        return dot(self.score, self.score) - self.square


def alone(score: Tensor) -> Tilt:
    """One distribution, to the power 1."""
    return Tilt(score, dot(score, score), score)


def dot(a: Tensor, b: Tensor) -> Tensor:
    """a . b of every sample, (B, *) and (B, *) -> (B,)."""
    return (a * b).flatten(1).sum(1)

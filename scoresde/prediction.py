r"""The quantities that a denoiser predicts, and each from every other: one table.

At a state x = alpha x0 + sigma eps the five quantities below are affine in one another,

    out = a(t) x + b(t) F,

with F what is known: the output of a network, or the quantity of an exact distribution that is
regular where others are not. The table holds (a, b) for every pair (known, asked), with

    T = alpha^2 + sigma^2,      E = alpha^2 d^2 + sigma^2,

simplified by hand: no pair goes through a third quantity, so none loses the digits that are lost
on the way there and back. What remains is in the quantities themselves: eps from x0 is a
difference divided by sigma.

    x0        E[x0 | x_t = x]
    eps       (x - alpha x0)/sigma            the noise in x
    v         alpha eps - sigma x0            a prediction (not the velocity)
    score     -eps/sigma                      grad_x log p_t(x), Tweedie
    velocity  f x - g^2/2 score               the probability-flow ODE dx/dt

``F`` is the output of EDM's network, x0 = (alpha d^2/E) x + (sigma d/sqrt(E)) F, with d the width
of the data.

At sigma = 0 the pairs that divide by it are infinite (NaN where F vanishes too): all that are
asked of x0 but x0, and score and velocity of eps, v and F. All others are finite there.

References:
    Song et al. 2021 (arXiv:2011.13456), eq. 13; Salimans and Ho 2022 (arXiv:2202.00512), app. D
    (v); Karras et al. 2022 (arXiv:2206.00364), eq. 7 and table 1 (F); Efron 2011 (Tweedie).
"""

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from .sde import SDE, like

__all__ = ["QUANTITIES", "Known", "Pair", "Quantity", "convert", "factors", "tilted"]

Quantity = Literal["x0", "eps", "v", "score", "velocity"]
"""The quantities that a denoiser can be asked for."""
Known = Literal["x0", "eps", "v", "score", "F"]
"""The quantities that a network predicts; F is that of EDM."""
Pair = tuple[Tensor | None, Tensor | None]
"""(a, b) at times of any shape; a is None for 0, b is None for 1."""
QUANTITIES: tuple[Quantity, ...] = get_args(Quantity)
"""All that can be asked of a denoiser, by name."""


class _At:
    """The numbers of a process at times t, each computed once, where a pair first asks for it."""

    def __init__(self, sde: SDE, t: Tensor, d: float) -> None:
        self.sde, self.t, self.d = sde, t, d

    def __getattr__(self, name: str) -> Tensor:
        value = NUMBERS[name](self)
        setattr(self, name, value)
        return value


NUMBERS: dict[str, Callable[[_At], Tensor]] = {
    "alpha": lambda p: p.sde.alpha(p.t),
    "sigma": lambda p: p.sde.sigma(p.t),
    "sigma2": lambda p: p.sde.sigma2(p.t),
    "T": lambda p: p.alpha.square() + p.sigma2,
    "E": lambda p: (p.d * p.alpha).square() + p.sigma2,
    "root": lambda p: p.E.sqrt(),
    "rates": lambda p: torch.stack(p.sde.rates(p.t)),
    "f": lambda p: p.rates[0],
    "h": lambda p: 0.5 * p.rates[1],  # g^2/2
}

TABLE: dict[tuple[Known, Quantity], Callable[[_At], Pair]] = {
    ("x0", "x0"): lambda p: (None, None),
    ("x0", "eps"): lambda p: (1 / p.sigma, -p.alpha / p.sigma),
    ("x0", "v"): lambda p: (p.alpha / p.sigma, -p.T / p.sigma),
    ("x0", "score"): lambda p: (-1 / p.sigma2, p.alpha / p.sigma2),
    ("x0", "velocity"): lambda p: (p.f + p.h / p.sigma2, -p.h * p.alpha / p.sigma2),
    ("eps", "x0"): lambda p: (1 / p.alpha, -p.sigma / p.alpha),
    ("eps", "eps"): lambda p: (None, None),
    ("eps", "v"): lambda p: (-p.sigma / p.alpha, p.T / p.alpha),
    ("eps", "score"): lambda p: (None, -1 / p.sigma),
    ("eps", "velocity"): lambda p: (p.f, p.h / p.sigma),
    ("v", "x0"): lambda p: (p.alpha / p.T, -p.sigma / p.T),
    ("v", "eps"): lambda p: (p.sigma / p.T, p.alpha / p.T),
    ("v", "v"): lambda p: (None, None),
    ("v", "score"): lambda p: (-1 / p.T, -p.alpha / (p.sigma * p.T)),
    ("v", "velocity"): lambda p: (p.f + p.h / p.T, p.h * p.alpha / (p.sigma * p.T)),
    ("score", "x0"): lambda p: (1 / p.alpha, p.sigma2 / p.alpha),
    ("score", "eps"): lambda p: (None, -p.sigma),
    ("score", "v"): lambda p: (-p.sigma / p.alpha, -p.sigma * p.T / p.alpha),
    ("score", "score"): lambda p: (None, None),
    ("score", "velocity"): lambda p: (p.f, -p.h),
    ("F", "x0"): lambda p: (p.alpha * p.d**2 / p.E, p.sigma * p.d / p.root),
    ("F", "eps"): lambda p: (p.sigma / p.E, -p.alpha * p.d / p.root),
    ("F", "v"): lambda p: (p.alpha * p.sigma * (1 - p.d**2) / p.E, -p.d * p.T / p.root),
    ("F", "score"): lambda p: (-1 / p.E, p.alpha * p.d / (p.sigma * p.root)),
    ("F", "velocity"): lambda p: (p.f + p.h / p.E, -p.h * p.alpha * p.d / (p.sigma * p.root)),
}


def factors(sde: SDE, known: Known, asked: Quantity, t: Tensor, d: float = 1.0) -> Pair:
    """(a, b) of asked = a x + b known at times t of any shape.

    Args:
        sde: the process.
        known: the quantity that is known.
        asked: the quantity to find.
        t: times.
        d: width of the data where F is that of EDM.
    """
    entry = TABLE.get((known, asked))
    if entry is None:
        raise ValueError(f"expected a quantity among {QUANTITIES}, got {asked!r}")
    return entry(_At(sde, t, d))


def convert(
    sde: SDE, known: Known, asked: Quantity, x: Tensor, t: Tensor, own: Tensor, d: float = 1.0
) -> Tensor:
    """The quantity asked from the one known, a x + b own; ``own`` itself if they are the same.

    Args:
        sde: the process.
        known: the quantity that ``own`` is.
        asked: the quantity to find.
        x: states (B, *).
        t: () or (B,).
        own: the known quantity at (x, t), of the shape of x.
        d: width of the data where ``own`` is EDM's F.
    """
    a, b = factors(sde, known, asked, t, d)
    out = own if b is None else like(b, x) * own
    return out if a is None else like(a, x) * x + out


def tilted(sde: SDE, asked: Quantity, t: Tensor, out: Tensor, pull: Tensor) -> Tensor:
    """A quantity after pull is added to the score: out + b pull.

    Args:
        sde: the process.
        asked: the quantity that ``out`` is.
        t: () or (B,).
        out: a prediction (B, *).
        pull: the term added to the score, (B, *), in 1/units of x.
    """
    _, gain = factors(sde, "score", asked, t)
    return out + (pull if gain is None else like(gain, pull) * pull)

"""The catalogue: what sampler classes say of themselves, collected from those that exist.

A class that overrides ``Sampler.catalogue`` appears, without a line elsewhere, in
``scoresde compare`` and ``compare --exact``, in their figures, and as a choice of ``--sampler``:

    @classmethod
    def catalogue(cls) -> tuple[Listing, ...]:
        return (Listing("half way", cls(0.5), "sde"),)
"""

import math
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from torch import Tensor

from ..distributions import GaussianMixture
from ..sde import SDE
from .base import Sampler

__all__ = ["VIEW_NAMES", "Listing", "View", "ViewName", "listing", "listings"]

View = Literal["chain", "sde", "ode"]
"""The reverse process that a sampler simulates."""
Plan = Callable[[SDE, int], tuple[Sampler, Tensor]]
"""(process, evaluations) -> the sampler and the grid (n + 1,) for it."""


class ViewName(NamedTuple):
    """How a view is called in text, and in a column of a table."""

    label: str
    short: str


VIEW_NAMES: dict[str, ViewName] = {
    "chain": ViewName("Markov chain", "chain"),
    "sde": ViewName("reverse SDE", "SDE"),
    "ode": ViewName("probability-flow ODE", "ODE"),
}
"""View -> its names, long and short: the three ways back, in the order of tables."""


@dataclass(frozen=True)
class Listing:
    """One sampler as users find it: its name, its view and its cost.

    Tables take it through times equal in log-SNR, a chain through its own i/n down to 0.

    Args:
        name: in tables and figures.
        sampler: the sampler itself; one that stands for it where ``tuned`` or ``plan`` make it.
        view: "chain", "sde" or "ode".
        cost: evaluations of the denoiser a step.
        word: on the command line; if not given the name in lower case, with hyphens.
        common: whether it has a row in every table, or only where a row costs nothing, as in
            ``compare --exact``.
        place: place of its row among the others; those without one stand last, by name.
        plan: (sde, n) -> sampler and grid for n evaluations, where the grid is part of a method.
        tuned: data -> sampler, where it depends on their distribution; it appears only where that
            is known.
    """

    name: str
    sampler: Sampler
    view: View
    cost: int = 1
    word: str = ""
    common: bool = True
    place: float = math.inf
    plan: Plan | None = None
    tuned: Callable[[GaussianMixture], Sampler] | None = None

    def __post_init__(self) -> None:
        """Raise an error for an entry that no table could show."""
        if self.view not in VIEW_NAMES:
            raise ValueError(f"expected a view among {', '.join(VIEW_NAMES)}, got {self.view!r}")
        if not (isinstance(self.cost, int) and self.cost >= 1):
            raise ValueError(f"expected a cost of 1 evaluation a step or more, got {self.cost!r}")
        if not self.command:
            raise ValueError(f"expected a name with letters or digits, got {self.name!r}")

    @property
    def command(self) -> str:
        """The word for it on the command line."""
        return self.word or re.sub("[^a-z0-9]+", "-", self.name.lower()).strip("-")


def listings(data: GaussianMixture | None = None) -> list[Listing]:
    """All samplers that some class declares, in the order of their places.

    A class that is defined again under its name, as in a notebook, replaces the earlier one.

    >>> [found.name for found in listings() if found.view == "chain"]
    ['DDPM chain, β̃', 'DDPM chain, β']

    Args:
        data: their distribution, where it is known: for samplers that are tuned to it.

    Raises:
        TypeError: for a class whose catalogue is not one.
        ValueError: where two samplers have one name or one word.
    """
    latest = {(kind.__module__, kind.__qualname__): kind for kind in _kinds()}
    found = [entry for kind in latest.values() for entry in _declared(kind)]
    for names in ([entry.name for entry in found], [entry.command for entry in found]):
        name, times = Counter(names).most_common(1)[0]
        if times > 1:
            raise ValueError(
                f"expected one sampler of each name, got {times} called {name!r}: give the "
                "Listing of one of them another name, or another word"
            )
    found.sort(key=lambda entry: (entry.place, entry.name))
    return [_tuned(entry, data) for entry in found if entry.tuned is None or data is not None]


def listing(word: str) -> Listing:
    """The sampler that a word of the command line stands for.

    >>> listing("pf-heun").sampler
    PFHeun()
    """
    found = {entry.command: entry for entry in listings()}
    if word not in found:
        raise ValueError(f"expected a sampler among {', '.join(found)}, got {word!r}")
    return found[word]


def _kinds() -> list[type[Sampler]]:
    """All classes of samplers there are; of those with one name the latest stands last."""
    kinds = Sampler.__subclasses__()
    for kind in kinds:
        kinds += kind.__subclasses__()
    return kinds


def _declared(kind: type[Sampler]) -> tuple[Listing, ...]:
    """The entries that a class declares itself, without those it inherits."""
    entries = kind.catalogue() if "catalogue" in vars(kind) else ()
    if not (isinstance(entries, tuple) and all(isinstance(one, Listing) for one in entries)):
        raise TypeError(
            f"expected catalogue() of {kind.__name__} to give a tuple of Listings, got {entries!r}"
        )
    return entries


def _tuned(entry: Listing, data: GaussianMixture | None) -> Listing:
    if entry.tuned is None or data is None:
        return entry
    return replace(entry, sampler=entry.tuned(data))

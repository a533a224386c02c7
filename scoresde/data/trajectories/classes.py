"""Several families as one law with classes, for conditional models."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .family import Family

__all__ = ["Labelled"]


@dataclass(frozen=True)
class Labelled:
    """Families side by side: paths with the number of their family as label, as ``fit`` takes it.

    >>> from scoresde.data import Kepler, Larmor
    >>> x, y = Labelled((Kepler(), Larmor()))(4)
    >>> x.shape, y.sort().values
    (torch.Size([4, 64, 2]), tensor([0, 0, 1, 1]))

    Args:
        families: K families of one length and one number of coordinates.
    """

    families: tuple[Family, ...]

    def __post_init__(self) -> None:
        """Refuse families whose paths do not fit into one tensor."""
        shapes = [(family.length, family.channels) for family in self.families]
        if len(set(shapes)) != 1:
            raise ValueError(
                f"expected families of one shape (L, C), got {shapes}: pass length=... to each"
            )

    def __call__(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Draw n paths (n, L, C) and labels (n,): as many of each class as n allows, shuffled."""
        k = len(self.families)
        counts = [(n + k - 1 - label) // k for label in range(k)]
        parts = [f(m, generator) for f, m in zip(self.families, counts, strict=True)]
        labels = [torch.full((m,), label) for label, m in enumerate(counts)]
        x, y = torch.cat(parts), torch.cat(labels).to(parts[0].device)
        order = torch.randperm(n, generator=generator, device=x.device)
        return x[order], y[order]

r"""The parts that networks of paths share: conditions in one vector, and paths cut into pieces.

A path (B, L, C) is a sequence of tokens: pieces of P neighbouring points, made P C numbers long
and mapped to the width of the network. The last piece is filled up with copies of the last point,
and what it says about these is cut off: any L goes in, the same L comes out.
"""

import torch
from torch import Tensor, nn

from .mlp import TimeFeatures

__all__ = ["Embedding", "Pieces", "check_sizes"]


class Embedding(nn.Module):
    """One vector for all that is not the path: silu(A features(t) + label + B [c, known]).

    Args:
        size: length of the vector.
        classes: number K of labels; index K, or y = None, means "no label". 0 for none.
        context: length of a vector c; an entry that is NaN, or c = None, means "not known".
    """

    def __init__(self, size: int, classes: int = 0, context: int = 0) -> None:
        super().__init__()
        self.classes, self.context = classes, context
        self.features = TimeFeatures()
        self.time = nn.Linear(len(self.features.phase), size)
        self.label = nn.Embedding(classes + 1, size) if classes else None
        self.vector = nn.Linear(2 * context, size, bias=False) if context else None

    def forward(self, t: Tensor, y: Tensor | None = None, c: Tensor | None = None) -> Tensor:
        """t () or (B,), y (B,) long, c (B, context) -> (1 or B, size)."""
        e: Tensor = self.time(self.features(t))
        if y is not None and self.label is None:
            raise ValueError(
                "expected no label y, got one: this net was built without; pass classes=K"
            )
        if self.label is not None:
            e = e + (self.label.weight[-1] if y is None else self.label(y))
        return nn.functional.silu(e if c is None else e + self._known(c, e))

    def _known(self, c: Tensor, e: Tensor) -> Tensor:
        """The known numbers of c, and which ones they are."""
        if self.vector is None or c.shape[1:] not in ((), (self.context,)):
            raise ValueError(
                f"expected c (B, {self.context}), or no c if that is 0, got {tuple(c.shape)}: "
                "build the net with context = the size of the vector"
            )
        c = c.to(e.dtype).reshape(len(c), -1).expand(-1, self.context)
        known = ~c.isnan()
        out: Tensor = self.vector(torch.cat([c.where(known, 0.0), known.to(e.dtype)], 1))
        return out


class Pieces(nn.Module):
    """Paths to tokens and back: (B, L, C) -> (B, ceil(L/P), width) -> (B, L, outputs).

    Where a token lies in the path, 0 to 1, is embedded as time is, and added to it. The map back
    starts at zero: a fresh network predicts the mean of eps, of v and of centred data.

    Args:
        channels: C, numbers at each point.
        size: P, number of points in a piece.
        width: width of a token.
    """

    def __init__(self, channels: int, size: int, width: int) -> None:
        super().__init__()
        self.channels, self.size = channels, size
        self.features = TimeFeatures()
        self.place = nn.Linear(len(self.features.phase), width)
        self.first = nn.Linear(size * channels, width)
        self.last = nn.Linear(width, size * channels)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Cut: (B, L, C) -> (B, ceil(L/P), width)."""
        if x.ndim != 3 or x.shape[2] != self.channels or x.shape[1] == 0:
            raise ValueError(
                f"expected paths (B, L, {self.channels}), got {tuple(x.shape)}: "
                "build the net with channels = the numbers at each point"
            )
        missing = -x.shape[1] % self.size
        if missing:
            x = torch.cat([x, x[:, -1:].expand(-1, missing, -1)], 1)
        n = x.shape[1] // self.size
        pieces = x.reshape(len(x), n, self.size * self.channels)
        place = (torch.arange(n, device=x.device, dtype=x.dtype) + 0.5) / n
        tokens: Tensor = self.first(pieces) + self.place(self.features(place))
        return tokens

    def join(self, tokens: Tensor, length: int) -> Tensor:
        """Back to a path: (B, ceil(L/P), width) -> (B, L, C)."""
        out: Tensor = self.last(tokens)
        points = out.shape[1] * self.size
        return out.reshape(len(out), points, self.channels)[:, :length]


def check_sizes(net: nn.Module, least: int = 1, **sizes: int) -> None:
    """Raise an error unless the sizes of a network are whole numbers, at least ``least``."""
    for name, size in sizes.items():
        if not (isinstance(size, int) and size >= least):
            raise ValueError(
                f"expected {name} of a {type(net).__name__} to be a whole number >= {least}, "
                f"got {size!r}"
            )

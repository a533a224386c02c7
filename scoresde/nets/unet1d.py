r"""A U-Net for paths (B, L, C): convolutions along the path at several resolutions.

    down:  h_k = blocks(h_{k-1}),  halved,      up:  h_k = blocks([h_k, doubled h_{k+1}]),
    block: h + W_2 silu(scale * norm(W_1 silu(norm h)) + shift),

scale and shift affine in the embedding of (t, y, c). The path is first cut into pieces
(``Pieces``), which makes it several times faster on a CPU and costs smooth paths nothing. A
resolution of n tokens is halved to ceil(n/2) and doubled back to n: any length goes through.

References:
    Ronneberger, Fischer and Brox 2015 (arXiv:1505.04597); Ho et al. 2020 (arXiv:2006.11239), app.
    B; Janner et al. 2022 (arXiv:2205.09991), app. C (along paths).
"""

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from .embedding import Embedding, Pieces, check_sizes

__all__ = ["UNet1d", "UNet1dConfig"]

EMBEDDING = 64


class _Block(nn.Module):
    """A residual block at one resolution, (B, inputs, n) -> (B, width, n)."""

    def __init__(self, inputs: int, width: int, kernel: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, inputs)
        self.first = nn.Conv1d(inputs, width, kernel, padding="same")
        self.middle = nn.GroupNorm(1, width, affine=False)
        self.scale, self.shift = nn.Linear(EMBEDDING, width), nn.Linear(EMBEDDING, width)
        self.second = nn.Conv1d(width, width, kernel, padding="same")
        self.skip = nn.Conv1d(inputs, width, 1) if inputs != width else nn.Identity()
        nn.init.ones_(self.scale.bias)

    def forward(self, h: Tensor, e: Tensor) -> Tensor:
        inner = self.middle(self.first(nn.functional.silu(self.norm(h))))
        inner = inner * self.scale(e)[..., None] + self.shift(e)[..., None]
        out: Tensor = self.skip(h) + self.second(nn.functional.silu(inner))
        return out


class UNet1d(nn.Module):
    """One-dimensional U-Net with an embedding of time and, if asked, of a label and a vector.

    Args:
        channels: C, numbers at each point of a path.
        width: width of the finest resolution; that of the coarser ones is twice as large.
        levels: number of resolutions.
        piece: number of points in a token; 1 leaves the path as it is.
        kernel: number of tokens that a convolution sees, odd.
        classes: number K of labels 0..K-1; index K, or y = None, means "no label". 0 for none.
        context: length of a vector c; an entry that is NaN, or c = None, means "not known".
    """

    def __init__(
        self,
        channels: int = 2,
        width: int = 64,
        levels: int = 3,
        piece: int = 4,
        kernel: int = 3,
        classes: int = 0,
        context: int = 0,
    ) -> None:
        super().__init__()
        check_sizes(
            self, channels=channels, width=width, levels=levels, piece=piece, kernel=kernel
        )
        check_sizes(self, 0, classes=classes, context=context)
        if kernel % 2 == 0:
            raise ValueError(f"expected an odd kernel, got {kernel}")
        self.config = UNet1dConfig(channels, width, levels, piece, kernel, classes, context)
        self.classes, self.context = classes, context
        self.embedding = Embedding(EMBEDDING, classes, context)
        self.pieces = Pieces(channels, piece, width)
        widths = [width, *[2 * width] * (levels - 1)]
        before = [width, *widths[:-1]]
        self.down = nn.ModuleList(
            _Block(a, b, kernel) for a, b in zip(before, widths, strict=True)
        )
        self.middle = _Block(widths[-1], widths[-1], kernel)
        self.up = nn.ModuleList(
            _Block(a + b, a, kernel) for a, b in zip(widths[-2::-1], widths[:0:-1], strict=True)
        )

    def forward(
        self, x: Tensor, t: Tensor, y: Tensor | None = None, c: Tensor | None = None
    ) -> Tensor:
        """x (B, L, C), t () or (B,), y (B,) long or None, c (B, context) or None -> (B, L, C)."""
        e = self.embedding(t.to(x.dtype), y, c)
        h, finer = self.pieces(x).mT, []
        for level, block in enumerate(self.down):
            h = block(_halved(h) if level else h, e)
            finer.append(h)
        h = self.middle(finer.pop(), e)
        for block in self.up:
            skip = finer.pop()
            h = block(torch.cat([skip, _doubled(h, skip.shape[2])], 1), e)
        return self.pieces.join(h.mT, x.shape[1])


def _halved(h: Tensor) -> Tensor:
    """Means of neighbours, (B, W, n) -> (B, W, ceil(n/2)); the last token may stay alone."""
    return nn.functional.avg_pool1d(h, 2, ceil_mode=True)


def _doubled(h: Tensor, n: int) -> Tensor:
    """Every token twice, (B, W, ceil(n/2)) -> (B, W, n)."""
    return h.repeat_interleave(2, dim=2)[..., :n]


@dataclass(frozen=True)
class UNet1dConfig:
    """The recipe of a ``UNet1d``, as it is stored with a run; fields as its arguments."""

    channels: int = 2
    width: int = 64
    levels: int = 3
    piece: int = 4
    kernel: int = 3
    classes: int = 0
    context: int = 0

    def build(self) -> UNet1d:
        """A fresh net."""
        return UNet1d(**asdict(self))

r"""A transformer for paths (B, L, C), conditioned as in DiT ("adaLN-zero").

    h <- h + g_1 * attention(s_1 * norm(h) + b_1),      h <- h + g_2 * mlp(s_2 * norm(h) + b_2),

where s, b and the gates g are affine in the embedding of (t, y, c), and g = 0 at first: a fresh
block is the identity. Tokens are pieces of the path (``Pieces``).

References:
    Vaswani et al. 2017 (arXiv:1706.03762), eq. 1; Peebles and Xie 2023 (arXiv:2212.09748), sec.
    3.2 (adaLN-zero).
"""

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch._C._functorch import maybe_current_level
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from .embedding import Embedding, Pieces, check_sizes

__all__ = ["Transformer", "TransformerConfig"]


class _Block(nn.Module):
    """Attention among tokens, then a perceptron on each of them."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width)
        )
        self.modulation = nn.Linear(width, 6 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, h: Tensor, e: Tensor) -> Tensor:
        """h (B, n, width), e (1 or B, width) -> (B, n, width)."""
        s1, b1, g1, s2, b2, g2 = self.modulation(e)[:, None].chunk(6, -1)
        h = h + g1 * self._attend(self.norm(h) * (1 + s1) + b1)
        out: Tensor = h + g2 * self.mlp(self.norm(h) * (1 + s2) + b2)
        return out

    def _attend(self, h: Tensor) -> Tensor:
        """softmax(q k^T/sqrt(d)) v in each head."""
        split = self.qkv(h).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = _attention(*split.unbind())  # (B, heads, n, d)
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out


def _attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T/sqrt(d)) v, (B, heads, n, d).

    The fused kernel knows its backward derivative alone: where torch.func transforms it, or a
    forward derivative is asked for, the formula is taken.
    """
    if maybe_current_level() is None or torch.compiler.is_compiling():
        try:
            return scaled_dot_product_attention(q, k, v)
        except NotImplementedError:  # a dual number
            pass
    with sdpa_kernel(SDPBackend.MATH):
        return scaled_dot_product_attention(q, k, v)


class Transformer(nn.Module):
    """Transformer with an embedding of time and, if asked, of a label and a vector.

    Args:
        channels: C, numbers at each point of a path.
        width: width of a token, a multiple of ``heads``.
        depth: number of blocks.
        heads: number of heads of the attention.
        piece: number of points in a token; 1 leaves the path as it is.
        classes: number K of labels 0..K-1; index K, or y = None, means "no label". 0 for none.
        context: length of a vector c; an entry that is NaN, or c = None, means "not known".
    """

    def __init__(
        self,
        channels: int = 2,
        width: int = 96,
        depth: int = 4,
        heads: int = 4,
        piece: int = 4,
        classes: int = 0,
        context: int = 0,
    ) -> None:
        super().__init__()
        check_sizes(self, channels=channels, width=width, depth=depth, heads=heads, piece=piece)
        check_sizes(self, 0, classes=classes, context=context)
        if width % heads:
            raise ValueError(f"expected width a multiple of heads = {heads}, got {width}")
        self.config = TransformerConfig(channels, width, depth, heads, piece, classes, context)
        self.classes, self.context = classes, context
        self.embedding = Embedding(width, classes, context)
        self.pieces = Pieces(channels, piece, width)
        self.blocks = nn.ModuleList(_Block(width, heads) for _ in range(depth))

    def forward(
        self, x: Tensor, t: Tensor, y: Tensor | None = None, c: Tensor | None = None
    ) -> Tensor:
        """x (B, L, C), t () or (B,), y (B,) long or None, c (B, context) or None -> (B, L, C)."""
        h, e = self.pieces(x), self.embedding(t.to(x.dtype), y, c)
        for block in self.blocks:
            h = block(h, e)
        return self.pieces.join(h, x.shape[1])


@dataclass(frozen=True)
class TransformerConfig:
    """The recipe of a ``Transformer``, as it is stored with a run; fields as its arguments."""

    channels: int = 2
    width: int = 96
    depth: int = 4
    heads: int = 4
    piece: int = 4
    classes: int = 0
    context: int = 0

    def build(self) -> Transformer:
        """A fresh net."""
        return Transformer(**asdict(self))

r"""Multilayer perceptrons for points: a good one, the simplest one, and a classifier.

    h_0 = W_in x,      h_k = h_{k-1} + silu(W_k [scale_k * norm(h_{k-1})] + shift_k),
    out = W_out h_K,   scale_k, shift_k affine in the embedding of (t, y),

where x is joined by the vector that is a condition, if there is one.

The stream h is normalised only on its way into a block, never at the end: far from the data eps
is linear in x, and so is the net (a final normalisation bounds it, and stray samples stay away).
W_out = 0 at first, so a fresh net predicts zero: the mean of eps, of v and of centred data.
"""

import math
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

__all__ = [
    "MLP",
    "Classifier",
    "ClassifierConfig",
    "ConcatMLP",
    "ConcatMLPConfig",
    "MLPConfig",
    "TimeFeatures",
]


def check_time(t: Tensor) -> None:
    """Raise an error unless there is one time for all, or one for each sample."""
    if t.ndim > 1:
        raise ValueError(
            f"expected a time () or (B,), got {tuple(t.shape)}: pass one for all, or one for "
            "each sample"
        )


class TimeFeatures(nn.Module):
    r"""Sines and cosines of t at n frequencies, geometric from 1/4 to 16 turns per unit of t.

    Computed from t itself, not from an index. One time for all is embedded once: () -> (1, 2n).

    Args:
        n: number of frequencies.
        fastest: the highest, in turns.
    """

    frequency: Tensor
    phase: Tensor

    def __init__(self, n: int = 16, fastest: float = 16.0) -> None:
        super().__init__()
        turns = torch.logspace(math.log10(0.25), math.log10(fastest), n)
        quarter = torch.full((n,), 0.5 * math.pi)
        self.register_buffer("frequency", 2 * math.pi * turns.repeat(2))
        self.register_buffer("phase", torch.cat([0 * quarter, quarter]))

    def forward(self, t: Tensor) -> Tensor:
        """sin(frequency t + phase): () or (B,) -> (1 or B, 2n)."""
        check_time(t)
        return torch.addcmul(self.phase, t.reshape(-1, 1), self.frequency).sin()


class _Block(nn.Module):
    """h + silu(W [scale * norm(h)] + shift), scale and shift affine in an embedding."""

    def __init__(self, width: int, embedding: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.scale = nn.Linear(embedding, width)
        self.shift = nn.Linear(embedding, width)
        self.linear = nn.Linear(width, width, bias=False)
        self.out = nn.Sequential(nn.SiLU(), nn.Dropout(dropout)) if dropout else nn.SiLU()
        nn.init.ones_(self.scale.bias)

    def forward(self, h: Tensor, e: Tensor) -> Tensor:
        """h (B, width), e (1 or B, embedding) -> (B, width)."""
        inner = self.linear(self.norm(h) * self.scale(e)) + self.shift(e)
        out: Tensor = h + self.out(inner)
        return out


class _Trunk(nn.Module):
    """The residual network from (B, inputs), t, y and c to (B, outputs)."""

    EMBEDDING = 64

    def __init__(
        self,
        inputs: int,
        outputs: int,
        width: int,
        depth: int,
        classes: int,
        dropout: float,
        context: int = 0,
    ) -> None:
        super().__init__()
        self.inputs, self.classes, self.context = inputs, classes, context
        self.features = TimeFeatures()
        self.time = nn.Linear(len(self.features.phase), self.EMBEDDING)
        self.label = nn.Embedding(classes + 1, self.EMBEDDING) if classes else None
        self.first = nn.Linear(inputs + 2 * context, width)
        self.blocks = nn.ModuleList(_Block(width, self.EMBEDDING, dropout) for _ in range(depth))
        self.last = nn.Linear(width, outputs)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None, c: Tensor | None = None) -> Tensor:
        h, e = self.first(self._joined(self._flat(x), c)), self._embed(t.to(x.dtype), y)
        for block in self.blocks:
            h = block(h, e)
        out: Tensor = self.last(h)
        return out

    def _embed(self, t: Tensor, y: Tensor | None) -> Tensor:
        """() or (B,) and (B,) -> (1 or B, EMBEDDING)."""
        e: Tensor = self.time(self.features(t))
        if self.label is not None:
            e = e + (self.label.weight[-1] if y is None else self.label(y))
        elif y is not None:
            raise ValueError(
                "expected no label y, got one: this net was built without; pass classes=K"
            )
        return nn.functional.silu(e)

    def _joined(self, x: Tensor, c: Tensor | None) -> Tensor:
        """x, the known numbers of c, and which ones they are: (B, inputs + 2 context)."""
        if c is not None and (not self.context or c.shape[1:] not in ((), (self.context,))):
            raise ValueError(
                f"expected c (B, {self.context}), or no c if that is 0, got {tuple(c.shape)}: "
                "build the net with context = the size of the vector"
            )
        if not self.context:
            return x
        if c is None:
            return torch.cat([x, x.new_zeros(len(x), 2 * self.context)], 1)
        c = c.to(x.dtype).reshape(len(c), -1).expand(len(x), self.context)
        known = ~c.isnan()
        return torch.cat([x, c.where(known, 0.0), known.to(x.dtype)], 1)

    def _flat(self, x: Tensor) -> Tensor:
        if math.prod(x.shape[1:]) != self.inputs:
            raise ValueError(
                f"expected x (B, *) with {self.inputs} numbers a sample, got {tuple(x.shape)}: "
                "build the net with dim = the size of the data"
            )
        return x.flatten(1)


class MLP(nn.Module):
    """Residual MLP with a Fourier embedding of time and, if asked, of a label.

    About 2 ms a training step of 512 points of the plane on two CPU cores.

    Args:
        dim: number of entries of one sample; any event shape is flattened.
        width: width of the hidden layers.
        depth: number of residual blocks.
        classes: number K of labels 0..K-1; index K, or y = None, means "no label". 0 for a net
            that takes none.
        dropout: probability with which a block's output is dropped in training.
        context: length of a vector c that is joined to x; an entry that is NaN, or c = None,
            means "not known". Scale it to about 1. 0 for a net that takes none.
    """

    def __init__(
        self,
        dim: int,
        width: int = 128,
        depth: int = 3,
        classes: int = 0,
        dropout: float = 0.0,
        context: int = 0,
    ) -> None:
        super().__init__()
        _check(dim=dim, width=width, depth=depth)
        if classes < 0 or context < 0 or not 0 <= dropout < 1:
            raise ValueError(
                "expected classes >= 0, context >= 0 and 0 <= dropout < 1, "
                f"got {classes}, {context} and {dropout}"
            )
        self.config = MLPConfig(dim, width, depth, classes, dropout, context)
        self.classes, self.context = classes, context
        self.trunk = _Trunk(dim, dim, width, depth, classes, dropout, context)

    def forward(
        self, x: Tensor, t: Tensor, y: Tensor | None = None, c: Tensor | None = None
    ) -> Tensor:
        """x (B, *), t () or (B,), y (B,) long or None, c (B, context) or None -> (B, *)."""
        out: Tensor = self.trunk(x, t, y, c)
        return out.reshape(x.shape)


class ConcatMLP(nn.Module):
    """The simplest model: time joined to x, two linear layers, one activation.

        out = W_2 silu(W_1 [x, t] + b_1) + b_2

    Args:
        dim: number of entries of one sample; any event shape is flattened.
        width: width of the hidden layer.
    """

    def __init__(self, dim: int, width: int = 128) -> None:
        super().__init__()
        _check(dim=dim, width=width)
        self.config = ConcatMLPConfig(dim, width)
        self.layers = nn.Sequential(nn.Linear(dim + 1, width), nn.SiLU(), nn.Linear(width, dim))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """x (B, *), t () or (B,) -> (B, *)."""
        check_time(t)
        column = t.to(x.dtype).reshape(-1, 1).expand(len(x), 1)
        out: Tensor = self.layers(torch.cat([x.flatten(1), column], 1))
        return out.reshape(x.shape)


class Classifier(nn.Module):
    """Noise-conditional classifier: logits of p(y | x_t = x).

    Args:
        dim: number of entries of one sample; any event shape is flattened.
        classes: number K of labels.
        width: width of the hidden layers.
        depth: number of residual blocks.
    """

    def __init__(self, dim: int, classes: int, width: int = 64, depth: int = 2) -> None:
        super().__init__()
        _check(dim=dim, width=width, depth=depth)
        if classes < 2:
            raise ValueError(f"expected at least two classes, got {classes}")
        self.config = ClassifierConfig(dim, classes, width, depth)
        self.classes = classes
        self.trunk = _Trunk(dim, classes, width, depth, classes=0, dropout=0.0)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """x (B, *), t () or (B,) -> logits (B, K)."""
        out: Tensor = self.trunk(x, t, None)
        return out


@dataclass(frozen=True)
class MLPConfig:
    """The recipe of an ``MLP``, as it is stored with a run; fields as its arguments."""

    dim: int = 2
    width: int = 128
    depth: int = 3
    classes: int = 0
    dropout: float = 0.0
    context: int = 0

    def build(self) -> MLP:
        """A fresh net."""
        return MLP(**asdict(self))


@dataclass(frozen=True)
class ClassifierConfig:
    """The recipe of a ``Classifier``; fields as its arguments."""

    dim: int
    classes: int
    width: int = 64
    depth: int = 2

    def build(self) -> Classifier:
        """A fresh net."""
        return Classifier(**asdict(self))


@dataclass(frozen=True)
class ConcatMLPConfig:
    """The recipe of a ``ConcatMLP``; fields as its arguments."""

    dim: int = 2
    width: int = 128

    def build(self) -> ConcatMLP:
        """A fresh net."""
        return ConcatMLP(**asdict(self))


def _check(**sizes: int) -> None:
    for name, size in sizes.items():
        if not (isinstance(size, int) and size >= 1):
            raise ValueError(f"expected {name} to be a positive integer, got {size!r}")

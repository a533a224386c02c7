"""Where batches come from: arrays held on the device, functions, and loaders.

    source(n, generator) -> x0 (n, *) in the model's units, and labels (n,) or None

Data in memory are moved to the device once, and a batch is drawn from them by random index: no
loader, no worker, no copy from the host.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from ..denoiser import Affine, check_data
from ..distributions import Distribution

__all__ = ["Batch", "Data", "Held", "Source", "source", "to_tensor"]

Batch = tuple[Tensor, Tensor | None]
"""Data (n, *) and labels (n,) long, or vectors (n, C)."""
Source = Callable[[int, torch.Generator], Batch]
"""(n, generator) -> a batch."""
Data = (
    Tensor
    | np.ndarray[Any, Any]
    | Dataset[Any]
    | DataLoader[Any]
    | Distribution
    | Callable[..., Any]
)
"""What ``fit`` takes."""


class Held:
    """Data in memory: batches drawn with replacement by index.

    Args:
        x: (n, *), in the model's units.
        y: labels (n,), or None.
    """

    def __init__(self, x: Tensor, y: Tensor | None = None) -> None:
        self.x, self.y = x, y

    def __call__(self, n: int, generator: torch.Generator) -> Batch:
        """Draw n of them."""
        index = torch.randint(len(self.x), (n,), generator=generator, device=self.x.device)
        return self.x.index_select(0, index), None if self.y is None else self.y[index]

    def split(self, n: int, generator: torch.Generator) -> tuple["Held", "Held"]:
        """All but n of them, and those n, chosen at random."""
        order = torch.randperm(len(self.x), generator=generator, device=self.x.device)
        first, second = (
            Held(self.x[part], None if self.y is None else self.y[part])
            for part in (order[n:], order[:n])
        )
        return first, second


class _Drawn:
    """Batches that a function or a loader makes, moved to the device and to the model's units."""

    def __init__(self, draw: Callable[..., Any], affine: Affine | None, like: Tensor) -> None:
        self.draw, self.affine, self.like = draw, affine, like

    def __call__(self, n: int, generator: torch.Generator) -> Batch:
        x, y = _pair(self.draw(n, generator))
        if not len(x):
            raise ValueError(f"expected data to yield samples, {n} at a time, got none")
        x = _scaled(x, self.affine, self.like)
        return x, None if y is None else _whole(y).to(x.device, non_blocking=True)


def source(
    data: Data, labels: Tensor | None, batch: int, affine: Affine | None, like: Tensor
) -> Source:
    """The source of batches that some data stand for, checked.

    Args:
        data: see ``fit``.
        labels: (n,), for data in memory.
        batch: samples in a batch.
        affine: map from the user's units, or None.
        like: a tensor with the model's dtype and device.

    Raises:
        ValueError: if the data are empty, not finite or constant, or the labels do not match.
        TypeError: if they are of no kind that is known.
    """
    if isinstance(data, Dataset) and not isinstance(data, IterableDataset):
        data, labels = _read(data, labels)
    if isinstance(data, Tensor | np.ndarray):
        return _hold(to_tensor(data), labels, affine, like)
    if labels is not None:
        raise ValueError("expected labels= only with data in memory: yield pairs (x0, y) instead")
    drawn = _Drawn(_function(data, batch), affine, like)
    # looked at once, from numbers of its own: the run's generator must not notice
    x, y = drawn(max(2, batch), torch.Generator(like.device).manual_seed(0))
    _check(x)
    _check_labels(y, x)
    return drawn


def _function(data: Data, batch: int) -> Callable[..., Any]:
    if isinstance(data, IterableDataset):
        data = DataLoader(data, batch_size=batch)
    if isinstance(data, DataLoader):
        batches = _cycle(data)
        return lambda n, generator: next(batches)
    if isinstance(data, Distribution):
        law = data
        return lambda n, generator: law.sample(n, generator=generator)
    if callable(data):
        return data
    raise TypeError(
        "expected data as a tensor, an array, a Dataset, a DataLoader, a Distribution, or a "
        f"function (n, generator) -> x0, got {type(data).__name__}"
    )


def _hold(x: Tensor, labels: Tensor | None, affine: Affine | None, like: Tensor) -> Held:
    _check(x)
    y = None if labels is None else _whole(to_tensor(labels))
    _check_labels(y, x)
    return Held(_scaled(x, affine, like), None if y is None else y.to(like.device))


def _scaled(x: Tensor, affine: Affine | None, like: Tensor) -> Tensor:
    """To the model's units, in the precision of the map, then to its dtype and device."""
    if affine is not None:
        x = affine(x.to(affine.mean, non_blocking=True))
    return x.to(like, non_blocking=True)


def _check(x: Tensor) -> None:
    """Points must vary in every coordinate; in images some pixels may be constant, not all."""
    check_data(x if x.ndim <= 2 or len(x) < 2 else x.reshape(-1, 1))


def _check_labels(y: Tensor | None, x: Tensor) -> None:
    if y is None:
        return
    if y.is_floating_point() and y.ndim == 2 and len(y) == len(x):
        return
    if y.shape != x.shape[:1]:
        raise ValueError(
            f"expected labels ({len(x)},), one a sample, or vectors ({len(x)}, C), "
            f"got {tuple(y.shape)}"
        )
    if y.is_floating_point():
        raise ValueError(
            f"expected labels 0, 1, ... that are whole numbers, such as torch.long, got {y.dtype}"
        )
    if int(y.min()) < 0:
        raise ValueError(f"expected labels 0, 1, ..., got {int(y.min())}")


def to_tensor(x: Any) -> Tensor:  # noqa: ANN401
    """An array as a tensor: a copy, as it may be read-only; a tensor as it is."""
    return x if isinstance(x, Tensor) else torch.tensor(x)


def _whole(y: Tensor) -> Tensor:
    """Whole numbers of any width as torch.long; vectors as they are."""
    return y if y.is_floating_point() else y.long()


def _pair(item: Any) -> tuple[Tensor, Tensor | None]:  # noqa: ANN401
    if isinstance(item, Tensor | np.ndarray):
        return to_tensor(item), None
    x, *rest = item
    return to_tensor(x), to_tensor(rest[0]) if rest else None


def _read(data: Dataset[Any], labels: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """All items of a dataset, read once into memory."""
    pairs = [_pair(items) for items in DataLoader(data, batch_size=1024)]
    if not pairs:
        raise ValueError("expected data, got an empty dataset")
    x = torch.cat([x for x, _ in pairs])
    ys = [y for _, y in pairs if y is not None]
    return x, labels if labels is not None or not ys else torch.cat(ys)


def _cycle(loader: DataLoader[Any]) -> Iterator[Any]:
    while True:
        yield from loader

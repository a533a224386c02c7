"""The classifier that classifier guidance needs, one that has seen noise: trained, and on disk."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ..losses import Times, UniformTimes
from ..nets import Classifier, ClassifierConfig, bare
from ..sde import SDE
from .batches import Batch, Data, Held, Source, source
from .checks import check_counts, check_module, check_process, check_times
from .config import Process, from_json, to_json
from .files import read, write
from .history import History, Row
from .loop import Loop, training

__all__ = ["ClassifierFit", "accuracy", "fit_classifier", "load_classifier", "save_classifier"]

HELD_OUT = 4096


@dataclass(frozen=True)
class ClassifierFit:
    """What ``fit_classifier`` returns.

    Attributes:
        classifier: a copy with the averaged weights, in evaluation mode: (x, t) -> logits.
        times: (T,), from 0 to t_max.
        accuracy: share of right answers at each of them on data held out, (T,).
        history: one row for each reading: step, loss (cross entropy in nats), lr, seconds.
        seconds: time spent in training.
    """

    classifier: nn.Module
    times: Tensor
    accuracy: Tensor
    history: list[Row]
    seconds: float


def fit_classifier(
    net: nn.Module,
    sde: SDE,
    data: Data,
    labels: Tensor | None = None,
    *,
    steps: int = 3000,
    batch: int = 512,
    lr: float = 3e-3,
    times: Times | None = None,
    clean: bool = False,
    ema: float = 0.999,
    clip: float | None = 1.0,
    seed: int = 0,
    every: int = 100,
    log: str | Path | None = None,
    progress: bool | str = False,
) -> ClassifierFit:
    """Minimise the cross entropy of net(x_t, t) against y, x_t noised by the same process.

    At a time when the classes overlap the best classifier is uncertain, and that is what guidance
    needs: the gradient of log p(y | x_t). One trained on clean data alone is sure of itself
    everywhere, and guides wrongly.

    Args:
        net: (x, t) -> logits (B, K), trained in place; the result holds the averaged copy.
        sde: the process of the denoiser to be guided.
        data: as in ``fit``, in the model's units; functions and loaders yield pairs (x0, y).
        labels: (n,) long in 0..K-1, for data in memory. A tenth of these (4096 at most) is held
            out for the accuracy.
        steps: number of gradient steps.
        batch: samples a step.
        lr: largest learning rate; warm-up and cosine as in ``fit``.
        times: where t comes from; uniform on [0, t_max] if not given.
        clean: train at t = 0 only, to see what that does.
        ema: decay of the averaged weights.
        clip: largest norm of the gradient, or None.
        seed: an integer.
        every: steps between readings of the loss.
        log: path of a CSV file for the rows.
        progress: show a bar, with this title if it is a text.

    Raises:
        ValueError: if data, labels or settings cannot be.
        TypeError: if net is no network, or sde no process.
    """
    check_counts(batch=batch, every=every)
    check_module(net)
    check_process(sde)
    loop = Loop(bare(net), steps, lr, ema, clip, seed)
    batches, (x, y) = _split(source(data, labels, batch, None, loop.like), loop.generator)
    draw = UniformTimes(0.0, sde.t_max) if times is None else times
    check_times(draw, max(1.0, sde.t_max), loop.like)
    loss = _objective(net, sde, batches, batch, None if clean else draw)
    with training(net, seed), closing(History([], log, progress, steps)) as history:
        for row in loop.run(loss, every):
            history.add(row)
    classifier = loop.average.settled()
    ts = torch.linspace(0, sde.t_max, 21, dtype=torch.float64)
    right = accuracy(classifier, sde, x, y, ts, loop.generator)
    return ClassifierFit(classifier, ts, right, history.rows, loop.seconds)


@torch.no_grad()
def accuracy(
    classifier: nn.Module,
    sde: SDE,
    x0: Tensor,
    y: Tensor,
    ts: Tensor,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Share of right answers on x_t at each time, (T,) float64 on the CPU.

    Args:
        classifier: (x, t) -> logits (B, K).
        sde: the process.
        x0: clean data in the model's units, (n, *).
        y: labels (n,).
        ts: times, (T,).
        generator: of the noise, on the device of x0.
    """
    x0 = x0.to(next(classifier.parameters(), x0).dtype)
    z = torch.empty_like(x0).normal_(generator=generator)
    answers = [classifier(sde.perturb(x0, t, z), t).argmax(1) for t in ts.to(x0)]
    return torch.stack([(a == y).double().mean() for a in answers]).cpu()


def _objective(
    net: nn.Module, sde: SDE, batches: Source, batch: int, times: Times | None
) -> Callable[[torch.Generator], Tensor]:
    def loss(generator: torch.Generator) -> Tensor:
        x0, y = _labelled(batches(batch, generator))
        if times is None:
            return cross_entropy(net(x0, x0.new_zeros(())), y)
        t = times(len(x0), generator, x0.device, x0.dtype)
        z = torch.empty_like(x0).normal_(generator=generator)
        return cross_entropy(net(sde.perturb(x0, t, z), t.to(x0.dtype)), y)

    return loss


def _split(batches: Source, generator: torch.Generator) -> tuple[Source, tuple[Tensor, Tensor]]:
    """A source to train on, and data held out."""
    if not isinstance(batches, Held):
        return batches, _labelled(batches(HELD_OUT, generator))
    kept, out = batches.split(max(1, min(HELD_OUT, len(batches.x) // 10)), generator)
    return kept, _labelled((out.x, out.y))


def _labelled(batch: Batch) -> tuple[Tensor, Tensor]:
    x, y = batch
    if y is None or y.is_floating_point():
        raise ValueError(
            "expected labels 0, 1, ... (n,) long: pass labels=, or data that yield pairs (x0, y)"
        )
    return x, y


@dataclass(frozen=True)
class ClassifierRecipe:
    """A stored classifier but for its weights.

    Args:
        process: whose noise it knows.
        net: the recipe of the network.
        format: number of this layout.
    """

    process: Process
    net: ClassifierConfig
    format: int = 1


def save_classifier(path: str | Path, classifier: Classifier, sde: Process) -> None:
    """Write a classifier to one file, so that ``load_classifier`` rebuilds it.

    Args:
        path: of the file; an earlier one stays intact until the new one is complete.
        classifier: scoresde's own, compiled or not.
        sde: the process whose noise it was trained with.
    """
    classifier = cast(Classifier, bare(classifier))
    recipe = to_json(ClassifierRecipe(sde, classifier.config))
    write(path, {"format": 1, "config": recipe, "weights": classifier.state_dict()})


def load_classifier(path: str | Path, sde: SDE, device: torch.device | str = "cpu") -> Classifier:
    """The classifier that ``save_classifier`` stored, in evaluation mode.

    Args:
        path: of the file.
        sde: the process of the denoiser that it is to guide.
        device: where to put it.

    Raises:
        ValueError: if the file is not one of scoresde or damaged, holds no classifier, or one
            that was trained with the noise of another process.
    """
    stored = read(path, device)
    try:
        recipe = from_json(ClassifierRecipe, stored["config"] or "null")
        classifier = recipe.net.build()
        classifier.load_state_dict(stored["weights"])
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"cannot read the classifier in {path}: {error}") from None
    if recipe.process != sde:
        raise ValueError(
            f"expected a classifier trained with the noise of {sde}, but that in {path} knows "
            f"{recipe.process}: train one with fit_classifier(net, denoiser.sde, ...)"
        )
    weight = next(iter(stored["weights"].values()))
    return classifier.to(device=device, dtype=weight.dtype).eval()

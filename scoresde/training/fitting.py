"""Train a denoiser: one call, from data to averaged weights."""

import math
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from ..denoiser import Denoiser, anchor
from ..distributions import Distribution
from ..grids import log_snr
from ..losses import (
    Times,
    UniformTimes,
    Weight,
    denoising_loss,
    excess_loss,
    irreducible_loss,
    simple,
)
from ..nets import bare
from .batches import Data, Held, Source, source
from .checks import check_counts, check_denoiser, check_times, check_weight
from .config import DenoiserConfig
from .files import alone, pack, read, write
from .history import History, Row
from .loop import Loop, training

__all__ = ["Fit", "LossByTime", "fit"]

T_EPS = 1e-5


@dataclass(frozen=True)
class LossByTime:
    """The eps loss per dimension against time, where the law is known: loss = floor + excess.

    Attributes:
        t: times, (T,) increasing, equally spaced in log-SNR.
        floor: the irreducible loss.
        excess: what the network adds to it; stderr: its standard error.
        stderr: standard error of the excess.
    """

    t: Tensor
    floor: Tensor
    excess: Tensor
    stderr: Tensor

    @property
    def loss(self) -> Tensor:
        """Floor + excess, (T,)."""
        return self.floor + self.excess


@dataclass(frozen=True)
class Fit:
    """What ``fit`` returns.

    Attributes:
        denoiser: a copy with the averaged weights, in evaluation mode.
        history: one row for each reading: step, loss, lr, seconds, and what was evaluated.
        seconds: time spent in training, evaluations and checkpoints excluded.
        by_time: the loss against its floor, if the law was given.
    """

    denoiser: Denoiser
    history: list[Row]
    seconds: float
    by_time: LossByTime | None = None

    def curve(self, key: str, against: str = "step") -> tuple[list[float], list[float]]:
        """Two columns of the history, of the rows that have both: (against, key)."""
        rows = [row for row in self.history if key in row]
        return [row[against] for row in rows], [row[key] for row in rows]

    def seconds_to(self, key: str, level: float) -> float | None:
        """Seconds of training after which an evaluated value was first at or below a level."""
        seconds = zip(*self.curve(key, "seconds"), strict=True)
        return next((second for second, value in seconds if value <= level), None)


def fit(
    denoiser: Denoiser,
    data: Data,
    *,
    labels: Tensor | None = None,
    steps: int = 10_000,
    batch: int = 512,
    lr: float = 3e-3,
    weight: Weight = simple,
    times: Times | None = None,
    ema: float = 0.999,
    clip: float | None = 1.0,
    label_dropout: float = 0.0,
    seed: int = 0,
    every: int = 100,
    evaluate: Callable[[Denoiser], Mapping[str, float]] | None = None,
    evaluate_every: int = 1000,
    law: Distribution | None = None,
    log: str | Path | None = None,
    progress: bool | str = False,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    config: DenoiserConfig | None = None,
) -> Fit:
    r"""Minimise E w(t) |eps_hat(alpha x0 + sigma z, t) - z|^2/d by Adam.

    The denoiser is trained in place, in training mode, on the device and in the dtype where its
    weights are; it is left in the mode it was found in. The result holds a copy with the averaged
    weights, of the network alone, without what it was compiled or wrapped in. All randomness
    follows from ``seed``, and torch's global state is left as it was.

    Args:
        denoiser: the model; data are mapped by its ``affine``, if it has one.
        data: a tensor or array (n, *), a Dataset (read once into memory), a DataLoader (cycled
            through, its own batch size), a ``Distribution``, or a function (n, generator) -> x0
            or -> (x0, y), with a generator on the model's device. In the user's units.
        labels: (n,) long in 0..K-1, passed to the network as y, or vectors (n, C), passed to it
            as c; for data in memory.
        steps: number of gradient steps.
        batch: samples a step.
        lr: largest learning rate of Adam; it warms up, and falls to zero as a cosine.
        weight: of the eps error, see ``losses``.
        times: where t comes from; uniform on [1e-5, t_max] if not given. One batch is drawn and
            looked at before the run.
        ema: decay of the averaged weights.
        clip: largest norm of the gradient, or None.
        label_dropout: probability that a label is replaced by "no label" = ``net.classes``, a
            vector by NaN, which also trains the unconditional model that ``ClassifierFree``
            needs.
        seed: an integer.
        every: steps between readings of the loss (rows of the history, refreshes of the bar): all
            that the host ever waits for.
        evaluate: called on the averaged denoiser, its values join the row; its time is not
            counted.
        evaluate_every: steps between evaluations, and between checkpoints.
        law: the truth in the model's units, if known: the result compares the loss with it (some
            seconds more, for a law of very many components).
        log: path of a CSV file for the rows.
        progress: show a bar, with this title if it is a text.
        checkpoint: path of a file to continue from, which ``load`` reads too.
        resume: continue from ``checkpoint``, if the file exists, exactly as if never interrupted
            (DataLoaders, which keep their place to themselves, start anew).
        config: recipe of the denoiser for the checkpoint, see ``save``.

    Raises:
        ValueError: if data, labels or settings cannot be; times beyond ``t_max``, where alpha
            may be 0, are for a ``VDenoiser`` alone.
        TypeError: if the denoiser is a bare network, or anything a class in place of an instance.
        FloatingPointError: if the loss diverges; the last checkpoint stays.

    >>> from scoresde import VPSDE, EpsDenoiser, nets
    >>> result = fit(EpsDenoiser(nets.MLP(2), VPSDE()), torch.randn(99, 2), steps=3, every=2)
    >>> [row["step"] for row in result.history]
    [2, 3]
    """
    check_counts(batch=batch, every=every, evaluate_every=evaluate_every)
    denoiser = cast(Denoiser, bare(denoiser))
    check_denoiser(denoiser)
    loop = Loop(alone(denoiser), steps, lr, ema, clip, seed)
    times = UniformTimes(T_EPS, denoiser.sde.t_max) if times is None else times
    looked = check_times(times, max(1.0, denoiser.sde.t_max), loop.like)
    check_weight(denoiser, weight, looked)
    batches = source(data, labels, batch, denoiser.affine, loop.like)
    loss = _Objective(denoiser, batches, batch, weight, times, label_dropout)
    with training(denoiser, seed):
        rows = _resume(loop, checkpoint) if resume else []
        with closing(History(rows, log, progress, steps)) as history:
            for row in loop.run(loss, every, evaluate_every):
                pause = row["step"] % evaluate_every == 0 or row["step"] == steps
                if pause and evaluate is not None:
                    row |= _evaluated(evaluate, loop)
                history.add(row)
                if pause and checkpoint is not None:
                    _store(checkpoint, loop, history.rows, config)
    trained = _averaged(loop)
    by_time = None if law is None else _by_time(trained, law)
    return Fit(trained, history.rows, loop.seconds, by_time)


class _Objective:
    """The loss of a random batch."""

    def __init__(
        self,
        denoiser: Denoiser,
        batches: Source,
        batch: int,
        weight: Weight,
        times: Times,
        label_dropout: float,
    ) -> None:
        self.denoiser, self.batches, self.batch = denoiser, batches, batch
        self.weight, self.times, self.dropout = weight, times, label_dropout
        net = getattr(alone(denoiser), "net", None)
        self.classes = getattr(net, "classes", 0)
        takes = self.classes or getattr(net, "context", 0)
        if not 0 <= label_dropout <= 1 or (label_dropout and not takes):
            raise ValueError(
                f"expected 0 <= label_dropout <= 1, and above 0 a network with classes or with a "
                f"context, got {label_dropout} and classes = {self.classes}"
            )
        y = batches.y if isinstance(batches, Held) else None
        if self.classes and y is not None and int(y.max()) >= self.classes:
            raise ValueError(f"expected labels 0..{self.classes - 1}, got {int(y.max())}")

    def __call__(self, generator: torch.Generator) -> Tensor:
        x0, y = self.batches(self.batch, generator)
        t = self.times(len(x0), generator, x0.device, x0.dtype)
        z = torch.empty_like(x0).normal_(generator=generator)
        cond = {} if y is None else self._condition(y, generator)
        return denoising_loss(self.denoiser, x0, t, z, self.weight, **cond)

    def _condition(self, y: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Labels as y, vectors as c, some of them dropped."""
        name, nothing = ("c", math.nan) if y.is_floating_point() else ("y", self.classes)
        if not self.dropout:
            return {name: y}
        kept = torch.rand(len(y), generator=generator, device=y.device) >= self.dropout
        return {name: torch.where(kept.reshape(-1, *[1] * (y.ndim - 1)), y, nothing)}


def _averaged(loop: Loop) -> Denoiser:
    average = loop.average.settled()
    assert isinstance(average, Denoiser)
    return average


def _evaluated(evaluate: Callable[[Denoiser], Mapping[str, float]], loop: Loop) -> Row:
    """What was evaluated, without a trace on the run."""
    with torch.random.fork_rng([loop.like.device] if loop.like.is_cuda else []):
        return dict(evaluate(_averaged(loop)))


def _store(path: str | Path, loop: Loop, rows: list[Row], config: DenoiserConfig | None) -> None:
    write(path, pack(_averaged(loop), config) | {"training": loop.state_dict(), "rows": rows})


def _resume(loop: Loop, path: str | Path | None) -> list[Row]:
    """Put the loop where a checkpoint left it; its rows."""
    if path is None:
        raise ValueError("expected checkpoint=path with resume=True, got None")
    if not Path(path).exists():
        return []
    stored = read(path, loop.like.device)
    if "training" not in stored:
        raise ValueError(
            f"expected a checkpoint of fit, but {path} holds a finished denoiser: "
            "load it, or start without resume=True"
        )
    if stored["training"]["generator"].shape != loop.generator.get_state().shape:
        raise ValueError(
            f"expected a checkpoint made on this kind of device, {loop.like.device.type}, but the "
            f"random state in {path} is that of another: go on there, or load(path) and start anew"
        )
    try:
        loop.load_state_dict(stored["training"], stored["weights"])
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"expected a checkpoint of the same denoiser, but {path} does not fit: "
            + " ".join(str(error).split())
        ) from None
    rows: list[Row] = stored["rows"]
    return rows


def _by_time(denoiser: Denoiser, law: Distribution) -> LossByTime:
    ts = log_snr(denoiser.sde, 11).flip(0)
    device = anchor(law).device
    generator = torch.Generator(device).manual_seed(0)
    floor = irreducible_loss(law, ts, generator=generator).value
    excess, stderr = excess_loss(denoiser, law, ts, generator=generator)
    return LossByTime(ts, floor.cpu(), excess.cpu(), stderr.cpu())

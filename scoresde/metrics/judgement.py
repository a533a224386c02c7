"""Every metric of a set of paths beside what it would be if the set were true."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .paths import PATH_METRICS, PathMetric

__all__ = ["Judgement", "Verdict", "judge", "noise_floor"]

Draw = Callable[[int, torch.Generator], Tensor]


class Verdict(NamedTuple):
    """One row of a judgement.

    Attributes:
        name: of the metric.
        value: between the paths and the truth.
        mean: of the metric between two true sets of the same sizes: the noise floor.
        sd: its standard deviation over such pairs.
        quantile: what a share of them stays below.
    """

    name: str
    value: float
    mean: float
    sd: float
    quantile: float

    @property
    def below(self) -> bool:
        """Whether the paths cannot be told from true ones by this metric, at this n."""
        return self.value <= self.quantile


@dataclass(frozen=True)
class Judgement:
    """The rows of ``judge``; iterate over it, ask for a row by name, or print it.

    Attributes:
        rows: one for each metric.
        level: the share that the quantiles stand for.
    """

    rows: tuple[Verdict, ...]
    level: float

    def __iter__(self) -> Iterator[Verdict]:
        return iter(self.rows)

    def __getitem__(self, name: str) -> Verdict:
        return {row.name: row for row in self.rows}[name]

    @property
    def below(self) -> bool:
        """Whether every metric is below its quantile."""
        return all(row.below for row in self.rows)

    def __str__(self) -> str:
        width = max(len(row.name) for row in self.rows)
        head = f"{'':{width}}  {'value':>9}  {'floor':>9} +- {'sd':<8}  {self.level:.4g} quantile"
        lines = [
            f"{r.name:{width}}  {r.value:9.3g}  {r.mean:9.3g} +- {r.sd:<8.2g}  {r.quantile:9.3g}"
            f"{'' if r.below else '  above'}"
            for r in self.rows
        ]
        return "\n".join([head, *lines])


def judge(
    x: Tensor,
    truth: Tensor,
    floor_from: Tensor | Draw,
    metrics: Mapping[str, PathMetric] = PATH_METRICS,
    repeats: int = 100,
    level: float = 0.99,
    seed: int = 0,
) -> Judgement:
    """Measure paths against true ones, and each number against its noise floor.

    Of M metrics one stands above its own 99 % quantile by chance in about M cases of a hundred;
    for a verdict on all of them together take level = 1 - 0.01/M (Bonferroni).

    >>> from scoresde.data import OrnsteinUhlenbeck
    >>> ou = OrnsteinUhlenbeck(length=8)
    >>> judge(2 * ou(100), ou(100), floor_from=ou, repeats=10)["arc length W1"].below
    False

    Args:
        x: the paths to judge, (n, L, C).
        truth: held-out true paths, (m, L, C).
        floor_from: where pairs of true sets of n and m paths come from: a function
            (n, generator) -> paths, a family as it is, for fresh ones each time; or held-out paths
            (N, L, C), N >= n + m, none of them in ``truth``, cut at random again and again.
        metrics: by name; add ``conservation_metrics(family.conserved)`` where physics has them.
        repeats: number of pairs, at least 2.
        level: of the quantile.
        seed: of the pairs.
    """
    names, sizes = list(metrics), (len(x), len(truth))
    floors = noise_floor(floor_from, sizes, metrics, repeats, seed)
    values = [float(metric(x, truth)) for metric in metrics.values()]
    columns = (floors.mean(0), floors.std(0), floors.quantile(level, 0))
    rows = zip(names, values, *(column.tolist() for column in columns), strict=True)
    return Judgement(tuple(Verdict(*row) for row in rows), level)


def noise_floor(
    source: Tensor | Draw,
    sizes: tuple[int, int],
    metrics: Mapping[str, PathMetric] = PATH_METRICS,
    repeats: int = 100,
    seed: int = 0,
) -> Tensor:
    """Each metric between two true sets, over and over: (repeats, M), see ``judge``."""
    if repeats < 2:
        raise ValueError(f"expected repeats >= 2 for a standard deviation, got {repeats}")
    source = source if callable(source) else torch.as_tensor(source)
    pairs = _pairs(source, sizes, repeats, seed)
    rows = [torch.stack([metric(a, b) for metric in metrics.values()]) for a, b in pairs]
    return torch.stack(rows)


def _pairs(
    source: Tensor | Draw, sizes: tuple[int, int], repeats: int, seed: int
) -> Iterator[tuple[Tensor, Tensor]]:
    n, m = sizes
    generator = torch.Generator(source.device if isinstance(source, Tensor) else "cpu")
    generator.manual_seed(seed)
    for _ in range(repeats):
        if isinstance(source, Tensor):
            if len(source) < n + m:
                raise ValueError(
                    f"expected at least {n} + {m} held-out paths, got {len(source)}: draw more, "
                    "or judge fewer at a time"
                )
            order = torch.randperm(len(source), generator=generator, device=source.device)
            yield source[order[:n]], source[order[n : n + m]]
        else:
            yield source(n, generator), source(m, generator)

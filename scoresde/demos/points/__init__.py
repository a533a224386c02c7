"""The main demonstration: one law of the plane, learned once, walked back in three ways.

Network A is trained in continuous time, network B (same architecture, same budget) only at the
times t_i = i/1000 of the chain. Both are walked as a DDPM Markov chain, as a reverse SDE and as a
probability-flow ODE, and every result is measured against the exact law and its noise floor.
"""

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from ..comparison import Entry, Score, Truth, chain_entry, measure, view_entries
from ..data import LAWS
from ..denoiser import Denoiser, EpsDenoiser
from ..files import atomically
from ..guidance import Guided, classifier_log_prob
from ..losses import ChainTimes, Times, UniformTimes
from ..metrics import sliced_wasserstein
from ..mixture import GaussianMixture
from ..nets import MLP, Classifier
from ..samplers import Ancestral, sample
from ..sde import VPSDE
from ..training import ClassifierFit, Fit, fit, fit_classifier, pick_device, save
from .points_figures import Figures
from .points_report import write_report

__all__ = ["Guidance", "PointsDemo", "Results"]

CHAIN = 1000
STEPS = (20, 50, 100)


@dataclass(frozen=True)
class Guidance:
    """Samples drawn towards one mode, with and without.

    Attributes:
        target: index of the mode.
        samples: title -> points (n, 2).
        share: title -> part of the points that belong to the mode.
        sliced_w2: title -> distance of the points from that mode's exact law.
        seconds: title -> time for all of them.
        floor: of the sliced W2.
    """

    target: int
    samples: dict[str, Tensor]
    share: dict[str, float]
    sliced_w2: dict[str, float]
    seconds: dict[str, float]
    floor: tuple[float, float]


@dataclass(frozen=True)
class Results:
    """Everything that the report shows."""

    options: "PointsDemo"
    law: GaussianMixture
    truth: Truth
    a: Fit
    b: Fit
    classifiers: dict[str, ClassifierFit]
    scores: list[Score]
    discrete: list[Score]
    exact: list[Score]
    guidance: Guidance
    seconds: float


@dataclass(frozen=True)
class PointsDemo:
    """Learn a law of the plane; walk it back as a chain, an SDE and an ODE; measure all three."""

    law: Literal["ring", "grid", "two_gaussians", "gm2", "aniso3"] = "ring"
    """Which exact law to learn."""
    out: Path = Path("runs/demo-points")
    """Folder for the report, figures, tables and weights."""
    steps: int = 9000
    """Training steps of each network, 512 points each."""
    samples: int = 8192
    """Samples drawn with every sampler."""
    seed: int = 0
    """Of everything random."""
    device: str = "auto"
    """cpu, cuda, or auto: a GPU when there is one."""

    def run(self) -> Path:
        """Do it all; print the table; return the path of the report."""
        start = time.perf_counter()
        device = pick_device(self.device)
        torch.manual_seed(self.seed)
        sde = VPSDE()
        law = LAWS[self.law](sde).to(device)
        assert isinstance(law, GaussianMixture)
        print(f"scoresde demo: {self.law} on {device}; writing to {self.out}", flush=True)
        truth = Truth.of_law(law, self.samples)
        a = self._train(law, truth, UniformTimes(), "A, continuous time")
        b = self._train(law, truth, ChainTimes(CHAIN), f"B, only t_i = i/{CHAIN}")
        classifiers = self._classifiers(law)
        entries = view_entries(sde, STEPS, (CHAIN,))
        scores = self._measure(a.denoiser, entries, truth, "samplers, network A")
        few = [chain_entry(CHAIN), *(e for e in entries if _is_few(e))]
        discrete = self._measure(b.denoiser, few, truth, "network B")
        exact = self._measure(law, few, truth, "exact score")
        guidance = self._guide(a.denoiser, law, classifiers["noise-trained"])
        seconds = time.perf_counter() - start
        results = Results(
            self, law, truth, a, b, classifiers, scores, discrete, exact, guidance, seconds
        )
        return self._write(results)

    def _train(self, law: GaussianMixture, truth: Truth, times: Times, name: str) -> Fit:
        torch.manual_seed(self.seed)
        device = truth.points.device
        denoiser = EpsDenoiser(MLP(2), law.sde).to(device)
        reference = truth.points.float()
        n = min(4096, self.samples)

        def evaluate(model: Denoiser) -> dict[str, float]:
            x = sample(model, Ancestral("beta"), (n, 2), _EVALUATION_GRID, seed=1, device=device)
            return {"sliced W2": float(sliced_wasserstein(x, reference))}

        return fit(
            denoiser,
            lambda n, generator: law.sample(n, generator=generator).float(),
            steps=self.steps,
            batch=512,
            times=times,
            seed=self.seed,
            law=law,
            evaluate=evaluate,
            every=max(1, self.steps // 12),
            progress=f"train {name}",
            log=self.out / f"training-{name[0]}.csv",
        )

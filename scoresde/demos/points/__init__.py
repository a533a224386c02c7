"""The main demonstration: one law of the plane, learned once, walked back in three ways.

Network A is trained in continuous time, network B (same architecture, same budget) only at the
times t_i = i/1000 of the chain. Both are walked as a DDPM Markov chain, as a reverse SDE and as a
probability-flow ODE, and every result is measured against the exact law and its noise floor.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from ...comparison import (
    Entry,
    Score,
    Truth,
    chain_entry,
    measure,
    print_table,
    score_table,
    view_entries,
)
from ...data import LAWS
from ...denoiser import Denoiser, EpsDenoiser
from ...distributions import GaussianMixture
from ...files import atomically
from ...grids import log_snr
from ...guidance import Guided, classifier_log_prob
from ...losses import ChainTimes, Times, UniformTimes
from ...metrics import floor, mode_weights, sliced_wasserstein
from ...nets import MLP, Classifier
from ...report import Report
from ...runs import pick_device, use_one_thread
from ...samplers import PFHeun, sample
from ...sde import VPSDE
from ...training import ClassifierFit, Fit, fit, fit_classifier, save
from .page import fill

__all__ = ["Guidance", "PointsDemo", "Results"]

CHAIN = 1000
POOL = 200_000
STEPS = (20, 100)


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


@dataclass(frozen=True)
class PointsDemo:
    """Learn a law of the plane; walk it back as a chain, an SDE and an ODE; measure all three."""

    law: Literal["ring", "grid", "two_gaussians", "gm2", "aniso3"] = "ring"
    """Which exact law to learn."""
    out: Path = Path("runs/demo-points")
    """Folder for the report, figures, tables and weights."""
    steps: int = 4500
    """Training steps of each network, 512 points each (of the classifiers 1500 at most)."""
    samples: int = 2048
    """Samples drawn with every sampler."""
    seed: int = 0
    """Of everything random."""
    device: str = "auto"
    """cpu, cuda, or auto: a GPU when there is one."""

    def run(self) -> Path:
        """Do it all; print the table; return the path of the report."""
        start = time.perf_counter()
        device = pick_device(self.device)
        use_one_thread(device)
        law = LAWS[self.law](VPSDE()).to(device)
        assert isinstance(law, GaussianMixture)
        (self.out / "figures").mkdir(parents=True, exist_ok=True)
        print(f"scoresde demo: {self.law} on {device}; writing to {self.out}", flush=True)
        truth = Truth.of_law(law, self.samples)
        a = self._train(law, truth, UniformTimes(), "A: continuous time")
        b = self._train(law, truth, ChainTimes(CHAIN), f"B: only the times i/{CHAIN}")
        classifiers = self._classifiers(law)
        entries = view_entries(law.sde, STEPS, (CHAIN,))
        few = [chain_entry(CHAIN), *(e for e in entries if e.label in ("Euler-Maruyama", "Heun"))]
        results = Results(
            options=self,
            law=law,
            truth=truth,
            a=a,
            b=b,
            classifiers=classifiers,
            scores=self._measure(a.denoiser, entries, truth, "network A"),
            discrete=self._measure(b.denoiser, few, truth, "network B"),
            exact=self._measure(law, few, truth, "exact score"),
            guidance=self._guide(a.denoiser, law, classifiers),
        )
        return self._write(results, start)

    def _train(self, law: GaussianMixture, truth: Truth, times: Times, name: str) -> Fit:
        print(f"network {name}", flush=True)
        torch.manual_seed(self.seed)  # both start from the same weights
        denoiser = EpsDenoiser(MLP(2), law.sde).to(truth.points.device)
        reference, grid = truth.points.float(), log_snr(law.sde, 20)

        def evaluate(model: Denoiser) -> dict[str, float]:
            x = sample(model, PFHeun(), reference.shape, grid, seed=1, dtype=torch.float32)
            return {"sliced W2": float(sliced_wasserstein(x, reference))}

        return fit(
            denoiser,
            law.sample(POOL, generator=_generator(law, self.seed + 1)).float(),
            steps=self.steps,
            times=times,
            seed=self.seed,
            law=law,
            evaluate=evaluate,
            evaluate_every=max(1, self.steps // 10),
            log=self.out / f"training-{name[0]}.csv",
            progress=True,
        )

    def _classifiers(self, law: GaussianMixture) -> dict[str, ClassifierFit]:
        """Trained at all times and, to see what that does, on clean points alone."""
        print("classifiers: on noisy points, and on clean ones alone", flush=True)
        x, generator = law.sample(20_000, generator=_generator(law, self.seed + 2)), self.seed
        y = torch.multinomial(law.posterior(x), 1, generator=_generator(law, self.seed + 3))[:, 0]
        fits, steps = {}, min(1500, self.steps)
        for name, clean in (("trained on noisy points", False), ("trained on clean points", True)):
            torch.manual_seed(self.seed)
            net = Classifier(2, len(law.weights)).to(x.device)
            fits[name] = fit_classifier(
                net, law.sde, x.float(), y, steps=steps, clean=clean, seed=generator, progress=True
            )
        return fits

    def _measure(
        self, denoiser: Denoiser, entries: Sequence[Entry], truth: Truth, name: str
    ) -> list[Score]:
        from tqdm.auto import tqdm

        bar = tqdm(entries, desc=f"samplers, {name}", unit="sampler")
        return [measure(denoiser, entry, truth, self.seed) for entry in bar]

    def _guide(
        self, model: Denoiser, law: GaussianMixture, classifiers: dict[str, ClassifierFit]
    ) -> Guidance:
        """Samples of the ODE without guidance, and drawn to mode 0 in three ways."""
        target, n = 0, min(4000, self.samples)
        noisy, clean = (
            classifier_log_prob(fitted.classifier, target) for fitted in classifiers.values()
        )
        models: dict[str, Denoiser] = {
            "no guidance": model,
            "weight 1": Guided(model, noisy),
            "weight 4": Guided(model, noisy, 4.0),
            "clean classifier": Guided(model, clean),
        }
        one = law.component(target)
        exact = one.sample(n, generator=_generator(law, self.seed + 4))
        draw = partial(
            sample,
            sampler=PFHeun(),
            shape=(n, 2),
            ts=log_snr(law.sde, 50),
            seed=self.seed,
            dtype=torch.float32,
        )
        draw(model)  # the first call pays for warming up
        taken = {name: _timed(draw, d) for name, d in models.items()}
        points = {name: x.to(exact) for name, (x, _) in taken.items()}
        limit = floor(sliced_wasserstein, one, n)
        return Guidance(
            target,
            {name: x.cpu() for name, x in points.items()},
            {name: float(mode_weights(x, law)[target]) for name, x in points.items()},
            {name: float(sliced_wasserstein(x, exact)) for name, x in points.items()},
            {name: seconds for name, (_, seconds) in taken.items()},
            (float(limit.mean), float(limit.sd)),
        )

    def _write(self, results: Results, start: float) -> Path:
        """Weights, numbers, figures, the page; and the table on the terminal."""
        save(self.out / "network-A.pt", results.a.denoiser)
        save(self.out / "network-B.pt", results.b.denoiser)
        groups = {"A": results.scores, "B": results.discrete, "exact score": results.exact}
        rows = [{"network": name} | s.as_dict() for name, ss in groups.items() for s in ss]
        text = json.dumps(rows, indent=2)
        atomically(self.out / "scores.json", lambda part: part.write_text(text, encoding="utf-8"))
        report = Report(
            "One Gaussian path, three ways back",
            f"The law {self.law}, learned once and walked from noise to data as a DDPM Markov "
            "chain, as a reverse SDE and as a probability-flow ODE.",
        )
        print("drawing figures", flush=True)
        fill(report, results, start)
        page = report.write(self.out / "report.html", f"Made by scoresde, seed {self.seed}.")
        print_table(*score_table(results.truth, results.scores))
        print(f"\n{time.perf_counter() - start:.0f} s. The report: {page.resolve()}")
        return page


def _timed(draw: Callable[[Denoiser], Tensor], model: Denoiser) -> tuple[Tensor, float]:
    start = time.perf_counter()
    x = draw(model)
    x.sum().item()  # waits for the device
    return x, time.perf_counter() - start


def _generator(law: GaussianMixture, seed: int) -> torch.Generator:
    return torch.Generator(law.means.device).manual_seed(seed)

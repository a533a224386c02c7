"""The demonstration on paths: learn one family, generate, judge as physics, plan, forecast.

The network learns in whitened units, where smooth paths have no stiff directions. What it
generates is judged against paths it has never seen, each number beside its noise floor, and by
what the physics conserves. Then the same network, not trained for it, answers two questions: how
to get from A to B, and how a path that has begun goes on.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ...data import Family, GaussianFamily
from ...denoiser import Denoiser
from ...files import atomically
from ...grids import log_snr
from ...inverse import Mask, Measurement, MomentMatching
from ...metrics import PATH_METRICS, Judgement, conservation_metrics, judge, spread
from ...report import Report
from ...runs import TrajectoryData, check_counts, pick_device, read_points
from ...samplers import Ancestral, Recorder, TwistedSMC, sample
from ...training import Fit, fit_paths, save
from .page import fill

__all__ = ["Answer", "Outcome", "TrajectoriesDemo"]

STD = 0.05
"""Noise of what is observed, as a share of the data's standard deviation."""
EVALUATIONS = 60
SAMPLER = Ancestral()  # its noise forgets errors, which the ODE would carry to the end


@dataclass(frozen=True)
class Answer:
    """Paths drawn given noisy positions.

    Attributes:
        at: indices of the times that were observed.
        y: positions there, (m, 2).
        std: standard deviation of their noise.
        paths: (n, L, C).
        source: the held-out path that the positions were taken from, (L, C).
        exact: paths from the exact posterior, where the family is Gaussian.
    """

    at: Sequence[int]
    y: Tensor
    std: float
    paths: Tensor
    source: Tensor
    exact: Tensor | None

    @property
    def miss(self) -> float:
        """Median over paths of the rms distance from what was observed, in units of its noise.

        1 is a path that is free to move by all of the noise; paths that know more are closer.
        """
        gaps = (self.paths[:, list(self.at)] - self.y).square().mean((1, 2)).sqrt()
        return float(gaps.median() / self.std)


@dataclass(frozen=True)
class Outcome:
    """Everything that the report shows, on the CPU."""

    options: "TrajectoriesDemo"
    name: str
    times: Tensor
    fitted: Fit
    paths: Tensor
    truth: Tensor
    judgement: Judgement
    conserved: Mapping[str, tuple[float, float]]
    stages: Mapping[str, Tensor]
    plan: Answer
    forecast: Answer


@dataclass(frozen=True)
class TrajectoriesDemo:
    """Learn a family of trajectories; generate, judge, animate; plan from A to B."""

    family: str = "kepler"
    """Which family to learn: `scoresde info` lists them."""
    data: Path | None = None
    """Your own trajectories (n, L, 2), npy or npz, in the place of a family."""
    out: Path = Path("runs/demo-trajectories")
    """Folder for the report, figures, tables and weights."""
    steps: int = 5000
    """Training steps, 64 paths each."""
    samples: int = 2000
    """Paths generated."""
    seed: int = 0
    """Of everything random."""
    device: str = "auto"
    """cpu, cuda, or auto: a GPU when there is one."""

    def run(self) -> Path:
        """Do it all; print the table; return the path of the report."""
        start = time.perf_counter()
        device = pick_device(self.device)
        check_counts(steps=self.steps, samples=self.samples)
        if self.samples < 20:
            raise ValueError(f"expected --samples >= 20, to be judged by, got {self.samples}")
        family, train, held_out = self._data()
        name = self.family if self.data is None else self.data.stem
        (self.out / "figures").mkdir(parents=True, exist_ok=True)
        print(f"scoresde demo: {name} on {device}; writing to {self.out}", flush=True)
        fitted = self._train(train, device)
        model = fitted.denoiser
        n = min(self.samples, len(held_out) // 3)
        print(f"generating {n} paths, and judging them", flush=True)
        truth, pool = held_out[:n], held_out[n:]
        paths, stages = self._generate(model, (n, *truth.shape[1:]))
        conserved = {} if family is None else family.conserved
        metrics = PATH_METRICS | conservation_metrics(conserved)
        judgement = judge(paths, truth, pool, metrics, repeats=10)
        values = {
            key: (float(spread(f(paths)).median()), float(spread(f(truth)).median()))
            for key, f in conserved.items()
        }
        length, scale = truth.shape[1], float(truth.std(0).mean())
        past = list(range(0, length // 3, max(1, length // 24)))
        results = Outcome(
            self,
            name,
            torch.arange(length) if family is None else family.times,
            fitted,
            paths,
            truth,
            judgement,
            values,
            stages,
            plan=self._answer(model, family, held_out[-1], [0, length // 2], STD * scale),
            forecast=self._answer(model, family, held_out[-2], past, STD * scale),
        )
        return self._write(results, start)

    def _data(self) -> tuple[Family | None, Tensor, Tensor]:
        """The family, if it has a name; paths to train on; paths to judge by."""
        if self.data is None:
            source = TrajectoryData(self.family)
            return source.family(), *source.paths(self.seed)
        train, held_out, _ = read_points(self.data, self.seed)
        if train.ndim != 3:
            raise ValueError(
                f"expected trajectories (n, L, C) in {self.data}, got {tuple(train.shape)}: "
                "points have the command scoresde train"
            )
        return None, train, held_out

    def _train(self, train: Tensor, device: torch.device) -> Fit:
        return fit_paths(
            train.float(),
            steps=self.steps,
            seed=self.seed,
            device=device,
            log=self.out / "training.csv",
            progress=True,
        )

    def _generate(
        self, model: Denoiser, shape: tuple[int, ...]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Paths, and three of them at several times of the diffusion."""
        ts, recorder = log_snr(model.sde, EVALUATIONS), Recorder()
        paths = sample(model, SAMPLER, shape, ts, seed=self.seed)
        sample(model, SAMPLER, (3, *shape[1:]), ts, seed=self.seed, callback=recorder, last="stop")
        ks = [round(share * EVALUATIONS) for share in (0, 0.3, 0.45, 0.6, 0.75, 1)]
        states = {f"$t$ = {float(recorder.times[k]):.2g}": recorder.x[k] for k in ks}
        assert model.affine is not None
        return paths.cpu().double(), {
            name: model.affine.inverse(x).cpu().double() for name, x in states.items()
        }

    def _answer(
        self, model: Denoiser, family: Family | None, path: Tensor, at: list[int], std: float
    ) -> Answer:
        """Paths given some positions of a held-out one, each with noise."""
        generator = torch.Generator().manual_seed(self.seed)
        noise = torch.randn(path[at].shape, generator=generator, dtype=path.dtype)
        y, n = path[at] + std * noise, min(200, self.samples)
        known = torch.zeros(path.shape, dtype=torch.bool)
        known[at] = True
        device = next(model.parameters()).device
        measurement = Measurement(Mask(known), y.reshape(1, -1), std).to(device)
        method = MomentMatching(model, measurement, iterations=min(y.numel(), 3))
        ts = log_snr(model.sde, EVALUATIONS)
        paths = sample(method, TwistedSMC(SAMPLER), (n, *path.shape), ts, seed=self.seed, chunk=n)
        paths = paths.cpu().double()
        exact = None
        if isinstance(family, GaussianFamily):
            law = family.posterior(model.sde, at, y, std)
            exact = law.sample(2000, generator=generator)
        return Answer(at, y, std, paths, path, exact)

    def _write(self, results: Outcome, start: float) -> Path:
        """Weights, paths, numbers, figures, the page; and the table on the terminal."""
        save(self.out / "model.pt", results.fitted.denoiser)
        rows = [row._asdict() for row in results.judgement]
        numbers = {"metrics": rows, "conserved": results.conserved, "miss": results.plan.miss}
        text = json.dumps(numbers, indent=2)
        atomically(self.out / "scores.json", lambda part: part.write_text(text, encoding="utf-8"))
        report = Report(
            f"Paths learned: {results.name}",
            f"{results.truth.shape[1]} points each, learned from examples alone; generated, "
            "judged as physics, and asked for paths that must pass through given points.",
        )
        print("drawing figures", flush=True)
        fill(report, results, start)
        page = report.write(self.out / "report.html", f"Made by scoresde, seed {self.seed}.")
        print(results.judgement)
        print(f"\n{time.perf_counter() - start:.0f} s. The report: {page.resolve()}")
        return page

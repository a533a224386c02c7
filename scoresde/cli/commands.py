"""The commands on runs: train, sample, compare, evaluate, info."""

import json
import math
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from torch import Tensor

from .. import plots
from ..comparison import (
    Metric,
    Score,
    Truth,
    measure,
    mode_imbalance,
    print_table,
    score_table,
    view_entries,
)
from ..data import LAWS, load_points
from ..denoiser import Affine, Denoiser
from ..files import atomically
from ..grids import log_snr
from ..losses import ChainTimes
from ..metrics import (
    energy_distance,
    kl_knn,
    mmd,
    mode_coverage,
    nll_gap,
    sliced_wasserstein,
    wasserstein,
)
from ..mixture import GaussianMixture, Law
from ..nets import MLPConfig
from ..report import Report
from ..runs import (
    HELD_OUT,
    FileData,
    LawData,
    Run,
    RunConfig,
    RunData,
    TrainingConfig,
    check_counts,
    check_points_path,
    make_way,
    pick_device,
    read_points,
    save_points,
    use_one_thread,
)
from ..samplers import (
    DDIM,
    PFRK4,
    Ancestral,
    EulerMaruyama,
    Langevin,
    PFEuler,
    PFHeun,
    PredictorCorrector,
    ReverseDiffusion,
    Sampler,
    sample,
)
from ..sde import VESDE, VPSDE, CosineVPSDE, KarrasSDE, StraightPath, SubVPSDE
from ..training import DenoiserConfig, Fit, Process, fit, to_json

__all__ = ["COMMANDS", "Compare", "Evaluate", "Info", "Sample", "Train"]

PROCESSES: dict[str, Process] = {
    "vp": VPSDE(),
    "cosine": CosineVPSDE(),
    "sub-vp": SubVPSDE(),
    "ve": VESDE(),
    "karras": KarrasSDE(),
    "straight": StraightPath(),
}
SAMPLERS: dict[str, Sampler] = {
    "ancestral": Ancestral(),
    "ancestral-beta": Ancestral("beta"),
    "euler-maruyama": EulerMaruyama(),
    "reverse-diffusion": ReverseDiffusion(),
    "predictor-corrector": PredictorCorrector(ReverseDiffusion(), Langevin()),
    "ddim": DDIM(),
    "ddim-half": DDIM(0.5),
    "pf-euler": PFEuler(),
    "pf-heun": PFHeun(),
    "pf-rk4": PFRK4(),
}


@dataclass(frozen=True)
class Train:
    """Learn a named law, or your own points, and write a run."""

    law: str | None = None
    """A named law to learn: `scoresde info` lists them."""
    data: Path | None = None
    """Your own points (n, d) in a .npy, .npz or .csv file: any dimension, any scale."""
    out: Path | None = None
    """Folder of the run; runs/NAME if not given."""
    process: Literal["vp", "cosine", "sub-vp", "ve", "karras", "straight"] = "vp"
    """The forward process."""
    predict: Literal["eps", "x0", "v", "edm"] = "eps"
    """What the network predicts (edm for the processes whose noise is not bounded)."""
    discrete: int = 0
    """Train only at the times i/N of a chain of N steps; 0: in continuous time."""
    steps: int = 5000
    """Training steps."""
    batch: int = 512
    """Points in each."""
    lr: float = 3e-3
    """Largest learning rate."""
    width: int = 128
    """Of the network's hidden layers."""
    depth: int = 3
    """Residual blocks of the network."""
    whiten: bool = False
    """Remove the full covariance of the data, not only each coordinate's scale."""
    replace: bool = False
    """Replace a run that is in the folder already, with all that was measured on it."""
    seed: int = 0
    """Of everything random."""
    device: str = "auto"
    """cpu, cuda, or auto."""

    def run(self) -> Run:
        """Train; write the run and its report; return it."""
        device = pick_device(self.device)
        use_one_thread(device)
        if (self.law is None) == (self.data is None):
            raise ValueError("expected one of --law NAME and --data FILE, got both or neither")
        check_counts(steps=self.steps, batch=self.batch, width=self.width, depth=self.depth)
        if self.discrete < 0 or not self.lr > 0:
            raise ValueError(
                f"expected --discrete >= 0 and --lr > 0, got {self.discrete} and {self.lr}"
            )
        torch.manual_seed(self.seed)
        sde = PROCESSES[self.process]
        data: Law | Tensor
        source: RunData
        if self.data is not None:
            points, held_out, source = read_points(self.data, self.seed)
            data, name = points.float().to(device), self.data.stem
            truth = Truth.of_points(held_out.to(device), len(held_out))
        else:
            source = LawData(name := str(self.law))
            data = source.law(sde).to(device)
            truth = Truth.of_law(data, 2048)
        folder = self.out or Path("runs") / name
        make_way(folder, self.replace)
        print(f"training on {name}, {device}; writing to {folder}", flush=True)
        run, result = self._fit(folder, data, truth, source, sde)
        run.write()
        if isinstance(source, FileData):
            save_points(folder / HELD_OUT, truth.points)
        _report_training(run, result, truth)
        return run

    def _fit(
        self, folder: Path, data: Law | Tensor, truth: Truth, source: RunData, sde: Process
    ) -> tuple[Run, Fit]:
        affine = Affine.fit(data, self.whiten) if isinstance(data, Tensor) else None
        net = MLPConfig(math.prod(truth.points.shape[1:]), self.width, self.depth)
        recipe = DenoiserConfig(sde, net, self.predict, affine=affine is not None)
        result = fit(
            recipe.build(affine).to(truth.points.device),
            data,
            steps=self.steps,
            batch=self.batch,
            lr=self.lr,
            times=ChainTimes(self.discrete) if self.discrete else None,
            seed=self.seed,
            law=data if isinstance(data, Law) else None,
            evaluate=_watch(truth),
            evaluate_every=max(1, self.steps // 10),
            log=folder / "training.csv",
            progress=True,
        )
        asked = TrainingConfig(self.steps, self.batch, self.lr, self.discrete, self.seed)
        return Run(folder, RunConfig(source, recipe, asked), result.denoiser), result


def _watch(truth: Truth) -> Callable[[Denoiser], dict[str, float]]:
    """What is measured during training: sliced W2 of samples from fixed noise."""
    shape = (truth.size, *truth.points.shape[1:])

    def evaluate(model: Denoiser) -> dict[str, float]:
        x = sample(model, DDIM(), shape, log_snr(model.sde, 20), seed=1)
        return {"sliced W2": truth.distance(sliced_wasserstein, x.to(truth.points))}

    return evaluate


def _report_training(run: Run, result: Fit, truth: Truth) -> None:
    """The page of a run: what was learned, and samples beside the data."""
    limit = float(truth.floor.mean + 2 * truth.floor.sd)
    last = [row["sliced W2"] for row in result.history if "sliced W2" in row][-1]
    report = Report(
        f"Run {run.folder.name}",
        f"{run.config.data}, {run.denoiser.sde}: {result.seconds:.0f} s of training.",
    )
    report.facts(
        {"sliced W2 at the end": f"{last:.4g}", "its noise floor, at most": f"{limit:.4g}"}
    )
    folder = run.folder / "figures"
    draw = lambda theme: plots.training_curve(result.history, theme=theme)
    report.section("Training")
    pair = plots.save_themes(folder / "training", draw)
    report.figure(
        pair[0],
        f"Loss, and sliced W2 of {truth.size} samples from fixed noise (floor {limit:.3g}).",
        dark=pair[1],
    )
    if result.by_time is not None:
        curve = result.by_time
        draw = lambda theme: plots.loss_by_time(curve.t, curve.loss, curve.floor, theme=theme)
        pair = plots.save_themes(folder / "loss", draw)
        report.figure(pair[0], "Loss against time, above the least possible one.", dark=pair[1])
    if truth.points.shape[1:] == (2,):
        x = sample(run.denoiser, DDIM(), (4096, 2), log_snr(run.denoiser.sde, 100), seed=0)
        draw = lambda theme: plots.compare_points(x, truth.law or truth.points, theme=theme)
        pair = plots.save_themes(folder / "samples", draw)
        report.figure(pair[0], "Samples (DDIM, 100 evaluations) over the truth.", dark=pair[1])
    page = report.write(run.folder / "report.html", "Made by scoresde.")
    print(f"sliced W2 {last:.4g} (noise floor up to {limit:.4g}); the report: {page}")


@dataclass(frozen=True)
class Sample:
    """Draw samples from a trained run, in the units of its data."""

    folder: Annotated[Path, tyro.conf.Positional]
    """Folder of the run."""
    n: int = 10_000
    """How many."""
    sampler: Literal[
        "ancestral",
        "ancestral-beta",
        "euler-maruyama",
        "reverse-diffusion",
        "predictor-corrector",
        "ddim",
        "ddim-half",
        "pf-euler",
        "pf-heun",
        "pf-rk4",
    ] = "ddim"
    """How to walk."""
    steps: int = 100
    """Steps, equal in log-SNR."""
    seed: int = 0
    """Of the noise: sample i depends on it and on i alone."""
    out: Path | None = None
    """A .npy, .npz or .csv file; samples.npy in the run if not given."""
    device: str = "auto"
    """cpu, cuda, or auto."""

    def run(self) -> Path:
        """Sample; write the file; return its path."""
        check_counts(n=self.n, steps=self.steps)
        run = Run.open(self.folder, pick_device(self.device))
        path = self.out or self.folder / "samples.npy"
        check_points_path(path)
        grid = log_snr(run.denoiser.sde, self.steps)
        shape = (self.n, run.config.model.net.dim)
        x = sample(run.denoiser, SAMPLERS[self.sampler], shape, grid, self.seed)
        save_points(path, x)
        print(f"{self.n} samples by {self.sampler} in {self.steps} steps: {path}")
        return path


@dataclass(frozen=True)
class Compare:
    """Every sampler at several numbers of steps: one table, one figure."""

    folder: Annotated[Path, tyro.conf.Positional]
    """Folder of the run."""
    steps: tuple[int, ...] = (10, 20, 50, 100)
    """Evaluations for the SDE and the ODE."""
    chain: tuple[int, ...] = (100, 1000)
    """Lengths of the chain."""
    n: int = 4096
    """Samples with each."""
    seed: int = 0
    """Of the noise, the same for all."""
    device: str = "auto"
    """cpu, cuda, or auto."""

    def run(self) -> list[Score]:
        """Measure; print the table; write compare.json, compare.csv and compare.html."""
        from tqdm.auto import tqdm

        device = pick_device(self.device)
        check_counts(n=self.n, **{"steps": min(self.steps), "chain": min(self.chain, default=1)})
        run = Run.open(self.folder, device)
        truth = run.truth(self.n, device)
        entries = view_entries(run.denoiser.sde, self.steps, self.chain)
        bar = tqdm(entries, desc="samplers", unit="sampler")
        scores = [measure(run.denoiser, entry, truth, self.seed) for entry in bar]
        print(f"{truth.size} samples with each, against as many {_reference(truth)}")
        print_table(*score_table(truth, scores))
        page = self._write(run, truth, scores)
        print(f"written: {page}, and compare.json beside it")
        return scores

    def _write(self, run: Run, truth: Truth, scores: list[Score]) -> Path:
        text = json.dumps([score.as_dict() for score in scores], indent=2)
        atomically(run.folder / "compare.json", lambda p: p.write_text(text, encoding="utf-8"))
        curves: dict[str, tuple[list[float], list[float]]] = {}
        views = {}
        for score in scores:
            label = score.entry.label
            x, y = curves.setdefault(label, ([], []))
            x.append(float(score.evaluations))
            y.append(score.sliced_w2)
            views[label] = score.entry.view
        floor = (float(truth.floor.mean), float(truth.floor.sd))
        labels = ("denoiser evaluations", "sliced W2", "")
        pair = plots.save_themes(
            run.folder / "figures" / "compare",
            lambda theme: plots.convergence(curves, views, floor, labels=labels, theme=theme),
        )
        report = Report(
            f"Samplers of {run.folder.name}",
            f"{truth.size} samples with each, against as many {_reference(truth)}.",
        )
        report.figure(
            pair[0],
            "Error against evaluations; the band is its floor, two standard deviations wide.",
            dark=pair[1],
        )
        report.table(*score_table(truth, scores), rules=[1])
        return report.write(run.folder / "compare.html", f"Made by scoresde, seed {self.seed}.")


@dataclass(frozen=True)
class Evaluate:
    """Distances of a run's samples from the truth, each beside its noise floor."""

    folder: Annotated[Path, tyro.conf.Positional]
    """Folder of the run."""
    against: Path | None = None
    """Points to compare with; the exact law, or the held-out points, if not given."""
    n: int = 2000
    """Samples drawn; exact transport costs n^2."""
    steps: int = 100
    """Of DDIM, equal in log-SNR."""
    seed: int = 0
    """Of the noise."""
    device: str = "auto"
    """cpu, cuda, or auto."""

    def run(self) -> dict[str, dict[str, float]]:
        """Measure; print; write evaluation.json; return name -> value and floor."""
        device = pick_device(self.device)
        check_counts(n=self.n, steps=self.steps)
        run = Run.open(self.folder, device)
        truth = self._truth(run, device)
        grid = log_snr(run.denoiser.sde, self.steps)
        shape = (truth.size, *truth.points.shape[1:])
        x = sample(run.denoiser, DDIM(), shape, grid, self.seed, device=device)
        x = x.to(truth.points)
        results = {name: _with_floor(metric, x, truth) for name, metric in METRICS.items()}
        results |= _by_law(x, truth)
        print(
            f"{truth.size} samples (DDIM, {self.steps + 1} evaluations) against as many "
            f"{self.against or _reference(truth)}; unbiased estimates may be negative"
        )
        print_table(
            ["metric", "value", "floor (true against true)"],
            [_line(name, entry) for name, entry in results.items()],
        )
        suffix = f"-{self.against.stem}" if self.against else ""
        path = self.folder / f"evaluation{suffix}.json"
        text = json.dumps({"size": truth.size, **results}, indent=2)
        atomically(path, lambda part: part.write_text(text, encoding="utf-8"))
        print(f"written: {path}")
        return results

    def _truth(self, run: Run, device: torch.device) -> Truth:
        if self.against is None:
            return run.truth(self.n, device)
        points = load_points(self.against).to(device)
        dim = run.config.model.net.dim
        if points.shape[1] != dim:
            raise ValueError(
                f"expected points of dimension {dim}, as the run's, got {points.shape[1]} "
                f"in {self.against}"
            )
        return Truth.of_points(points, self.n)


def _reference(truth: Truth) -> str:
    return "exact samples" if truth.law else f"of {len(truth.points)} held-out points"


def _with_floor(metric: Metric, x: Tensor, truth: Truth) -> dict[str, float]:
    limit = truth.floor_of(metric, repeats=5)
    value = truth.distance(metric, x)
    return {"value": value, "floor": float(limit.mean), "floor_sd": float(limit.sd)}


def _by_law(x: Tensor, truth: Truth) -> dict[str, dict[str, float]]:
    """What can be said only where the law is known; the exact values are 0, 1 and 0."""
    if truth.law is None:
        return {}
    gap = nll_gap(x, truth.law)
    results = {
        "NLL gap (nats)": {"value": float(gap.value), "floor": 0.0, "floor_sd": float(gap.error)}
    }
    if isinstance(truth.law, GaussianMixture):
        both = x, truth.points[: len(x)]
        found = [float(mode_coverage(v, truth.law)) for v in both]
        off = [mode_imbalance(v, truth.law) for v in both]
        for name, (value, exact) in (("modes found", found), ("mode weights off by", off)):
            results[name] = {"value": value, "floor": exact, "floor_sd": 0.0}
    return results


def _line(name: str, entry: Mapping[str, float]) -> list[str]:
    return [name, f"{entry['value']:.4g}", f"{entry['floor']:.4g} ± {entry['floor_sd']:.2g}"]


METRICS: dict[str, Metric] = {
    "sliced W2": sliced_wasserstein,
    "W1": lambda x, y: wasserstein(x, y, p=1),
    "W2": lambda x, y: wasserstein(x, y, p=2),
    "energy distance": energy_distance,
    "MMD^2 (RBF)": mmd,
    "KL, 5 nearest neighbours (nats)": kl_knn,
}


@dataclass(frozen=True)
class Info:
    """Versions and devices; what a run holds."""

    folder: Annotated[Path | None, tyro.conf.Positional] = None
    """Folder of a run."""

    def run(self) -> None:
        """Print it."""
        cuda = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
        python = platform.python_version()
        print(f"scoresde {version('scoresde')}, torch {torch.__version__}, Python {python}")
        print(f"CPU threads: {torch.get_num_threads()}; CUDA device: {cuda}")
        if self.folder is None:
            print(f"laws: {', '.join(LAWS)}")
            return
        run = Run.open(self.folder)
        weights = sum(p.numel() for p in run.denoiser.parameters())
        print(f"run {self.folder}: {weights} weights, {run.denoiser.sde}")
        print(to_json(run.config))
        for path in sorted(p for p in self.folder.rglob("*") if p.is_file()):
            print(f"  {path.relative_to(self.folder)}  {path.stat().st_size} bytes")


COMMANDS = {
    "train": Train,
    "sample": Sample,
    "compare": Compare,
    "evaluate": Evaluate,
    "info": Info,
}

"""Learn a named law or one's own points: ``scoresde train``."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from .. import plots
from ..comparison import Truth
from ..denoiser import Affine, Denoiser
from ..distributions import Distribution
from ..losses import ChainTimes
from ..metrics import sliced_wasserstein
from ..nets import MLPConfig, TransformerConfig, UNet1dConfig
from ..report import Report
from ..runs import (
    HELD_OUT,
    LawData,
    Run,
    RunConfig,
    RunData,
    TrainingConfig,
    TrajectoryData,
    check_counts,
    make_way,
    pick_device,
    read_points,
    save_points,
    use_one_thread,
)
from ..samplers import recommended, sample
from ..sde import VESDE, VPSDE, CosineVPSDE, KarrasSDE, StraightPath, SubVPSDE
from ..training import DenoiserConfig, Fit, NetConfig, Process, describe, fit, fit_paths
from ..training.paths import BATCH, LR
from .labels import Lesson, check_asked, lesson_of_file, lesson_of_law, teach_classifier

__all__ = ["Train"]

PROCESSES: dict[str, Process] = {
    "vp": VPSDE(),
    "cosine": CosineVPSDE(),
    "sub-vp": SubVPSDE(),
    "ve": VESDE(),
    "karras": KarrasSDE(),
    "straight": StraightPath(),
}


@dataclass(frozen=True)
class Train:
    """Learn a named law, or your own points, and write a run."""

    law: str | None = None
    """A named law to learn: `scoresde info` lists them."""
    family: str | None = None
    """A named family of trajectories to learn: `scoresde info` lists them."""
    data: Path | None = None
    """Your own points (n, d) in a .npy, .npz or .csv file: any dimension, any scale; or your own
    trajectories: (n, L, C) in a .npy or .npz file, or a .csv with the header
    trajectory,time,x,y."""
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
    net: Literal["auto", "mlp", "unet", "transformer"] = "auto"
    """The network; the latter two are for trajectories. auto: mlp for points; for trajectories
    all that is proved for them (scoresde.training.fit_paths), and --predict, --batch, --lr,
    --width and --depth are not asked."""
    width: int = 128
    """Of the network's hidden layers."""
    depth: int = 3
    """Residual blocks of the network; levels of a U-Net."""
    labels: bool = False
    """Learn the classes too, for `sample --guide LABEL --scale W`: of a law its components, of a
    file what it says (array y beside x of an .npz, else a column of numbers 0, 1, ...)."""
    classifier: bool = False
    """Train a classifier of noisy points beside a network without labels, to guide with."""
    label_column: int | None = None
    """Column of the labels in a .csv or .npy, counted from 0; the last (-1) if not given."""
    label_dropout: float | None = None
    """Share of the labels shown as "no label", 0.1 if not given: so the network knows all classes
    together too."""
    whiten: bool = False
    """Remove the full covariance of the data, not only each coordinate's scale; of trajectories
    always half of it."""
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
        if sum(source is not None for source in (self.law, self.family, self.data)) != 1:
            raise ValueError(
                "expected one of --law NAME, --family NAME and --data FILE, got none or several"
            )
        check_counts(steps=self.steps, batch=self.batch, width=self.width, depth=self.depth)
        if self.discrete < 0 or not self.lr > 0:
            raise ValueError(
                f"expected --discrete >= 0 and --lr > 0, got {self.discrete} and {self.lr}"
            )
        check_asked(self.data, self.labels, self.classifier, self.label_column, self.label_dropout)
        torch.manual_seed(self.seed)
        sde = PROCESSES[self.process]
        if self.discrete and sde.t_max < 1 and self.predict != "v":
            raise ValueError(
                f"expected --predict v with --discrete {self.discrete} and --process "
                f"{self.process}, got {self.predict}: the chain ends at t = 1, beyond t_max = "
                f"{sde.t_max:.6g}, where alpha falls to 0 and only v can be learned"
            )
        data: Distribution | Tensor
        source: RunData
        lesson: Lesson | None = None
        named = self.labels or self.classifier
        column = -1 if self.label_column is None else self.label_column
        if self.data is not None and named:
            points, y, held_out, source = lesson_of_file(self.data, column, self.seed)
            data, name = points.float().to(device), self.data.stem
            lesson = Lesson(data, y.to(device), int(y.max()) + 1)
            truth = Truth.of_points(held_out.to(device), len(held_out))
        elif self.data is not None:
            points, held_out, source = read_points(self.data, self.seed)
            data, name = points.float().to(device), self.data.stem
            size = len(held_out) if points.ndim == 2 else 512  # paths take longer
            truth = Truth.of_points(held_out.to(device), size)
        elif self.family is not None:
            if named:
                raise ValueError("expected --law or --data for labels: a family has no classes")
            source = TrajectoryData(name := self.family)
            points, held_out = source.paths(self.seed)
            data, truth = points.float().to(device), Truth.of_points(held_out.to(device), 512)
        else:
            source = LawData(name := str(self.law))
            data = source.law(sde).to(device)
            lesson = lesson_of_law(data, name) if named else None
            truth = Truth.of_law(data, 2048)
        folder = self.out or Path("runs") / name
        make_way(folder, self.replace)
        print(f"training on {name}, {device}; writing to {folder}", flush=True)
        run, result = self._fit(folder, data, truth, source, sde, lesson)
        run.write()
        if not isinstance(source, LawData):
            save_points(folder / HELD_OUT, truth.points)
        if lesson is not None and self.classifier:
            taught = teach_classifier(run, lesson, sde, self.steps, self.batch, self.seed)
            right = 100 * float(taught.accuracy[0])
            print(f"classifier: {right:.2f} % right where there is no noise")
        _report_training(run, result, truth)
        if lesson is not None:
            last = lesson.classes - 1
            print(f"labels 0..{last}: scoresde sample {folder} --guide {last // 2} --scale 2")
        return run

    def _fit(
        self,
        folder: Path,
        data: Distribution | Tensor,
        truth: Truth,
        source: RunData,
        sde: Process,
        lesson: Lesson | None,
    ) -> tuple[Run, Fit]:
        taught, dropout = (lesson, self.label_dropout or 0.1) if self.labels else (None, 0.0)
        if self.net == "auto" and isinstance(data, Tensor) and data.ndim == 3:
            return self._fit_paths(folder, data, truth, source, sde, taught, dropout)
        affine = self._units(data) if isinstance(data, Tensor) else None
        net = self._net(truth.points.shape[1:], taught.classes if taught else 0)
        recipe = DenoiserConfig(sde, net, self.predict, affine=affine is not None)
        result = fit(
            recipe.build(affine).to(truth.points.device),
            taught.data if taught else data,
            labels=taught.labels if taught else None,
            label_dropout=dropout,
            steps=self.steps,
            batch=self.batch,
            lr=self.lr,
            times=ChainTimes(self.discrete) if self.discrete else None,
            seed=self.seed,
            law=data if isinstance(data, Distribution) else None,
            evaluate=_watch(truth),
            evaluate_every=max(1, self.steps // 10),
            log=folder / "training.csv",
            progress=True,
        )
        asked = TrainingConfig(
            self.steps, self.batch, self.lr, self.discrete, self.seed, dropout, self.classifier
        )
        return Run(folder, RunConfig(source, recipe, asked), result.denoiser), result

    def _fit_paths(
        self,
        folder: Path,
        data: Tensor,
        truth: Truth,
        source: RunData,
        sde: Process,
        taught: Lesson | None,
        dropout: float,
    ) -> tuple[Run, Fit]:
        classes = taught.classes if taught else 0
        result = fit_paths(
            data,
            UNet1dConfig(data.shape[2], width=32, piece=2, classes=classes),
            sde=sde,
            device=data.device,
            labels=taught.labels if taught else None,
            label_dropout=dropout,
            steps=self.steps,
            seed=self.seed,
            evaluate=_watch(truth),
            evaluate_every=max(1, self.steps // 10),
            log=folder / "training.csv",
            progress=True,
        )
        asked = TrainingConfig(self.steps, BATCH, LR, 0, self.seed, dropout, self.classifier)
        recipe = describe(result.denoiser)
        return Run(folder, RunConfig(source, recipe, asked), result.denoiser), result

    def _units(self, data: Tensor) -> Affine:
        """Of points as asked; of paths whitened."""
        return Affine.fit(data, self.whiten if data.ndim == 2 else 0.5)

    def _net(self, event: torch.Size, classes: int = 0) -> NetConfig:
        """The recipe of the network for samples of this shape."""
        if self.net in ("auto", "mlp"):
            return MLPConfig(math.prod(event), self.width, self.depth, classes)
        if len(event) != 2:
            raise ValueError(
                f"expected trajectories (n, L, C) for --net {self.net}, got samples of shape "
                f"{tuple(event)}: use --net mlp"
            )
        kind = UNet1dConfig if self.net == "unet" else TransformerConfig
        return kind(event[1], self.width, self.depth, classes=classes)


def _watch(truth: Truth) -> Callable[[Denoiser], dict[str, float]]:
    """What is measured during training: sliced W2 of samples from fixed noise."""
    shape = (truth.size, *truth.points.shape[1:])

    def evaluate(model: Denoiser) -> dict[str, float]:
        plan = recommended(model.sde, 20)
        x = sample(model, plan.sampler, shape, plan.ts, seed=1)
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
        reference = copy.deepcopy(truth.law).cpu() if truth.law else truth.points.cpu()
        plan = recommended(run.denoiser.sde, 100)
        x = sample(run.denoiser, plan.sampler, (4096, 2), plan.ts, seed=0)
        draw = lambda theme: plots.compare_points(x.cpu(), reference, theme=theme)
        pair = plots.save_themes(folder / "samples", draw)
        report.figure(pair[0], "Samples (100 evaluations each) over the truth.", dark=pair[1])
    page = report.write(run.folder / "report.html", "Made by scoresde.")
    print(f"sliced W2 {last:.4g} (noise floor up to {limit:.4g}); the report: {page}")

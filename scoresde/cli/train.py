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
from ..comparison import (
    Truth,
)
from ..denoiser import Affine, Denoiser
from ..losses import ChainTimes
from ..metrics import (
    sliced_wasserstein,
)
from ..mixture import Law
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
    make_way,
    pick_device,
    read_points,
    save_points,
    use_one_thread,
)
from ..samplers import recommended, sample
from ..sde import VESDE, VPSDE, CosineVPSDE, KarrasSDE, StraightPath, SubVPSDE
from ..training import DenoiserConfig, Fit, Process, fit

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

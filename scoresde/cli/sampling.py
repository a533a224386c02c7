"""Draw samples from a run: ``scoresde sample``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ..grids import log_snr
from ..runs import (
    Run,
    check_counts,
    check_points_path,
    pick_device,
    save_points,
)
from ..samplers import (
    DDIM,
    PFRK4,
    Ancestral,
    DPMSolverPP,
    EulerMaruyama,
    Langevin,
    PFEuler,
    PFHeun,
    PredictorCorrector,
    ReverseDiffusion,
    Sampler,
    UniPC,
    recommended,
    sample,
)

__all__ = ["Sample"]

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
    "dpm++2m": DPMSolverPP(2),
    "dpm++2m-sde": DPMSolverPP(2, 1.0),
    "unipc": UniPC(3),
}


@dataclass(frozen=True)
class Sample:
    """Draw samples from a trained run, in the units of its data."""

    folder: Annotated[Path, tyro.conf.Positional]
    """Folder of the run."""
    n: int = 10_000
    """How many."""
    sampler: Literal[
        "recommended",
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
        "dpm++2m",
        "dpm++2m-sde",
        "unipc",
    ] = "recommended"
    """How to walk; "recommended" is the most accurate for its evaluations."""
    steps: int = 50
    """Steps: evaluations of the network where recommended, else equal in log-SNR."""
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
        sde, shape = run.denoiser.sde, (self.n, run.config.model.net.dim)
        sampler: Sampler
        if self.sampler == "recommended":
            sampler, grid = recommended(sde, self.steps)
        else:
            sampler, grid = SAMPLERS[self.sampler], log_snr(sde, self.steps)
        x = sample(run.denoiser, sampler, shape, grid, self.seed)
        save_points(path, x)
        print(f"{self.n} samples by {self.sampler} in {self.steps} steps: {path}")
        return path

"""What is here: ``scoresde info``."""

import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro

from ..data import LAWS, TRAJECTORIES
from ..runs import (
    Run,
)
from ..training import to_json
from ..version import __version__

__all__ = ["Info"]


@dataclass(frozen=True)
class Info:
    """Versions and devices; what a run holds."""

    folder: Annotated[Path | None, tyro.conf.Positional] = None
    """Folder of a run."""

    def run(self) -> None:
        """Print it."""
        cuda = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
        python = platform.python_version()
        print(f"scoresde {__version__}, torch {torch.__version__}, Python {python}")
        print(f"CPU threads: {torch.get_num_threads()}; CUDA device: {cuda}")
        if self.folder is None:
            print(f"laws: {', '.join(LAWS)}")
            print(f"families of trajectories: {', '.join(TRAJECTORIES)}")
            return
        run = Run.open(self.folder)
        weights = sum(p.numel() for p in run.denoiser.parameters())
        print(f"run {self.folder}: {weights} weights, {run.denoiser.sde}")
        print(to_json(run.config))
        for path in sorted(p for p in self.folder.rglob("*") if p.is_file()):
            print(f"  {path.relative_to(self.folder)}  {path.stat().st_size} bytes")

"""Make orbits.pt, the network behind the gallery's orbits: about ten minutes on two CPU cores.

    python examples/checkpoints/train_orbits.py

Its weights are stored in 16 bits, so that the file stays below 500 kB.
"""

from pathlib import Path

import torch

from scoresde.data import Kepler
from scoresde.training import fit_paths, save

STEPS = 14_000
PATH = Path(__file__).with_name("orbits.pt")


def main(steps: int = STEPS, path: Path = PATH) -> None:
    """Train on fifty thousand orbits, and store the averaged network."""
    orbits = Kepler()(50_000, torch.Generator().manual_seed(0)).float()
    model = fit_paths(orbits, steps=steps, progress=True).denoiser
    model.net.half()
    save(path, model)


if __name__ == "__main__":
    main()

r"""One call from paths to a denoiser, with settings that were measured to suit them.

Half whitened units (``Affine.fit``), a U-Net along the path, EDM's preconditioning and its
log-normal noise levels, sigma_data and the levels taken from the data in these units. What each
choice is worth for Kepler's orbits is in docs/trajectories.md.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..denoiser import Affine, EDMDenoiser
from ..losses import LogNormalTimes, edm
from ..nets import UNet1dConfig
from ..sde import VPSDE
from .batches import to_tensor
from .checks import check_process, check_recipe, check_seed
from .config import NetConfig, Process
from .fitting import Fit, fit

__all__ = ["fit_paths"]

BATCH, LR = 64, 2e-3
WHITEN = 0.5
LEVELS = -1.5, 1.4
"""Mean and standard deviation of log(sigma/(alpha sigma_data))."""


def fit_paths(
    paths: Tensor | np.ndarray[Any, Any],
    net: NetConfig | None = None,
    sde: Process | None = None,
    *,
    device: torch.device | str = "cpu",
    batch: int = BATCH,
    lr: float = LR,
    seed: int = 0,
    **settings: Any,
) -> Fit:
    """Train a denoiser of paths, in float32.

    Args:
        paths: examples (n, L, C), in the user's units.
        net: recipe of the network; a ``UNet1d`` of width 32 in pieces of 2 if not given.
        sde: the process, VP if not given.
        device: where to train.
        batch: paths a step.
        lr: largest learning rate.
        seed: of everything random, fresh weights included.
        settings: all others of ``fit``: steps, labels, label_dropout, progress, ...

    Raises:
        ValueError: as ``fit``, and if paths is no (n, L, C).
        TypeError: if net is no recipe, or sde no process.
    """
    paths = to_tensor(paths)
    if paths.ndim != 3:
        raise ValueError(f"expected paths (n, L, C), got {tuple(paths.shape)}")
    recipe = UNet1dConfig(paths.shape[2], width=32, piece=2) if net is None else net
    process = VPSDE() if sde is None else sde
    check_recipe(recipe)
    check_process(process)
    with torch.random.fork_rng([]):
        torch.manual_seed(check_seed(seed))
        built = recipe.build()
    affine = Affine.fit(paths.double(), WHITEN)
    scale = float(affine(paths[:4096].double()).square().mean().sqrt())
    affine = Affine(affine.mean.float(), affine.scale.float())
    model = EDMDenoiser(built, process, affine, scale).float().to(device)
    times = LogNormalTimes(process, mean=LEVELS[0] + math.log(scale), std=LEVELS[1])
    chosen: dict[str, Any] = {
        "times": times,
        "weight": edm(scale),
        "batch": batch,
        "lr": lr,
        "seed": seed,
    }
    return fit(model, paths.float(), **(chosen | settings))

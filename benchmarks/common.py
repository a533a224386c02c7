"""What the benchmarks share: laws with their exact flow, clocks, and files.

Protocol of the strong error (the one of ``reference/peers_strong_error.json``): VP-SDE with beta
0.1..20, the exact score, 4096 points x_T drawn with seed 0 in float64. The truth is the end at
**t = 0** of the probability-flow ODE from the same points. The error of a point is a Euclidean
distance; one call of the denoiser on the whole batch is one evaluation, the ending included.
"""

import argparse
import csv
import gc
import hashlib
import json
import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor, nn
from tqdm import tqdm

from scoresde import VPSDE, Denoiser, GaussianMixture, __version__
from scoresde.comparison import print_table
from scoresde.denoiser import Wrapper
from scoresde.files import atomically
from scoresde.prediction import Quantity

SDE = VPSDE()
NFES = (5, 10, 15, 20, 35, 50, 100, 200)
POINTS = 4096
HERE = Path(__file__).parent
CACHE = HERE.parent / ".cache" / "benchmarks"
PEERS = "diffusers", "azula", "torchdiffeq", "torchsde", "k_diffusion", "smalldiffusion"


# Laws and their exact flow


@cache
def reference() -> dict[str, Any]:
    """The laws and the least errors that 111 configurations of ten libraries reached."""
    path = HERE / "reference" / "peers_strong_error.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


@cache
def laws() -> dict[str, GaussianMixture]:
    """The reference's three laws, and three on which nothing here has been tuned."""
    given = {
        name: GaussianMixture(*(double(law[k]) for k in ("weights", "means", "covs")), SDE)
        for name, law in reference()["laws"].items()
    }
    return given | {"ring5": _ring5(), "line4": _line4(), "space8": _space8()}


def double(values: Any) -> Tensor:
    """Float64, whatever the default."""
    return torch.tensor(values, dtype=torch.float64)


def _ring5() -> GaussianMixture:
    """Five unequal modes, six times longer along the ring than across."""
    angle = 2 * math.pi * torch.arange(5, dtype=torch.float64) / 5
    across = torch.stack([angle.cos(), angle.sin()], 1)
    along = torch.stack([-angle.sin(), angle.cos()], 1)
    outer = lambda v: v[:, :, None] * v[:, None]
    covs = 0.06**2 * outer(across) + 0.36**2 * outer(along)
    return GaussianMixture(torch.arange(1.0, 6.0), 1.3 * across, covs, SDE)


def _line4() -> GaussianMixture:
    """Four modes on the line, from sharp to broad."""
    means = double([[-1.6], [-0.4], [0.6], [1.7]])
    stds = double([0.15, 0.08, 0.25, 0.10])
    return GaussianMixture.isotropic(double([0.4, 0.3, 0.2, 0.1]), means, stds, SDE)


def _space8() -> GaussianMixture:
    """Six anisotropic modes in eight dimensions, widths 0.05 to 0.5, standardised."""
    generator = torch.Generator().manual_seed(8)
    means = torch.randn(6, 8, generator=generator, dtype=torch.float64)
    bases, _ = torch.linalg.qr(torch.randn(6, 8, 8, generator=generator, dtype=torch.float64))
    widths = torch.logspace(math.log10(0.05), math.log10(0.5), 8, dtype=torch.float64)
    raw = GaussianMixture(torch.ones(6), means, (bases * widths**2) @ bases.mT, SDE)
    mean, cov = raw.marginal()
    std = cov.diagonal().sqrt()
    covs = raw.covs / std / std[:, None]
    return GaussianMixture(torch.ones(6), (means - mean) / std, covs, SDE)


def start(law: GaussianMixture, n: int = POINTS) -> Tensor:
    """The first n of the 4096 starting points x_T."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(POINTS, law.dim, generator=generator, dtype=torch.float64)[:n]


def flow(law: GaussianMixture, x: Tensor, t: float = 0.0) -> Tensor:
    """The probability-flow ODE from x at t = 1 to t, by DOP853 (rtol 1e-10, atol 1e-12)."""
    shape = x.shape

    def velocity(time: float, y: np.ndarray) -> np.ndarray:
        point = torch.from_numpy(y).reshape(shape)
        return law.velocity(point, torch.tensor(time, dtype=x.dtype)).flatten().numpy()

    end = solve_ivp(velocity, (1, t), x.flatten().numpy(), "DOP853", rtol=1e-10, atol=1e-12)
    return torch.from_numpy(end.y[:, -1]).reshape(shape)


def truth(law: GaussianMixture, x: Tensor, folder: Path = CACHE) -> Tensor:
    """``flow`` to t = 0, kept on disk under a name that depends on the law and the points."""
    digest = hashlib.sha256()
    for tensor in (law.weights, law.means, law.covs, x):
        digest.update(np.round(tensor.numpy(), 12).tobytes())
    path = folder / f"flow-{digest.hexdigest()[:16]}.npy"
    if not path.exists():
        parts = tqdm(x.split(1024), f"exact flow -> {path.name}", leave=False)
        ends = torch.cat([flow(law, part) for part in parts])

        def write(part: Path) -> None:
            with part.open("wb") as file:
                np.save(file, ends.numpy())

        atomically(path, write)
    return torch.from_numpy(np.load(path))


def errors(x: Tensor, exact: Tensor) -> dict[str, float]:
    """Median and rms of the distances; a point that is lost (NaN) is infinitely far."""
    distance = (x.double() - exact).norm(dim=1).nan_to_num(math.inf, math.inf)
    return {"median": float(distance.median()), "rms": float(distance.square().mean().sqrt())}


def finish(denoiser: Denoiser, x: Tensor, ts: Tensor, last: str) -> Tensor:
    """The endings of ``sample``, for a walk from given points."""
    if last == "stop" or float(ts[-1]) == 0:
        return x
    t = ts[-1].to(x)
    x0_hat = denoiser(x, t)
    return x0_hat if last == "denoise" else 0.5 * (x / denoiser.sde.alpha(t) + x0_hat)


def geometric_mean(values: Iterable[float]) -> float:
    """exp of the mean of the logarithms."""
    values = list(values)
    return math.exp(statistics.fmean(map(math.log, values))) if values else math.nan


class Counted(Wrapper):
    """Counts the calls of a denoiser, whichever of its answers is asked for."""

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__(denoiser)
        self.calls = 0

    def predict(self, quantity: Quantity, x: Tensor, t: Tensor, **cond: Any) -> Tensor:
        self.calls += 1
        return self.denoiser.predict(quantity, x, t, **cond)


# Networks and clocks


class TimeMLP(nn.Module):
    """The network of the timings: 2-128-128-128-2 with t, sin and cos beside x."""

    def __init__(self, dim: int = 2, width: int = 128) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(dim, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Linear(width, dim),
        )
        self.time = nn.Linear(3, width)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """x (B, dim), t () or (B,) -> (B, dim)."""
        t = t.reshape(-1, 1).to(x.dtype)
        features = torch.cat([t, (6 * t).sin(), (6 * t).cos()], 1)
        return self.layers[1:](self.layers[0](x) + self.time(features))


def interleaved(
    runs: Mapping[str, Callable[[], object]], rounds: int, label: str, warm: bool = True
) -> dict[str, list[float]]:
    """Seconds of every run in every round. Rounds alternate in direction: machines drift."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    order = list(runs)
    for name in order if warm else ():
        runs[name]()
    gc.collect()
    gc.disable()  # a collection belongs to no run in particular
    try:
        for _ in tqdm(range(rounds), label, leave=False):
            for name in order:
                wait()
                begin = time.perf_counter()
                runs[name]()
                wait()
                seconds[name].append(time.perf_counter() - begin)
            order.reverse()
    finally:
        gc.enable()
    return seconds


def wait() -> None:
    """Let the GPU finish, where there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


# Command line and files


def arguments(
    doc: str | None, argv: Sequence[str] | None, **more: Mapping[str, Any]
) -> argparse.Namespace:
    """Every benchmark's command line: --out DIR, --quick, and what is given by name."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks"), help="folder")
    parser.add_argument("--quick", action="store_true", help="a tiny setting, in seconds")
    for name, options in more.items():
        parser.add_argument(f"--{name.replace('_', '-')}", **options)
    return parser.parse_args(argv)


def machine() -> dict[str, str]:
    """What the figures depend on."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    about = {
        "cores": f"{os.cpu_count()}, {torch.get_num_threads()} threads",
        "gpu": gpu,
        "scoresde": __version__,
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
    }
    for package in ("torch", *PEERS):
        try:
            about[package] = version(package)
        except PackageNotFoundError:
            about[package] = "not installed"
    return about


def installed(package: str) -> bool:
    """Whether a package is there."""
    return find_spec(package) is not None


def show(rows: Sequence[Mapping[str, object]], title: str = "") -> None:
    """A table on the terminal, columns from the keys of the rows."""
    if title:
        print(f"\n{title}")
    if rows:
        columns = list(dict.fromkeys(key for row in rows for key in row))
        print_table(columns, [[cell(row.get(key, "")) for key in columns] for row in rows])


def cell(value: object) -> str:
    """Three digits of a number; anything else as it is."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def write(out: Path, name: str, rows: Sequence[Mapping[str, object]], **summary: object) -> None:
    """NAME.csv with the rows, NAME.json with the rows, the summary and the machine."""
    columns = list(dict.fromkeys(key for row in rows for key in row))

    def table(part: Path) -> None:
        with part.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)

    whole = {"machine": machine(), **summary, "rows": list(rows)}
    text = json.dumps(whole, indent=1, ensure_ascii=False)
    paths = [
        atomically(out / f"{name}.csv", table),
        atomically(out / f"{name}.json", lambda part: part.write_text(text, encoding="utf-8")),
    ]
    print(f"wrote {' and '.join(map(str, paths))}", file=sys.stderr)

"""Time and peak memory of `sample` against the number of samples, the dimension and the steps.

    python benchmarks/scaling.py [--out DIR] [--quick]

The network is the MLP 2-128-128-128-2 (d-128-128-128-d where the dimension changes), with DDIM.
`sample` works in chunks that fit the cache of a CPU; "whole batch" is the same loop in one chunk,
as every peer runs it. Peak memory is what the process (on a GPU: torch's allocator) has had at
most, over what it had before, at growing sizes. Then `sample` of a million points (65536 on a
CPU) beside the bare network at the batch that it likes best, and target 8: 65536 points and 100
steps against a loop by hand and the peers' loops, in interleaved rounds. Writes scaling.csv, .json
and .png.
"""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import common
import torch
from common import SDE, TimeMLP
from peers import peers
from tqdm import tqdm

from scoresde import DDIM, EpsDenoiser, log_snr, sample
from scoresde.plots import VIEWS, save
from scoresde.plots.style import page

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
MILLION = 1_000_000
LOOPS = (
    "diffusers DDIM, trailing", "azula DDIM, log-SNR", "torchdiffeq euler, log-SNR",
    "k_diffusion euler, log-SNR", "smalldiffusion DDIM, log-SNR",
)  # fmt: skip
Row = dict[str, Any]


def network(dim: int = 2) -> TimeMLP:
    """The MLP, the same weights every time."""
    torch.manual_seed(0)
    return TimeMLP(dim).to(DEVICE).eval().requires_grad_(False)


def peak() -> float:
    """MiB: the most this process has had; NaN where the system does not say."""
    if DEVICE.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    try:
        import resource
        import sys
    except ImportError:  # Windows
        return math.nan
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def run(n: int, dim: int, steps: int, whole: bool) -> Callable[[], object]:
    """One call of `sample`."""
    denoiser, ts = EpsDenoiser(network(dim), SDE), log_snr(SDE, steps)
    chunk = n if whole else None
    return lambda: sample(
        denoiser,
        DDIM(),
        (n, dim),
        ts,
        seed=0,
        device=DEVICE,
        dtype=torch.float32,
        chunk=chunk,
        last="stop",
    )


def timed(n: int, dim: int, steps: int, whole: bool, before: float, rounds: int = 3) -> Row:
    """Median seconds and peak memory of one setting."""
    call, seconds = run(n, dim, steps, whole), []
    for _ in range(rounds):
        common.wait()
        begin = time.perf_counter()
        call()
        common.wait()
        seconds.append(time.perf_counter() - begin)
    return {
        "loop": "whole batch" if whole else "sample",
        "samples": n,
        "dimension": dim,
        "steps": steps,
        "seconds": statistics.median(seconds),
        "peak MiB": peak() - before,
    }


def sweep(quick: bool) -> dict[str, list[Row]]:
    """The three sweeps; memory grows along the first, so its peak means something."""
    before = peak()
    sizes = [1024, 4096, 16_384] if quick else [4096, 16_384, 65_536, 262_144, MILLION]
    dims, steps = (
        ([2, 32], [5, 10]) if quick else ([2, 8, 32, 128, 512], [5, 10, 20, 50, 100, 200])
    )
    cases = [("samples", n, 2, 5, False) for n in sizes]
    cases += [("samples", n, 2, 5, True) for n in sizes if n <= 262_144]
    cases += [("dimension", 4096, d, 10, False) for d in dims]
    cases += [("steps", 4096, 2, n, False) for n in steps]
    found: dict[str, list[Row]] = {"samples": [], "dimension": [], "steps": []}
    for kind, n, dim, count, whole in tqdm(cases, "sweeps", leave=False):
        rounds = 1 if n > 100_000 else 3
        run(min(n, 4096), dim, 2, False)()  # warm up
        row = timed(n, dim, count, whole, before, rounds)
        if kind != "samples":
            del row["peak MiB"]  # it is that of the largest sweep before
        found[kind].append(row)
    return found


def race(n: int, steps: int, rounds: int) -> list[Row]:
    """Target 8: every loop walks the same number of points and steps."""
    net, x = network(), torch.randn(n, 2, device=DEVICE)

    def peer_loop(peer: Any) -> Callable[[], object]:
        loop = peer.make(steps)

        def call() -> object:
            with torch.inference_mode():
                return loop(net, x)

        return call

    def by_hand() -> object:
        """The same work with made-up coefficients: they cost what any cost."""
        t, y = torch.tensor(0.5, device=DEVICE), x
        with torch.inference_mode():
            for _ in range(steps):
                y = (y * 0.99).add_(net(y, t), alpha=0.01)
        return y

    runs = {"scoresde sample": run(n, 2, steps, False), "by hand, whole batch": by_hand}
    runs |= {p.label: peer_loop(p) for p in peers(exact=False) if p.label in LOOPS}
    label = f"{n} points, {steps} steps"
    seconds = common.interleaved(runs, rounds, label, warm=n * steps < MILLION)
    ours = seconds["scoresde sample"]
    return [
        {
            "loop": name,
            "seconds": statistics.median(found),
            "points x steps / s": n * steps / statistics.median(found),
            "scoresde / this": statistics.median(o / s for o, s in zip(ours, found, strict=True)),
        }
        for name, found in seconds.items()
    ]


def throughput(quick: bool, rounds: int) -> Row:
    """`sample` of a million points beside the bare network at the batch that it likes best.

    Both in points x steps a second; on a GPU the target is a ratio of at least 0.8.
    """
    net, steps = network(), 5 if quick else 20
    n = 16_384 if quick else MILLION if DEVICE.type == "cuda" else 65_536
    batches = [2**k for k in ((11, 13) if quick else range(12, 21))]
    t = torch.tensor(0.5, device=DEVICE)
    calls = {b: max(1, n // b) for b in batches}  # as many points for each batch

    def bare(batch: int) -> Callable[[], object]:
        x = torch.randn(batch, 2, device=DEVICE)

        def call() -> None:
            with torch.inference_mode():
                for _ in range(calls[batch]):
                    net(x, t)

        return call

    runs = {str(b): bare(b) for b in batches} | {"sample": run(n, 2, steps, False)}
    seconds = common.interleaved(runs, rounds, f"{n} points")
    median = {name: statistics.median(found) for name, found in seconds.items()}
    rate = {b: b * calls[b] / median[str(b)] for b in batches}
    best = max(rate, key=lambda b: rate[b])
    ours = n * steps / median["sample"]
    return {
        "samples": n,
        "steps": steps,
        "sample, points x steps / s": ours,
        "best batch": best,
        "network, points / s": rate[best],
        "ratio": ours / rate[best],
    }


def targets(found: dict[str, list[Row]], raced: Sequence[Row]) -> list[Row]:
    """Target 8."""
    best = min((r for r in raced if r["loop"] != "scoresde sample"), key=lambda r: r["seconds"])
    largest = [row for row in found["samples"] if row["loop"] == "sample"][-2:]
    growth = [largest[1][k] / largest[0][k] for k in ("seconds", "samples")]
    cases = [
        (f"8  time / best loop ({best['loop']})", best["scoresde / this"], 0.45),
        ("8  growth of time / growth of samples", growth[0] / growth[1], 1.25),
    ]
    return [
        {
            "target": what,
            "found": value,
            "at most": limit,
            "": "PASS" if value <= limit else f"{value / limit:.2f} x the limit",
        }
        for what, value, limit in cases
    ]


def figure(found: dict[str, list[Row]], theme: str = "light") -> Any:
    """Time and memory against samples, time against dimension and steps."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

    panels = (
        ("samples", "seconds", "seconds, 5 steps"),
        ("samples", "peak MiB", "peak memory / MiB"),
        ("dimension", "seconds", "seconds, 4k samples, 10 steps"),
        ("steps", "seconds", "seconds, 4k samples"),
    )
    with page(5.2, theme) as (made, look):
        axes = made.subplots(2, 2).flat
        for ax, (kind, column, label) in zip(axes, panels, strict=True):
            for loop, color in (("whole batch", look.muted), ("sample", VIEWS["sde"].color)):
                rows = [row for row in found[kind] if row["loop"] == loop]
                if rows:
                    x, y = [r[kind] for r in rows], [r[column] for r in rows]
                    ax.plot(x, y, marker="o", color=color, label=loop)
            ax.set(xscale="log", yscale="log", xlabel=kind, title=label)
            places = sorted({row[kind] for row in found[kind]})
            ax.set_xticks(places, [_short(n) for n in places])
            ax.xaxis.set_minor_locator(NullLocator())
            ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
            ax.yaxis.set_minor_formatter(NullFormatter())
            ax.grid()
        handles, labels = made.axes[0].get_legend_handles_labels()
        made.legend(handles, labels, loc="outside lower left", ncols=2)
    return made


def _short(n: int) -> str:
    """4096 as 4k, a million as 1M."""
    return f"{n / MILLION:g}M" if n >= MILLION else f"{n // 1024}k" if n >= 1024 else str(n)


def main(argv: Sequence[str] | None = None) -> None:
    options = common.arguments(
        __doc__, argv, rounds={"type": int, "default": 3}, steps={"type": int, "default": 100}
    )
    found = sweep(options.quick)
    for kind, rows in found.items():
        common.show(rows, f"Against the number of {kind}")
    n, steps, rounds = (8192, 5, 2) if options.quick else (65_536, options.steps, options.rounds)
    raced = race(n, steps, rounds)
    common.show(raced, f"{n} points, {steps} steps")
    common.show(targets(found, raced), "Target 8")
    most = throughput(options.quick, min(rounds, 3))
    common.show([most], "`sample` beside the network at its best batch")
    rows = [{"sweep": kind, **row} for kind, rows in found.items() for row in rows]
    summary = {"race": raced, "targets": targets(found, raced), "throughput": most}
    common.write(options.out, "scaling", rows, **summary)
    print(f"wrote {save(figure(found), options.out / 'scaling.png')}")


if __name__ == "__main__":
    main()

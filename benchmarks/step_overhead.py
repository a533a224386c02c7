"""What a step costs beyond the network: our samplers, a loop by hand, and the peers, interleaved.

    python benchmarks/step_overhead.py [--out DIR] [--quick] [--compile]

"tiny" is Linear(2, 2) at batch 256, where only the loop is seen; the MLP 2-128-128-128-2 runs at
256, 4096 and 65536, a small U-Net of diffusers (if there is one) on 16 images of 16 x 16. All take
t as a scalar. Every round times every sampler once, and n bare calls of the network; reported are
medians over the rounds of (loop - bare)/calls in microseconds and of loop/bare. Tables and times
that a library can make once are made before the clock starts; what its call repeats is counted.

With --compile, and on a GPU always, `sample(compile=True)` and, on a GPU, `Captured(DDIM())` are
timed as well, beside the network captured in a graph of its own. A contender that fails is named
and left out; what was measured is written after every network.
"""

import statistics
import sys
from collections.abc import Callable, Sequence
from typing import Any

import common
import torch
from common import SDE, TimeMLP
from peers import peers
from torch import Tensor, nn

from scoresde import DDIM, Ancestral, Denoiser, EpsDenoiser, EulerMaruyama, PFHeun, log_snr
from scoresde.plots import VIEWS, save
from scoresde.plots.style import page
from scoresde.samplers import DEIS, Adams, Captured, DPMSolverPP, Sampler, SASolver, UniPC, sample

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
OURS: dict[str, tuple[Sampler, int]] = {  # sampler, evaluations a step
    "DDIM": (DDIM(), 1),
    "Ancestral": (Ancestral(), 1),
    "EulerMaruyama": (EulerMaruyama(), 1),
    "PFHeun": (PFHeun(), 2),
    "DPM++2M": (DPMSolverPP(2), 1),
    "DPM++3M": (DPMSolverPP(3), 1),
    "DPM++2M-SDE": (DPMSolverPP(2, tau=1.0), 1),
    "UniPC3": (UniPC(3), 1),
    "DEIS3": (DEIS(3), 1),
    "Adams4": (Adams(4, 4), 1),
    "SASolver": (SASolver(), 1),
}
PEERS = (
    "diffusers DDIM, trailing", "diffusers DDPM, trailing", "diffusers DPM++2M, log-SNR",
    "diffusers DPM++2M-SDE, log-SNR", "diffusers UniPC2, log-SNR",
    "diffusers DEIS3, log-SNR, stop",
    "azula DDIM, log-SNR", "azula DDPM, log-SNR", "azula Heun, log-SNR", "azula xEAB3, log-SNR",
    "torchdiffeq euler, log-SNR", "torchdiffeq rk4, log-SNR", "torchsde euler, uniform t",
    "k_diffusion euler, log-SNR", "k_diffusion heun, log-SNR", "k_diffusion dpmpp_2m, log-SNR",
    "smalldiffusion DDIM, log-SNR", "smalldiffusion DDPM, log-SNR",
)  # fmt: skip
BARE_CAPTURED, CAPTURED = "bare, captured", "scoresde DDIM, captured"
Run = Callable[[], object]


class Tiny(nn.Module):
    """Linear(2, 2), deaf to the time."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        out: Tensor = self.linear(x)
        return out


class UNet(nn.Module):
    """diffusers' UNet2DModel, small, with our time."""

    def __init__(self) -> None:
        super().__init__()
        from diffusers import UNet2DModel

        self.net = UNet2DModel(
            sample_size=16,
            in_channels=1,
            out_channels=1,
            layers_per_block=1,
            block_out_channels=(16, 32),
            down_block_types=("DownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "UpBlock2D"),
            norm_num_groups=8,
        )

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        out: Tensor = self.net(x, 999 * t, return_dict=False)[0]
        return out


CASES: dict[str, tuple[type[nn.Module], tuple[int, ...], int, int]] = {
    "tiny @ 256": (Tiny, (256, 2), 50, 31),  # network, shape, evaluations, rounds
    "MLP @ 256": (TimeMLP, (256, 2), 20, 31),
    "MLP @ 4096": (TimeMLP, (4096, 2), 10, 11),
    "MLP @ 65536": (TimeMLP, (65536, 2), 4, 3),
    "U-Net @ 16": (UNet, (16, 1, 16, 16), 8, 7),
}


class Calls:
    """A network that counts."""

    def __init__(self, net: nn.Module) -> None:
        self.net, self.count = net, 0

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        self.count += 1
        out: Tensor = self.net(x, t)
        return out


def bare(net: nn.Module, x: Tensor, n: int) -> Run:
    """n calls of the network, and nothing else."""
    t = torch.tensor(0.5, device=x.device)

    def run() -> None:
        with torch.inference_mode():
            for _ in range(n):
                net(x, t)

    return run


def by_hand(net: nn.Module, x: Tensor, n: int, noise: bool) -> Run:
    """What one would write for this one sampler: coefficients of eps, made beforehand."""
    ts = log_snr(SDE, n)
    table = DDIM(float(noise)).table(SDE, ts)
    alpha, sigma = SDE.alpha(ts[:-1]), SDE.sigma(ts[:-1])
    b = table.b if table.b.ndim == 1 else table.b[:, 0]
    a = (table.a + b / alpha).tolist()  # x0_hat = (x - sigma eps)/alpha
    e = (-b * sigma / alpha).tolist()
    c, times = table.c.tolist(), ts[:-1].to(x).unbind()

    def run() -> Tensor:
        with torch.inference_mode():
            y = x
            for k, t in enumerate(times):
                y = (y * a[k]).add_(net(y, t), alpha=e[k])
                if noise:
                    y.add_(torch.randn_like(y), alpha=c[k])
            return y

    return run


def ours(net: nn.Module, x: Tensor, n: int, sampler: Sampler, per_step: int) -> Run:
    """The sampler as it is called."""
    denoiser, ts = EpsDenoiser(net, SDE), log_snr(SDE, max(1, n // per_step))
    return lambda: sampler(denoiser, x, ts)


def through_sample(denoiser: Denoiser, x: Tensor, n: int, sampler: Sampler, **options: Any) -> Run:
    """By the outermost function: it draws x_T too, in chunks."""
    ts = log_snr(SDE, n)
    return lambda: sample(
        denoiser,
        sampler,
        x.shape,
        ts,
        seed=0,
        device=x.device,
        dtype=x.dtype,
        last="stop",
        **options,
    )


def theirs(net: nn.Module, x: Tensor, loop: Any) -> Run:
    """A peer's loop, in the mode that spares it the most."""

    def run() -> object:
        with torch.inference_mode():
            return loop(net, x)

    return run


def captured(net: nn.Module, x: Tensor, n: int) -> Run:
    """n calls of the network in one CUDA graph: the floor of a captured loop."""
    run = bare(net, x, n)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def contenders(net: nn.Module, x: Tensor, n: int, compile: bool) -> dict[str, Run]:
    """Everything that is timed on one network; "bare" comes first."""
    runs: dict[str, Run] = {"bare": bare(net, x, n)}
    runs["by hand DDIM"] = by_hand(net, x, n, noise=False)
    runs["by hand DDPM"] = by_hand(net, x, n, noise=True)
    for name, (sampler, per_step) in OURS.items():
        runs[f"scoresde {name}"] = ours(net, x, n, sampler, per_step)
    runs["scoresde sample(DDIM)"] = through_sample(EpsDenoiser(net, SDE), x, n, DDIM())
    if compile:
        made = through_sample(EpsDenoiser(net, SDE), x, n, DDIM(), compile=True)
        runs["scoresde sample(DDIM, compile=True)"] = made
    if DEVICE.type == "cuda":
        runs[BARE_CAPTURED] = captured(net, x, n)
        runs[CAPTURED] = ours(net, x, n, Captured(DDIM()), 1)
    for peer in peers(exact=False):
        if peer.label in PEERS:
            runs[peer.label] = theirs(net, x, peer.make(n))
    return runs


def able(runs: dict[str, Run]) -> dict[str, Run]:
    """Those that run once without an error; the others are named."""
    found = {}
    for name, run in runs.items():
        try:
            run()
        except Exception as error:
            reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
            print(f"{name} is left out: {reason}", file=sys.stderr)
        else:
            found[name] = run
    return found


def overhead(case: str, quick: bool, compile: bool) -> list[dict[str, Any]]:
    """One row for each sampler on one network."""
    kind, shape, n, rounds = CASES[case]
    torch.manual_seed(0)
    net = kind().to(DEVICE).eval().requires_grad_(False)
    x = torch.randn(shape, device=DEVICE)
    runs = able(contenders(net, x, n, compile))
    calls = {name: _calls(name, net, x, n) for name in runs}
    seconds = common.interleaved(runs, 3 if quick else rounds, case)
    per_call = {name: [s / calls[name] for s in seconds[name]] for name in runs}
    rows = []
    for name, found in per_call.items():
        pairs = list(zip(found, per_call["bare"], strict=True))
        rows.append(
            {
                "case": case,
                "sampler": name,
                "calls": calls[name],
                "us a call": 1e6 * statistics.median(found),
                "us over bare": 1e6 * statistics.median(s - b for s, b in pairs),
                "ratio": statistics.median(s / b for s, b in pairs),
            }
        )
    return rows


def _calls(name: str, net: nn.Module, x: Tensor, n: int) -> int:
    """Evaluations of one run, counted on one sample where a library may add some."""
    peer = next((peer for peer in peers(exact=False) if peer.label == name), None)
    if peer is None:
        _, per_step = OURS.get(name.removeprefix("scoresde "), (None, 1))
        return per_step * max(1, n // per_step)
    counting = Calls(net)
    theirs(counting, x[:2], peer.make(n))()
    return counting.count


def figure(rows: Sequence[dict[str, Any]], theme: str = "light") -> Any:
    """Dots: what a call costs beyond the bare network, smallest network and MLP."""
    cases = [case for case in ("tiny @ 256", "MLP @ 256") if case in {r["case"] for r in rows}]
    first = sorted(
        (row for row in rows if row["case"] == cases[0] and row["sampler"] != "bare"),
        key=lambda row: -row["us over bare"],
    )
    names = [row["sampler"] for row in first]
    with page(1.0 + 0.2 * len(names), theme) as (made, look):
        axes = made.subplots(1, len(cases), sharey=True, squeeze=False)[0]
        for ax, case, column in zip(axes, cases, ("us over bare", "ratio"), strict=False):
            found = {row["sampler"]: row[column] for row in rows if row["case"] == case}
            for y, name in enumerate(names):
                own, hand = name.startswith("scoresde"), name.startswith("by hand")
                color = VIEWS["sde"].color if own else look.ink if hand else look.muted
                ax.plot(found[name], y, "o" if own else "D" if hand else "s", color=color, ms=5)
                ax.hlines(y, 1, found[name], color=look.grid, zorder=0)
            ax.set_title(case, loc="left")
        axes[0].set(xlabel="µs a call over the bare network", xscale="log")
        axes[0].set_yticks(range(len(names)), names, fontsize=8)
        for label, name in zip(axes[0].get_yticklabels(), names, strict=True):
            label.set_color(VIEWS["sde"].color if name.startswith("scoresde") else look.muted)
        if len(axes) > 1:
            axes[1].set_xlabel("time / bare network")
    return made


def targets(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Target 5: at most 20 us on tiny and 1.15 times the MLP at 256, for every sampler of ours."""
    table = []
    for row in rows:
        limit = {"tiny @ 256": ("us over bare", 20.0), "MLP @ 256": ("ratio", 1.15)}.get(
            row["case"]
        )
        if limit and row["sampler"].removeprefix("scoresde ") in OURS:
            column, most = limit
            verdict = "PASS" if row[column] <= most else f"{row[column] / most:.2f} x the limit"
            table.append(
                {"case": row["case"], "sampler": row["sampler"], column: row[column], "": verdict}
            )
    return table + captured_targets(rows)


def captured_targets(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """On a GPU: a captured loop takes at most 1.05 times the captured network."""
    found = {(row["case"], row["sampler"]): row["us a call"] for row in rows}
    table = []
    for case in dict.fromkeys(row["case"] for row in rows):
        if (case, CAPTURED) in found and (case, BARE_CAPTURED) in found:
            ratio = found[case, CAPTURED] / found[case, BARE_CAPTURED]
            verdict = "PASS" if ratio <= 1.05 else f"{ratio / 1.05:.2f} x the limit"
            table.append({"case": case, "sampler": CAPTURED, "captured": ratio, "": verdict})
    return table


def main(argv: Sequence[str] | None = None) -> None:
    options = common.arguments(
        __doc__,
        argv,
        compile={"action": "store_true", "help": "time sample(compile=True) on a CPU too"},
        cases={"nargs": "+", "default": list(CASES), "choices": list(CASES)},
    )
    gpu = DEVICE.type == "cuda"
    cases = options.cases[:2] if options.quick else options.cases
    if "U-Net @ 16" in cases and not common.installed("diffusers"):
        cases = [case for case in cases if case != "U-Net @ 16"]
    rows: list[dict[str, Any]] = []
    for case in cases:
        found = overhead(case, options.quick, options.compile or gpu)
        columns = ("sampler", "us a call", "us over bare", "ratio")
        common.show([{c: row[c] for c in columns} for row in found], case)
        rows += found
        common.write(options.out, "step_overhead", rows, targets=targets(rows))
    common.show(targets(rows), "Target 5: 20 us on tiny, 1.15 x the MLP at 256")
    print(f"wrote {save(figure(rows), options.out / 'step_overhead.png')}")
    if not gpu:
        print(
            "no GPU here: for eager, compiled and captured loops run, on a machine with one,\n"
            "    python benchmarks/step_overhead.py --out runs/benchmarks-gpu",
            file=sys.stderr,
        )


if __name__ == "__main__":
    main()

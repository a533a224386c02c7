"""Where samplers break: few steps, small t_eps, 16 bits, exact and trained scores.

    python benchmarks/stability.py [--out DIR] [--quick]

Law: ring8. Each sampler walks the log-SNR and the uniform grid with N = 5 to 50 steps to
t_eps = 1e-3, and 20 steps to t_eps = 1e-2 to 1e-5, then "denoise"; with the exact score and with a
small network trained on the law; in float32, and with the network's body in bfloat16 and all else
in float32 (of the exact score, eps is rounded). Peers run at their own ends of time. A cell of the
table reads

    NaN          some sample is not finite
    lost 3%      share of samples outside |x| < 4, where the law has no mass, if above 1 %
    1.8-         sliced W2 over its floor (exact against exact samples; one draw of starting points
                 may cost up to 1.6, which all ODE samplers then share); - or +:
                 mean -log p(x) is more than 0.1 nats below the entropy (over-concentrated: a bias
                 that distances hide) or above it (too broad).

Writes stability.csv, .json and .png.
"""

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import common
import torch
from common import SDE
from peers import peers
from torch import Tensor, nn
from tqdm import tqdm

from scoresde import (
    DDIM,
    PFRK4,
    Ancestral,
    Denoiser,
    EpsDenoiser,
    EulerMaruyama,
    Langevin,
    PFEuler,
    PFHeun,
    PredictorCorrector,
    ReverseDiffusion,
    fit,
    log_snr,
    uniform,
)
from scoresde.denoiser import Wrapper
from scoresde.metrics import sliced_wasserstein
from scoresde.nets import MLP
from scoresde.plots import save
from scoresde.plots.style import page
from scoresde.prediction import Quantity, convert
from scoresde.samplers import (
    DEIS,
    ERSDE,
    Adams,
    DPMSolver,
    DPMSolverPP,
    EDMStochastic,
    Sampler,
    SASolver,
    UniPC,
)

Row = dict[str, Any]
OURS: dict[str, Sampler] = {
    "DDIM": DDIM(),
    "DPM++2M": DPMSolverPP(2),
    "DPM++3M": DPMSolverPP(3),
    "UniPC3": UniPC(3),
    "DEIS3": DEIS(3),
    "Adams2": Adams(2, 3),
    "Adams4": Adams(4, 4),
    "DPM-Solver-3": DPMSolver(3),
    "PFEuler": PFEuler(),
    "PFHeun": PFHeun(),
    "PFRK4": PFRK4(),
    "Ancestral": Ancestral(),
    "Ancestral, beta": Ancestral("beta"),
    "EulerMaruyama": EulerMaruyama(),
    "ReverseDiffusion": ReverseDiffusion(),
    "PC (Langevin)": PredictorCorrector(ReverseDiffusion(), Langevin()),
    "DPM++2M-SDE": DPMSolverPP(2, tau=1.0),
    "SASolver": SASolver(),
    "ERSDE": ERSDE(),
    "EDMStochastic": EDMStochastic(churn=0.4),
}
PEERS = (
    "diffusers DPM++2M, linspace (default)", "diffusers UniPC2, linspace (default)",
    "diffusers DEIS3, log-SNR, stop", "diffusers DDPM, trailing",
    "diffusers DPM++2M-SDE, log-SNR", "azula DDIM, uniform t (default)", "azula Heun, log-SNR",
    "azula xEAB2, uniform t (default)", "azula Ito, log-SNR", "torchsde euler, uniform t",
)  # fmt: skip
STEPS, ENDS, REACH = (5, 10, 20, 50), (1e-2, 1e-4, 1e-5), 4.0


class Bfloat16(Wrapper):
    """Eps rounded to 16 bits; the state, t and all coefficients stay float32."""

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__(denoiser)
        self.regular = False

    def predict(self, quantity: Quantity, x: Tensor, t: Tensor, **cond: Any) -> Tensor:
        eps = self.denoiser.eps(x, t, **cond).bfloat16().to(x)
        return convert(self.sde, "eps", quantity, x, t, eps)


def bfloat16_body(denoiser: Denoiser) -> Denoiser:
    """A network whose linear layers compute as under autocast: 16-bit weights, inputs, outputs.

    Emulated by rounding, which every machine can do: oneDNN's own bfloat16 kernels end some
    virtual machines with an illegal instruction.
    """
    rounded = lambda x: x.bfloat16().to(x)
    twin = copy.deepcopy(denoiser)
    for layer in twin.modules():
        if isinstance(layer, nn.Linear):
            layer.weight.data = rounded(layer.weight.data)
            layer.register_forward_pre_hook(lambda layer, inputs: tuple(map(rounded, inputs)))
            layer.register_forward_hook(lambda layer, inputs, out: rounded(out))
    return twin


def trained(steps: int) -> Denoiser:
    """A small network that has seen the law for a while."""
    torch.manual_seed(0)
    law = common.laws()["ring8"]
    data = law.sample(50_000, generator=torch.Generator().manual_seed(0)).float()
    denoiser = EpsDenoiser(MLP(2), SDE)
    result = fit(denoiser, data, steps=steps, batch=512, lr=3e-3)
    return result.denoiser


def walks(quick: bool) -> list[tuple[str, str, Callable[[Denoiser, Tensor], Tensor]]]:
    """(sampler, setting, run) of everything."""
    steps, ends = (STEPS[:1], ()) if quick else (STEPS, ENDS)
    settings = [("log-SNR", n, 1e-3) for n in steps] + [("log-SNR", 20, e) for e in ends]
    settings += [("uniform", n, 1e-3) for n in steps] + [("uniform", 20, e) for e in ends]
    found = []
    for name, sampler in OURS.items():
        for kind, n, t_eps in settings:
            ts = log_snr(SDE, n, t_eps=t_eps) if kind == "log-SNR" else uniform(n, t_eps=t_eps)
            label = f"{kind}, N={n}" if t_eps == 1e-3 else f"{kind}, t_eps={t_eps:.0e}"
            found.append((f"scoresde {name}", label, _ours(sampler, ts)))
    for peer in peers():
        if peer.label in PEERS:
            for n in steps:
                label = "uniform" if "log-SNR" not in peer.name else "log-SNR"
                found.append((peer.label, f"{label}, N={n}", _theirs(peer.make(n))))
    return found


def _ours(sampler: Sampler, ts: Tensor) -> Callable[[Denoiser, Tensor], Tensor]:
    def run(denoiser: Denoiser, x: Tensor) -> Tensor:
        end = sampler(denoiser, x, ts, torch.Generator().manual_seed(1))
        return common.finish(denoiser, end, ts, "denoise")

    return run


def _theirs(loop: Any) -> Callable[[Denoiser, Tensor], Tensor]:
    def run(denoiser: Denoiser, x: Tensor) -> Tensor:
        with torch.random.fork_rng():
            torch.manual_seed(1)
            end: Tensor = loop(denoiser.eps, x.clone())
        return end

    return run


def measure(quick: bool, scores: Sequence[str]) -> list[Row]:
    """One row for every sampler, setting, score and precision."""
    law, points = common.laws()["ring8"], 300 if quick else 2048
    fresh = lambda seed: law.sample(points, generator=torch.Generator().manual_seed(seed))
    exact = fresh(10)
    entropy = float(-law.log_prob(exact).mean())
    floor = sum(distance(fresh(20 + k), exact) for k in range(8)) / 8
    denoisers: dict[tuple[str, str], Denoiser] = {}
    if "exact" in scores:
        denoisers |= {("exact", "float32"): law, ("exact", "bfloat16"): Bfloat16(law)}
    if "trained" in scores:
        net = trained(50 if quick else 3000)
        denoisers |= {("trained", "float32"): net, ("trained", "bfloat16"): bfloat16_body(net)}
    x = torch.randn(points, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
    runs = walks(quick)
    rows = []
    with torch.no_grad():
        for (score, dtype), denoiser in denoisers.items():
            for name, setting, run in tqdm(runs, f"{score}, {dtype}", leave=False):
                end = run(denoiser, x).double()
                rows.append(
                    {"sampler": name, "setting": setting, "score": score, "dtype": dtype}
                    | _judge(end, exact, floor, entropy)
                )
    return rows


def distance(x: Tensor, y: Tensor) -> float:
    """Sliced W2 over 32 directions."""
    return float(sliced_wasserstein(x, y, projections=32))


def _judge(x: Tensor, exact: Tensor, floor: float, entropy: float) -> Row:
    if not bool(torch.isfinite(x).all()):
        return {"lost": 1.0, "W2/floor": math.inf, "NLL gap": math.inf, "cell": "NaN"}
    lost = float((x.abs().amax(1) >= REACH).double().mean())
    ratio = distance(x, exact) / floor
    gap = float(-common.laws()["ring8"].log_prob(x).mean()) - entropy
    bias = "-" if gap < -0.1 else "+" if gap > 0.1 else ""
    cell = f"lost {100 * lost:.0f}%" if lost > 0.01 else f"{ratio:.1f}{bias}"
    return {"lost": lost, "W2/floor": ratio, "NLL gap": gap, "cell": cell}


def table(rows: Sequence[Row], score: str, dtype: str) -> list[Row]:
    """Samplers against settings."""
    lines: dict[str, Row] = {}
    for row in rows:
        if (row["score"], row["dtype"]) == (score, dtype):
            line = lines.setdefault(row["sampler"], {"sampler": row["sampler"]})
            line[row["setting"]] = row["cell"]
    return list(lines.values())


def figure(rows: Sequence[Row], theme: str = "light") -> Any:
    """Heat maps of W2 over its floor."""
    from matplotlib.colors import LinearSegmentedColormap, LogNorm

    names = list(dict.fromkeys(row["sampler"] for row in rows))
    settings = sorted({row["setting"] for row in rows}, key=_place)
    with page(2.2 + 0.14 * len(names), theme) as (made, look):
        ramp = LinearSegmentedColormap.from_list("bad", (look.face, "#f2b134", "#b3261e"))
        ramp.set_bad(look.grid)
        scores = list(dict.fromkeys(row["score"] for row in rows))
        axes = made.subplots(1, len(scores), sharey=True, squeeze=False)[0]
        for ax, score in zip(axes, scores, strict=True):
            grid = [[math.nan] * len(settings) for _ in names]
            for row in rows:
                if row["score"] == score and row["dtype"] == "float32":
                    y, x = names.index(row["sampler"]), settings.index(row["setting"])
                    grid[y][x] = max(1.0, min(row["W2/floor"], 100))
                    if row["lost"] > 0.01:
                        ax.plot(x, y, "x", color=look.ink, ms=3.5, mew=0.9)
            seen = ax.imshow(grid, cmap=ramp, norm=LogNorm(1, 100), aspect="auto")
            ax.set_xticks(range(len(settings)), settings, rotation=90, fontsize=7)
            ax.set_title(f"{score} score, float32")
        labels = [name.removeprefix("scoresde ") for name in names]
        axes[0].set_yticks(range(len(names)), labels, fontsize=7.5)
        for label, name in zip(axes[0].get_yticklabels(), names, strict=True):
            label.set_color(look.ink if name.startswith("scoresde") else look.muted)
        bar = made.colorbar(seen, ax=axes, location="bottom", aspect=50)
        bar.set_label("sliced W2 / floor (cross: lost or NaN; grey: not run)")
    return made


def _place(setting: str) -> tuple[str, int, float]:
    grid, what = setting.split(", ")
    name, number = what.split("=")
    return grid, int(name == "t_eps"), -float(number) if name == "t_eps" else float(number)


def main(argv: Sequence[str] | None = None) -> None:
    both = ["exact", "trained"]
    options = common.arguments(
        __doc__, argv, scores={"nargs": "+", "default": both, "choices": both}
    )
    rows = measure(options.quick, options.scores)
    for score in options.scores:
        for dtype in ("float32", "bfloat16"):
            common.show(table(rows, score, dtype), f"{score} score, {dtype}")
    common.write(options.out, "stability", rows)
    print(f"wrote {save(figure(rows), options.out / 'stability.png')}")


if __name__ == "__main__":
    main()

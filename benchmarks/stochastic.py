"""Samplers with noise: the law of their samples against evaluations, beside the peers.

    python benchmarks/stochastic.py [--out DIR] [--quick] [--laws ring8 aniso3] [--points 65536]

For each number of evaluations: the sliced W2 to as many exact samples (its floor, exact against
exact, is printed first), and the NLL gap, mean -log p(x) minus the entropy: zero for exact
samples, negative where a sampler is over-concentrated, which no distance shows. The gap uses the
same exact samples for the entropy, so that its noise is about sqrt(2/points) nats. In float32, as
one would sample; ours end with "denoise", the peers as they do. Then, without Monte Carlo, the W2
between the exact law of the output and the truth on one Gaussian (from the exact law at t = 1 to
1e-3, log-SNR, 80 steps). Writes stochastic.csv, .json and .png.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import common
import torch
from common import SDE, Counted
from peers import peers
from torch import Tensor
from tqdm import tqdm

from scoresde import DDIM, Ancestral, EulerMaruyama, GaussianMixture, ReverseDiffusion, log_snr
from scoresde.metrics import gaussian_w2, sliced_wasserstein
from scoresde.plots import VIEWS, save
from scoresde.plots.style import ACCENTS, page
from scoresde.samplers import ERSDE, DPMSolverPP, EDMStochastic, Sampler, SASolver, moments

Row = dict[str, Any]
OURS: dict[str, tuple[Sampler, int]] = {  # sampler, evaluations a step
    "Euler-Maruyama": (EulerMaruyama(), 1),
    "reverse diffusion": (ReverseDiffusion(), 1),
    "Ancestral": (Ancestral(), 1),
    "DPM++2M-SDE": (DPMSolverPP(2, tau=1.0), 1),
    "DPM++2M, tau 0.5": (DPMSolverPP(2, tau=0.5), 1),
    "SA-Solver": (SASolver(), 1),
    "SA-Solver 3": (SASolver(3, 3), 1),
    "ER-SDE-2": (ERSDE(2), 1),
    "EDM stochastic": (EDMStochastic(churn=0.4), 2),
}
NFES = (5, 10, 20, 50, 100)
DRAWN = "Ancestral", "DPM++2M-SDE", "SA-Solver 3", "ER-SDE-2"


Run = Callable[[GaussianMixture, Tensor, int], tuple[Tensor, int]]
"""(law, x_T, evaluations) -> samples and calls."""
CHUNK = 4096


def in_chunks(walk: Callable[[Counted, Tensor, int], Tensor]) -> Run:
    """Over pieces that fit the cache; torch's own generator runs on from piece to piece."""

    def run(law: GaussianMixture, x: Tensor, nfe: int) -> tuple[Tensor, int]:
        counted, parts = Counted(law), x.split(CHUNK)
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(1)
            ends = [walk(counted, part.clone(), nfe) for part in parts]
        return torch.cat(ends), counted.calls // len(parts)

    return run


def run_ours(sampler: Sampler, per_step: int) -> Run:
    """On the log-SNR grid."""

    def walk(law: Counted, x: Tensor, nfe: int) -> Tensor:
        ts = log_snr(SDE, max(1, (nfe - 1) // per_step))
        return common.finish(law, sampler(law, x, ts), ts, "denoise")

    return in_chunks(walk)


def run_theirs(peer: Any) -> Run:
    """As the peer does it."""
    return in_chunks(lambda law, x, nfe: peer.make(nfe)(law.eps, x))


def measure(law_name: str, nfes: Sequence[int], points: int) -> list[Row]:
    """One row for each sampler and number of evaluations, exact samples first."""
    law = common.laws()[law_name]
    fresh = lambda seed: law.sample(points, generator=torch.Generator().manual_seed(seed))
    exact = fresh(10)
    entropy = float(-law.log_prob(exact).mean())
    x = torch.randn(points, law.dim, generator=torch.Generator().manual_seed(0))

    def distance(end: Tensor) -> float:
        return float(sliced_wasserstein(end.double(), exact, projections=32))

    def row(name: str, nfe: int, calls: int, end: Tensor) -> Row:
        good = bool(torch.isfinite(end).all())
        return {
            "law": law_name,
            "sampler": name,
            "budget": nfe,
            "calls": calls,
            "sliced W2": distance(end) if good else math.nan,
            "NLL gap": float(-law.log_prob(end.double()).mean()) - entropy if good else math.nan,
        }

    rows = [row("exact samples (the floor)", n, 0, fresh(20 + n)) for n in nfes]
    runs = {f"scoresde {name}": run_ours(*case) for name, case in OURS.items()}
    runs["scoresde DPM++3M (ODE)"] = run_ours(DPMSolverPP(3), 1)
    runs |= {peer.label: run_theirs(peer) for peer in peers(noise=True)}
    for name, run in tqdm(runs.items(), law_name, leave=False):
        for nfe in nfes:
            end, calls = run(law, x, nfe)
            rows.append(row(name, nfe, calls, end))
    return rows


def gaussian_law(steps: int = 80) -> list[Row]:
    """W2 of the exact law of each sampler's output from the truth at t = 1e-3, and weak orders."""
    law = common.laws()["gauss"]
    truth = law.marginal(common.double(1e-3))

    def distance(sampler: Sampler, n: int) -> float:
        means, covs = moments(sampler, law, log_snr(SDE, n))
        return float(gaussian_w2(means[-1], covs[-1], *truth))

    rows = []
    for name, (sampler, _) in (OURS | {"DDIM": (DDIM(), 1)}).items():
        found = {n: distance(sampler, n) for n in (steps, 2 * steps, 4 * steps)}
        order = math.log2(found[2 * steps] / found[4 * steps])
        rows.append({"sampler": name, f"W2, {steps} steps": found[steps], "weak order": order})
    return rows


def table(rows: Sequence[Row], law: str) -> list[Row]:
    """Samplers against evaluations: sliced W2 (NLL gap)."""
    lines: dict[str, Row] = {}
    for row in rows:
        if row["law"] == law:
            line = lines.setdefault(row["sampler"], {"sampler": row["sampler"]})
            line[f"{row['budget']}"] = f"{row['sliced W2']:.4f} ({row['NLL gap']:+.3f})"
    return list(lines.values())


def targets(rows: Sequence[Row], exact: Sequence[Row]) -> list[Row]:
    """Target 4, of every sampler of ours of one evaluation a step: the best that meets each."""
    floor = max(
        (r["sliced W2"] for r in rows if "floor" in r["sampler"] and r["law"] == "aniso3"),
        default=math.nan,
    )
    out = []
    for name, (_, per_step) in OURS.items():
        if per_step > 1:
            continue
        at = {
            r["budget"]: r
            for r in rows
            if r["sampler"] == f"scoresde {name}" and r["law"] == "aniso3"
        }
        gauss = next(r for r in exact if r["sampler"] == name)
        line: Row = {
            "sampler": name,
            "Gaussian W2 <= 1.2e-3": verdict(gauss["W2, 80 steps"] <= 1.2e-3),
            "weak order 2": verdict(gauss["weak order"] > 1.85),
        }
        if 50 in at:
            line["50: floor"] = verdict(at[50]["sliced W2"] <= floor)
            line["50: |gap| <= .01"] = verdict(abs(at[50]["NLL gap"]) <= 0.01)
        if 20 in at:
            line["20: W2 < .021"] = verdict(at[20]["sliced W2"] < 0.021)
            line["20: |gap| < .06"] = verdict(abs(at[20]["NLL gap"]) < 0.06)
        if {5, 10} <= set(at):
            line["no NaN"] = verdict(all(math.isfinite(at[n]["sliced W2"]) for n in (5, 10)))
        out.append(line)
    return out


def verdict(met: bool) -> str:
    """PASS or no."""
    return "PASS" if met else "no"


def figure(rows: Sequence[Row], theme: str = "light") -> Any:
    """Sliced W2 and the NLL gap against evaluations; grey: peers and the floor."""
    laws = list(dict.fromkeys(row["law"] for row in rows))
    nfes = sorted({row["budget"] for row in rows})
    colors = dict(zip(DRAWN, (VIEWS["chain"].color, VIEWS["sde"].color, *ACCENTS), strict=False))
    with page(1.1 + 2.4 * len(laws), theme) as (made, look):
        axes = made.subplots(len(laws), 2, sharex=True, squeeze=False)
        for pair, law in zip(axes, laws, strict=True):
            for ax, column in zip(pair, ("sliced W2", "NLL gap"), strict=True):
                names = dict.fromkeys(r["sampler"] for r in rows if r["law"] == law)
                gray = True
                for name in names:
                    y = [r[column] for r in rows if r["law"] == law and r["sampler"] == name]
                    own = name.removeprefix("scoresde ")
                    if "floor" in name:
                        if column == "sliced W2":
                            ax.axhline(max(y), color=look.ink, lw=1, ls="--", label="noise floor")
                        else:
                            ax.axhline(0, color=look.ink, lw=1, ls="--")
                    elif own in colors:
                        ax.plot(nfes, y, color=colors[own], marker="o", ms=4, label=own)
                    elif own == name:
                        label = "peers" if gray else None
                        ax.plot(nfes, y, color=look.muted, lw=0.8, alpha=0.55, label=label)
                        gray = False
                ax.set(
                    xscale="log", title=f"{law}: {column}" + (" / nats" if "N" in column else "")
                )
                ax.set_xticks(nfes, [str(n) for n in nfes])
                ax.minorticks_off()
            pair[0].set(yscale="log")
            pair[1].set(ylim=(-0.6, 0.6))
        for ax in axes[-1]:
            ax.set_xlabel("evaluations")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        made.legend(handles, labels, loc="outside lower left", ncols=3)
    return made


def main(argv: Sequence[str] | None = None) -> None:
    options = common.arguments(
        __doc__,
        argv,
        laws={"nargs": "+", "default": ["ring8", "aniso3"], "choices": list(common.laws())},
        points={"type": int, "default": 65_536, "help": "samples (65536)"},
    )
    nfes, points = ((5, 20), 2000) if options.quick else (NFES, options.points)
    rows = [row for law in options.laws for row in measure(law, nfes, points)]
    for law in options.laws:
        common.show(table(rows, law), f"{law}: sliced W2 (NLL gap / nats) against evaluations")
    exact = gaussian_law()
    common.show(exact, "One Gaussian, exact law of the output")
    common.show(targets(rows, exact), "Target 4")
    common.write(options.out, "stochastic", rows, gaussian=exact, targets=targets(rows, exact))
    print(f"wrote {save(figure(rows), options.out / 'stochastic.png')}")


if __name__ == "__main__":
    main()

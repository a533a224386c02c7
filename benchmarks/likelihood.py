"""Error of the log-likelihood against calls of the network, on laws whose density is known.

    python benchmarks/likelihood.py [--out DIR] [--quick]

500 points drawn from the law ("on" the manifold) and 500 uniform on [-3, 3]^2 ("off" it, with
densities down to e^-500); exact score, exact divergence, the exact law as prior, float64. The
error is the root of the mean squared difference from log p_0. Each set is a run of its own: one
call is one evaluation for all its points. By hand: the ODE and its divergence in t through
torchdiffeq's dopri5 from 1e-5, as the tutorials have it. Times are medians of interleaved rounds.
Writes likelihood.csv, .json and .png.
"""

import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import common
import torch
from common import SDE
from torch import Tensor
from torchdiffeq import odeint

from scoresde import GaussianMixture
from scoresde.likelihood import Adaptive, Fixed, Torchdiffeq, ode_likelihood
from scoresde.likelihood.walks import Walk
from scoresde.plots import save
from scoresde.plots.style import ACCENTS, VIEWS, page

TARGETS = {"ring8": (1e-4, 146), "aniso3": (1.2e-3, 596)}
BY_HAND = 1e-5
Method = Callable[[GaussianMixture, Tensor], tuple[Tensor, int]]


def ours(walk: Walk, law: GaussianMixture, x: Tensor) -> tuple[Tensor, int]:
    """Log-likelihood and calls by one of our walks."""
    found = ode_likelihood(law, x, walk, prior=law)
    return found.log_prob, found.evaluations


def by_hand(tolerance: float, law: GaussianMixture, x: Tensor) -> tuple[Tensor, int]:
    """The same by torchdiffeq in t, all points one system."""
    calls = 0

    def side(t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        nonlocal calls
        calls += 1
        velocity = lambda x: law.velocity(x, t.clamp(BY_HAND, 1.0))
        value, pull = torch.func.vjp(velocity, state[0])
        axes = torch.eye(2, dtype=x.dtype)[:, None].expand(2, *x.shape)
        (rows,) = torch.func.vmap(pull)(axes)
        return value, (rows * axes).sum((0, 2))

    ts = torch.tensor([BY_HAND, 1.0], dtype=x.dtype)
    state = (x, x.new_zeros(len(x)))
    end, change = odeint(side, state, ts, rtol=tolerance, atol=tolerance, method="dopri5")
    return law.log_prob(end[-1], ts[-1]) + change[-1], calls


def flow_matching(law: GaussianMixture, x: Tensor) -> tuple[Tensor, int]:
    """The likelihood of the package of that name, whose time runs the other way."""
    from flow_matching.solver import ODESolver

    calls = 0

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return -law.velocity(x, (1 - t).clamp(BY_HAND, 1.0))

    _, log_p = ODESolver(velocity_model=velocity).compute_likelihood(
        x_1=x, log_p0=lambda x: law.log_prob(x, x.new_ones(())), step_size=None, method="dopri5",
        atol=1e-5, rtol=1e-5, exact_divergence=True, time_grid=x.new_tensor([1.0, 0.0]),
    )  # fmt: skip
    return log_p, calls


def methods(quick: bool = False) -> dict[str, Method]:
    """Everything that is compared, ours first; in a hurry without the tight tolerances."""
    exact = (0.1, 1.0)
    found: dict[str, Method] = {
        f"Fixed({n}, scales={exact})": partial(ours, Fixed(n, scales=exact)) for n in (50, 90, 130)
    }
    found |= {f"Fixed({n})": partial(ours, Fixed(n)) for n in (60, 120, 250)}
    for tolerance in (1e-3,) if quick else (1e-3, 1e-4, 1e-5, 1e-8):
        walk = Adaptive(rtol=tolerance, atol=tolerance)
        found[f"Adaptive({tolerance:g})"] = partial(ours, walk)
    if not quick:
        found["Torchdiffeq(dopri5, 1e-5)"] = partial(ours, Torchdiffeq())
        found["Torchdiffeq(dopri8, 1e-5)"] = partial(ours, Torchdiffeq("dopri8"))
    for tolerance in (1e-3,) if quick else (1e-3, 1e-5):
        found[f"by hand, dopri5 in t, {tolerance:g}"] = partial(by_hand, tolerance)
    if common.installed("flow_matching"):
        found["flow_matching, dopri5 1e-5"] = flow_matching
    else:
        print("flow_matching is not installed: left out")
    return found


def points(law: GaussianMixture, n: int) -> dict[str, Tensor]:
    """The two sets of points."""
    generator = torch.Generator().manual_seed(0)
    on = law.sample(n, generator=generator)
    off = 6 * torch.rand(n, 2, generator=generator, dtype=on.dtype) - 3
    return {"on": on, "off": off}


def measure(name: str, n: int, rounds: int, quick: bool) -> list[dict[str, Any]]:
    """One row for each method on one law."""
    law = common.laws()[name]
    sets, runs = points(law, n), methods(quick)
    rows: list[dict[str, Any]] = []
    for method, run in runs.items():
        row: dict[str, Any] = {"law": name, "method": method}
        for where, x in sets.items():
            log_p, calls = run(law, x)
            row[f"rmse {where}"] = float((log_p - law.log_prob(x)).square().mean().sqrt())
            row[f"calls {where}"] = calls
        rows.append(row)
    timed = {method: partial(run, law, sets["on"]) for method, run in runs.items()}
    seconds = common.interleaved(timed, rounds, name, warm=False)
    for row in rows:
        row["seconds on"] = statistics.median(seconds[row["method"]])
    return rows


def verdict(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Target 7: the fewest calls with which ours meets each law's error."""
    found = {}
    for law, (error, calls) in TARGETS.items():
        good = [
            row["calls on"]
            for row in rows
            if row["law"] == law and row["rmse on"] <= error and "hand" not in row["method"]
        ]
        best = min(good, default=None)
        found[law] = best
        print(f"{law}: rmse <= {error:g} in {best} calls (target {calls})")
    return found


def draw(rows: list[dict[str, Any]]) -> Any:  # a Figure
    """Error on the manifold against calls, one panel for each law."""
    kinds = {
        "Fixed(": ("Fixed", VIEWS["chain"].color, "s"),
        "Adaptive": ("Adaptive", VIEWS["sde"].color, "o"),
        "Torchdiffeq": ("Torchdiffeq", ACCENTS[0], "D"),
        "by hand": ("dopri5 in t, by hand", VIEWS["ode"].color, "^"),
        "flow_matching": ("flow_matching", ACCENTS[2], "v"),
    }
    with page(5.2) as (figure, look):
        grid = figure.subplots(2, 2, sharex=True, sharey="row")
        for column, law in zip(grid.T, TARGETS, strict=True):
            for axes, where in zip(column, ("on", "off"), strict=True):
                for start, (label, color, marker) in kinds.items():
                    mine = [r for r in rows if r["law"] == law and r["method"].startswith(start)]
                    x, y = [r[f"calls {where}"] for r in mine], [r[f"rmse {where}"] for r in mine]
                    axes.plot(x, y, marker, color=color, label=label if mine else None, ms=5)
                axes.set(xscale="log", yscale="log")
                axes.set_title(f"{law}, {where} the manifold", color=look.ink)
        for axes, (error, calls) in zip(grid[0], TARGETS.values(), strict=True):
            axes.plot([calls], [error], "+", color=look.ink, ms=12, label="target")
        for axes in grid[1]:
            axes.set_xlabel("calls of the network")
        for axes in grid[:, 0]:
            axes.set_ylabel("rmse of log p (nats)")
        handles, labels = grid[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    return figure


def main(argv: list[str] | None = None) -> None:
    """Measure, print, write."""
    args = common.arguments(__doc__, argv)
    n, rounds = (20, 1) if args.quick else (500, 3)
    rows = [row for name in TARGETS for row in measure(name, n, rounds, args.quick)]
    common.show(rows)
    common.write(args.out, "likelihood", rows, fewest_calls=verdict(rows), process=str(SDE))
    save(draw(rows), args.out / "likelihood.png")


if __name__ == "__main__":
    main()

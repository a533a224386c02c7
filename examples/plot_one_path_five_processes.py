r"""One path, five processes
========================

Variance preserving, sub-VP, variance exploding, EDM, the straight path of flow matching: five
processes with five probability-flow ODEs. Divide the state by :math:`\alpha`, take
:math:`\bar\sigma = \sigma/\alpha` for the time, and each of them reads

.. math:: \frac{dy}{d\bar\sigma} = \frac{y - E[x_0 \mid y]}{\bar\sigma}, \qquad y = x/\alpha :

one flow. Here each is integrated in its own coordinates and its own time.
"""

import torch
from scipy.integrate import solve_ivp

from scoresde import VESDE, VPSDE, KarrasSDE, StraightPath, SubVPSDE
from scoresde.data import gm1
from scoresde.plots import save
from scoresde.plots.style import ACCENTS, VIEWS, page

processes = {
    "VP": VPSDE(),
    "sub-VP": SubVPSDE(),
    "VE": VESDE(),
    "EDM": KarrasSDE(),
    "straight": StraightPath(),
}
levels = torch.logspace(1.0, -2.0, 60, dtype=torch.float64)  # sigma/alpha, from noise to data
y = 10 * torch.tensor([-0.4, 0.5], dtype=torch.float64)


def walk(process):
    """Times and states of the ODE dx/dt = v(x, t) of this process, by Dormand-Prince 8(5,3)."""
    law, ts = gm1(process), process.time_of_log_snr(-2 * levels.log())

    def velocity(t, x):
        return law.velocity(torch.from_numpy(x)[:, None], ts.new_tensor(t))[:, 0].numpy()

    start = (process.alpha(ts[0]) * y).numpy()
    options = {"method": "DOP853", "rtol": 1e-12, "atol": 1e-12}
    path = solve_ivp(velocity, ts[[0, -1]].tolist(), start, t_eval=ts.tolist(), **options)
    return ts, torch.from_numpy(path.y).T


# %%
# Two points start at the same :math:`y`. On the way the five processes disagree about everything
# but the ratio :math:`x/\alpha` at a given :math:`\sigma/\alpha`; at the end they agree to the
# solver's own accuracy.

walks = {name: walk(process) for name, process in processes.items()}
ratios = {name: x / processes[name].alpha(t)[:, None] for name, (t, x) in walks.items()}
gap = max(float((ratio - ratios["VP"])[-1].abs().max()) for ratio in ratios.values())
print(f"largest difference of x/alpha at the end: {gap:.0e}")

# %%
# Left, what each process sees: states in its units against its time. Right, the same numbers,
# divided. Marks of five kinds lie on one curve.

colors = [VIEWS[view].color for view in ("chain", "sde", "ode")] + list(ACCENTS[:2])
marks = "so^Dv"
with page(4.4) as (figure, look):
    left, right = figure.subplots(1, 2)
    for k, (name, (t, x)) in enumerate(walks.items()):
        left.plot(t, x, color=colors[k], lw=1.4)
        for line in left.lines[-len(y) :]:
            line.set_marker(marks[k])
            line.set_markevery((2 * k, 12))
            line.set_markersize(4)
        shown = slice(2 * k, None, 10)
        right.plot(levels[shown], ratios[name][shown], marks[k], color=colors[k], ms=4.5)
    right.plot(levels, ratios["VP"], color=look.muted, lw=0.9, zorder=0)
    left.set_xlim(1, 0)
    left.set_ylim(-4.2, 5.2)
    left.set_xlabel("its own time $t$")
    left.set_ylabel("$x$", rotation=0)
    left.set_title("five processes ...")
    right.set_xscale("log")
    right.set_yscale("asinh", linear_width=1.0)
    right.set_ylim(-8, 8)
    right.set_yticks([-5, -2, -1, 0, 1, 2, 5], ["−5", "−2", "−1", "0", "1", "2", "5"])
    right.set_xlim(14, 0.008)
    right.set_xticks([10, 1, 0.1, 0.01], ["10", "1", "0.1", "0.01"])
    right.set_xlabel(r"$\sigma/\alpha$")
    right.set_ylabel(r"$x/\alpha$", rotation=0)
    right.set_title(f"... one flow, to {gap:.0e}")
    handles = [left.lines[k * len(y)] for k in range(len(walks))]
    figure.legend(handles, list(walks), loc="outside lower center", ncols=5)
save(figure, "one_path_five_processes.png")

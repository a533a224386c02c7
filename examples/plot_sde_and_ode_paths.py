r"""Paths of particles: SDE and ODE under one noise
================================================

A *trajectory* of a diffusion model may also be the path of one particle through the time of
diffusion. From the same :math:`x_T` and with the same Brownian motion :math:`W` we walk back with
DDIM(:math:`\eta`), whose noise is :math:`\eta` times that of the reverse SDE:

.. math:: dx = \left[f x - \frac{1 + \eta^2}{2} g^2 \nabla \log p_t(x)\right] dt + \eta g \, dW.

:math:`\eta = 0` is the probability-flow ODE, :math:`\eta = 1` the reverse SDE. At each :math:`t`
the law of all particles is the same for every :math:`\eta`; the single paths are not.
"""

import torch

from scoresde import DDIM, VPSDE, BrownianPath, Recorder, quadratic
from scoresde.data import moons
from scoresde.metrics import floor, sliced_wasserstein
from scoresde.plots import VIEWS, animation, save
from scoresde.plots.panels import contours, frame
from scoresde.plots.style import ACCENTS, page

law = moons(VPSDE())  # its score is exact at every time
x = law.sample(4000, torch.tensor(1.0), torch.Generator().manual_seed(0))
ts, noise = quadratic(250, 1.0, 1e-4), BrownianPath(seed=0, shape=x.shape)


def walk(eta):
    """All states of a walk, (T, n, 2); the noise is a function of time, not of the walk."""
    recorder = Recorder()
    DDIM(eta)(law, x, ts, noise=noise, callback=recorder)
    return recorder.x


walks = {eta: walk(eta) for eta in (0.0, 0.3, 1.0)}

# %%
# Three particles in the plane, from ring to dot, over the law of the data; above each panel, the
# sliced distance of all 4000 from that law: of the size of chance in each of the three.

limit = floor(sliced_wasserstein, law, len(x))
truth = law.sample(len(x), generator=torch.Generator().manual_seed(1))
box, colors = (-2.9, 2.9, -2.9, 2.9), [view.color for view in VIEWS.values()]
inside = (x.abs().amax(1) < 2.6).nonzero().flatten()[:3]
with page(2.75) as (figure, look):
    panels = figure.subplots(1, 3, sharex=True, sharey=True)
    for axes, (eta, states) in zip(panels, walks.items(), strict=True):
        contours(axes, law, box, look)
        for k, color in zip(inside, colors, strict=True):
            path = states[:, k]
            axes.plot(*path.T, color=color, lw=0.9)
            axes.plot(*path[0], "o", mfc="none", mec=color, ms=5)
            axes.plot(*path[-1], "o", color=color, ms=5)
        frame(axes, box, look)
        distance = float(sliced_wasserstein(states[-1], truth))
        axes.set_title(rf"$\eta$ = {eta:g},  $SW_2$ = {distance:.3f}", loc="center")
    text = f"chance alone: {float(limit.mean):.3f} $\\pm$ {float(limit.sd):.3f}"
    figure.supxlabel(text, fontsize=9.5, color=look.muted)
save(figure, "sde_and_ode_paths.png")

# %%
# The same against time. How far does a particle end from where the ODE takes it? As soon as there
# is noise it forgets: at :math:`\eta = 1` nearly as far as a stranger.

with page(4.2) as (figure, look):
    panels = figure.subplots(2, sharex=True, height_ratios=(2, 1))
    ends = {0.0: VIEWS["ode"], 1.0: VIEWS["sde"]}
    for eta, states in walks.items():
        color = ends[eta].color if eta in ends else ACCENTS[0]
        label = ends[eta].label if eta in ends else rf"$\eta$ = {eta:g}"
        times = ts[: len(states)]
        panels[0].plot(times, states[:, inside, 0], color=color, lw=1.1)
        gap = (states - walks[0.0]).square().sum(2).mean(1).sqrt()
        panels[1].plot(times, gap, color=color, label=label)
    panels[0].set_ylabel("$x_1$", rotation=0)
    panels[1].set(xlabel="time $t$   (0: data, 1: noise)", ylabel="distance")
    figure.legend(*panels[1].get_legend_handles_labels(), loc="outside upper left", ncols=3)
save(figure, "sde_and_ode_paths_in_time.png")

# %%
# And in motion.

every = slice(None, None, 5)
panels = {"ode": walks[0.0][every], "sde": walks[1.0][every]}
animation(panels, ts[: len(walks[0.0])][every], "sde_and_ode_paths.gif", law=law, show=300)

r"""Memorisation when data are few
==============================

The least loss on :math:`n` training points is reached by their own score, that of a kernel
density estimate of width :math:`\sigma/\alpha`. Its reverse process creates nothing: each walk
ends on a training point. When does it choose one?
"""

import torch

from scoresde import DDIM, VPSDE, GaussianMixture, quadratic
from scoresde.data import ring
from scoresde.distributions import Empirical
from scoresde.physics import clone_probability, collapse_time, memorisation
from scoresde.plots import save
from scoresde.plots.panels import contours, dots, frame, square
from scoresde.plots.style import ACCENTS, VIEWS, page

sde, generator = VPSDE(), torch.Generator().manual_seed(0)

# %%
# In eight dimensions. The responsibility of the point that a state came from is small while many
# points could have been it, and near one after the *collapse*, where :math:`I(x_0; x_t) = \log n`:
# what a state still knows of its origin is there as much as it takes to name one of n.

space = GaussianMixture([1.0], torch.zeros(1, 8), torch.eye(8)[None], sde)
t = torch.linspace(0.02, 0.8, 27, dtype=torch.float64)
curves = {}
for n in (30, 1000, 30_000):
    points = Empirical(space.sample(n, generator=generator), sde)
    own = clone_probability(points, t, n=400, generator=generator).value
    curves[n] = own, float(collapse_time(space, n))
    print(f"{n:6} points: collapse at t = {curves[n][1]:.3f}")

# %%
# On the plane. Walks by the score of 24 points end on them; stopped at the collapse time (and
# scaled back) they are the same points, blurred. Whether samples are copies is told by the ratio
# of the distances to the nearest and the second nearest training point.

law = ring(sde)
train = law.sample(24, generator=generator)
empirical = Empirical(train, sde)
stop = collapse_time(law, 24)
x_T = torch.randn(1500, 2, generator=generator, dtype=torch.float64)
walk = lambda end: DDIM()(empirical, x_T, quadratic(150, 1.0, end))
samples = {
    "new points": law.sample(1500, generator=generator),
    "stopped at the collapse": walk(float(stop)) / sde.alpha(stop),
    "to the end": walk(0.0),
}
shares = {name: float(memorisation(x, train).share.value) for name, x in samples.items()}

with page(5.7) as (figure, look):
    rows = figure.subfigures(2, height_ratios=(1.15, 1))
    top = rows[0].subplots()
    for (n, (own, when)), color in zip(curves.items(), ACCENTS, strict=False):
        top.plot(t, own, color=color, label=f"$n$ = {n}")
        top.axvline(when, color=color, ls=":", lw=1.3)
    top.set(title="responsibility of the own training point (dotted: collapse)", ylim=(0, 1.03))
    top.set(xlabel="time $t$   (0: data, 1: noise)", xlim=(0, 0.8))
    top.legend(loc="upper right")
    top.grid()
    box = square(samples["new points"], pad=0.15)
    for axes, (name, x) in zip(rows[1].subplots(1, 3), samples.items(), strict=True):
        contours(axes, law, box, look)
        axes.plot(*train.T, "+", color=look.ink, ms=6, mew=0.9)
        dots(axes, x, VIEWS["ode"].color, 1 if name == "to the end" else 3)
        frame(axes, box, look)
        axes.set_title(f"{name}\ncopies: {100 * shares[name]:.0f} %", loc="center", fontsize=10)
save(figure, "memorisation.png")

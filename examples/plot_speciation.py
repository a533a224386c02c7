r"""When does a sample choose its class?
=====================================

On the way from noise to data a state first belongs to no class, then to one: a symmetry breaks.
When? Three criteria are in use, and they give three times.
"""

import torch

from scoresde import VPSDE, Ancestral, Recorder, uniform
from scoresde.data import two_modes
from scoresde.physics import clone_probability, speciation_time
from scoresde.plots import VIEWS, save
from scoresde.plots.density import density_columns
from scoresde.plots.style import ACCENTS, density_colors, page

law = two_modes(VPSDE(), distance=4.0, std=0.5)
walk, generator = Ancestral("beta"), torch.Generator().manual_seed(0)

# %%
# *Clones* are walks of the reverse process that part from one state. Those that part early, at
# :math:`t = 0.7`, end in either mode: the noise still to come decides. Those that part late, at
# :math:`t = 0.25`, all end in the same one.

clones = []
for t, x in ((0.7, 0.0), (0.25, -1.0)):
    record = Recorder()
    walk(law, torch.full((10, 1), x).double(), uniform(300, t, 0.0), generator, callback=record)
    clones.append((record.times, record.x[..., 0]))

# %%
# Two clones of the same :math:`x_t` end in one class with probability :math:`\phi(t) =
# \mathrm{E}\sum_c p(c|x_t)^2`: exact, and from pairs that were walked.

turns = torch.linspace(0.1, 1.0, 10, dtype=torch.float64)


def agree(t, n=3000):
    """Share of pairs, parted at t, that end in the same mode."""
    start = law.sample(n, t, generator).repeat(2, 1)
    ends = walk(law, start, uniform(100, float(t), 0.0), generator).sign()
    return float((ends[:n] == ends[n:]).double().mean())


walked = [agree(t) for t in turns]

# %%
# The three times: the variance of the data sinks into the noise (:math:`\bar\alpha\Lambda = 1`);
# the peaks of :math:`p_t` merge; the reverse drift becomes stable in the middle. They differ by
# O(1) in :math:`\int\beta`, and nothing jumps at any of them: name the criterion.

critical = {name: speciation_time(law, name) for name in ("covariance", "density", "drift")}
ts, xs = torch.linspace(0.002, 1, 300).double(), torch.linspace(-4, 4, 300).double()
with page(5.6) as (figure, look):
    top, low = figure.subplots(2, sharex=True, height_ratios=(1.4, 1))
    box, colors = (0, 1, -4, 4), density_colors(look)
    grey = density_columns(law, xs, ts).sqrt()
    top.imshow(grey, extent=box, origin="lower", aspect="auto", cmap=colors)
    for (times, x), color in zip(clones, (VIEWS["chain"].color, ACCENTS[0]), strict=True):
        top.plot(times, x, color=color, lw=1)
        top.plot(times[0], x[0, 0], "o", color=color, mec=look.face, ms=8)
    low.plot(ts, clone_probability(law, ts).value, color=look.muted, label=r"exact $\phi(t)$")
    low.plot(turns, walked, "s", color=VIEWS["chain"].color, label="walked, 3000 pairs")
    for (name, t), dash in zip(critical.items(), ("-", "--", ":"), strict=True):
        for axes in (top, low):
            axes.axvline(t, color=look.ink, ls=dash, lw=1.2, label=f"{name}, $t$ = {t:.3f}")
    top.set(title="clones of two states, over $p_t(x)$", ylabel="$x$")
    low.set(title="two clones parted at $t$ end in the same mode: $\\phi(t)$", ylim=(0.45, 1.05))
    low.set(xlabel="time $t$   (0: data, 1: noise)", xlim=(0, 1.01))
    low.grid(axis="y")
    low.legend(loc="upper right", labelspacing=0.25)
save(figure, "speciation.png")

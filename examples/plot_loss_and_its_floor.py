r"""The loss and its floor
======================

A network learns to predict the noise in :math:`x_t = \alpha x_0 + \sigma\varepsilon`. Even the
best one must fail, for several points and noises lead to the same :math:`x_t`. Where the law is
known, so is the least possible loss, :math:`d - \sigma^2\,\mathrm{E}|\nabla\log p_t|^2`, and what
a network has learned is seen in how far it is above.
"""

import torch

from scoresde import VPSDE, EpsDenoiser
from scoresde.data import gm2
from scoresde.distributions import Empirical
from scoresde.losses import excess_loss, irreducible_loss, loss_by_time
from scoresde.nets import MLP
from scoresde.plots import save
from scoresde.plots.style import ACCENTS, page
from scoresde.training import fit

sde = VPSDE()
law = gm2(sde)  # three Gaussians in the plane
ts = torch.linspace(0.1, 1, 30, dtype=torch.float64) ** 2  # 0.01 .. 1
floor = 2 * irreducible_loss(law, ts).value  # per dimension in the code, here the sum of both

# %%
# Two networks, one of them trained for a moment only.

x0 = law.sample(40_000, generator=torch.Generator().manual_seed(0)).float()


def train(steps):
    """A network after so many steps."""
    torch.manual_seed(0)
    return fit(EpsDenoiser(MLP(2), sde), x0, steps=steps).denoiser


networks = {"60 steps": train(60), "600 steps": train(600)}
excess = {
    name: 2 * excess_loss(net, law, ts, generator=torch.Generator().manual_seed(1)).value
    for name, net in networks.items()
}

# %%
# A hundred points have a best denoiser too: a weighted mean of them. It has no parameters, it is
# the exact minimum of the training loss, and it does what a network does that memorises.

points = law.sample(100, generator=torch.Generator().manual_seed(2))
stored, fresh = (
    Empirical(points, sde),
    law.sample(4000, generator=torch.Generator().manual_seed(3)),
)
memory = {
    name: 2 * loss_by_time(stored, data, ts, torch.Generator().manual_seed(4)).value
    for name, data in {"on its own points": points.repeat(40, 1), "on new points": fresh}.items()
}

# %%
# Above, the loss itself: most of it cannot be learned, and where noise prevails the two networks
# look alike. In the middle the excess, which tells them apart at every time. Below, memory: under
# the floor on its own points, and far over it on new ones.

with page(7.4) as (figure, look):
    loss, above, copies = figure.subplots(3, sharex=True, height_ratios=[1, 1, 1])
    for axes in (loss, copies):
        axes.fill_between(ts, floor, color=look.grid, lw=0)
        axes.plot(ts, floor, color=look.ink, lw=1.2, label="least possible")
    for (name, values), color, mark in zip(excess.items(), ACCENTS, "os", strict=False):
        style = {"color": color, "marker": mark, "ms": 3.5, "lw": 1.3}
        loss.plot(ts, floor + values, label=f"network, {name}", **style)
        above.plot(ts, values, label=name, **style)
    for (name, values), color, dash in zip(memory.items(), ACCENTS[2:], ("-", "--"), strict=True):
        copies.plot(ts, values, color=color, ls=dash, label=name)
    loss.set(ylim=(0, 2.35), ylabel="loss", title="What a loss shows: mostly its floor")
    above.set(yscale="log", ylabel="loss $-$ floor", title="What was learned: the excess")
    copies.set(ylim=(0, 3.4), ylabel="loss", title="A hundred points, stored: below the floor")
    copies.set(xscale="log", xlim=(0.01, 1), xlabel="time $t$   (0: data, 1: noise)")
    copies.set_xticks([0.01, 0.03, 0.1, 0.3, 1], ["0.01", "0.03", "0.1", "0.3", "1"])
    for axes in (loss, above, copies):
        axes.grid()
    loss.legend(loc="lower left")
    copies.legend(loc="upper right")
    above.legend(loc="upper right")
save(figure, "loss_and_its_floor.png")

# %%
# Averages over time, as a training loop would report them: the floor takes nearly all.

for name, values in excess.items():
    mean = torch.trapezoid(values + floor, ts) / (ts[-1] - ts[0])
    least = torch.trapezoid(floor, ts) / (ts[-1] - ts[0])
    print(f"{name}: loss {mean:.3f}, of which {least:.3f} cannot be learned")

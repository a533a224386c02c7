r"""The reverse step
================

From where did :math:`x_t` come? Bayes' rule gives the law of the earlier state,

.. math:: p(x_s \mid x_t) = \frac{p(x_t \mid x_s)\; p_s(x_s)}{p_t(x_t)},

and where the density is known it can be drawn. Samplers put a Gaussian in its place.
"""

import torch

from scoresde import VPSDE, Ancestral, EulerMaruyama
from scoresde.data import gm1
from scoresde.plots import VIEWS, save
from scoresde.plots.style import page

sde = VPSDE()
law = gm1(sde)  # 0.6 N(1.5, 0.3^2) + 0.4 N(-1, 0.5^2), exact at every time
t = torch.tensor(0.3, dtype=torch.float64)
now = torch.tensor([[0.1]], dtype=torch.float64)  # between the modes
y = torch.linspace(-3.2, 3.2, 1201, dtype=torch.float64)[:, None]


def bayes(s):
    """The exact density of x_s given x_t = now, on the points y."""
    scale, std = sde.transition(s, t)
    log_p = law.log_prob(y, s) - 0.5 * ((now - scale * y)[:, 0] / std) ** 2
    return log_p.softmax(0) / (y[1] - y[0])


def gaussian(sampler, s):
    """The density that a sampler draws the next state from."""
    a, b, c = sampler.row(sde, t, s)
    mean = a * now + b * law(now, t)
    return (-0.5 * ((y - mean) / c)[:, 0] ** 2).exp() / (c * (2 * torch.pi) ** 0.5)


# %%
# DDPM's step, with the variance that is best on average, has the right mean at any length. Its
# shape is right for short steps alone: a long one would have to choose a mode, and a Gaussian
# cannot. Euler-Maruyama on the reverse SDE is the same in the limit, and wrong sooner.

samplers = {"chain": Ancestral("optimal", law.mmse), "sde": EulerMaruyama()}
names = {"chain": "DDPM, optimal variance", "sde": "Euler-Maruyama"}
ends = torch.tensor([0.28, 0.2, 0.0], dtype=torch.float64)
with page(6.2) as (figure, look):
    panels = figure.subplots(3, sharex=True)
    for axes, s in zip(panels, ends, strict=True):
        exact = bayes(s)
        axes.fill_between(y[:, 0], exact, color=look.ramp[1], lw=0)
        axes.plot(y[:, 0], exact, color=look.muted, lw=1.2, label="exact, by Bayes")
        for key, sampler in samplers.items():
            view = VIEWS[key]
            density = gaussian(sampler, s)
            axes.plot(y[:, 0], density, color=view.color, ls=view.dash, label=names[key])
        axes.axvline(
            float((exact * y[:, 0]).sum() * (y[1] - y[0])), color=look.muted, lw=0.8, ls=":"
        )
        axes.plot([float(now)], [0], "v", color=look.ink, ms=6, clip_on=False, zorder=5)
        axes.spines["left"].set_visible(False)
        axes.set_title(f"from $t$ = {float(t):.2g} to {float(s):.2g}")
        axes.set(yticks=[], ylim=(0, None), xlim=(-3.2, 3.2))
    panels[-1].set_xlabel("$x_s$   (triangle: $x_t$; dotted: mean of the exact law)")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=3)
save(figure, "the_reverse_step.png")

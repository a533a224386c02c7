r"""One noise, two views
====================

DDPM's Markov chain and the reverse SDE are said to be the same process seen at different steps.
Then one noise should give one path. A :class:`scoresde.BrownianPath` is that noise: a Brownian
motion :math:`W` that both may ask, at any step size, for

.. math:: z = \frac{W_t - W_s}{\sqrt{t - s}} \sim N(0, 1).
"""

import torch

from scoresde import VPSDE, Ancestral, BrownianPath, DDPMChain, EulerMaruyama, Recorder, uniform
from scoresde.data import gm1
from scoresde.plots import VIEWS, save
from scoresde.plots.density import density_columns
from scoresde.plots.style import density_colors, page

sde = VPSDE()
law = gm1(sde)  # 0.6 N(1.5, 0.3^2) + 0.4 N(-1, 0.5^2), exact at every time
x = law.sample(2000, torch.tensor(1.0), torch.Generator().manual_seed(3))
noise = BrownianPath(seed=3, shape=x.shape)


def walk(sampler, grid):
    """Times and all states of one walk on the noise."""
    recorder = Recorder()
    sampler(law, x, grid, noise=noise, callback=recorder)
    return recorder.times, recorder.x[..., 0]


# %%
# The SDE on a fine grid, and chains of 10, 40 and 160 steps with the marginals of that SDE.

times, paths = walk(EulerMaruyama(), uniform(1280, 1.0, 0.0))
chains = {N: walk(Ancestral(), DDPMChain.from_sde(sde, N).grid()) for N in (10, 40, 160)}

# %%
# Every chain starts where the SDE does and is pushed by the same noise: with 160 steps the two are
# hard to tell apart. The number is their mean distance at t = 0. It falls as 1/N (times a
# logarithm on this grid): path by path, where equal laws alone leave two strangers 1.4 apart.

xs, ts = torch.linspace(-3.2, 3.2, 300), torch.linspace(1e-3, 1, 300)
shown = paths[-1].argsort()[[250, 1100, 1850]]  # three of 2000, that end apart
chain, fine = VIEWS["chain"], VIEWS["sde"]
with page(6.0) as (figure, look):
    panels = figure.subplots(3, sharex=True, sharey=True)
    for axes, (N, (nodes, states)) in zip(panels, chains.items(), strict=True):
        density = {"extent": (0, 1, -3.2, 3.2), "origin": "lower", "cmap": density_colors(look)}
        axes.imshow(density_columns(law, xs, ts).sqrt(), aspect="auto", **density)
        axes.plot(times, paths[:, shown], color=fine.color, lw=0.9)
        marks = {"marker": chain.marker, "ms": 20 / N**0.5, "mec": look.face, "mew": 0.3}
        axes.plot(nodes, states[:, shown], color=chain.color, ls=chain.dash, lw=1.2, **marks)
        gap = float((states[-1] - paths[-1]).abs().mean())
        axes.set_title(f"{N} steps: distance {gap:.2f}", loc="left", pad=3)
        axes.set_ylabel("$x$", rotation=0)
    panels[-1].set_xlabel("time $t$   (0: data, 1: noise)")
    lines = [panels[0].lines[0], panels[0].lines[-1]]
    figure.legend(lines, [fine.label, "DDPM chain"], loc="outside upper left", ncols=2)
save(figure, "one_noise_two_views.png")

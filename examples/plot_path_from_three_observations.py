r"""A path from three noisy observations
=====================================

A colloid moves in a double well, :math:`dx = -D\,\nabla U\,dt + \sqrt{2D}\,dW`. Three times its
position along the wells was measured, :math:`y_j = x(t_j) + s\,n_j`. Where was it in between?

A network learns the law of whole paths, without any observation. The posterior follows from
Bayes' rule at every time of the diffusion, :math:`\nabla \log p_t(x|y) = \nabla \log p_t(x) +
\nabla \log p(y | x_t = x)`, the last term guessed by moment matching, and the guess corrected by
weights. The truth beside it is brute force: a hundred thousand paths of the physics, weighted by
their likelihood.
"""

import torch

from scoresde import TwistedSMC, log_snr, sample
from scoresde.data import DoubleWell
from scoresde.inverse import Mask, Measurement, MomentMatching
from scoresde.nets import UNet1dConfig
from scoresde.plots import save
from scoresde.plots.style import ACCENTS, page
from scoresde.training import fit_paths

family, at, std = DoubleWell(length=32, duration=3.0), [3, 15, 27], 0.25
y = torch.tensor([[-1.0, -0.1, 1.0]])  # left well, on the barrier, right well

# %%
# The reference: weights :math:`\propto \exp(-|y - A x|^2/2s^2)` of fresh paths, and as many paths
# as these are worth drawn from them.

pool = family(100_000, torch.Generator().manual_seed(1))
weights = (-(pool[:, at, 0] - y).square().sum(1) / (2 * std**2)).softmax(0)
worth = int(1 / weights.square().sum())
chosen = torch.multinomial(weights, 4000, True, generator=torch.Generator().manual_seed(2))
reference = pool[chosen]
print(f"importance weights: as good as {worth} independent paths")

# %%
# The network: a small U-Net along the path, some seconds of training.

net = UNet1dConfig(2, width=32, levels=2, piece=2)
model = fit_paths(pool[:50_000], net, steps=1200).denoiser

# %%
# The posterior, from the network that has seen no observation.

known = torch.zeros(family.length, 2, dtype=torch.bool)
known[at, 0] = True
method = MomentMatching(model, Measurement(Mask(known), y, std), iterations=2)
ts = log_snr(model.sde, 60)
paths = sample(method, TwistedSMC(), (500, family.length, 2), ts, seed=0)

# %%
# Above, the median and the middle 90 % at each time, and single paths, which hop; below, where
# the colloid is half way. There are two ways past an observation, a hop before it or after,
# where moment matching takes p(x_0 | x_t) for one Gaussian; the weights mend that. What is left
# is the network's, which has learned the wells roughly in some seconds, and that of few
# particles, some of which share their past.

t, color = family.times, ACCENTS[0]
quantiles = torch.tensor([0.05, 0.5, 0.95], dtype=torch.float64)
with page(5.6) as (figure, look):
    upper, lower = figure.subplots(2, height_ratios=(1.7, 1))
    low, mid, high = reference[..., 0].quantile(quantiles, 0)
    upper.fill_between(t, low, high, color=look.muted, alpha=0.25, lw=0, label="reference")
    upper.plot(t, mid, color=look.muted, lw=1.2)
    low, mid, high = paths[..., 0].double().quantile(quantiles, 0)
    upper.plot(t, paths[:12, :, 0].T, color=color, lw=0.5, alpha=0.6)
    upper.plot(t, torch.stack((low, high), 1), color=color, lw=1.4, ls="--")
    upper.plot(t, mid, color=color, lw=1.6, label="network")
    dots = {"fmt": "o", "color": look.ink, "capsize": 3, "zorder": 5}
    upper.errorbar(t[at], y[0], 2 * std, label=r"observed, $\pm 2s$", **dots)
    upper.set(xlabel="time of motion (s)", ylabel="x (µm)", ylim=(-2.2, 2.2))
    bins = torch.linspace(-2, 2, 33)
    for x, shade in ((reference, look.muted), (paths, color)):
        style = {"histtype": "stepfilled" if x is reference else "step", "lw": 1.6}
        lower.hist(x[:, at[1], 0], bins, density=True, color=shade, alpha=0.7, **style)
    lower.set(xlabel=f"x at {float(t[at[1]]):.1f} s (µm)", ylabel="density")
    figure.legend(*upper.get_legend_handles_labels(), loc="outside upper left", ncols=3)
save(figure, "path_from_three_observations.png")

r"""Which points do not belong?
============================

The probability-flow ODE gives every point its density under the model,

.. math:: \log p(x) = \log p_T(x_T) + \int_0^T \nabla \cdot \dot x_t \, dt,

so a model trained on good data finds the bad ones without having seen any: they are the points
less likely than nearly all of the data.
"""

import torch

from scoresde import VPSDE, EpsDenoiser
from scoresde.data import moons
from scoresde.likelihood import Fixed, log_likelihood
from scoresde.nets import MLP
from scoresde.plots import save
from scoresde.plots.panels import contours, frame
from scoresde.plots.style import VIEWS, page
from scoresde.training import fit

sde = VPSDE()
law = moons(sde)
generator = torch.Generator().manual_seed(0)
torch.manual_seed(0)
run = fit(EpsDenoiser(MLP(2), sde), law.sample(20_000, generator=generator), steps=1500)

# %%
# The threshold is a quantile of held-out data: one good point in a hundred will be called bad.

walk = Fixed(100)  # one evaluation a step
good = law.sample(400, generator=generator).float()
bad = 6 * torch.rand(200, 2, generator=generator) - 3
threshold = log_likelihood(run.denoiser, good, walk).quantile(0.01)

# %%
# Then 300 new points, of which 200 come from elsewhere (some of those fall among the data).

points = torch.cat([law.sample(100, generator=generator).float(), bad])
log_p = log_likelihood(run.denoiser, points, walk)
strange = log_p < threshold
error = (log_p - law.log_prob(points.double()))[:100].square().mean().sqrt()
print(f"good points called strange: {int(strange[:100].sum())} of 100")
print(f"foreign points found: {int(strange[100:].sum())} of 200")
print(f"error of the network's log p where the data are: {float(error):.2f} nats")

with page(4.6) as (figure, look):
    axes, box = figure.subplots(), (-3.0, 3.0, -3.0, 3.0)
    contours(axes, law, box, look)
    kinds = {"belongs": (~strange, "sde", "o"), "does not": (strange, "chain", "x")}
    for label, (which, view, marker) in kinds.items():
        axes.scatter(*points[which].T, s=14, c=VIEWS[view].color, marker=marker, label=label)
    frame(axes, box, look)
    figure.legend(loc="outside lower center", ncols=2)
save(figure, "which_points_do_not_belong.png")

r"""Inpainting: five methods against the exact posterior
=====================================================

One coordinate of a point is measured, :math:`y = x_1 + s n`. What is the other? By Bayes' rule
the score of the answer is

.. math:: \nabla \log p_t(x | y) = \nabla \log p_t(x) + \nabla \log p(y | x_t = x),

and the last term is not known for a network. For a mixture it is, so every approximation can be
seen for what it is: none of the five samples the posterior.
"""

import torch

from scoresde import VPSDE, Ancestral, inverse, quadratic, sample
from scoresde.data import rings
from scoresde.metrics import sliced_wasserstein
from scoresde.plots import save
from scoresde.plots.panels import contours, dots, frame
from scoresde.plots.style import ACCENTS, VIEWS, page

law = rings(VPSDE())  # an exact law stands in for a network: what is wrong is the method
y, std, n = torch.tensor([[0.5]], dtype=torch.float64), 0.2, 800
measurement = inverse.Measurement(inverse.Mask(torch.tensor([True, False])), y, std)
truth, known = inverse.posterior(law, measurement), inverse.Observed(law, measurement)

# %%
# Two methods are ways to walk; three are denoisers, which any sampler walks.

methods = {
    "replacement": (known, inverse.Replacement(), "chain"),
    "RePaint": (known, inverse.RePaint(resamples=5), "chain"),
    "DPS": (inverse.DPS(law, measurement), Ancestral(), "sde"),
    "ΠGDM": (inverse.PiGDM(law, measurement), Ancestral(), "sde"),
    "moment matching": (inverse.MomentMatching(law, measurement, 1), Ancestral(), "sde"),
}
points = {"exact posterior": truth.sample(n, generator=torch.Generator().manual_seed(0))}
for name, (denoiser, sampler, _) in methods.items():
    points[name] = sample(denoiser, sampler, (n, 2), quadratic(80), seed=0, dtype=torch.float64)

# %%
# In green, two standard deviations of the measurement to either side; above each panel, the
# sliced distance to the posterior (of 800 exact samples for the first: chance alone).

many = truth.sample(20_000, generator=torch.Generator().manual_seed(1))
box = (-2.3, 2.3, -2.3, 2.3)
with page(4.7) as (figure, look):
    panels = figure.subplots(2, 3, sharex=True, sharey=True).flat
    for axes, (name, x) in zip(panels, points.items(), strict=True):
        contours(axes, law, box, look)
        axes.axvspan(0.5 - 2 * std, 0.5 + 2 * std, color=ACCENTS[0], alpha=0.13, lw=0)
        dots(axes, x, VIEWS[methods[name][2]].color if name in methods else look.ink)
        distance = float(sliced_wasserstein(x, many))
        axes.set_title(f"{name}, {distance:.3f}", fontsize=9.5)
        frame(axes, box, look)
save(figure, "inpainting_five_methods.png")

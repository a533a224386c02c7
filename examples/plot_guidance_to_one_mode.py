r"""Guidance to one mode
====================

Bayes' rule holds at every time: the score of the points of one class is

.. math:: \nabla \log p_t(x | y) = \nabla \log p_t(x) + \nabla \log p(y | x_t = x).

So a model of all the data becomes one of a single class when the gradient of a classifier is
added to its score. The classifier must have seen noise, for it is asked at every :math:`t`.
"""

import torch

from scoresde import VPSDE, EulerMaruyama, quadratic, sample
from scoresde.data import ring
from scoresde.guidance import Guided, classifier_log_prob
from scoresde.nets import Classifier
from scoresde.plots import guidance, save
from scoresde.training import fit_classifier

sde = VPSDE()
law = ring(sde)  # eight modes; the exact score stands in for a trained network
target = 3

# %%
# The exact posterior of a class is the ratio of its density to that of all.

mode = law.component(target)


def exact(x, t):
    """log p(target | x_t = x), but for a constant."""
    return mode.log_prob(x, t) - law.log_prob(x, t)


# %%
# A trained one needs labelled points, and the same process to noise them.

x0 = law.sample(20_000, generator=torch.Generator().manual_seed(0))
labels = law.posterior(x0).argmax(1)
torch.manual_seed(0)
learned = fit_classifier(Classifier(2, 8), sde, x0.float(), labels, steps=1500).classifier

# %%
# Both plug into any sampler: a guided denoiser is a denoiser.

models = {
    "no guidance": law,
    "exact classifier": Guided(law, exact),
    "trained classifier": Guided(law, classifier_log_prob(learned, target)),
}
samples = {
    name: sample(model, EulerMaruyama(), (1000, 2), quadratic(200), seed=0)
    for name, model in models.items()
}
figure = guidance(samples, law, target)
save(figure, "guidance_to_one_mode.png")

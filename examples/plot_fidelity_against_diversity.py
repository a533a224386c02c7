r"""Fidelity against diversity
==========================

Stronger guidance makes samples more certainly of the class that was asked for, and more alike.
Here a trained classifier, which has seen noise, guides to one of three overlapping classes; both
quantities are measured with the exact law.
"""

import torch

from scoresde import VPSDE, ClassifierFree, GaussianMixture, Guided, recommended, sample
from scoresde.grids import quadratic
from scoresde.guidance import classifier_log_prob
from scoresde.nets import Classifier
from scoresde.plots import VIEWS, save
from scoresde.plots.style import page
from scoresde.samplers import EulerMaruyama
from scoresde.training import fit_classifier

sde, target = VPSDE(), 0
law = GaussianMixture.isotropic([1 / 3] * 3, [[0.7, 0.0], [-0.35, 0.6], [-0.35, -0.6]], 0.4, sde)


def labelled(n, generator):
    """Fresh points and their classes; where classes overlap, so do the points."""
    y = torch.randint(3, (n,), generator=generator)
    return law.means[y] + 0.4 * torch.randn(n, 2, generator=generator), y


torch.manual_seed(0)
classifier = fit_classifier(Classifier(2, 3), sde, labelled, steps=1200).classifier

# %%
# Fidelity: the mean of p(class | x) over the samples. Diversity: their spread, in units of that
# of the class. w = 1 is the class itself, for both walks; w = 0 is all of the data.

strengths = [0.0, 0.5, 1.0, 2.0, 3.0, 4.0]
walks = {"sde": (EulerMaruyama(), quadratic(100)), "ode": recommended(sde, 25)}
mode, log_h = law.component(target), classifier_log_prob(classifier, target)


def measure(walk, guide):
    """Fidelity and diversity of 2000 samples at each strength."""
    rows = []
    for w in strengths:
        x = sample(guide(w), walk[0], (2000, 2), walk[1], seed=0).double()
        spread = (x - x.mean(0)).square().mean().sqrt() / 0.4
        rows.append((float(law.posterior(x)[:, target].mean()), float(spread)))
    return zip(*rows, strict=True)


# %%
# What is gained in certainty is paid for in spread, and past w = 1 the ODE pays more (lines). A
# trained classifier is wrong where there is almost only noise: the SDE forgets what it did
# there, the ODE never does (points).

with page(3.4) as (figure, look):
    panels = figure.subplots(1, 2)
    for view, walk in ((VIEWS[k], walk) for k, walk in walks.items()):
        exact = measure(walk, lambda w: ClassifierFree(mode, law, w))
        trained = measure(walk, lambda w: Guided(law, log_h, w))
        for axes, line, points in zip(panels, exact, trained, strict=True):
            axes.plot(strengths, line, color=view.color)
            axes.plot(strengths, points, view.marker, color=view.color, label=view.label)
    for axes, title in zip(panels, ("fidelity: mean $p(y|x)$", "diversity: spread"), strict=True):
        axes.axvline(1, color=look.muted, lw=0.8, ls=":")
        axes.set(xlabel="strength $w$", xticks=range(5), title=title)
    panels[0].legend(loc="lower right")
    panels[1].legend(*[()] * 2, title="lines: exact classifier\npoints: trained")
save(figure, "fidelity_against_diversity.png")

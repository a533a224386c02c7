r"""What w really samples
=====================

Guidance of strength :math:`w` adds :math:`w \nabla \log p(y | x_t)` to the score. It is tempting
to say that it samples the tilted law :math:`p(x)\, p(y | x)^w`. It does not, but for w = 0 and 1,
and the ODE and the SDE do not even sample the same. Both cases here are solved exactly.
"""

import torch

from scoresde import VPSDE, ClassifierFree, EulerMaruyama, GaussianMixture, PFHeun, quadratic
from scoresde.plots import VIEWS, save
from scoresde.plots.style import ACCENTS, page
from scoresde.samplers import FeynmanKac

sde, ts = VPSDE(), quadratic(150)
walks = {"ode": PFHeun(), "sde": EulerMaruyama(), "tilted": FeynmanKac()}
looks = {k: (VIEWS[k].label, VIEWS[k].color, VIEWS[k].marker) for k in ("ode", "sde")}
looks["tilted"] = (r"tilted: $p(x)\,p(y|x)^w$", ACCENTS[0], "s")


def draw(c, u, w, n):
    """Samples of the three laws from the same noise."""
    x = torch.randn(n, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    generator = torch.Generator().manual_seed(1)
    return {k: walk(ClassifierFree(c, u, w), x, ts, generator) for k, walk in walks.items()}


# %%
# Two Gaussians about 0, p with variance 2 and p(.|y) with variance 1. All three laws are Gaussian,
# with the variances 2^(1-w), (2 - 2^(2-2w))/(2w-1) and 2/(1+w).

c, u = (GaussianMixture([1.0], [[0.0]], [[[v]]], sde) for v in (1.0, 2.0))
w = torch.linspace(0.51, 3, 200)
exact = {"ode": 2 ** (1 - w), "sde": (2 - 2 ** (2 - 2 * w)) / (2 * w - 1), "tilted": 2 / (1 + w)}
strengths = [1.0, 1.5, 2.0, 2.5, 3.0]
found = [{k: float(x.var()) for k, x in draw(c, u, w, 4000).items()} for w in strengths]

# %%
# Two modes at -1 and 1 with variance 1/4, guided to the right one with w = 2: the means are
# 1.3198, 1.1666 and 1.0355. Guidance overshoots; the weighted particles do not.

law = GaussianMixture([0.5, 0.5], [[-1.0], [1.0]], [[[0.25]], [[0.25]]], sde)
means = {"ode": 1.319828, "sde": 1.166604, "tilted": 1.035517}
samples = draw(law.component(1), law, 2.0, 20_000)
grid = torch.linspace(-1, 3.2, 400, dtype=torch.float64)[:, None]
density = law.log_prob(grid).exp() * law.posterior(grid)[:, 1] ** 2
density /= density.sum() * float(grid[1] - grid[0])
with page(6.4) as (figure, look):
    top, bottom = figure.subplots(2, 1)
    bottom.fill_between(grid[:, 0], density, color=look.ramp[1])
    for k, (label, color, marker) in looks.items():
        top.plot(w, exact[k], color=color)
        top.plot(strengths, [f[k] for f in found], marker, color=color, label=label)
        x = samples[k][:, 0].numpy()
        bottom.hist(x, 48, range=(-1, 3.2), density=True, histtype="step", color=color, lw=1.4)
        bottom.axvline(means[k], color=color, lw=1.2, ls=":", label=f"mean {means[k]:.4f}")
    top.set(xlabel="strength $w$", ylabel="variance of the samples", ylim=(0, 1.45))
    top.set_title("lines: closed forms; points: 4000 samples")
    top.legend()
    bottom.set(xlabel="$x$", ylabel="density", ylim=(0, 1.25), xlim=(-0.8, 3.2))
    bottom.set_title("two modes, $w = 2$; grey: the tilted law; dotted: exact means")
    bottom.legend()
save(figure, "what_w_samples.png")

r"""From one point to another
=========================

The mean of two pictures is not a picture, and the point halfway between two modes is in neither.
The probability-flow ODE carries data to Gaussian noise and back, one to one. Among noise there is
a natural way from :math:`a` to :math:`b`, the great circle,

.. math:: x_T(w) \propto \sin((1-w)\theta)\, \hat x_T(a) + \sin(w\theta)\, \hat x_T(b),

(hats are directions, :math:`\theta` the angle between them), and carried back to data it passes
where the data are.
"""

import torch

from scoresde import VPSDE
from scoresde.data import moons
from scoresde.likelihood import Fixed, interpolate
from scoresde.plots import save
from scoresde.plots.panels import contours, frame
from scoresde.plots.style import VIEWS, page

law = moons(VPSDE())  # an exact law stands in for a network: nothing is left but the ODE

# %%
# From one moon to the other, each once through latents and once straight.

a = torch.tensor([[-1.9, 0.4], [-0.7, 1.05]], dtype=torch.float64)
b = torch.tensor([[2.0, -0.2], [1.4, -0.8]], dtype=torch.float64)
through = interpolate(law, a, b, 41, Fixed(128))
w = torch.linspace(0, 1, 41, dtype=torch.float64)[:, None, None]
straight = (1 - w) * a + w * b
for name, path in (("through latents", through), ("straight", straight)):
    lowest = law.log_prob(path.flatten(0, 1)).reshape(41, 2).amin(0)
    print(f"{name}: lowest log p on the way {lowest.tolist()}")

with page(4.2) as (figure, look):
    axes, box = figure.subplots(), (-3.0, 3.0, -2.0, 2.0)
    contours(axes, law, box, look)
    for path, view, label in (
        (through, "ode", "through latents"),
        (straight, "chain", "straight"),
    ):
        for k in range(2):
            axes.plot(
                *path[:, k].T, VIEWS[view].marker, ls=VIEWS[view].dash, color=VIEWS[view].color,
                ms=3, lw=0.8, label=label if k == 0 else None,
            )  # fmt: skip
    frame(axes, box, look)
    figure.legend(loc="outside lower center", ncols=2)
save(figure, "interpolation.png")

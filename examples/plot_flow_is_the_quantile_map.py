r"""The flow is the quantile map
============================

On the line the probability-flow ODE needs no solver. Integrate the continuity equation
:math:`\partial_t p = -\partial_x (v p)` up to a point that is carried along, and

.. math:: \frac{d}{dt} F_t(x_t) = 0, \qquad F_t(x) = \int_{-\infty}^x p_t :

a point keeps its quantile. Nothing crosses, nothing is decided on the way.
"""

import torch

from scoresde import VPSDE, Recorder, UniPC, quadratic
from scoresde.data import gm1
from scoresde.plots import VIEWS, save
from scoresde.plots.density import density_columns
from scoresde.plots.style import density_colors, page

sde = VPSDE()
law = gm1(sde)  # 0.6 N(1.5, 0.3^2) + 0.4 N(-1, 0.5^2), exact at every time


def quantile(x, t):
    """F_t(x), the probability to the left of x, (n, 1) -> (n,)."""
    std = (sde.alpha(t) ** 2 * law.spectrum.T + sde.sigma2(t)).sqrt()
    return (law.weights * torch.special.ndtr((x - sde.alpha(t) * law.means.T) / std)).sum(1)


def inverse(q, t):
    """The x with F_t(x) = q, by bisection."""
    low, high = torch.full((2, len(q), 1), 9.0, dtype=q.dtype) * torch.tensor([[[-1.0]], [[1.0]]])
    for _ in range(60):
        middle = 0.5 * (low + high)
        left = (quantile(middle, t) < q)[:, None]
        low, high = torch.where(left, middle, low), torch.where(left, high, middle)
    return low


# %%
# Nine points of the noise, a tenth of all probability between any two neighbours, are walked to
# the data by a solver that knows nothing of quantiles.

shares = torch.arange(1, 10, dtype=torch.float64) / 10
grid, recorder = quadratic(600, t_eps=1e-5), Recorder()
UniPC(3)(law, inverse(shares, grid[0]), grid, callback=recorder)
kept = torch.stack([quantile(x, t) for x, t in zip(recorder.x, recorder.times, strict=True)])
error = float((kept - shares).abs().max())

# %%
# Above, their paths over the density. The two modes part, and the paths between them are torn
# apart; but none crosses another, and at each time a tenth of the grey lies between neighbours.
# Below, what each path keeps.

xs, ts = torch.linspace(-3.0, 3.0, 300), torch.linspace(1e-3, 1, 400)
ode = VIEWS["ode"]
with page(5.6) as (figure, look):
    top, bottom = figure.subplots(2, sharex=True, height_ratios=(2.2, 1))
    density = {"extent": (0, 1, -3.0, 3.0), "origin": "lower", "cmap": density_colors(look)}
    top.imshow(density_columns(law, xs, ts).sqrt(), aspect="auto", **density)
    top.plot(recorder.times, recorder.x[..., 0], color=ode.color, lw=1.3)
    top.set_ylabel("$x$", rotation=0)
    top.set_title("nine paths of the ODE, a tenth of all probability between neighbours")
    bottom.plot(recorder.times, kept, color=ode.color, lw=1.3)
    bottom.set_ylim(0, 1)
    bottom.set_yticks([0.1, 0.5, 0.9])
    bottom.set_ylabel("$F_t(x_t)$")
    bottom.set_title(f"the quantile of each stays: largest change {error:.0e}")
    bottom.set_xlabel("time $t$   (0: data, 1: noise)")
save(figure, "flow_is_the_quantile_map.png")

r"""The fewest evaluations
========================

Every call of the network costs the same, so a solver is judged by its error at a number of calls.
Here the score is exact, eight modes on a ring, and the error is the distance of each point from
where the probability-flow ODE takes it: no network, no sampling noise, only the solver and its
grid.
"""

import torch

from scoresde import (
    DDIM,
    VPSDE,
    Adams,
    DPMSolverPP,
    UniPC,
    log_snr,
    optimized,
    quadratic,
    recommended,
)
from scoresde.data import ring
from scoresde.plots import convergence, save

sde = VPSDE()
law = ring(sde, std=0.1)
x = torch.randn(1000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

# %%
# The exact end of each path is that of a fine grid, down to t = 0 itself.

truth = Adams(4, 4)(law, x, optimized(sde, 400))


def error(sampler, ts):
    """Median distance to the exact end, the last step to t = 0 included."""
    end = sampler(law, x, ts)
    if ts[-1] > 0:  # the ending "half", one evaluation
        end = 0.5 * (end / sde.alpha(ts[-1]) + law(end, ts[-1]))
    return float((end - truth).norm(dim=1).median())


# %%
# The usual solvers on the grids that suit them; and :func:`scoresde.recommended`, which integrates
# what is left of the flow when a Gaussian is taken out of it (:class:`scoresde.Adams`), on the
# grid that minimises a bound of its error (:func:`scoresde.optimized`). The order of a solver is
# its slope at the right of the figure; with few calls the grid, and what is interpolated, matter
# more.

calls = [5, 7, 10, 15, 20, 35, 50, 100]
usual = {
    "DDIM": (DDIM(), lambda n: log_snr(sde, n - 1)),
    "DPM-Solver++ 2M": (DPMSolverPP(2), lambda n: quadratic(n - 1)),
    "UniPC 3": (UniPC(3), lambda n: log_snr(sde, n - 1, t_eps=1e-4)),
}
curves = {name: (calls, [error(s, grid(n)) for n in calls]) for name, (s, grid) in usual.items()}
curves["recommended"] = (calls, [error(*recommended(sde, n)) for n in calls])
labels = ("calls of the network", "median distance to the exact end")
save(convergence(curves, labels=labels), "fewest_evaluations.png")

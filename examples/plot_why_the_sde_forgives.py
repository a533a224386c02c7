r"""Why the SDE forgives a wrong score, and the ODE does not
=========================================================

Between the reverse SDE and the probability-flow ODE lies a family with noise
:math:`\eta g`, all of them with the marginals of the data:

.. math:: dX = \big[f X - \tfrac12 (1 + \eta^2)\, g^2 s\big]\, dt + \eta\, g\, d\bar W .

That holds for the true score. What if it is a tenth too long, :math:`s_\theta = 1.1\, s`?
"""

import torch

from scoresde import DDIM, VPSDE, Adams, ScoreDenoiser, log_snr
from scoresde.data import two_modes
from scoresde.plots import VIEWS, save
from scoresde.plots.style import ACCENTS, page

delta, c, sde = 0.1, 0.25, VPSDE()

# %%
# On Gaussian data the variance of the walk, in units of the true one :math:`v(t)`, obeys a linear
# equation in the clock :math:`\theta = \int \beta/v\,dt`:
#
# .. math:: \frac{dw}{d\theta} = \eta^2 - \big(\eta^2 + (1 + \eta^2)\,\delta\big)\, w .
#
# It forgets where it was at the rate in brackets, about :math:`\eta^2`. The ODE forgets nothing:
# its :math:`w = e^{-\delta\theta}` falls as long as the walk lasts. Lines: this formula; points:
# DDIM with that :math:`\eta`, from the table of its coefficients.

ts = log_snr(sde, 4000, t_eps=1e-4)
v = c * sde.alpha(ts) ** 2 + sde.sigma2(ts)
clock = (v[0] / v).log() - 2 * (sde.log_alpha(ts[0]) - sde.log_alpha(ts))


def walked(eta):
    """w of DDIM(eta) after every row, from its coefficients."""
    table, var, found = DDIM(eta).table(sde, ts), v[0], [1.0]
    gain = (1 - sde.sigma2(ts) * (1 + delta) / v) / sde.alpha(ts)  # x0_hat = gain x
    for k, row in enumerate(table.rows()):
        var = (row.a + row.b[0] * gain[k]) ** 2 * var + row.c**2
        found.append(float(var / v[k + 1]))
    return torch.tensor(found)


def exact(eta):
    """The solution of the linear equation."""
    rate = eta**2 + (1 + eta**2) * delta
    return eta**2 / rate + (1 - eta**2 / rate) * (-rate * clock).exp()


curves = {eta: (exact(eta), walked(eta)) for eta in (0.0, 0.3, 0.6, 1.0)}
assert all((w - points).abs().max() < 0.01 for w, points in curves.values())

# %%
# The same on two modes. The ODE contracts each of them; noise repairs what is repairable. The
# price of it is seen elsewhere: noise must be integrated, which takes more steps.

law = two_modes(sde, distance=2.4, std=0.4)
model = ScoreDenoiser(lambda x, t: (1 + delta) * law.score(x, t), sde)
x_T = torch.randn(20_000, 1, generator=torch.Generator().manual_seed(0)).double()
ends = {
    "sde": DDIM(1.0)(model, x_T, log_snr(sde, 300), torch.Generator().manual_seed(1)),
    "ode": Adams(4, 4)(model, x_T, log_snr(sde, 100)),
}
for name, x in ends.items():
    within = float((x - torch.sign(x) * 1.2).std())
    print(f"{name}: std within a mode {within:.3f} (true: 0.4)")

with page(6.6) as (figure, look):
    top, low = figure.subplots(2, height_ratios=(1.15, 1))
    colors = (VIEWS["ode"].color, ACCENTS[1], ACCENTS[0], VIEWS["sde"].color)
    for (eta, (w, points)), color in zip(curves.items(), colors, strict=True):
        note = {0.0: " (ODE)", 1.0: " (SDE)"}.get(eta, "")
        top.plot(clock, w, color=color, label=rf"$\eta$ = {eta:g}{note}")
        top.plot(clock[::400], points[::400], "o", color=color, mec=look.face, ms=6)
    top.axhline(1, color=look.muted, lw=1, ls=":")
    top.set(ylim=(0.25, 1.04), xlim=(0, float(clock[-1])))
    top.set_title("variance of the walk over the true one, score 10 % too long")
    top.set_xlabel(r"clock $\theta = \int \beta/v\,dt$   (left: noise, right: data)")
    top.legend(loc="lower left")
    xs = torch.linspace(-2.8, 2.8, 400, dtype=torch.float64)
    low.fill_between(xs, law.log_prob(xs[:, None]).exp(), color=look.ramp[1], lw=0, label="truth")
    for key, x in ends.items():
        view = VIEWS[key]
        bins = torch.linspace(-2.8, 2.8, 90)
        low.hist(x[:, 0].numpy(), bins.numpy(), density=True, histtype="step", lw=1.6)
        low.patches[-1].set(edgecolor=view.color)
        low.plot([], [], color=view.color, label=view.label)
    low.set(
        title="samples of two modes with that score", xlabel="$x$", yticks=[], xlim=(-2.8, 2.8)
    )
    low.set_ylim(0, 0.92)
    low.legend(loc="upper center", ncols=3, columnspacing=1.2)
save(figure, "why_the_sde_forgives.png")

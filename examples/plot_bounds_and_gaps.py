r"""Which bounds close, and what they bound
=======================================

A likelihood can be bounded in two ways: by the chain's sum of KL terms (the VLB) and by the SDE's
integral (the continuous ELBO). On Gaussian data all of it is known in closed form.
"""

import math

import torch

from scoresde import VPSDE, DDPMChain, GaussianMixture, ScoreDenoiser, elbo, log_likelihood
from scoresde.physics import entropy, kl_to_prior, path_kl
from scoresde.plots import VIEWS, save
from scoresde.plots.style import ACCENTS, page

law = GaussianMixture([1.0], [[0.8]], [[[0.25]]], VPSDE())
ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
least = float(entropy(law, ends[:1]).value + kl_to_prior(law, ends[1:]).value)

# %%
# **The chain.** Its bound can at best be :math:`H(p_0) + \mathrm{KL}(p_1\|\pi)`. How much it loses
# depends on the variance of the reverse step alone: with the optimal one nothing, at any
# :math:`N`; with :math:`\beta` a gap of :math:`1.0919/N`; with :math:`\tilde\beta` a gap that
# never closes, :math:`\gamma/2` with Euler's constant. (:math:`\tilde\beta_1 = 0` has no density:
# the last step is given the optimal variance.)

names = {"posterior": r"$\tilde\beta$", "beta": r"$\beta$", "optimal": r"optimal $\sigma^2$"}


def gaps(n):
    """Of the three variances, in nats."""
    chain = DDPMChain.from_sde(law.sde, n)
    mmse, square = law.mmse(chain.grid().flip(0)[1:]), torch.tensor(0.89, dtype=torch.float64)
    best = chain.vlb_terms(mmse, square, 1, "optimal", mmse).data
    bounds = {v: chain.vlb_terms(mmse, square, 1, v, mmse) for v in names}
    return {
        v: float(b.prior + b.steps.sum() + (best if v == "posterior" else b.data)) - least
        for v, b in bounds.items()
    }


print("    N   gap of beta~       beta    N x beta   optimal")
counts = [10, 30, 100, 300, 1000, 3000, 10_000]
table = {n: gaps(n) for n in counts}
for n, gap in table.items():
    print(
        f"{n:5} {gap['posterior']:14.4f} {gap['beta']:10.2e} {n * gap['beta']:11.4f}"
        f" {gap['optimal']:9.0e}"
    )

# %%
# **The SDE and the ODE.** With the true score the continuous ELBO has no gap either. With a wrong
# one it still bounds the likelihood of the *SDE*. It does not bound that of the ODE: here the
# score is a tenth too long, :math:`s_\theta = (1 + \delta)\, s` with :math:`\delta = 0.1`.

c, delta = 0.25, 0.1
plain = GaussianMixture([1.0], [[0.0]], [[[c]]], VPSDE())
x0 = torch.tensor([[-0.5], [0.5]], dtype=torch.float64)  # the mean over these is that over p_0
z = torch.ones(1, 2, 1, dtype=torch.float64)
h = float(entropy(plain, ends[:1]).value)


def wrong(delta):
    """The mis-scaled score."""
    return ScoreDenoiser(lambda x, t: (1 + delta) * plain.score(x, t), plain.sde)


for d in (0.0, delta):
    bound = float(elbo(wrong(d), x0, z=z, t_eps=1e-9).total.mean())
    ode = -float(log_likelihood(wrong(d), x0, t_eps=1e-9).mean())
    print(f"delta = {d}: entropy {h:.4f}, ELBO {bound:.4f}, NLL of the ODE {ode:.4f}")

# %%
# In closed form, with the clock :math:`\theta = \int\beta/v\,dt`: the bound is
# :math:`\mathrm{KL}_T + \delta^2\theta/2`; the variance of the SDE's samples tends to
# :math:`c/(1 + 2\delta)`, whatever happened before; the ODE's is multiplied by
# :math:`e^{-\delta\theta}`. A tenth of the score is a sixth of the variance to the SDE, and two
# thirds of it to the ODE.

theta = math.log((plain.sde.alpha(ends[1]) ** 2 * c + plain.sde.sigma2(ends[1])) / c)
theta = float(theta - 2 * plain.sde.log_alpha(ends[1]))
deltas = torch.linspace(-0.3, 0.3, 1201, dtype=torch.float64)
kl = lambda ratio: 0.5 * (1 / ratio - 1 + ratio.log())  # of the data from variance ratio * c
sde_ratio = 1 / (1 + 2 * deltas)
sde_ratio = sde_ratio + (1 - sde_ratio) * (-(1 + 2 * deltas) * theta).exp()
ode_ratio = (-deltas * theta).exp()
shown = torch.linspace(-0.3, 0.3, 7, dtype=torch.float64)
bounds = [float(path_kl(wrong(float(d)), plain, t_eps=1e-9).total.value) for d in shown]

with page(7.4) as (figure, look):
    top, low = figure.subplots(2)
    for v, color, mark in (("posterior", VIEWS["chain"].color, "s"), ("beta", ACCENTS[0], "o")):
        gap = [table[n][v] for n in counts]
        top.loglog(counts, gap, mark, ls="-", color=color, label=f"variance {names[v]}")
    top.axhline(0.28860783, color=look.muted, ls=":", lw=1.2)
    top.text(3000, 0.14, r"$\gamma/2 = 0.2886$", color=look.muted)
    top.loglog(counts, [1.0919172 / n for n in counts], color=look.muted, ls=(0, (5, 3)), lw=1.1)
    top.text(1500, 1.1e-3, r"$1.0919/N$", color=look.muted)
    note = r"variance optimal $\sigma^2$: zero at every $N$"
    top.text(10, 1e-4, f"{note}, to rounding", color=look.ink)
    top.set(title="gap of the chain's bound, in nats", xlabel="steps $N$", ylim=(4e-5, 2))
    top.legend(loc="lower left", bbox_to_anchor=(0, 0.16))
    for key, ratio in (("ode", ode_ratio), ("sde", sde_ratio)):
        view = VIEWS[key]
        low.semilogy(deltas, kl(ratio), color=view.color, ls=view.dash, label=view.label)
    low.semilogy(shown, bounds, "o", color=look.ink, mfc="none", label="path KL, by quadrature")
    low.semilogy(deltas, 0.5 * deltas**2 * theta, color=look.muted, lw=1.1, label="path KL")
    low.set(title="what the bound bounds: KL of the samples, in nats", ylim=(1e-4, 60))
    low.set_xlabel(r"error of the score $\delta$, in $s_\theta = (1 + \delta)\,s$")
    low.legend(loc="upper center", fontsize=9)
    for axes in (top, low):
        axes.grid()
save(figure, "bounds_and_gaps.png")

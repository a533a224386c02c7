r"""What noise costs: entropy, information and the fluctuation theorem
==================================================================

A variance-preserving process relaxes to :math:`\pi = N(0, I)`. Its free energy is
:math:`\mathrm{KL}(p_t\|\pi)`, and what it loses of it is the entropy that it produces.
"""

import torch

from scoresde import VPSDE, DDPMChain
from scoresde.data import gm1
from scoresde.physics import (
    ForwardKernel,
    entropy_production_rate,
    kl_to_prior,
    mutual_information,
    relative_entropy_decay,
)
from scoresde.plots import VIEWS, save
from scoresde.plots.style import ACCENTS, page

law = gm1(VPSDE())
t = torch.linspace(2e-3, 1, 250, dtype=torch.float64)

# %%
# How much :math:`x_t` still knows of :math:`x_0`, and the free energy. The log-Sobolev
# inequality: :math:`e^{B(t)}\,\mathrm{KL}_t` never increases, so KL falls at least as
# :math:`e^{-B}` (dotted: the tail, which the mean of the data alone decides).

knows, kl = mutual_information(law, t).value, kl_to_prior(law, t).value
tail = 0.5 * float(law.marginal()[0]) ** 2 * law.sde.alpha(t) ** 2
rate = entropy_production_rate(law, t).value
bound = law.sde.beta(t) * kl  # log-Sobolev, read as a bound on the rate
assert (relative_entropy_decay(law, t).value.diff() < 0).all()

# %%
# The integral fluctuation theorem: :math:`\mathrm{E}\,e^{-\Sigma} = 1` over forward paths,
# :math:`\Sigma` their entropy production. DDPM's chain obeys it exactly with any betas, because
# its kernel is reversible with respect to :math:`\pi`. Euler-Maruyama's has another stationary
# law, of variance :math:`1/(1 - \beta/4)`, and misses it by O(1/N).

wide, steps = VPSDE(0.1, 2.0), [2**k for k in range(2, 11)]
chains = [DDPMChain.from_sde(wide, n, "song") for n in steps]
kernels = {"chain": ForwardKernel.of_chain, "sde": ForwardKernel.of_euler}
gaps = {
    k: [abs(float(make(c).fluctuation(law)) - 1) for c in chains] for k, make in kernels.items()
}

with page(7.2) as (figure, look):
    top, middle, bottom = figure.subplots(3)
    top.semilogy(t, knows, color=ACCENTS[0], label="$I(x_0; x_t)$: what it still knows")
    top.semilogy(t, kl, color=ACCENTS[1], ls="--", label=r"KL$(p_t\|\pi)$: free energy")
    top.semilogy(t, tail, color=look.muted, ls=":", label=r"$e^{-B}\,|\mathrm{E}x_0|^2/2$")
    top.set(title="information and free energy (nats)", ylim=(3e-6, 9), xlim=(0, 1))
    middle.fill_between(t, rate, color=look.ramp[1], lw=0)
    middle.plot(t, rate, color=ACCENTS[1], label=r"$-d\mathrm{KL}/dt$: area 0.781")
    middle.plot(t, bound, color=look.muted, ls=":", label=r"$\beta\,$KL: at least this")
    middle.set(title="entropy production rate (nats)", xlim=(0, 1), ylim=0, xlabel="time $t$")
    for key, label in (("sde", "Euler-Maruyama"), ("chain", "DDPM's chain")):
        view, gap = VIEWS[key], torch.tensor(gaps[key]).clamp(min=1e-17)
        bottom.loglog(steps, gap, view.marker, ls=view.dash, color=view.color, label=label)
    bottom.set(title=r"$|\mathrm{E}\,e^{-\Sigma} - 1|$ over forward paths", ylim=(3e-18, 1))
    bottom.set_xlabel("steps $N$")
    for axes in (top, middle, bottom):
        axes.grid(axis="y")
        axes.legend(loc="best")
save(figure, "entropy_and_information.png")

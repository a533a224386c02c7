r"""The bias of every sampler, without a single sample
==================================================

On Gaussian data the exact score is linear in the state, so every step of these samplers maps a
Gaussian to a Gaussian: mean and covariance at the end are a matter of arithmetic. What is left is
the error of the steps alone, to rounding.
"""

import torch

from scoresde import VPSDE
from scoresde.data import gauss
from scoresde.diagnosis import bias_entries, exact_bias
from scoresde.plots import save
from scoresde.plots.curves import fit_order, plain_ticks, styles
from scoresde.plots.style import page

law = gauss(VPSDE())  # one tilted Gaussian of the plane, standard deviations 0.7 and 0.2
counts = (10, 20, 40, 80, 160, 320)
found = {}
for entry in bias_entries(law, counts):
    bias = exact_bias(entry.sampler, law, entry.ts)
    found.setdefault(entry.label, []).append((entry, bias))

# %%
# A user's table: the Bures distance to the true law, and KL in nats. KL is quadratic in the error
# of the law: it falls with twice the order. (A step of Heun costs two evaluations, of RK4 four.)

print(f"{'sampler':30} {'W2 at 20':>9} {'at 80':>9} {'at 320':>9} {'order':>6} {'KL at 320':>10}")
for label, pairs in found.items():
    w2 = dict(zip(counts[-len(pairs) :], (float(b.w2) for _, b in pairs), strict=True))
    order, last = fit_order(list(w2), list(w2.values())), float(pairs[-1][1].kl)
    print(f"{label:30} {w2[20]:9.1e} {w2[80]:9.1e} {w2[320]:9.1e} {order:6.2f} {last:10.1e}")

# %%
# On the left half of each panel decisions are made, on the right one orders are read. Two things
# are worth a look: a corrector costs evaluations, and below a hundred of them, with an exact
# score, it does not pay (beyond, its bias may by luck cancel that of the steps: the curve of DDIM
# dives); and noise is no obstacle to accuracy, SA-Solver is of third order with it.

groups = {
    "one step after the other": [
        "DDPM chain, β̃",
        "DDPM chain, β",
        "DDPM chain, optimal σ²",
        "Euler-Maruyama",
        "reverse diffusion",
        "DDIM, η = 0",
        "Euler",
    ],
    "with a corrector": [
        "reverse diffusion",
        "reverse diffusion + Langevin",
        "Euler-Maruyama",
        "Euler-Maruyama + Langevin",
        "DDIM + Langevin",
    ],
    "higher orders": [
        "ER-SDE 2",
        "SA-Solver",
        "Heun",
        "DPM++ 2M",
        "UniPC 3",
        "DPM++ 3M",
        "Adams (recommended)",
    ],
}
with page(11.0) as (figure, look):
    for axes, (title, labels) in zip(figure.subplots(3), groups.items(), strict=True):
        views = {label: found[label][0][0].view for label in labels}
        for label, style in zip(labels, styles(labels, views, look), strict=True):
            w2 = [float(bias.w2) for _, bias in found[label]]
            axes.loglog(counts[-len(w2) :], w2, label=label, **style)
        axes.set(title=f"W2 from the exact law: {title}", xlim=(9, 350))
        plain_ticks(axes, "x")
        axes.grid()
        axes.legend(loc="lower left", fontsize=8.5, labelspacing=0.2, handlelength=2.6)
        if title.startswith("with"):
            axes.set_ylim(3e-4, 4)
    axes.set_xlabel("denoiser evaluations")
save(figure, "exact_bias.png")
assert torch.tensor([float(p[-1][1].kl) for p in found.values()]).isfinite().all()

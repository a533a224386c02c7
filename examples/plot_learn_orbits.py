r"""Orbits learned from examples
============================

Fifty thousand orbits about a star, 64 positions each, and nothing else: neither Newton's law nor
its constants were given. Does a network that has learned their law conserve energy and angular
momentum?

The network was trained by ``examples/checkpoints/train_orbits.py``, in half whitened units, where
noise is as smooth as the paths in kind (:meth:`scoresde.denoiser.Affine.fit`).
"""

from pathlib import Path

import torch

from scoresde import Ancestral, log_snr, sample
from scoresde.data import Kepler
from scoresde.metrics import PATH_METRICS, conservation_metrics, judge, spread
from scoresde.plots import film, paths, save
from scoresde.plots.style import ACCENTS, page
from scoresde.training import load

here = Path(__file__).parent if "__file__" in globals() else Path.cwd()
model = load(here / "checkpoints" / "orbits.pt")
model.net.float()  # its weights are stored in 16 bits
family, sampler, ts = Kepler(), Ancestral(), log_snr(model.sde, 60)

# %%
# From noise to orbits, and orbits that the network has never seen beside them.

made = sample(model, sampler, (400, 64, 2), ts, seed=0).double()
true = family(400, torch.Generator().manual_seed(1))
panels = {"held out": true, "generated": made}
save(paths(panels, show=8, columns=2), "learn_orbits.png")
film(panels, "learn_orbits.gif", show=5)

# %%
# Each number beside the noise floor: the same metric between two sets of true orbits.

metrics = PATH_METRICS | conservation_metrics(family.conserved)
print(judge(made, true, family, metrics, repeats=10))

# %%
# Energy :math:`v^2/2 - GM/r` along single orbits, the velocities read off the positions: it stays
# nearly what it is, though nobody said so. The number is the median over all generated orbits.

energy, t = family.energy(made), family.times[4:-4]
with page(3.4) as (figure, look):
    axes = figure.subplots()
    axes.plot(t, family.energy(true)[:8].T, color=look.muted, lw=1.0)
    axes.plot(t, energy[:8].T, color=ACCENTS[0], lw=1.2)
    axes.plot([], [], color=look.muted, label="held out")
    share = 100 * float(spread(energy).median())
    axes.plot([], [], color=ACCENTS[0], label=f"generated: relative spread {share:.1f} %")
    axes.set(xlabel="time of motion (years)", ylabel="energy (au²/year²)")
    figure.legend(loc="outside upper left", ncols=2)
save(figure, "learn_orbits_energy.png")

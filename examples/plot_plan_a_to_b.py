r"""Planning: an orbit from A to B
==============================

Inpainting in time is planning. A network knows the law of orbits, and no more. We ask for those
that are at A now and at B at a given later time: :math:`y = (x(t_A), x(t_B)) + s\,n`. Moment
matching adds a guess of :math:`\nabla \log p(y | x_t = x)` to the score, and weights correct
what the guess has wrong; nothing is trained.

Through two points at two times there are several orbits about the star: short ways and long ways,
clockwise and not (Lambert's problem). The posterior has all of them.
"""

from pathlib import Path

import torch

from scoresde import Ancestral, TwistedSMC, log_snr, sample
from scoresde.data import Kepler
from scoresde.inverse import Mask, Measurement, MomentMatching
from scoresde.metrics import spread
from scoresde.plots import film, paths, save
from scoresde.training import load

here = Path(__file__).parent if "__file__" in globals() else Path.cwd()
model = load(here / "checkpoints" / "orbits.pt")
model.net.float()  # its weights are stored in 16 bits
family, sampler, ts = Kepler(), Ancestral(), log_snr(model.sde, 60)

# %%
# A to the right of the star, B to the left, half a year later.

at, std = [0, 32], 0.05
points = torch.tensor([[0.85, 0.0], [-0.7, 0.5]])
known = torch.zeros(family.length, 2, dtype=torch.bool)
known[at] = True
measurement = Measurement(Mask(known), points.reshape(1, -1), std)
guided = MomentMatching(model, measurement, iterations=2)
guess = sample(guided, sampler, (120, 64, 2), ts, seed=0)
planned = sample(guided, TwistedSMC(sampler), (120, 64, 2), ts, seed=0)
free = sample(model, sampler, (120, 64, 2), ts, seed=0)

# %%
# The rings are A and B. With the guess alone most orbits pass through them, and a few fly off:
# where a network is asked far from its data, a gradient that is too strong feeds on itself.
# Particles with weights leave those behind, and all that remain pass within the noise. They are
# orbits still: see their angular momentum, whose sign tells the two ways round apart.

for name, x in {"guess alone": guess, "weighted": planned}.items():
    miss = (x[:, at] - points).square().mean((1, 2)).sqrt()
    far = float((miss > 3 * std).double().mean())
    print(f"{name:11s}: median miss {float(miss.median()):.3f}, {far:.0%} by 3 times the noise")
turn = family.angular_momentum(planned.double())
print(f"{float((turn.mean(1) > 0).double().mean()):.0%} go anticlockwise")
print(f"angular momentum kept to {100 * float(spread(turn).median()):.1f} % (median over orbits)")
panels = {"any orbit": free, "from A to B": planned}
save(paths(panels, show=10, points=points, columns=2), "plan_a_to_b.png")
film(panels, "plan_a_to_b.gif", show=6, points=points)

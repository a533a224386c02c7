"""Steps per second of `fit` beside a hand-written loop that does the same work.

    python benchmarks/train_throughput.py [--out DIR] [--quick] [--rounds 41] [--steps 100]

Both: 512 points by index from a tensor on the device, fused Adam, clipping at 1, a foreach
average of the weights, warm-up and cosine of the rate, the mean loss read every 100 steps. Rounds
are interleaved, since a machine drifts by more than the difference; the medians of the rates and
of the ratio within a round are printed; train_throughput.csv and .json hold every round. The
target is a ratio of at least 0.97 (target 6).
"""

import copy
import math
import statistics
import time

import common
import torch
from torch import nn
from tqdm import tqdm

from scoresde import VPSDE, EpsDenoiser
from scoresde.data import ring
from scoresde.nets import MLP
from scoresde.training import fit

BATCH, EVERY, LR = 512, 100, 3e-3
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def network():
    torch.manual_seed(0)
    return MLP(2).to(DEVICE)


def library(data, steps):
    result = fit(EpsDenoiser(network(), VPSDE()), data, steps=steps, batch=BATCH, lr=LR)
    return steps / result.seconds


def by_hand(data, steps):
    net = network()
    weights = list(net.parameters())
    average = [p.detach() for p in copy.deepcopy(net).parameters()]
    optimizer = torch.optim.Adam(weights, lr=LR, fused=True)
    total = torch.zeros((), device=DEVICE)
    start = time.perf_counter()
    for k in range(steps):
        x0 = data[torch.randint(len(data), (BATCH,), device=DEVICE)]
        t = torch.rand(BATCH, device=DEVICE) * (1 - 1e-5) + 1e-5
        log_alpha = (-0.5 * t * (0.1 + 0.5 * 19.9 * t))[:, None]
        z = torch.randn_like(x0)
        x = log_alpha.exp() * x0 + (-torch.expm1(2 * log_alpha)).sqrt() * z
        loss = (net(x, t) - z).square().mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        rate = min(1, (k + 1) / 100) * 0.5 * (1 + math.cos(math.pi * k / steps))
        optimizer.param_groups[0]["lr"] = LR * rate
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(average, weights, 1 - min(0.999, (1 + k) / (10 + k)))
        total += loss.detach()
        if (k + 1) % EVERY == 0:
            float(total / EVERY)
            total.zero_()
    return steps / (time.perf_counter() - start)


def main(argv=None):
    options = common.arguments(
        __doc__, argv, rounds={"type": int, "default": 41}, steps={"type": int, "default": 100}
    )
    rounds, steps = (2, 10) if options.quick else (options.rounds, options.steps)
    data = ring(VPSDE()).sample(100_000, generator=torch.Generator().manual_seed(0))
    data = data.float().to(DEVICE)
    library(data, steps // 2), by_hand(data, steps // 2)
    rows = []
    for k in tqdm(range(rounds), "rounds", leave=False):
        order = (library, by_hand) if k % 2 else (by_hand, library)
        rate = {run: run(data, steps) for run in order}
        rows.append({"fit": rate[library], "by hand": rate[by_hand]})
        rows[-1]["ratio"] = rate[library] / rate[by_hand]
    middle = {name: statistics.median(row[name] for row in rows) for name in rows[0]}
    common.show([middle], f"Steps per second on {DEVICE}, medians of {rounds} rounds")
    ratio = middle["ratio"]
    print("target 6, ratio >= 0.97:", "PASS" if ratio >= 0.97 else f"{ratio / 0.97:.2f} of it")
    common.write(options.out, "train_throughput", rows, medians=middle)


if __name__ == "__main__":
    main()

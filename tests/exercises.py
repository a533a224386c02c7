"""One short computation for each room of the package, on any device.

An exercise takes a device and gives two dictionaries of tensors: those that are the same on every
device, and those that depend on the numbers of the device's own generator.
"""

import tempfile
import types
from pathlib import Path
from unittest import mock

import torch

from scoresde import (
    DDIM,
    VPSDE,
    Ancestral,
    ClassifierFree,
    EpsDenoiser,
    FeynmanKac,
    GaussianMixture,
    Given,
    Guided,
    Langevin,
    MeanShift,
    PFAdaptive,
    PredictorCorrector,
    Recorder,
    Rescaled,
    SDEAdaptive,
    Tempered,
    TorchSDE,
    TwistedSMC,
    bits_per_dim,
    classifier_log_prob,
    decode,
    elbo,
    encode,
    interpolate,
    log_likelihood,
    log_snr,
    moments,
    on_denoised,
    recommended,
    sample,
)
from scoresde.data import (
    DoubleWell,
    Kepler,
    Larmor,
    OrnsteinUhlenbeck,
    checkerboard,
    ring,
)
from scoresde.distributions import Empirical, bridge, condition
from scoresde.distributions import log_evidence as evidence
from scoresde.inverse import (
    DDRM,
    DPS,
    Mask,
    Measurement,
    MomentMatching,
    Observed,
    PiGDM,
    Replacement,
    log_evidence,
    posterior,
)
from scoresde.nets import MLP, Classifier, Transformer, UNet1d
from scoresde.training import fit_paths

SDE = VPSDE()
EXERCISES = {}


def exercise(function):
    """Keep an exercise under the name of its room."""
    EXERCISES[function.__name__] = function
    return function


def host(seed=0):
    """A generator of the host: what it draws is the same on every device."""
    return torch.Generator().manual_seed(seed)


def there(device, seed=0):
    """A generator of the device."""
    return torch.Generator(device).manual_seed(seed)


def points(device, *shape, seed=0):
    """Normal numbers, the same on every device."""
    return torch.randn(*shape, generator=host(seed)).to(device)


def pair(device):
    """Two Gaussians of the plane."""
    means, covs = (
        [[1.0, 0.5], [-0.8, 0.0]],
        [[[0.09, 0.02], [0.02, 0.06]], [[0.25, 0.0], [0.0, 0.1]]],
    )
    return GaussianMixture([0.6, 0.4], means, covs, SDE).to(device)


def network(device, **settings):
    """A network that is the same on every device, and answers something."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = MLP(2, width=16, depth=1, **settings)
        torch.nn.init.normal_(net.trunk.last.weight, std=0.1)
    return EpsDenoiser(net, SDE).to(device).eval()


def _classifier(device):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Classifier(2, 3, width=8, depth=1).to(device)


def labels(device, n, classes=3):
    return torch.arange(n).remainder(classes).to(device)


@exercise
def data(device):
    made = {"orbits": Kepler(length=16), "circles": Larmor(length=16)}
    paths = points(device, 5, 16, 2).cumsum(1)
    kept = {name: family.conserved for name, family in made.items()}
    same = {f"{name}, {k}": q(paths) for name in kept for k, q in kept[name].items()}
    same["ring"] = ring(SDE).to(device).score(points(device, 20, 2), torch.tensor(0.3).to(device))
    drawn = {name: family(5, there(device)) for name, family in made.items()}
    drawn["well"] = DoubleWell(length=3, duration=0.1)(5, there(device))
    drawn["bridge"] = OrnsteinUhlenbeck(length=8)(5, there(device))
    drawn["board"] = checkerboard(SDE).to(device).sample(20, generator=there(device))
    return same, drawn


@exercise
def distributions(device):
    law, t, x = pair(device), torch.tensor(0.3, device=device), points(device, 12, 2)
    stored = Empirical(points(device, 30, 2, seed=3), SDE)
    path = OrnsteinUhlenbeck(length=6).law(SDE).to(device)
    kinds = {"mixture": law, "boxes": checkerboard(SDE).to(device), "points": stored, "path": path}
    same, drawn = {}, {}
    for name, kind in kinds.items():
        y = points(device, 12, *kind.event)
        same |= {f"density, {name}": kind.log_prob(y, t), f"score, {name}": kind.score(y, t)}
        same[f"denoised, {name}"] = kind(y, t)
        drawn |= {name: kind.sample(12, t, there(device))}
    same["posterior"], same["its covariance"] = law.posterior(x, t), law.posterior_cov(x, t)
    same["mmse"], same["mmse of one"] = law.mmse(t), path.mmse(t)
    same["known"] = condition(law, points(device, 1, 2, seed=1), points(device, 1), 0.2).means
    same["evidence"] = evidence(law, points(device, 1, 2, seed=1), points(device, 4, 1), 0.2)
    same["bridge"] = bridge(path, (0, 5), points(device, 2, 2), 0.1).means
    return same, drawn


@exercise
def nets(device):
    same, t = {}, torch.linspace(0.1, 0.9, 4).to(device)
    y, paths = labels(device, 4), points(device, 4, 16, 2)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = {
            "mlp": MLP(2, width=16, depth=1, classes=3),
            "unet": UNet1d(width=8, levels=2, classes=3),
            "transformer": Transformer(width=16, depth=1, heads=2, classes=3),
        }
    classifier = _classifier(device)
    for name, net in made.items():
        x = points(device, 4, 2) if name == "mlp" else paths
        net = net.to(device)
        out = net(x, t, y=y)
        out.square().mean().backward()
        same[name] = out.detach()
        same[f"gradient of the {name}"] = next(net.parameters()).grad
    same["classifier"] = classifier(points(device, 4, 2), t).detach()
    return same, {}


@exercise
def losses(device):
    from scoresde import losses

    law, model, x0 = pair(device), network(device), points(device, 32, 2)
    z, ts = points(device, 32, 2, seed=1), torch.linspace(0.1, 0.9, 4)
    t = torch.linspace(0.01, 0.99, 32).to(device)
    weights = [losses.simple, losses.likelihood, losses.v_weight, losses.min_snr(), losses.edm()]
    same = {
        str(k): losses.denoising_loss(model, x0, t, z, weight=weight).detach()
        for k, weight in enumerate(weights)
    }
    kinds = [losses.UniformTimes(), losses.LogSNRTimes(SDE), losses.ChainTimes(100)]
    drawn = {str(times): times(16, there(device), x0.device, x0.dtype) for times in kinds}
    drawn["floor"] = losses.irreducible_loss(law, ts, 256, generator=there(device)).value
    with torch.no_grad():
        drawn["excess"] = losses.excess_loss(model, law, ts, 256, generator=there(device)).value
        drawn["by time"] = losses.loss_by_time(model, x0, ts, generator=there(device)).value
    return same, drawn


@exercise
def guidance(device):
    law, x = pair(device), points(device, 12, 2)
    t = torch.tensor(0.4, device=device)
    classifier = _classifier(device)
    net = network(device, classes=3)
    y = labels(device, 12)
    free = ClassifierFree(Given(net, y=y), Given(net, y=3), 2.0, interval=(0.1, 0.8))
    kinds = {
        "classifier": Guided(law, classifier_log_prob(classifier, y), 1.5),
        "reward": Guided(law, on_denoised(law, lambda x0: -x0.square().sum(1))),
        "free": free,
        "rescaled": Rescaled(free),
        "tempered": Tempered(law, 0.7),
        "both": Guided(free, classifier_log_prob(classifier, 1)),
    }
    ts = log_snr(SDE, 4)
    with torch.no_grad():
        same = {name: kind(x, t) for name, kind in kinds.items()}
        same |= {f"eps, {name}": kind.eps(x, t) for name, kind in kinds.items()}
    same |= {f"steps, {name}": DDIM()(kind, x, ts) for name, kind in kinds.items()}
    z = points(device, 8, 12, 2)
    particles = FeynmanKac().solve(
        ClassifierFree(law.component(0), law, 2.0), x, ts, noise=lambda k, *a: z[k, : len(x)]
    )
    return same | {"weights": particles.log_weights}, {}


@exercise
def inverse(device):
    law, x, ts = pair(device), points(device, 12, 2), log_snr(SDE, 5)
    mask = torch.tensor([True, False], device=device)
    y = Measurement(Mask(mask), points(device, 12, 1, seed=2), 0.2)
    one = Measurement(Mask(mask), torch.tensor([[0.4]], device=device), 0.2)
    z = points(device, 100, 12, 2)
    noise = lambda k, t, s, shape, device, dtype: z[k, : shape[0]]

    same = {
        name: Ancestral()(kind, x, ts, noise=noise)
        for name, kind in {
            "DPS": DPS(law, y),
            "PiGDM": PiGDM(law, y),
            "moments": MomentMatching(law, y),
        }.items()
    }
    for sampler in (Replacement(), DDRM()):
        same[type(sampler).__name__] = sampler(Observed(law, y), x, ts, noise=noise)
    same["posterior"] = posterior(law, one).means
    same["evidence"] = log_evidence(law, one)
    twisted = TwistedSMC().solve(MomentMatching(law, one), x, ts, noise=lambda k, *a: z[k])
    return same | {"twisted": twisted.log_weights}, {}


@exercise
def samplers(device):
    law, net, ts = pair(device), network(device, classes=3), log_snr(SDE, 6)
    x, z = points(device, 40, 2), points(device, 40, 40, 2)
    noise = lambda k, t, s, shape, device, dtype: z[k, : shape[0]]
    solver, grid = recommended(SDE, 8)
    kinds = [PredictorCorrector(Ancestral(), Langevin(rule="song")), PFAdaptive(), Ancestral()]
    same = {type(s).__name__: s(law, x, ts, noise=noise) for s in kinds}
    same["recommended"] = solver(net, x, grid)
    guided = Guided(law, lambda x, t: -x.square().sum(1))
    same["shift"] = MeanShift()(guided, x, ts, noise=noise)
    common = {"seed": 0, "chunk": 16}
    record = Recorder([0.5])
    drawn = {
        "sample": sample(
            Given(net, y=labels(device, 40)), DDIM(1.0), (40, 2), ts, callback=record, **common
        ),
        "half": sample(law, DDIM(), (40, 2), ts, last="half", **common),
        "graph": sample(
            law, DDIM(), (40, 2), ts, graph=torch.device(device).type == "cuda", **common
        ),
        "adaptive": sample(law, SDEAdaptive(0.1, 0.1), (6, 2), ts[[0, -1]], **common),
        "torchsde": sample(law, TorchSDE("euler"), (20, 2), ts, **common),
    }
    return same, drawn | {"recorded": record.x}


@exercise
def likelihood(device):
    from scoresde.likelihood import Adaptive, Fixed, Torchdiffeq

    law, net, x = pair(device), network(device), points(device, 4, 2)
    same = {
        "exact": log_likelihood(law, x, Adaptive(1e-2, 1e-2)),
        "fixed": log_likelihood(law, x, Fixed(8)),
        "network": log_likelihood(net, x, Fixed(8)),
        "torchdiffeq": log_likelihood(law, x, Torchdiffeq(rtol=1e-2, atol=1e-2)),
        "there and back": decode(law, encode(law, x, Fixed(8)), Fixed(8)),
        "between": interpolate(law, x[:2], x[2:], 3, Fixed(8)),
        "bound": elbo(law, x, nodes=8, z=points(device, 8, 4, 2)).total,
    }
    k = torch.randint(0, 8, (4, 2), generator=host()).to(device)
    drawn = {
        "probes": log_likelihood(net, x, Fixed(8), probes=2, generator=there(device)),
        "bits": bits_per_dim(law, k, 8, -2.0, 2.0, there(device), Fixed(8)),
        "bound": elbo(net, x, nodes=8, generator=there(device)).total,
    }
    return same, drawn


@exercise
def metrics(device):
    from scoresde import metrics

    law, x, y = pair(device), points(device, 60, 2), points(device, 50, 2, seed=1) + 0.2
    a, b = points(device, 24, 12, 2).cumsum(1), points(device, 20, 12, 2, seed=1).cumsum(1)
    pairs = [
        metrics.sliced_wasserstein,
        metrics.wasserstein,
        metrics.energy_distance,
        metrics.mmd,
        metrics.kl_knn,
    ]
    same = {metric.__name__: metric(x, y) for metric in pairs}
    same |= {name: metric(a, b) for name, metric in metrics.PATH_METRICS.items()}
    same["shares"] = metrics.mode_weights(x, law)
    same["coverage"] = metrics.mode_coverage(x, law)
    same["histogram"] = metrics.kl_histogram(x, y)
    drawn = {
        "gap": metrics.nll_gap(x, law, n=512).value,
        "floor": metrics.floor(metrics.sliced_wasserstein, law, 40, repeats=3).mean,
        "kl": metrics.kl_exact(law, law.component(0), n=512).value,
    }
    return same, drawn


@exercise
def physics(device):
    from scoresde import physics

    law, net, x = pair(device), network(device), points(device, 8, 2)
    t, data = torch.tensor(0.3, device=device), points(device, 30, 2, seed=3)
    cells = physics.Cells((-3.0, -3.0), (3.0, 3.0), (12, 12))
    p = cells.density(lambda x: law.log_prob(x.to(device), torch.tensor(0.5, device=device)))
    ts = torch.tensor([0.5, 0.4], dtype=torch.float64)
    known = Empirical(data, SDE)
    same = {
        "density": physics.density_residual(law.log_prob, SDE, x, t),
        "score": physics.score_residual(law.score, SDE, x, t),
        "current": physics.probability_current(law.log_prob, SDE, x, t),
        "osmotic": physics.osmotic_velocity(law, x, t),
        "curl": physics.curl(net.score, x, t).detach(),
        "grid": physics.evolve(physics.denoising(law), cells, p, ts),
        "empirical": known(x, t),
        "copies": physics.memorisation(x, data).distance,
        "speciation": physics.speciation_time(ring(SDE).to(device)),
    }
    n, g = 256, lambda: there(device)
    drawn = {
        "entropy": physics.entropy(law, t, n, g()).value,
        "rate": physics.entropy_rate(law, t, n=n, generator=g()).value,
        "production": physics.entropy_production(law, n=n, generator=g(), nodes=4).value,
        "information": physics.mutual_information(law, t, n, g()).value,
        "clones": physics.clone_probability(known, t, n=n, generator=g()).value,
        "collapse": physics.collapse_time(law, 50, samples=n),
        "paths": physics.path_kl(net, law, n=n, generator=g(), nodes=4).score.value.detach(),
        "weighted": physics.weighted_paths(net, law, log_snr(SDE, 4), n, g()).log_ratio.detach(),
    }
    return same, drawn


@exercise
def diagnosis(device):
    from scoresde.diagnosis import climb, contributions, distances, exact_bias

    law = pair(device)
    ladder = climb(network(device), law, Ancestral(), log_snr(SDE, 4), n=32, fine=8)
    split = contributions(ladder, repeats=4)
    near, whole = distances(ladder)
    drawn = {name: torch.stack([part.value for part in s.parts]) for name, s in split.items()}
    gaussian = GaussianMixture([1.0], [[0.5]], [[[0.2]]], SDE).to(device)
    y = Measurement(Mask(torch.tensor([True], device=device)), points(device, 1, 1), 0.2)
    tempered, ts = Tempered(gaussian, 0.5), log_snr(SDE, 4)
    same = {
        "bias": exact_bias(DDIM(), gaussian, ts).w2,
        "tempered": moments(Ancestral(), tempered, ts)[1],
        "replaced": moments(Replacement(), Observed(gaussian, y), ts)[1],
    }
    return same, drawn | {"near": near, "whole": whole}


@exercise
def training(device):
    from scoresde.training import accuracy, fit, fit_classifier

    law, x0 = pair(device), points(device, 64, 2)
    net = network(device, classes=3)
    settings = {"steps": 3, "batch": 16, "every": 1}
    fitted = fit(net, x0, labels=labels(device, 64), label_dropout=0.1, **settings)
    exact = fit(network(device), law, law=law, **settings)
    classifier = _classifier(device)
    taught = fit_classifier(classifier, SDE, x0, labels(device, 64), **settings)
    right = accuracy(taught.classifier, SDE, x0, labels(device, 64), torch.tensor([0.2]))
    losses = lambda found: torch.tensor([row["loss"] for row in found.history])
    return {}, {
        "fit": losses(fitted),
        "weights": next(fitted.denoiser.parameters()).detach(),
        "excess": exact.by_time.excess,
        "classifier": losses(taught),
        "accuracy": right,
    }


@exercise
def demos(device):
    """What the demonstrations compute; their pages are tested apart."""
    from scoresde.demos import points as flat
    from scoresde.demos import trajectories as paths

    torch.set_default_dtype(torch.float32)  # that of a demonstration's reader
    law = ring(SDE, k=3).to(device)
    classifier = types.SimpleNamespace(classifier=_classifier(device))
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(flat, "POOL", 512):
        demo = flat.PointsDemo(out=Path(folder), steps=2, samples=32, device=str(device))
        truth = flat.Truth.of_law(law, 32)
        fitted = demo._train(law, truth, flat.UniformTimes(), "A")
    entries = flat.view_entries(SDE, (2,), (3,))
    scores = demo._measure(fitted.denoiser, entries, truth, "A")
    guided = demo._guide(fitted.denoiser, law, {"noisy": classifier, "clean": classifier})
    orbits = Kepler(length=8)(40, host()).float()
    plans = paths.TrajectoriesDemo(steps=2, samples=24, out=Path(folder))
    with mock.patch.object(paths, "EVALUATIONS", 6), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = fit_paths(orbits, steps=1, device=device, batch=8).denoiser
        made, _ = plans._generate(model, (4, 8, 2))
        answer = plans._answer(model, None, orbits[0].double(), [0, 4], 0.1)
    torch.set_default_dtype(torch.float64)
    return {}, {
        "scores": torch.tensor([score.sliced_w2 for score in scores]),
        "shares": torch.tensor(list(guided.share.values())),
        "paths": made,
        "plans": answer.paths,
    }

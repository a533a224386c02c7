"""Errors told apart: what each rung adds where it is known, and what holds by construction."""

import pytest
import torch

from scoresde import (
    DDIM,
    VPSDE,
    Adams,
    EpsDenoiser,
    EulerMaruyama,
    GaussianMixture,
    log_snr,
    moments,
    optimized,
)
from scoresde.data import checkerboard
from scoresde.diagnosis import CAUSES, climb, contributions, distances, observables
from scoresde.metrics import sliced_wasserstein

SDE = VPSDE()
GAUSS = GaussianMixture([1.0], [[0.8]], [[[0.25]]], SDE)
GM1 = GaussianMixture([0.6, 0.4], [[1.5], [-1.0]], [[[0.09]], [[0.25]]], SDE)


def network(law, shift=0.0):
    """A network whose x0_hat is off by a known amount: eps = eps* - (alpha/sigma) shift."""
    net = torch.nn.Module()
    net.forward = lambda x, t: law.eps(x, t) - SDE.alpha(t) / SDE.sigma(t) * shift
    return EpsDenoiser(net, SDE)


@pytest.mark.parametrize("sampler", [DDIM(), EulerMaruyama()])
def test_the_parts_add_up_to_the_whole(sampler):
    ladder = climb(network(GM1, 0.1), GM1, sampler, log_snr(SDE, 8), n=400, fine=60)
    found = contributions(ladder, repeats=5)
    assert all(len(split.parts) == len(CAUSES) == 4 for split in found.values())
    total = lambda name: sum(float(part.value) for part in found[name].parts)
    for name, split in found.items():
        assert total(name) == pytest.approx(float(split.total.value), abs=1e-12)
    first, last = ladder.rungs[0], ladder.rungs[-1]
    assert total("E[x1]") == pytest.approx(float(last.mean() - first.mean()), abs=1e-12)
    nll = float(GM1.log_prob(first).mean() - GM1.log_prob(last).mean())
    assert total("-log p (nats)") == pytest.approx(nll, abs=1e-10)
    w2 = float(sliced_wasserstein(first, last).square())
    assert total("squared sliced W2") == pytest.approx(w2, abs=1e-12)
    assert total("weight of mode 0") == pytest.approx(-total("weight of mode 1"), abs=1e-12)
    near, whole = distances(ladder)
    assert float(whole) <= float(near.sum()) + 1e-12


def test_causes_that_are_absent_add_nothing():
    """A perfect network, a grid down to t = 0: no truncation, no learning error."""
    ladder = climb(network(GM1), GM1, Adams(4, 4), optimized(SDE, 400), n=500, fine=400)
    near, _ = distances(ladder)
    assert float(near[0]) == 0.0 and float(near[2]) < 1e-7 and float(near[3]) < 1e-7
    assert float(near[1]) > 1e-4  # the prior is not p_1


def test_a_known_error_of_learning():
    """x0_hat shifted by 0.1 everywhere: the flow of N(m, v) ends shifted by what its ODE says."""
    model = network(GAUSS, 0.1)
    ladder = climb(model, GAUSS, DDIM(), log_snr(SDE, 20), n=2000, fine=2000, last="stop")
    learned = contributions(ladder, repeats=5)["E[x1]"].parts[CAUSES.index("learning")]
    # alpha delta D enters a linear equation: the shift is that of DDIM on a fine grid
    ts, shift = log_snr(SDE, 4000), torch.zeros(())
    for row in DDIM().table(SDE, ts).rows():
        t = torch.tensor(row.t)
        gain = SDE.alpha(t) * 0.25 / (SDE.alpha(t) ** 2 * 0.25 + SDE.sigma2(t))
        shift = (row.a + row.b[0] * gain) * shift + row.b[0] * 0.1
    assert float(learned.value) == pytest.approx(float(shift), rel=2e-3)


def test_a_known_error_of_discretisation():
    """DDIM on Gaussian data: the variance that its moments lose."""
    ts = log_snr(SDE, 10)
    ladder = climb(network(GAUSS), GAUSS, DDIM(), ts, n=4000, fine=500, last="stop")
    parts = contributions(ladder, repeats=20)
    start = (torch.zeros(1), torch.eye(1))
    coarse, fine = (
        m[-1] ** 2 + v[-1, 0]
        for m, v in (
            moments(s, GAUSS, g, start) for s, g in ((DDIM(), ts), (DDIM(), log_snr(SDE, 4000)))
        )
    )
    found = parts["E[x1^2]"].parts[CAUSES.index("discretisation")]
    assert abs(float(found.value - (coarse - fine))) < 5 * float(found.stderr) + 1e-4


def test_a_sampler_with_noise_is_driven_by_one_path():
    """On the fine grid itself there is nothing left to discretise: the same path, the same end."""
    ts = log_snr(SDE, 64)
    ladder = climb(network(GM1), GM1, EulerMaruyama(), ts, n=200, fine=64)
    near, _ = distances(ladder)
    assert float(near[3]) < 1e-10 and float(near[2]) < 1e-9


def test_the_bootstrap_takes_two():
    ladder = climb(network(GM1), GM1, DDIM(), log_snr(SDE, 2), n=4, fine=2)
    with pytest.raises(ValueError, match="repeats >= 2"):
        contributions(ladder, repeats=1)


def test_only_a_law_with_tails_is_asked_for_its_density():
    assert "-log p (nats)" in observables(GM1)
    boxes = observables(checkerboard(SDE))
    assert boxes.keys() == {"E[x1]", "E[x1^2]", "E[x2]", "E[x2^2]"}


def test_the_law_must_be_that_of_the_model():
    with pytest.raises(ValueError, match="own data and process"):
        climb(
            network(GM1),
            GaussianMixture([1.0], [[0.0]], [[[1.0]]], VPSDE(1.0, 5.0)),
            DDIM(),
            log_snr(SDE, 4),
        )

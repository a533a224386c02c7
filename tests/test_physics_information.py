"""Entropy, Fisher and mutual information against published numbers, closed forms, derivatives."""

import math

import pytest
import torch

from scoresde import (
    VESDE,
    VPSDE,
    CosineVPSDE,
    GaussianMixture,
    KarrasSDE,
    StraightPath,
    SubVPSDE,
    X0Denoiser,
)
from scoresde.data import checkerboard, gm1, gm2
from scoresde.physics.information import (
    entropy,
    entropy_rate,
    fisher_information,
    information_rate,
    kl_to_prior,
    mutual_information,
)

SDES = [VPSDE(), CosineVPSDE(), SubVPSDE(), VESDE(0.01, 5.0), KarrasSDE(sigma_max=5.0)]
each_sde = pytest.mark.parametrize("sde", SDES, ids=lambda sde: type(sde).__name__)
LAWS = {"one_d": gm1, "GM2": gm2}
SPECTRUM = torch.tensor([0.04, 0.3, 1.0, 2.5, 9.0], dtype=torch.float64)


def close(actual, expected, rtol=1e-12, atol=0.0):
    torch.testing.assert_close(actual, torch.as_tensor(expected), rtol=rtol, atol=atol)


def within(estimate, truth, sigmas=5):
    """Check a Monte Carlo estimate, and that its error is neither nothing nor everything."""
    assert ((estimate.value - truth).abs() <= sigmas * estimate.stderr).all(), (estimate, truth)
    assert (estimate.stderr > 0).all()


def slope(function, t, h=1e-4):
    """Give the derivative by a central difference of fourth order."""
    at = lambda k: function(t + k * h)
    return (8 * (at(1) - at(-1)) - (at(2) - at(-2))) / (12 * h)


def turned_gaussian(sde, mean=0.5):
    """Make one Gaussian in five dimensions, its axes not those of space."""
    turn = torch.linalg.qr(torch.randn(5, 5)).Q
    cov = turn @ SPECTRUM.diag() @ turn.mT
    return GaussianMixture(torch.ones(1), torch.full((1, 5), mean), cov[None], sde)


def network(law):
    """Hide a law behind a network: what is left is x0_hat, without density."""
    return X0Denoiser(law, law.sde)


# ---- published numbers ------------------------------------------------------------------------
@pytest.mark.parametrize("name", LAWS)
def test_p08_entropy_fisher_information_and_kl(reference, name):
    rows, law = reference["P08"]["expected"][name], LAWS[name](VPSDE())
    t = torch.tensor([row["t"] for row in rows])
    column = lambda key: torch.tensor([row[key] for row in rows])
    close(entropy(law, t).value, column("entropy"), 1e-11)
    close(fisher_information(law, t).value, column("fisher_information"), 1e-8)
    assert float(entropy(law, t).stderr.abs().max()) == 0
    if name == "one_d":
        close(kl_to_prior(law, t).value, column("KL_to_standard_normal"), 1e-11, 1e-14)
        close(entropy_rate(law, t).value, column("entropy_rate_dH_dt"), 1e-9)


@pytest.mark.parametrize("name", LAWS)
def test_p08_the_loss_floor_is_a_rate_of_information(reference, name):
    rows, law = reference["P08"]["expected"][name], LAWS[name](VPSDE())
    t = torch.tensor([row["t"] for row in rows])
    floor = torch.tensor([row["eps_loss_floor"] for row in rows])
    sde = law.sde
    close(information_rate(law, t).value, -sde.g2(t) / (2 * sde.sigma2(t)) * floor, 1e-6, 1e-9)


# ---- one Gaussian: closed forms in five dimensions ----------------------------------------------
@each_sde
def test_one_gaussian_in_five_dimensions_is_exact(sde):
    t, mean = torch.tensor([[0.02, 0.3], [0.6, 0.9]]), 0.5
    law = turned_gaussian(sde, mean)
    alpha2, sigma2 = sde.alpha(t).square(), sde.sigma2(t)
    v = alpha2[..., None] * SPECTRUM + sigma2[..., None]
    std2 = torch.tensor([[sde.prior(float(s)).std ** 2 for s in row] for row in t])
    snr = (alpha2 / sigma2)[..., None]
    quadratic = (v.sum(-1) + 5 * alpha2 * mean**2) / std2
    close(entropy(law, t).value, 0.5 * (2 * math.pi * math.e * v).log().sum(-1), 1e-11)
    close(fisher_information(law, t).value, (1 / v).sum(-1), 1e-11)
    kl = 0.5 * (quadratic - 5 + 5 * std2.log() - v.log().sum(-1))
    close(kl_to_prior(law, t).value, kl, 1e-9, 1e-11)
    close(mutual_information(law, t).value, 0.5 * (snr * SPECTRUM).log1p().sum(-1), 1e-9, 1e-11)
    assert entropy(law, t).stderr.shape == t.shape
    assert not entropy(law, t).stderr.any()


# ---- identities ---------------------------------------------------------------------------------
@each_sde
def test_de_bruijn_the_entropy_changes_at_the_stated_rate(sde):
    law, t = gm1(sde), torch.tensor([0.05, 0.2, 0.5, 0.8])
    found = slope(lambda t: entropy(law, t).value, t)
    close(entropy_rate(law, t).value, found, 1e-7, 1e-9)


@each_sde
def test_i_mmse_the_information_falls_at_the_stated_rate(sde):
    law, t = gm1(sde), torch.tensor([0.05, 0.2, 0.5, 0.8])
    found = slope(lambda t: mutual_information(law, t).value, t)
    close(information_rate(law, t).value, found, 2e-6, 1e-9)


def test_information_of_two_far_points_is_one_bit():
    law = GaussianMixture.isotropic(
        torch.ones(2), torch.tensor([[-3.0], [3.0]]), 0.0, StraightPath()
    )
    close(mutual_information(law, torch.tensor(0.05)).value, math.log(2), 1e-9)


# ---- Monte Carlo and networks -----------------------------------------------------------------
def test_samples_of_a_law_without_quadrature_agree_within_their_error():
    """A mixture on the line times two Gaussians: in three dimensions, but with exact answers."""
    sde, t = VPSDE(), torch.tensor([0.05, 0.3])
    line = gm1(sde)
    means = torch.cat([line.means, torch.zeros(2, 2)], 1)
    covs = torch.stack([torch.diag(torch.tensor([c, 0.5, 2.0])) for c in (0.09, 0.25)])
    law = GaussianMixture(line.weights, means, covs, sde)
    v = sde.alpha(t).square()[:, None] * torch.tensor([0.5, 2.0]) + sde.sigma2(t)[:, None]
    g = torch.Generator().manual_seed(1)
    flat = 0.5 * (2 * math.pi * math.e * v).log().sum(1)
    within(entropy(law, t, 20000, g), entropy(line, t).value + flat)
    fisher = fisher_information(line, t).value + (1 / v).sum(1)
    within(fisher_information(law, t, None, 20000, g), fisher)
    rate = entropy_rate(line, t).value + (sde.f(t)[:, None] + 0.5 * sde.g2(t)[:, None] / v).sum(1)
    within(entropy_rate(law, t, None, 20000, g), rate)


def test_the_stated_error_is_the_scatter():
    law, t = turned_gaussian(VPSDE()), torch.tensor([0.2])
    means = torch.cat([law.means, law.means + 1])
    double = GaussianMixture(torch.ones(2), means, law.covs.expand(2, 5, 5), law.sde)
    g = torch.Generator().manual_seed(2)
    runs = [entropy(double, t, 500, g) for _ in range(200)]
    scatter = torch.stack([r.value for r in runs]).std()
    stated = torch.stack([r.stderr for r in runs]).mean()
    assert abs(float(scatter / stated) - 1) < 5 / math.sqrt(2 * 200)


def test_a_network_and_its_data_give_what_the_law_gives():
    law, t = gm2(VPSDE()), torch.tensor([0.05, 0.3])
    g = torch.Generator().manual_seed(3)
    x0 = law.sample(20000, generator=g)
    net = network(law)
    within(fisher_information(net, t, x0, generator=g), fisher_information(law, t).value)
    within(entropy_rate(net, t, x0, generator=g), entropy_rate(law, t).value)
    within(information_rate(net, t, x0, generator=g), information_rate(law, t).value)


def test_a_law_without_quadrature_is_sampled():
    """The checkerboard at t -> 0: uniform on half of a square of side 2, so H = log 2."""
    law = checkerboard(VPSDE(), 2, 1.0)
    area = float((law.hi - law.lo).prod(1).sum())
    found = entropy(law, torch.tensor([1e-9]), 4096)
    close(found.value, [math.log(area)], 0, 5 * float(found.stderr[0]) + 1e-2)


# ---- doors ----------------------------------------------------------------------------------
def test_what_cannot_be_is_refused():
    law = gm1(VPSDE())
    with pytest.raises(TypeError, match="expected data x0 beside a X0Denoiser"):
        fisher_information(network(law), torch.tensor([0.1]))
    with pytest.raises(TypeError, match="expected data x0"):
        information_rate(network(law), torch.tensor([0.1]))
    with pytest.raises(ValueError, match=r"within \[0, 1\]"):
        entropy(law, torch.tensor([1.1]))
    with pytest.raises(ValueError, match="above 0, got 0"):
        fisher_information(network(law), torch.tensor([0.0]), law.sample(9))
    with pytest.raises(ValueError, match="n >= 2"):
        fisher_information(network(law), torch.tensor([0.1]), law.sample(1))

"""Speciation, clones, collapse and memorisation: published numbers and closed forms."""

import math

import pytest
import torch

from scoresde import DDIM, VESDE, VPSDE, CosineVPSDE, GaussianMixture, X0Denoiser, quadratic
from scoresde.data import checkerboard, gm1, ring, two_modes
from scoresde.distributions import Empirical
from scoresde.physics import memorisation
from scoresde.physics.critical import clone_probability, collapse_time, speciation_time
from scoresde.physics.information import mutual_information

CRITERIA = ["covariance", "density", "drift"]


def close(actual, expected, rtol=1e-12, atol=0.0):
    actual = torch.as_tensor(actual)
    torch.testing.assert_close(actual, torch.as_tensor(expected).to(actual), rtol=rtol, atol=atol)


def p12(sde=None):
    """Give the two Gaussians +-2 of variance 1/4."""
    return two_modes(sde or VPSDE(), 4.0, 0.5)


def gaussian(spectrum, sde=None):
    spectrum = torch.as_tensor(spectrum)
    return GaussianMixture(
        torch.ones(1), torch.zeros(1, len(spectrum)), spectrum.diag()[None], sde or VPSDE()
    )


# ---- speciation -------------------------------------------------------------------------------
def test_p12_three_criteria_three_times(reference):
    expected, law = reference["P12"]["expected"], p12()
    close(speciation_time(law), expected["t_S"], 1e-11)
    close(speciation_time(law, "density"), expected["t_density_bimodal"], 1e-11)
    close(speciation_time(law, "drift"), 0.45311, 0, 5e-6)


@pytest.mark.parametrize("sde", [VPSDE(), CosineVPSDE()])
@pytest.mark.parametrize(("m", "c"), [(2.0, 0.25), (3.0, 1.0)])
def test_every_criterion_in_closed_form(sde, m, c):
    law = two_modes(sde, 2 * m, math.sqrt(c))
    abar = lambda criterion: float(sde.alpha(speciation_time(law, criterion)) ** 2)
    assert abar("covariance") == pytest.approx(1 / (m * m + c), rel=1e-9)
    assert abar("density") == pytest.approx(1 / (1 + m * m - c), rel=1e-9)
    a = abar("drift")
    v = a * c + 1 - a
    assert 0.5 - 1 / v + a * m * m / v**2 == pytest.approx(0, abs=1e-9)


def test_the_density_criterion_holds_for_other_processes():
    """Under a variance-exploding one the peaks merge where sigma^2 = m^2 - c."""
    sde = VESDE(0.01, 10.0)
    t = speciation_time(p12(sde), "density")
    close(sde.sigma2(t), 4 - 0.25, 1e-9)
    with pytest.raises(TypeError, match="variance-preserving"):
        speciation_time(p12(sde))


@pytest.mark.parametrize("criterion", CRITERIA)
def test_a_network_and_its_data_split_where_their_law_does(criterion):
    law = ring(VPSDE())
    x0 = torch.randn(50, 2)
    mean, cov = law.marginal()
    # data with exactly the moments of the law
    x0 = x0 - x0.mean(0)
    x0 = x0 @ torch.linalg.inv(torch.linalg.cholesky(x0.T.cov(correction=0))).T
    x0 = mean + x0 @ torch.linalg.cholesky(cov).T
    found = speciation_time(X0Denoiser(law, law.sde), criterion, x0)
    close(found, speciation_time(law, criterion), 1e-9)


def test_the_ring_is_a_mexican_hat():
    """Many modes on a circle of radius r, isotropic: tr J/2 = (alpha r)^2/(2 v^2) - 1/v = 0."""
    law = ring(VPSDE(), 64, 1.5, 0.1)
    t = speciation_time(law, "density")
    alpha2 = law.sde.alpha(t) ** 2
    close(0.01 * alpha2 + law.sde.sigma2(t), alpha2 * 1.5**2 / 2, 1e-9)


# ---- clones -----------------------------------------------------------------------------------
def test_p12_clones(reference):
    law = p12()  # kappa = alpha^2 m^2/v is one where the density splits
    found = clone_probability(law, speciation_time(law, "density"))
    close(found.value, reference["P12"]["expected"]["clone_probability_kappa_1"], 1e-12)


@pytest.mark.parametrize(("kappa", "phi"), [(0.5, 0.67506), (2.0, 0.88449), (4.0, 0.96570)])
def test_clones_at_other_distances(kappa, phi):
    """With c = 1, v = 1 at all times, so alpha = sqrt(kappa)/m."""
    law = two_modes(VPSDE(), 2 * 3.0, 1.0)
    t = law.sde.time_of_log_snr(torch.tensor(math.log(kappa / (9 - kappa))))
    close(clone_probability(law, t).value, phi, 0, 5e-6)


def test_clones_at_the_ends():
    """From sum_k w_k^2 in noise (0.52 for 0.6 and 0.4) to the overlap of the data themselves."""
    law = GaussianMixture.isotropic([0.6, 0.4], [[2.0], [-2.0]], 0.2, VPSDE())
    close(clone_probability(law, torch.tensor([1e-4, 1.0])).value, [1.0, 0.52], 0, 3e-4)


def test_components_of_one_class_count_as_one():
    law = p12()
    four = GaussianMixture(
        torch.ones(4), law.means.repeat(2, 1), law.covs.repeat(2, 1, 1), law.sde
    )
    t, classes = torch.tensor([0.2, 0.5]), torch.tensor([0, 1, 0, 1])
    close(clone_probability(four, t, classes).value, clone_probability(law, t).value)
    close(2 * clone_probability(four, t).value, clone_probability(law, t).value)


def test_clones_that_are_walked():
    """Two draws of the class from p(c | x_t) agree as often as phi says."""
    law, t, g = gm1(VPSDE()), torch.tensor(0.3), torch.Generator().manual_seed(0)
    r = law.posterior(law.sample(100_000, t, g), t)
    two = r.multinomial(2, replacement=True, generator=g)
    same = (two[:, 0] == two[:, 1]).double()
    error = float(same.std()) / math.sqrt(len(same))
    assert abs(float(same.mean()) - float(clone_probability(law, t).value)) < 5 * error


# ---- collapse ---------------------------------------------------------------------------------
@pytest.mark.parametrize(("d", "n", "c"), [(8, 2000, 1.0), (16, 2000, 0.5), (2, 100, 3.0)])
def test_the_collapse_time_of_an_isotropic_gaussian(d, n, c):
    law = gaussian(torch.full((d,), c))
    big_b = -2 * law.sde.log_alpha(collapse_time(law, n))
    close(big_b, math.log(1 + c / (n ** (2 / d) - 1)), 1e-9)


def test_the_collapse_time_of_any_gaussian_and_of_a_mixture():
    law = gaussian([0.1, 1.0, 4.0])
    t = collapse_time(law, 500)
    snr = law.sde.log_snr(t).exp()
    close(0.5 * (snr * torch.tensor([0.1, 1.0, 4.0])).log1p().sum(), math.log(500), 1e-9)
    mixture = gm1(VPSDE())
    t = collapse_time(mixture, 50)
    close(mutual_information(mixture, t).value, math.log(50), 1e-9)
    mean, cov = mixture.marginal()
    gauss = GaussianMixture(torch.ones(1), mean[None], cov[None], mixture.sde)
    assert t < collapse_time(gauss, 50)  # a Gaussian has the most information


@pytest.mark.parametrize(("d", "n", "mean"), [(8, 2000, 0.579), (16, 2000, 0.571)])
def test_at_the_collapse_a_point_is_as_likely_its_own_as_not(d, n, mean):
    sde, g = VPSDE(), torch.Generator().manual_seed(1)
    law = Empirical(torch.randn(n, d, generator=g), sde)
    big_b = math.log(1 + 1 / (n ** (2 / d) - 1))
    t = sde.time_of_log_snr(-torch.tensor([big_b, big_b / 4]).expm1().log())
    found = clone_probability(law, t, n=2000, generator=g)
    assert abs(float(found.value[0]) - mean) < 5 * float(found.stderr[0]) < 0.06
    assert 0.97 < float(found.value[1]) <= 1
    # the same by its meaning: the responsibility of the point that x_t came from
    z = torch.randn(law.points.shape, generator=g)
    own = law.posterior(sde.perturb(law.points, t[0], z), t[0]).diagonal()
    error = math.hypot(float(own.std()) / math.sqrt(n), float(found.stderr[0]))
    assert abs(float(own.mean() - found.value[0])) < 5 * error


# ---- the law of n points ------------------------------------------------------------------------
def test_the_empirical_law_is_a_mixture_of_point_masses():
    sde, points = VPSDE(), torch.randn(7, 2, 3)
    law = Empirical(points, sde)
    truth = GaussianMixture.isotropic(torch.ones(7), points, 0.0, sde)
    x = torch.randn(5, 2, 3)
    for t in (torch.tensor(0.3), torch.linspace(0.1, 0.9, 5)):
        for name in ("__call__", "score", "eps", "velocity", "log_prob", "posterior"):
            close(getattr(law, name)(x, t), getattr(truth, name)(x, t), 1e-9, 1e-10)


def test_its_samples_are_noised_points():
    law, t = Empirical(torch.tensor([[-1.0], [2.0]]), VPSDE()), torch.tensor(0.3)
    assert set(law.sample(50).flatten().tolist()) == {-1.0, 2.0}
    x = law.sample(100_000, t)
    truth = GaussianMixture.isotropic(torch.ones(2), law.points, 0.0, law.sde).marginal(t)
    error = math.sqrt(float(truth[1]) / len(x))
    assert abs(float(x.mean() - truth[0])) < 5 * error
    close(x.var(), float(truth[1]), 5 * math.sqrt(2 / len(x)))


def test_it_ends_on_a_training_point_and_is_found_out():
    law = Empirical(ring(VPSDE()).sample(16), VPSDE())
    x = DDIM()(law, torch.randn(200, 2), quadratic(300, 1.0, 0.0))
    found = memorisation(x, law.points)
    close(x, law.points[found.nearest], 0, 1e-9)
    assert float(found.share.value) == 1
    assert float(found.distance.max()) < 1e-9


# ---- memorisation ---------------------------------------------------------------------------
@pytest.mark.parametrize("d", [1, 2, 3])
def test_the_ratio_of_new_points_is_uniform_to_the_power_of_the_dimension(d):
    g = torch.Generator().manual_seed(d)
    train, fresh = torch.rand(3000, d, generator=g), torch.rand(3000, d, generator=g)
    inside = fresh[((fresh > 0.1) & (fresh < 0.9)).all(1)]  # edges have points on one side only
    found = memorisation(inside, train, 0.5)
    u = found.ratio**d
    error = 1 / math.sqrt(len(u))
    assert abs(float(u.mean()) - 1 / 2) < 5 * error / math.sqrt(12)
    assert abs(float(u.square().mean()) - 1 / 3) < 5 * error * math.sqrt(4 / 45)
    assert found.expected == 0.5**d
    assert abs(float(found.share.value) - 0.5**d) < 5 * float(found.share.stderr)


def test_copies_among_new_points_are_counted():
    g = torch.Generator().manual_seed(0)
    train, fresh = torch.rand(2000, 8, generator=g), torch.rand(300, 8, generator=g)
    copies = train[:100] + 1e-3
    found = memorisation(torch.cat([copies, fresh]), train)
    close(found.share.value, 0.25, 0, 0.01)
    assert found.nearest[:100].tolist() == list(range(100))
    close(found.distance[:100], 1e-3 * math.sqrt(8) * torch.ones(100), 1e-9)


# ---- doors ----------------------------------------------------------------------------------
def test_what_cannot_be_is_refused():
    narrow, law = gaussian([0.5]), gm1(VPSDE())
    with pytest.raises(ValueError, match=r"variance above 1, got 0\.5"):
        speciation_time(narrow)
    with pytest.raises(ValueError, match="a single class"):
        speciation_time(narrow, "density")
    with pytest.raises(ValueError, match='"covariance", "density" or "drift", got \'energy\''):
        speciation_time(law, "energy")
    with pytest.raises(TypeError, match="expected data x0 beside a X0Denoiser"):
        speciation_time(X0Denoiser(law, law.sde))
    with pytest.raises(TypeError, match="expected a distribution with classes, got Boxes"):
        clone_probability(checkerboard(VPSDE()), torch.tensor(0.5))
    with pytest.raises(ValueError, match="n >= 2 points, got 1"):
        collapse_time(law, 1)
    with pytest.raises(ValueError, match="to cross log 9"):
        collapse_time(GaussianMixture.isotropic(torch.ones(2), [[-1.0], [1.0]], 0.0, VPSDE()), 9)
    with pytest.raises(ValueError, match=r"got \(3, 2\) and \(5, 3\)"):
        memorisation(torch.zeros(3, 2), torch.zeros(5, 3))
    with pytest.raises(ValueError, match="point masses have no density"):
        Empirical(torch.zeros(3, 2), VPSDE()).log_prob(torch.zeros(1, 2))
    with pytest.raises(ValueError, match="expected points"):
        Empirical(torch.zeros(3), VPSDE())

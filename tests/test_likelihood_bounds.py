"""The continuous-time bound: tight with the true score, and a bound of the SDE, not of the ODE."""

import math

import pytest
import torch

from scoresde.chain import DDPMChain
from scoresde.data import gm2
from scoresde.denoiser import Affine, ScoreDenoiser
from scoresde.distributions import GaussianMixture
from scoresde.likelihood import Adaptive, elbo, log_likelihood
from scoresde.samplers import EulerMaruyama, PFEuler, moments
from scoresde.sde import VESDE, VPSDE, CosineVPSDE, KarrasSDE, StraightPath, SubVPSDE

SDE = VPSDE()
PROCESSES = [VPSDE(), SubVPSDE(), CosineVPSDE(), VESDE(), KarrasSDE(), StraightPath()]
TIGHT = Adaptive(rtol=1e-8, atol=1e-8)


def gaussian(c=0.25, m=0.0, sde=SDE):
    return GaussianMixture([1.0], [[m]], [[[c]]], sde)


def cubature(law):
    """Points x0 and noise z whose mean is the exact one of anything quadratic in (x0, z)."""
    mean, cov = law.marginal()
    x0 = mean + cov[0].sqrt() * torch.tensor([[-1.0], [1.0]])
    return x0, torch.ones(1, 2, 1)


def mis_scaled(law, delta):
    return ScoreDenoiser(lambda x, t: (1 + delta) * law.score(x, t), law.sde)


def entropy(law):
    return 0.5 * float((2 * math.pi * math.e * law.spectrum).log())


def kl_to_prior(law):
    sde = law.sde
    t = torch.tensor(sde.t_max)
    (mean, cov), std = law.marginal(t), sde.prior(sde.t_max).std
    ratio = cov[0, 0] / std**2
    return 0.5 * float(ratio + (mean[0] / std) ** 2 - 1 - ratio.log())


@pytest.mark.parametrize("sde", PROCESSES)
@pytest.mark.parametrize(("c", "m"), [(0.25, 0.8), (2.0, -1.0)])
def test_no_gap_with_the_true_score(sde, c, m):
    """G10: the mean over the data is H(p_0) + KL(p_T || prior)."""
    law = gaussian(c, m, sde)
    x0, z = cubature(law)
    found = elbo(law, x0, z=z)
    expected = entropy(law) + kl_to_prior(law)
    assert float(found.total.mean()) == pytest.approx(expected, abs=1e-9)


def test_g10_and_the_chain_of_p07(reference):
    """The figure of G10; a chain with the optimal variance has the same bound at every N."""
    item = reference["P07"]
    law = gaussian(item["inputs"]["c"], item["inputs"]["m"])
    x0, z = cubature(law)
    found = float(elbo(law, x0, z=z).total.mean())
    assert found == pytest.approx(0.7258051723467, abs=1e-10)
    for rows in item["expected"]["vlb"].values():
        expected = rows["sigma2=optimal"]["total_nats"]
        assert found == pytest.approx(expected, rel=item["rtol"], abs=item["atol"])


def test_the_chain_tends_to_it():
    """N gap -> (1/4) int beta^2 (1 - v)^2/v^2 dt, the VLB with variance beta above the ELBO."""
    law = gaussian(0.25, 0.8)
    x0, z = cubature(law)
    limit, n = float(elbo(law, x0, z=z).total.mean()), 400
    chain = DDPMChain.from_sde(SDE, n)
    errors = torch.stack([law.mmse(t) for t in chain.grid().flip(0)[1:]])
    vlb = float(chain.vlb_terms(errors, torch.tensor(0.25 + 0.8**2), 1).total)
    assert n * (vlb - limit) == pytest.approx(1.0919172, rel=1e-2)


def test_k_constants_of_p07(reference):
    """N (V_N - c) of Euler-Maruyama and of Euler on the ODE, by Richardson from the moments."""
    item = reference["P07"]
    law = gaussian(item["inputs"]["c"], item["inputs"]["m"])
    for sampler, name in ((EulerMaruyama(), "K_EM"), (PFEuler(), "K_EulerODE")):
        f = []
        for n in (640, 1280, 2560):
            ts = torch.linspace(1, 0, n + 1)
            covs = moments(sampler, law, ts)[1]
            f.append(n * (float(covs[-1]) - item["inputs"]["c"]))
        richardson = (f[0] - 6 * f[1] + 8 * f[2]) / 3
        assert richardson == pytest.approx(item["expected"][name], rel=1e-4)


class TestOfWhichModel:
    @pytest.mark.parametrize("row", range(4))
    def test_p11(self, reference, row):
        """Mis-scaled score: the bound is the path KL, above the SDE's KL, not above the ODE's."""
        item = reference["P11"]
        expected, law = item["expected"][row], gaussian(item["inputs"]["c"])
        wrong = mis_scaled(law, expected["delta"])
        x0, z = cubature(law)
        bound = float(elbo(wrong, x0, z=z, t_eps=1e-12).total.mean()) - entropy(law)
        assert bound == pytest.approx(expected["path_KL_upper_bound"], abs=1e-7)
        assert bound > expected["KL_p0_SDE"]
        ode = -float(log_likelihood(wrong, x0, TIGHT, t_eps=1e-9).mean()) - entropy(law)
        assert ode == pytest.approx(expected["KL_p0_ODE"], abs=1e-6, rel=1e-6)
        assert ode > bound

    def test_the_variance_of_the_ode(self, reference):
        """G9: the ODE's model is N(0, V_ODE), so log p is quadratic with that curvature."""
        item = reference["P11"]
        for expected in item["expected"][:2]:
            wrong = mis_scaled(gaussian(item["inputs"]["c"]), expected["delta"])
            x = torch.tensor([[0.0], [0.5]])
            log_p = log_likelihood(wrong, x, TIGHT, t_eps=1e-9)
            v = expected["V_ODE"]
            assert float(log_p[0] - log_p[1]) == pytest.approx(0.125 / v, rel=1e-5)
            assert float(log_p[0]) == pytest.approx(-0.5 * math.log(2 * math.pi * v), abs=1e-5)


class TestDraws:
    def test_monte_carlo(self):
        """Drawn z and data: the entropy of a mixture within five standard errors."""
        law = gm2(SDE)
        x0 = law.sample(1000)
        found = elbo(law, x0, nodes=32, draws=2)
        gap = found.total + law.log_prob(x0)
        error = float(gap.std()) / math.sqrt(1000)
        assert error < 0.03
        assert abs(float(gap.mean())) < 5 * error + 1e-4
        torch.testing.assert_close(found.total, found.prior + found.path)

    def test_a_bound_at_each_point_under_a_wrong_score(self):
        """The SDE of a mis-scaled score on Gaussian data has a known law: bounded pointwise."""
        delta, law = 0.3, gaussian()
        x0 = torch.linspace(-1.5, 1.5, 7)[:, None]
        total = elbo(mis_scaled(law, delta), x0, z=torch.ones(1, 7, 1), t_eps=1e-12).total
        v = 0.15625000105993697  # P11
        log_p = -0.5 * (x0[:, 0] ** 2 / v + math.log(2 * math.pi * v))
        assert bool((total > -log_p).all())

    def test_standard_error(self):
        law, x0 = gm2(SDE), torch.zeros(1, 2)
        runs = torch.stack([elbo(law, x0, nodes=8, draws=4).total for _ in range(50)])
        claimed = float(elbo(law, x0, nodes=8, draws=200).standard_error) * math.sqrt(200 / 4)
        # a standard deviation of 50 values is known to 1/sqrt(2 50) of itself
        assert float(runs.std()) == pytest.approx(claimed, rel=0.5)
        assert elbo(law, x0, nodes=4, draws=1).standard_error.isnan().all()

    def test_units(self):
        law = gaussian()
        x0, z = cubature(law)
        plain = elbo(law, x0, z=z).total
        law.affine = Affine(torch.tensor([3.0]), torch.tensor([10.0]))
        scaled = elbo(law, law.affine.inverse(x0), z=z).total
        torch.testing.assert_close(scaled, plain + math.log(10))

    def test_seed_and_float32(self):
        law, x0 = gm2(SDE), torch.randn(4, 2)
        seeded = lambda seed: elbo(law, x0, 8, 2, torch.Generator().manual_seed(seed)).total
        assert torch.equal(seeded(1), seeded(1)) and not torch.equal(seeded(1), seeded(2))
        z = torch.randn(1, 4, 2)
        single = elbo(law, x0.float(), 16, z=z.float()).total
        assert single.dtype == torch.float32
        torch.testing.assert_close(
            single.double(), elbo(law, x0, 16, z=z).total, rtol=1e-4, atol=1e-4
        )

    def test_no_sync(self, no_sync):
        x0 = torch.randn(4, 2)
        with no_sync(x0):
            elbo(gm2(SDE), x0, nodes=4, draws=2)

    def test_refusals(self):
        law, x0 = gm2(SDE), torch.zeros(3, 2)
        for bad in ({"nodes": 0}, {"draws": 0}):
            with pytest.raises(ValueError, match="nodes >= 1 and draws >= 1"):
                elbo(law, x0, **bad)
        with pytest.raises(ValueError, match="expected z"):
            elbo(law, x0, z=torch.zeros(3, 2))

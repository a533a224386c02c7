"""Losses: one error under many names, where its times come from, and its floor."""

import math

import pytest
import torch

from scoresde.chain import DDPMChain
from scoresde.denoiser import (
    Denoiser,
    EDMDenoiser,
    EpsDenoiser,
    ScoreDenoiser,
    VDenoiser,
    X0Denoiser,
)
from scoresde.distributions import GaussianMixture
from scoresde.losses import (
    ChainTimes,
    LogNormalTimes,
    LogSNRTimes,
    UniformTimes,
    denoising_errors,
    denoising_loss,
    edm,
    excess_loss,
    flow_matching,
    irreducible_loss,
    likelihood,
    loss_by_time,
    min_snr,
    simple,
    snr_plus_one,
    v_weight,
    x0_weight,
)
from scoresde.nets import MLP
from scoresde.prediction import convert
from scoresde.sde import VESDE, VPSDE, CosineVPSDE, KarrasSDE, StraightPath, SubVPSDE, like

SDES = [VPSDE(), CosineVPSDE(), SubVPSDE(), VESDE(), KarrasSDE(2.0), StraightPath()]
KINDS = [EpsDenoiser, X0Denoiser, VDenoiser, ScoreDenoiser, EDMDenoiser]
sdes = pytest.mark.parametrize("sde", SDES, ids=lambda sde: type(sde).__name__)
CPU = torch.device("cpu")


def batch(sde, n=7):
    t = 0.05 + 0.9 * torch.rand(n)
    x0, z = torch.randn(n, 2, 3), torch.randn(n, 2, 3)
    return x0, t, z, sde.perturb(x0, t, z)


def net():
    net = MLP(6, width=8, depth=1)
    torch.nn.init.normal_(net.trunk.last.weight)
    return net


def mean_square(error):
    return error.square().mean()


def draw(times, n, seed=0, dtype=torch.float64):
    return times(n, torch.Generator().manual_seed(seed), CPU, dtype)


class TestOneError:
    """w(t) |eps error|^2 is the plain error of whatever the weight is named after."""

    @sdes
    @pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
    def test_in_every_parametrization(self, sde, kind):
        x0, t, z, x = batch(sde)
        model = kind(net(), sde)
        alpha, sigma = (like(c, x) for c in (sde.alpha(t), sde.sigma(t)))
        velocity = like(sde.f(t), x) * x + like(sde.g2(t), x) / (2 * sigma) * z
        plain = {
            simple: model.eps(x, t) - z,
            x0_weight: model(x, t) - x0,
            v_weight: model.v(x, t) - (alpha * z - sigma * x0),
            flow_matching: model.velocity(x, t) - velocity,
            lambda sde, t: 1 / sde.sigma2(t): model.score(x, t) + z / sigma,
        }
        for weight, error in plain.items():
            loss = denoising_loss(model, x0, t, z, weight)
            torch.testing.assert_close(loss, mean_square(error), rtol=1e-9, atol=1e-12)

    @sdes
    def test_edm_is_the_plain_error_of_its_network(self, sde):
        """Karras et al., appendix B.6: lambda c_out^2 = 1."""
        x0, t, z, x = batch(sde)
        inner, d = net(), 0.7
        model = EDMDenoiser(inner, sde, sigma_data=d)
        y = x / like(sde.alpha(t), x)
        s = like(sde.sigma(t) / sde.alpha(t), x)
        f = inner(y / (s**2 + d**2).sqrt(), -0.25 * sde.lam(t))
        target = (x0 - d**2 / (s**2 + d**2) * y) * (s**2 + d**2).sqrt() / (s * d)
        loss = denoising_loss(model, x0, t, z, edm(d))
        torch.testing.assert_close(loss, mean_square(f - target), rtol=1e-9, atol=1e-12)

    def test_a_single_time_and_the_mean_over_samples(self):
        x0, _, z, _ = batch(VPSDE())
        model, t = EpsDenoiser(net(), VPSDE()), torch.tensor(0.4)
        errors = denoising_errors(model, x0, t.expand(7), z)
        assert errors.shape == (7,)
        for time in (t, t.expand(7)):
            for weight in (simple, likelihood):
                loss = denoising_loss(model, x0, time, z, weight)
                expected = (weight(model.sde, t) * errors).mean()
                torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)

    def test_a_net_of_the_wrong_shape(self):
        model = EpsDenoiser(lambda x, t: x[:, :1], VPSDE())
        with pytest.raises(ValueError, match="returns the shape of x"):
            denoising_loss(model, *batch(VPSDE())[:3])


class TestWeights:
    t = torch.linspace(0.01, 0.95, 20, dtype=torch.float64)

    @sdes
    def test_likelihood_is_the_slope_of_log_snr(self, sde):
        t = self.t.clone().requires_grad_()
        (slope,) = torch.autograd.grad(sde.log_snr(t).sum(), t)
        torch.testing.assert_close(likelihood(sde, self.t), -slope, rtol=1e-9, atol=0)
        (slope,) = torch.autograd.grad(sde.log_snr(t).exp().sum(), t)
        of_x0 = likelihood(sde, self.t) * sde.log_snr(self.t).exp()
        torch.testing.assert_close(of_x0, -slope, rtol=1e-9, atol=0)

    @sdes
    def test_as_weights_of_the_x0_error(self, sde):
        snr = sde.log_snr(self.t).exp()
        s2 = 1 / snr  # (sigma/alpha)^2, what EDM calls sigma^2
        forms = {
            simple: snr,
            x0_weight: torch.ones_like(snr),
            snr_plus_one: snr + 1,
            min_snr(5.0): snr.clamp(max=5.0),
            edm(0.5): (s2 + 0.25) / (s2 * 0.25),
            v_weight: (sde.alpha(self.t) ** 2 + sde.sigma2(self.t)) ** 2 / sde.sigma2(self.t),
        }
        for weight, form in forms.items():
            torch.testing.assert_close(weight(sde, self.t) * snr, form, rtol=1e-12, atol=0)

    def test_two_names_for_one_thing(self):
        vp, straight = VPSDE(), StraightPath()
        same = dict(rtol=1e-12, atol=0)
        torch.testing.assert_close(edm(1.0)(vp, self.t), snr_plus_one(vp, self.t), **same)
        torch.testing.assert_close(v_weight(vp, self.t), snr_plus_one(vp, self.t), **same)
        by_hand = (1 - self.t) ** -2
        torch.testing.assert_close(flow_matching(straight, self.t), by_hand, rtol=1e-10, atol=0)

    def test_gradient_is_that_of_explicit_score_matching(self):
        """Data N(0, c), model eps_hat = a x: the mean slope is 2 (a v - sigma), v = var x_t."""
        sde, a, c, t = VPSDE(), 0.4, 0.25, torch.tensor(0.3)
        x0, z = c**0.5 * torch.randn(200_000, 1), torch.randn(200_000, 1)
        gain = torch.tensor(a, requires_grad=True)
        model = EpsDenoiser(lambda x, t: gain * x, sde)
        (slope,) = torch.autograd.grad(denoising_loss(model, x0, t, z), gain)
        x = sde.perturb(x0, t, z)
        single = 2 * (a * x - z) * x
        v = sde.alpha(t) ** 2 * c + sde.sigma2(t)
        assert abs(slope - 2 * (a * v - sde.sigma(t))) < 5 * single.std() / math.sqrt(len(x))


class TestTimes:
    def test_uniform_is_one_in_every_cell_in_random_order(self):
        times = UniformTimes(0.1, 0.6)
        t = draw(times, 64)
        cells = ((t - 0.1) / 0.5 * 64).floor().long()
        assert torch.equal(cells.sort().values, torch.arange(64))
        assert not torch.equal(cells, torch.arange(64))
        assert torch.equal(t, draw(times, 64))
        assert not torch.equal(t, draw(times, 64, seed=1))

    def test_uniform_within_a_cell(self):
        """The first of n = 1 is uniform: mean 1/2, variance 1/12."""
        generator = torch.Generator().manual_seed(0)
        t = torch.cat([UniformTimes(0.0)(1, generator, CPU, torch.float64) for _ in range(4000)])
        assert abs(t.mean() - 0.5) < 5 * (1 / 12 / 4000) ** 0.5
        assert abs(t.var() - 1 / 12) < 5 * (1 / 180 / 4000) ** 0.5  # var of (u - 1/2)^2 is 1/180

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_chain_times_are_its_own(self, dtype):
        t = draw(ChainTimes(1000), 3000, dtype=dtype)
        i = (t * 1000).round().long()
        assert torch.equal(t, i.to(dtype) / 1000)
        assert torch.equal(i.bincount(), torch.tensor([0] + [3] * 1000))

    def test_chain_times_reach_the_grid(self):
        chain = DDPMChain.from_sde(VPSDE(), 10)
        t = draw(ChainTimes(10), 10).sort(descending=True).values
        assert torch.equal(t, chain.grid()[:-1])

    @sdes
    def test_log_snr_sampling_is_importance_sampling(self, sde):
        """E e(t) (high - low) = int g^2/sigma^2 e dt, here with e = SNR/(1 + SNR)^2 > 0."""
        times = LogSNRTimes(sde, 1e-2)
        high, low = times.ends
        t = draw(times, 20_000)
        error = lambda t: torch.sigmoid(sde.log_snr(t)) * torch.sigmoid(-sde.log_snr(t))
        left = error(t).mean() * (high - low)
        right = torch.sigmoid(torch.tensor(high)) - torch.sigmoid(torch.tensor(low))
        # within its cell of 1/n of the range a sample is uniform; e changes by 0.097 per log-SNR
        spread = 0.097 * (high - low) ** 2 / (12**0.5 * 20_000**1.5)
        assert abs(left - right) < 5 * spread
        # the same integral over t, with the weight
        t_max = sde.t_max
        t = draw(UniformTimes(1e-2, t_max), 200_000)
        by_weight = (likelihood(sde, t) * error(t)).mean() * (t_max - 1e-2)
        torch.testing.assert_close(by_weight, left, rtol=1e-3, atol=0)

    def test_log_normal(self):
        sde = KarrasSDE()
        t = draw(LogNormalTimes(sde), 100_000)
        log_s = (sde.sigma(t) / sde.alpha(t)).log()
        assert abs(log_s.mean() + 1.2) < 1e-4
        assert abs(log_s.std() - 1.2) < 1e-3

    @sdes
    def test_within_the_ends(self, sde):
        for times in (LogSNRTimes(sde), LogNormalTimes(sde, std=50.0)):
            t = draw(times, 1000, dtype=torch.float32)
            assert torch.isfinite(sde.log_snr(t)).all()
            assert t.min() >= 0.99e-5
            assert t.max() <= sde.t_max * (1 + 1e-6)


def gm(item):
    """The mixtures of item P08."""
    sde = VPSDE()
    if "variances" in item:
        covs = torch.tensor(item["variances"])[:, None, None]
        return GaussianMixture(item["weights"], torch.tensor(item["means"])[:, None], covs, sde)
    return GaussianMixture(item["weights"], item["means"], item["covs"], sde)


@pytest.fixture(params=["GM2", "one_d"])
def floors(request, reference):
    """A law of P08, its times, and the floors per dimension."""
    item = reference["P08"]
    law, rows = gm(item["inputs"][request.param]), item["expected"][request.param]
    column = lambda name: torch.tensor([row[name] for row in rows])
    return law, column("t"), {name: column(name) / law.dim for name in rows[0]}


class TestFloor:
    def test_is_the_reference(self, floors):
        law, ts, expected = floors
        floor = irreducible_loss(law, ts)
        assert not floor.stderr.any()
        torch.testing.assert_close(floor.value, expected["eps_loss_floor"], rtol=1e-6, atol=1e-7)
        of_x0 = x0_weight(law.sde, ts) * floor.value
        torch.testing.assert_close(of_x0, expected["x0_loss_floor_mmse"], rtol=1e-6, atol=1e-7)
        of_v = v_weight(law.sde, ts) * floor.value
        torch.testing.assert_close(of_v, expected["v_loss_floor"], rtol=1e-6, atol=1e-7)

    def test_is_reached_by_the_exact_denoiser(self, floors):
        law, ts, expected = floors
        generator = torch.Generator().manual_seed(3)
        x0 = law.sample(40_000, generator=generator)
        loss, stderr = loss_by_time(law, x0, ts, generator)
        assert ((loss - expected["eps_loss_floor"]).abs() < 5 * stderr).all()

    def test_without_quadrature(self):
        """Two equal components in three dimensions are one Gaussian, but it does not know."""
        cov = torch.diag(torch.tensor([1.0, 0.25, 0.04]))
        law = GaussianMixture([0.5, 0.5], torch.zeros(2, 3), cov.expand(2, 3, 3), VPSDE())
        ts = torch.tensor([0.05, 0.3, 0.7])
        generator = torch.Generator().manual_seed(3)
        floor, stderr = irreducible_loss(law, ts, 20_000, generator)
        exact = irreducible_loss(law.component(0), ts).value
        signal = VPSDE().alpha(ts)[:, None] ** 2 * cov.diag()
        by_hand = (signal / (signal + VPSDE().sigma2(ts)[:, None])).mean(1)
        torch.testing.assert_close(exact, by_hand, rtol=1e-12, atol=0)
        assert ((floor - exact).abs() < 5 * stderr).all()
        assert (stderr > 0).all()


class Scaled(Denoiser):
    """A law with its eps times (1 + delta)."""

    def __init__(self, law, delta):
        super().__init__(law.sde)
        self.law, self.delta = law, delta

    def predict(self, quantity, x, t):
        return convert(self.sde, "eps", quantity, x, t, (1 + self.delta) * self.law.eps(x, t))


class TestExcess:
    def test_of_the_truth_is_nothing(self, floors):
        law, ts, _ = floors
        assert not excess_loss(law, law, ts, 100).value.any()

    def test_of_a_scaled_score(self, floors):
        """delta^2 E|eps*|^2/d = delta^2 (1 - floor)."""
        law, ts, expected = floors
        generator = torch.Generator().manual_seed(3)
        value, stderr = excess_loss(Scaled(law, 0.1), law, ts, 20_000, generator)
        exact = 0.01 * (1 - expected["eps_loss_floor"])
        assert ((value - exact).abs() < 5 * stderr).all()

    def test_in_the_dtype_of_the_network(self, floors):
        law, ts, _ = floors
        model = EpsDenoiser(MLP(law.dim, width=8).float(), law.sde)
        assert (excess_loss(model, law, ts, 100).value > 0).all()

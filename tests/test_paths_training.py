"""Learning laws of paths: against the least possible loss, and against closed forms."""

import pytest
import torch

from scoresde import VPSDE, EpsDenoiser, log_snr, sample
from scoresde.data.trajectories import Kepler, OrnsteinUhlenbeck
from scoresde.denoiser import Affine
from scoresde.grids import quadratic
from scoresde.inverse import Mask, Measurement, MomentMatching
from scoresde.losses import excess_loss, irreducible_loss
from scoresde.nets import Transformer, UNet1d, UNet1dConfig
from scoresde.samplers import DPMSolverPP
from scoresde.training import fit, fit_paths, load, save

SDE = VPSDE()
OU = OrnsteinUhlenbeck(length=16)
NETS = {
    "unet": lambda: UNet1d(2, width=24, levels=2, piece=2),
    "transformer": lambda: Transformer(2, width=32, depth=2, piece=4),
}


def seeded(seed, device="cpu"):
    return torch.Generator(device).manual_seed(seed)


def learned(net, device="cpu"):
    """Loss above its floor after training, as a share of what a net that says nothing misses."""
    torch.manual_seed(0)
    law = OU.law(SDE).to(device)
    model = EpsDenoiser(net(), SDE).float().to(device)
    result = fit(model, law, steps=200, batch=128, ema=0.98, seed=0)
    ts = log_snr(SDE, 6)[1:]
    floor = irreducible_loss(law, ts, generator=seeded(1, device)).value
    excess = excess_loss(result.denoiser, law, ts, 512, seeded(1, device)).value
    return float(excess.mean() / (1 - floor).mean())


@pytest.mark.parametrize("name", NETS)
def test_it_learns_the_ou_law(name):
    """Two hundred steps leave 4 % (no more than half as much again on another machine)."""
    assert learned(NETS[name]) < 0.06


@pytest.mark.real_gpu
@pytest.mark.parametrize("name", NETS)
def test_it_learns_on_a_gpu(name):
    assert learned(NETS[name], "cuda") < 0.06


def test_fit_paths_learns_and_stores_the_units(tmp_path):
    """Paths in any unit: the loss falls, the samples come in the same unit."""
    x = 1000 + 300 * Kepler(length=16)(2000, seeded(0)).float()
    net = UNet1dConfig(2, width=16, levels=2, piece=2)
    result = fit_paths(x, net, steps=120, every=20, ema=0.95)
    losses = [row["loss"] for row in result.history]
    assert losses[-1] < 0.9 * losses[0]
    model = result.denoiser
    assert model.sigma_data == pytest.approx(
        float(model.affine(x).square().mean().sqrt()), rel=0.05
    )
    plan, shape = (DPMSolverPP(2), log_snr(SDE, 12)), (200, 16, 2)
    paths = sample(model, plan[0], shape, plan[1], seed=0, dtype=torch.float32)
    assert (paths.mean((0, 1)) - x.mean((0, 1))).abs().max() < 0.2 * x.std()
    assert float(paths.std() / x.std()) == pytest.approx(1, abs=0.2)
    save(tmp_path / "model.pt", model)
    assert load(tmp_path / "model.pt").sigma_data == model.sigma_data


def test_fit_paths_refuses_points():
    with pytest.raises(ValueError, match=r"paths \(n, L, C\)"):
        fit_paths(torch.randn(9, 2))


class TestWhitening:
    """Smooth paths: their covariance is singular to rounding."""

    x = Kepler()(2000, seeded(0))

    def test_of_smooth_paths_it_cannot_be_full(self):
        with pytest.raises(ValueError, match="for smooth paths"):
            Affine.fit(self.x, whiten=1)

    @pytest.mark.parametrize("power", [0.25, 0.5, 0.75])
    def test_it_takes_that_power_of_the_spectrum(self, power):
        """Eigenvalues l of the correlations become l^(1 - power), if above rounding."""
        affine = Affine.fit(self.x, whiten=power)
        std = self.x.std(0, correction=0).flatten()
        unit = (self.x.flatten(1) - self.x.flatten(1).mean(0)) / std
        values = torch.linalg.eigvalsh(unit.T.cov(correction=0))[-40:]
        found = torch.linalg.eigvalsh(affine(self.x).flatten(1).T.cov(correction=0))[-40:]
        torch.testing.assert_close(found, values ** (1 - power), rtol=1e-6, atol=0)
        # and white noise in z has the spectrum l^power in x, whose traces are all known
        cov = affine.scale @ affine.scale.T / torch.outer(std, std)
        values = torch.linalg.eigvalsh(unit.T.cov(correction=0)).clamp(min=1e-9 * values[-1])
        torch.testing.assert_close(torch.linalg.eigvalsh(cov), values**power, rtol=1e-6, atol=1e-9)

    @pytest.mark.parametrize("power", [0.5, 0.9])
    def test_it_is_inverted_exactly(self, power):
        affine = Affine.fit(self.x, whiten=power)
        torch.testing.assert_close(affine.inverse(affine(self.x)), self.x, rtol=0, atol=1e-12)
        z = torch.randn(5, 64, 2)
        torch.testing.assert_close(affine(affine.inverse(z)), z, rtol=0, atol=1e-9)
        size = torch.linalg.svdvals(affine.scale).log().sum()
        torch.testing.assert_close(affine.log_det(), size)

    def test_units_do_not_matter(self):
        """Metres for x and millimetres for y: the model's z is the same."""
        stretch = torch.tensor([1.0, 1000.0])
        z = Affine.fit(self.x, 0.5)(self.x)
        other = Affine.fit(self.x * stretch, 0.5)(self.x * stretch)
        torch.testing.assert_close(other, z, rtol=0, atol=1e-6)

    def test_of_all_whitenings_it_keeps_each_number_at_its_place(self):
        """The correlations of z_i with x_i sum to more than those of the Cholesky whitening."""
        x = OU(5000, seeded(1))
        unit = ((x - x.mean(0)) / x.std(0)).flatten(1)
        near = (Affine.fit(x, whiten=True)(x).flatten(1) * unit).mean()
        root = torch.linalg.cholesky(unit.T.cov())
        innovations = torch.linalg.solve_triangular(root, unit.T, upper=False).T
        assert near > (innovations * unit).mean() + 0.1

    @pytest.mark.parametrize("power", [-0.1, 1.5, float("nan")])
    def test_a_power_between_nothing_and_all(self, power):
        with pytest.raises(ValueError, match="0 <= whiten <= 1"):
            Affine.fit(self.x, power)

    def test_it_is_stored_with_the_model(self, tmp_path):
        affine = Affine.fit(self.x, whiten=0.5)
        save(tmp_path / "model.pt", EpsDenoiser(UNet1d(2, 16), SDE, affine))
        again, z = load(tmp_path / "model.pt"), torch.randn(3, 64, 2)
        assert torch.equal(again.affine.inverse(z), affine.inverse(z))


class TestBridge:
    """An OU path through noisy positions: the law is known in closed form."""

    at, std = [0, 15], 0.1
    y = torch.tensor([[-1.0, 0.5], [1.5, 0.0]])

    def measurement(self):
        known = torch.zeros(16, 2, dtype=torch.bool)
        known[self.at] = True
        return Measurement(Mask(known), self.y.reshape(1, -1), self.std)

    @pytest.mark.parametrize("whiten", [False, True])
    def test_the_exact_denoiser_gives_the_bridge(self, whiten):
        """Mean and spread at every time, in the model's own units and in whitened ones."""
        n, model = 2000, OU.law(SDE)
        if whiten:  # in whitened units the law of paths is N(0, I)
            model = OU.law(SDE)
            root = Affine(model.means[0], torch.linalg.cholesky(model.covs[0]))
            model = type(model)(torch.ones(1), torch.zeros(1, 16, 2), torch.eye(32)[None], SDE)
            model.affine = root
        method = MomentMatching(model, self.measurement(), iterations=4)
        x = sample(method, DPMSolverPP(2), (n, 16, 2), quadratic(60), seed=0, last="denoise")
        mean, cov = OU.posterior(SDE, self.at, self.y, self.std).marginal()
        spread = cov.diagonal().sqrt()
        error = (x.flatten(1).mean(0) - mean).abs() / spread
        assert error.max() < 5 / n**0.5 + 0.01  # 5 standard errors, and the steps
        ratio = x.flatten(1).std(0) / spread
        assert (ratio - 1).abs().max() < 5 / (2 * n) ** 0.5 + 0.01
        ends = x[:, self.at] - self.y
        assert ends.square().mean().sqrt() < 1.1 * self.std

    def test_the_closed_form_is_the_textbook_bridge(self):
        """Without noise, sinh((T - t)/tau)/sinh(T/tau) and its mirror image are the mean."""
        exact = OU.posterior(SDE, self.at, self.y, 1e-6).marginal()[0].reshape(16, 2)
        t = OU.times[:, None] / OU.tau
        mean = ((t[-1] - t).sinh() * self.y[0] + t.sinh() * self.y[1]) / t[-1].sinh()
        torch.testing.assert_close(exact, mean, rtol=0, atol=1e-6)
        var = OU.posterior(SDE, self.at, self.y, 1e-6).marginal()[1].diagonal().reshape(16, 2)
        s = 2 * OU.std**2 * t.sinh() * (t[-1] - t).sinh() / t[-1].sinh()
        torch.testing.assert_close(var, s.expand(-1, 2), rtol=0, atol=1e-6)

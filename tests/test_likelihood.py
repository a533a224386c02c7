"""The likelihood of the probability-flow ODE, against densities that are known exactly."""

import math

import pytest
import torch

from scoresde.data import aniso3, gauss, gm2, ring
from scoresde.denoiser import Affine, EpsDenoiser, Given, ScoreDenoiser, VDenoiser, X0Denoiser
from scoresde.distributions import GaussianMixture
from scoresde.grids import log_snr
from scoresde.guidance import Guided
from scoresde.likelihood import (
    Adaptive,
    Fixed,
    Torchdiffeq,
    bits_per_dim,
    decode,
    elbo,
    encode,
    interpolate,
    log_likelihood,
    ode_likelihood,
    rademacher,
)
from scoresde.likelihood.flow import Clock, Flow, Node
from scoresde.likelihood.walks import adams_weights
from scoresde.nets import MLP
from scoresde.physics import fields
from scoresde.sde import VESDE, VPSDE, CosineVPSDE, KarrasSDE, StraightPath, SubVPSDE

SDE = VPSDE()
PROCESSES = [VPSDE(), SubVPSDE(), CosineVPSDE(), VESDE(), KarrasSDE(), StraightPath()]
TIGHT = Adaptive(rtol=1e-8, atol=1e-8)
FINE = Fixed(300)


def on_manifold(law, n):
    return law.sample(n, generator=torch.Generator().manual_seed(0))


def uniform_points(n):
    return 6 * torch.rand(n, 2, generator=torch.Generator().manual_seed(1)) - 3


def rmse(found, law, x):
    return float((found - law.log_prob(x)).square().mean().sqrt())


def network(dtype=torch.float64, sde=SDE, kind=EpsDenoiser, dim=2):
    net = MLP(dim, width=16, depth=1, classes=3).to(dtype)
    torch.nn.init.normal_(net.trunk.last.weight, std=0.3)
    return kind(net, sde)


class TestAccuracy:
    """The targets of the benchmark, with the calls that they allow."""

    @pytest.mark.parametrize(
        ("make", "n", "error", "calls"),
        [(ring, 120, 1e-4, 146), (aniso3, 60, 1.2e-3, 596)],
    )
    def test_fixed_grid_on_the_manifold(self, make, n, error, calls):
        law = make(SDE)
        x = on_manifold(law, 500)
        found = ode_likelihood(law, x, Fixed(n), prior=law)
        assert found.evaluations == n + 9 <= calls
        assert rmse(found.log_prob, law, x) < error

    @pytest.mark.parametrize(("make", "error"), [(ring, 1e-4), (aniso3, 1.2e-3)])
    def test_adaptive_on_the_manifold(self, make, error):
        law = make(SDE)
        x = on_manifold(law, 200)
        found = ode_likelihood(law, x, prior=law)
        assert found.evaluations < 200
        assert rmse(found.log_prob, law, x) < error

    @pytest.mark.parametrize(("make", "calls"), [(ring, 260), (aniso3, 1200)])
    def test_off_the_manifold(self, make, calls):
        """Densities down to e^-500, on paths that slide along the borders between modes."""
        law, x = make(SDE), uniform_points(60)
        found = ode_likelihood(law, x, prior=law)
        assert found.evaluations < calls
        assert rmse(found.log_prob, law, x) < 3e-2

    @pytest.mark.parametrize("make", [ring, aniso3])
    @pytest.mark.parametrize("walk", [TIGHT, Fixed(500, scales=(0.1, 1.0))])
    def test_tight(self, make, walk):
        law = make(SDE)
        x = on_manifold(law, 200)
        assert rmse(log_likelihood(law, x, walk, prior=law), law, x) < 1e-6

    def test_torchdiffeq(self):
        law = gm2(SDE)
        x = on_manifold(law, 20)
        walk = Torchdiffeq("dopri8", rtol=1e-8, atol=1e-8)
        assert rmse(log_likelihood(law, x, walk, prior=law), law, x) < 1e-6

    @pytest.mark.parametrize("t_eps", [1e-9, 1e-6, 1e-3])
    def test_the_density_is_that_of_t_eps(self, t_eps):
        law = ring(SDE)
        x = on_manifold(law, 20)
        found = log_likelihood(law, x, TIGHT, prior=law, t_eps=t_eps)
        torch.testing.assert_close(found, law.log_prob(x, torch.tensor(t_eps)), atol=5e-6, rtol=0)

    def test_the_error_follows_the_tolerance(self):
        law = gm2(SDE)
        x = on_manifold(law, 50)
        for tolerance in (1e-4, 1e-7):
            walk = Adaptive(rtol=tolerance, atol=tolerance)
            assert rmse(log_likelihood(law, x, walk, prior=law), law, x) < 10 * tolerance

    def test_order_of_the_fixed_walk(self):
        law = gauss(SDE)
        x = on_manifold(law, 20)
        found = [log_likelihood(law, x, Fixed(n), prior=law) for n in (240, 480)]
        coarse, fine = (rmse(log_p, law, x) for log_p in found)
        assert math.log2(coarse / fine) == pytest.approx(4, abs=0.2)

    @pytest.mark.parametrize("sde", PROCESSES)
    def test_every_process(self, sde):
        law = gm2(sde)
        x = on_manifold(law, 10)
        found = log_likelihood(law, x, FINE, prior=law)
        torch.testing.assert_close(found, law.log_prob(x), atol=5e-6, rtol=0)

    @pytest.mark.parametrize("walk", [Adaptive(), Fixed(128)])
    def test_float32(self, walk, float32):
        law = gm2(SDE)
        x = on_manifold(law, 50)
        found = log_likelihood(law, x.float(), walk, prior=law)
        assert found.dtype == torch.float32
        assert rmse(found.double(), law, x) < 2e-4

    def test_a_grid_of_ones_own(self):
        law = gm2(SDE)
        x = on_manifold(law, 20)
        ts = log_snr(SDE, 300, t_eps=1e-6)
        found = ode_likelihood(law, x, Fixed(ts=ts), prior=law)
        assert found.evaluations == 309
        torch.testing.assert_close(found.log_prob, law.log_prob(x, ts[-1]), atol=5e-5, rtol=0)
        flipped = log_likelihood(law, x, Fixed(ts=ts.flip(0)), prior=law)
        assert torch.equal(flipped, found.log_prob)

    def test_few_steps(self):
        """Shorter than the method's memory: Runge-Kutta alone."""
        law = gauss(SDE)
        x = on_manifold(law, 5)
        for n in (1, 2, 3, 4):
            assert ode_likelihood(law, x, Fixed(n)).evaluations == n + 3 * min(n, 3)


class TestClock:
    @pytest.mark.parametrize("sde", PROCESSES)
    def test_right_side(self, sde):
        """dz/du and its divergence against velocity, by the chain rule in t."""
        law, clock = gm2(sde), Clock(sde, 0.2, 3.0)
        t = torch.tensor([0.05, 0.3, 0.8])
        u = clock.u(t)
        node = clock.node(u)
        torch.testing.assert_close(node.t, t, rtol=1e-9, atol=0)
        radius = lambda t: (sde.alpha(t) ** 2 + sde.sigma2(t)).sqrt()
        torch.testing.assert_close(node.radius, radius(t), rtol=1e-9, atol=0)
        du, dr = (torch.func.vmap(torch.func.grad(g))(t) for g in (clock.u, radius))
        x = torch.randn(3, 2)
        flow = Flow(law, torch.Size([2]), "exact", clock)
        found = flow(node, flow.start(x / radius(t)[:, None]))
        rate = law.velocity(x, t) / radius(t)[:, None] - (dr / radius(t) ** 2)[:, None] * x
        torch.testing.assert_close(found[:, :2], rate / du[:, None], rtol=1e-8, atol=1e-8)
        field = lambda x, t: law.velocity(x[None], t)[0]
        jacobian = torch.func.vmap(torch.func.jacrev(field))(x, t)
        trace = jacobian.diagonal(0, 1, 2).sum(1) - 2 * dr / radius(t)
        torch.testing.assert_close(found[:, 2], trace / du, rtol=1e-8, atol=1e-8)

    def test_inverse_down_to_the_data(self):
        clock = Clock(SDE)
        t = torch.tensor([0.0, 1e-12, 1e-6, 0.5, 1.0])
        torch.testing.assert_close(clock.node(clock.u(t)).t, t, rtol=1e-9, atol=0)
        assert float(clock.u(t)[-1]) < math.log(50)

    def test_adams_weights(self):
        equal = torch.tensor([-9.0, 37, -59, 55]) / 24
        torch.testing.assert_close(adams_weights(torch.arange(6.0))[1], equal)
        us = torch.rand(8).cumsum(0)
        slopes = us.pow(3)
        for k, row in enumerate(adams_weights(us), 3):
            exact = (us[k + 1] ** 4 - us[k] ** 4) / 4
            torch.testing.assert_close((row * slopes[k - 3 : k + 1]).sum(), exact)


class TestHutchinson:
    def test_mean_over_probes(self):
        """One probe for each of 1e4 copies, kept along the path, on the grid of the exact one."""
        law, walk, n = ring(SDE), Fixed(60), 10_000
        x = on_manifold(law, 1)
        exact = log_likelihood(law, x, walk, prior=law)
        for draw in (rademacher(1, x.expand(n, 2)), torch.randn(1, n, 2)):
            found = log_likelihood(law, x.expand(n, 2), walk, draw, prior=law)
            error = float(found.std()) / math.sqrt(n)
            assert 0 < error < 0.2
            assert abs(float(found.mean() - exact)) < 5 * error

    def test_probes_of_one_sample(self):
        """P probes at once are those of P runs; their scatter is the standard error."""
        law, walk = aniso3(SDE), Fixed(40)
        x = on_manifold(law, 3)
        probes = rademacher(6, x, torch.Generator().manual_seed(3))
        found = ode_likelihood(law, x, walk, probes)
        single = torch.stack([log_likelihood(law, x, walk, p[None]) for p in probes])
        torch.testing.assert_close(found.log_prob, single.mean(0))
        torch.testing.assert_close(found.standard_error, single.std(0) / math.sqrt(6))
        assert found.evaluations == 49
        drawn = ode_likelihood(law, x, walk, 6, generator=torch.Generator().manual_seed(3))
        assert torch.equal(drawn.log_prob, found.log_prob)

    def test_orthogonal_probes_are_exact(self):
        law = aniso3(SDE)
        x = on_manifold(law, 4)
        axes = math.sqrt(2) * torch.eye(2)[:, None].expand(2, 4, 2)
        a, b = (log_likelihood(law, x, Fixed(40), probes) for probes in (axes, None))
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
        # adaptive steps heed each estimate, so here they are not those of the exact trace
        found = log_likelihood(law, x, Adaptive(), axes, prior=law)
        torch.testing.assert_close(found, law.log_prob(x), rtol=0, atol=3e-4)

    def test_standard_error(self):
        law = gauss(SDE)
        x = on_manifold(law, 4)
        assert torch.equal(ode_likelihood(law, x, Fixed(5)).standard_error, torch.zeros(4))
        assert ode_likelihood(law, x, Fixed(5), 1).standard_error.isnan().all()

    def test_rademacher(self):
        probes = rademacher(1000, torch.zeros(2, 3))
        assert set(probes.unique().tolist()) == {-1.0, 1.0}
        assert float(probes.mean().abs()) < 5 / math.sqrt(6000)


class TestPriorAndUnits:
    def test_both_priors(self):
        """Their difference is log N(x_T) - log p_T(x_T); under N(0, I) the mean gap is a KL."""
        law = gm2(SDE)
        x = on_manifold(law, 50)
        found, bare = (ode_likelihood(law, x, Fixed(60), prior=p) for p in (law, None))
        one = torch.tensor(1.0)
        torch.testing.assert_close(bare.log_prob, found.under_prior)
        assert bare.under_law is None and torch.equal(found.log_prob, found.under_law)
        gap = SDE.prior_log_prob(found.latent) - law.log_prob(found.latent, one)
        torch.testing.assert_close(found.under_prior - found.under_law, gap)
        assert float(gap.abs().max()) > 1e-3

    @pytest.mark.parametrize("sde", [VESDE(), StraightPath()])
    def test_the_prior_of_the_process(self, sde):
        law = gm2(sde)
        found = ode_likelihood(law, on_manifold(law, 4), Fixed(60), prior=law)
        t = torch.tensor(sde.t_max)
        gap = sde.prior(sde.t_max).log_prob(found.latent) - law.log_prob(found.latent, t)
        torch.testing.assert_close(found.under_prior - found.under_law, gap)

    @pytest.mark.parametrize("whiten", [False, True])
    def test_the_users_units(self, whiten):
        """A Gaussian that Affine makes standard: the density in the units it was given in."""
        mean, cov = torch.tensor([10.0, -3.0]), torch.tensor([[4.0, 1.2], [1.2, 0.5]])
        scale = torch.linalg.cholesky(cov) if whiten else cov.diagonal().sqrt()
        inner = torch.eye(2) if whiten else cov / torch.outer(scale, scale)
        law = GaussianMixture([1.0], torch.zeros(1, 2), inner[None], SDE)
        law.affine = Affine(mean, scale)
        truth = torch.distributions.MultivariateNormal(mean, cov)
        x = truth.sample((20,))
        found = log_likelihood(law, x, FINE, prior=law)
        torch.testing.assert_close(found, truth.log_prob(x), atol=1e-6, rtol=0)

    def test_bits_per_dim(self):
        """Cells of a Gaussian: E over u of log p is closed, and below the log of the mass."""
        std, levels, low, high = 0.7, 64, -4.0, 4.0
        law = GaussianMixture.isotropic([1.0], torch.zeros(1, 2), std, SDE)
        k, n, width = torch.tensor([31, 40]), 4000, (high - low) / levels
        bits = bits_per_dim(law, k.expand(n, 2), levels, low, high, walk=Fixed(24), prior=law)
        left = low + width * k
        square = ((left + width) ** 3 - left**3) / (3 * width)  # mean of x^2 over the cell
        mean_log = -square / (2 * std**2) - math.log(std * math.sqrt(2 * math.pi))
        expected = -(mean_log.mean() + math.log(width)) / math.log(2)
        error = float(bits.std()) / math.sqrt(n)
        assert float((bits.mean() - expected).abs()) < 5 * error + 1e-5
        cdf = torch.distributions.Normal(0, std).cdf
        mass = -(cdf(left + width) - cdf(left)).log2().mean()
        assert mass < expected < mass + 1e-2

    def test_bits_of_uniform_cells(self):
        """A density without slope over the range: log2 of the number of cells, and no offset."""
        law = GaussianMixture.isotropic([1.0], torch.zeros(1, 1), 1.0, SDE)
        height = float(law.log_prob(torch.zeros(1, 1)).exp())
        k = torch.arange(4)[:, None]
        bits = bits_per_dim(law, k, 4, -1e-3, 1e-3, walk=FINE)
        expected = math.log2(4) - math.log2(2e-3 * height)
        torch.testing.assert_close(bits, torch.full((4,), expected), atol=1e-5, rtol=0)


class TestDenoisers:
    def test_guided(self):
        """Guidance by the exact posterior: the density of the component."""
        law = gm2(SDE)
        part = law.component(1)
        guided = Guided(law, lambda x, t: part.log_prob(x, t) - law.log_prob(x, t))
        x = on_manifold(part, 10)
        for probes in (None, math.sqrt(2) * torch.eye(2)[:, None].expand(2, 10, 2)):
            found = log_likelihood(guided, x, Fixed(120), probes, prior=part)
            torch.testing.assert_close(found, part.log_prob(x), atol=1e-4, rtol=0)

    def test_a_network_is_a_density(self):
        """Of any network, trained or not: it integrates to one (1-D, trapezoid rule)."""
        model = network(kind=VDenoiser, dim=1)
        x = torch.linspace(-30, 30, 1501)[:, None]
        log_p = log_likelihood(Given(model, y=1), x, Fixed(150))
        assert float(torch.trapezoid(log_p.exp(), x[:, 0])) == pytest.approx(1, abs=1e-4)

    @pytest.mark.parametrize("name", ["eps", "forward", "v", "score"])
    def test_every_parametrization(self, name):
        """Networks that are right: the truth at 1e-6, where they begin."""
        law = gm2(SDE)
        kinds = {"eps": EpsDenoiser, "forward": X0Denoiser, "v": VDenoiser, "score": ScoreDenoiser}
        model = kinds[name](getattr(law, name), SDE)
        x = on_manifold(law, 10)
        found = log_likelihood(model, x, FINE, prior=law)
        torch.testing.assert_close(found, law.log_prob(x, torch.tensor(1e-6)), atol=5e-6, rtol=0)

    def test_exact_trace_is_that_of_autograd(self):
        model, t = network(), torch.tensor(0.3)
        x = torch.randn(5, 2)
        flow = Flow(model, torch.Size([2]), "exact", Clock(SDE))
        one = torch.tensor(1.0)
        trace = flow(Node(t, one, one, 0 * one), flow.start(x))[:, 2]
        each = lambda x: model.eps(x[None], t)[0]
        jacobian = torch.func.vmap(torch.func.jacrev(each))(x)
        torch.testing.assert_close(trace, jacobian.diagonal(0, 1, 2).sum(1))

    def test_one_call_an_evaluation(self):
        model, calls = network(), []
        model.net.register_forward_hook(lambda *a: calls.append(1))
        x = torch.randn(4, 2)
        for probes in (None, 3):
            calls.clear()
            found = ode_likelihood(model, x, Fixed(12), probes)
            assert len(calls) == found.evaluations == 21
        assert all(p.grad is None for p in model.parameters())
        assert not found.log_prob.requires_grad

    def test_events_of_any_shape(self):
        flat = GaussianMixture.isotropic([0.4, 0.6], torch.randn(2, 6), 0.5, SDE)
        tall = GaussianMixture(flat.weights, flat.means.reshape(2, 3, 2), flat.covs, SDE)
        x = torch.randn(5, 6)
        a, b = (
            log_likelihood(law, x.reshape(5, *law.event), Fixed(60), prior=law)
            for law in (flat, tall)
        )
        torch.testing.assert_close(a, b)
        assert rmse(a, flat, x) < 1e-3


class TestTheBatch:
    def test_adaptive_samples_do_not_meet(self):
        """Beside a point in great difficulties: the same; with one step for all not."""
        law = aniso3(SDE)
        easy, hard = on_manifold(law, 6), torch.tensor([[3.0, -2.5]])
        both = torch.cat([easy, hard])
        alone, beside = (log_likelihood(law, x)[:6] for x in (easy, both))
        torch.testing.assert_close(alone, beside, rtol=1e-10, atol=1e-10)
        coupled = [log_likelihood(law, x, Torchdiffeq())[:6] for x in (easy, both)]
        assert float((coupled[0] - coupled[1]).abs().max()) > 1e-9

    @pytest.mark.parametrize("probes", [None, 2])
    def test_no_host_device_sync_on_a_fixed_grid(self, probes, no_sync):
        x = torch.randn(5, 2)
        part = ring(SDE)
        guided = Guided(part, lambda x, t: -x.square().sum(1))
        drawn = None if probes is None else rademacher(probes, x)
        for model in (part, guided, network()):
            with no_sync(x):
                log_likelihood(model, x, Fixed(8), drawn)


class TestN04Rows:
    """A row that cannot be is NaN alone, whatever the walk."""

    @pytest.mark.parametrize("walk", [Adaptive(), Fixed(40), Torchdiffeq(rtol=1e-7, atol=1e-7)])
    @pytest.mark.parametrize("bad", [math.nan, math.inf])
    def test_n04_not_a_number(self, walk, bad):
        law = gm2(SDE)
        x = on_manifold(law, 7)
        alone = log_likelihood(law, x, walk, prior=law)
        x[3, 1] = bad
        found = ode_likelihood(law, x, walk, prior=law)
        rest = torch.arange(7) != 3
        assert found.log_prob[3].isnan() and found.latent[3].isnan().all()
        torch.testing.assert_close(found.log_prob[rest], alone[rest], atol=2e-5, rtol=0)
        assert found.evaluations < 400
        assert encode(law, x, walk)[:, 0].isnan().tolist() == (~rest).tolist()

    def test_n04_lost_on_the_way(self):
        """A denoiser that is not finite beyond x = 1.5: whoever starts or comes there."""
        law = gauss(SDE)
        broken = EpsDenoiser(
            lambda x, t: torch.where(x[:, :1] > 1.5, torch.nan, law.eps(x, t)), SDE
        )
        x = torch.tensor([[1.6, 0.0], [0.3, 0.1], [-0.5, 0.4], [1.49999, 3.0]])
        x[3] = decode(law, torch.tensor([[1.6, 0.0]]), t_eps=1e-6)
        assert x[3, 0] < 1.5
        found = ode_likelihood(broken, x, prior=law)
        assert found.log_prob.isnan().tolist() == [True, False, False, True]
        exact = log_likelihood(law, x, prior=law, t_eps=1e-6)
        torch.testing.assert_close(found.log_prob[1:3], exact[1:3], rtol=1e-10, atol=1e-10)
        assert found.evaluations < 1000
        kept = log_likelihood(broken, x, prior=law, differentiable=True)
        torch.testing.assert_close(kept, found.log_prob, equal_nan=True)
        with pytest.raises(RuntimeError, match="expected a denoiser that is finite along all"):
            log_likelihood(broken, x, Torchdiffeq())

    @pytest.mark.parametrize("walk", [Adaptive(), Fixed(5), Torchdiffeq()])
    def test_n22_no_points(self, walk):
        law, none = gauss(SDE), torch.zeros(0, 2)
        for probes in (None, 2):
            assert log_likelihood(law, none, walk, probes, prior=law).shape == (0,)
        assert encode(law, none, walk).shape == decode(law, none, walk).shape == (0, 2)
        assert log_likelihood(law, none, walk, differentiable=True).shape == (0,)
        assert interpolate(law, none, none, 3, walk).shape == (3, 0, 2)
        assert bits_per_dim(law, none.long(), 4, 0, 1, walk=walk).shape == (0,)
        assert elbo(law, none).total.shape == (0,)

    def test_n09_the_dtype_is_the_models(self):
        """Points of any dtype and numpy arrays, into a network in float32 and one in float64."""
        x = torch.randn(3, 2)
        for dtype in (torch.float32, torch.float64):
            model = network(dtype)
            expected = log_likelihood(model, x.to(dtype), Fixed(8))
            for given in (x, x.float(), x.numpy()):
                found = log_likelihood(model, given, Fixed(8))
                assert found.dtype == dtype
                torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
        half = x.half()
        found, expected = (log_likelihood(gm2(SDE), z, Fixed(8)) for z in (half, half.float()))
        assert found.dtype == torch.float32 and torch.equal(found, expected)


class TestN20MemoryFormat:
    def test_n20_a_unet_of_diffusers(self, float32):
        """The trace by probes is that of each alone; vmap refuses this network."""
        diffusers = pytest.importorskip("diffusers")
        blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
        sizes = {"sample_size": 4, "in_channels": 1, "out_channels": 1, "norm_num_groups": 2}
        unet = diffusers.UNet2DModel(
            **blocks, **sizes, block_out_channels=(4, 8), layers_per_block=1
        ).eval()
        model = EpsDenoiser(lambda x, t: unet(x, 999 * t).sample, SDE)
        x = 0.5 * torch.randn(2, 1, 4, 4)
        with torch.no_grad(), pytest.raises(RuntimeError, match="memory_format"):
            pull = torch.func.vjp(lambda x: model.eps(x, torch.tensor(0.5)), x)[1]
            torch.func.vmap(pull)(x[None])
        probes = rademacher(2, x)
        found = ode_likelihood(model, x, Fixed(3), probes)
        each = [log_likelihood(model, x, Fixed(3), probe[None]) for probe in probes]
        torch.testing.assert_close(found.log_prob, torch.stack(each).mean(0))
        flow = Flow(model, x.shape[1:], "exact", Clock(SDE))
        one, t = torch.tensor(1.0), torch.tensor(0.5)
        with torch.no_grad():
            trace = flow(Node(t, one, one, 0 * one), flow.start(x))[:, -1]
            rows = fields.jacobian(lambda x: model.eps(x, t), x)[1]
        both = torch.autograd.functional.jacobian(lambda x: model.eps(x, t), x)
        expected = both.reshape(2, 16, 2, 16).diagonal(0, 0, 2).movedim(2, 0)
        close = {"rtol": 1e-4, "atol": 1e-4}
        torch.testing.assert_close(rows, expected, **close)
        torch.testing.assert_close(trace, expected.diagonal(0, 1, 2).sum(1), **close)

    def test_n20_errors_of_the_network_are_its_own(self):
        class Broken(torch.autograd.Function):
            """Fails on the way back."""

            generate_vmap_rule = True

            @staticmethod
            def forward(x):
                return x.clone()

            @staticmethod
            def setup_context(ctx, inputs, output):
                pass

            @staticmethod
            def backward(ctx, slope):
                raise RuntimeError("the network's own")

        model = EpsDenoiser(lambda x, t: Broken.apply(x), SDE)
        with pytest.raises(RuntimeError, match="the network's own"):
            log_likelihood(model, torch.zeros(1, 2), Fixed(2))


class TestRefusals:
    def test_points(self):
        law = gauss(SDE)
        for bad in (torch.zeros(2), torch.zeros(3, 2, dtype=torch.long)):
            with pytest.raises(TypeError, match="expected floating-point points"):
                log_likelihood(law, bad)
        with pytest.raises(ValueError, match="expected probes"):
            log_likelihood(law, torch.zeros(3, 2), probes=torch.ones(3, 2))
        with pytest.raises(ValueError, match="expected at least one probe"):
            log_likelihood(law, torch.zeros(3, 2), probes=0)

    def test_times(self):
        law, x = gauss(SDE), torch.zeros(1, 2)
        with pytest.raises(ValueError, match=r"expected 0 <= t_eps < 1"):
            log_likelihood(law, x, t_eps=1.0)
        with pytest.raises(ValueError, match="begins above t = 0"):
            log_likelihood(network(), x, t_eps=0.0)
        for ts in ([1.0], [1.0, 0.5, 0.6], [[1.0, 0.5]]):
            with pytest.raises(ValueError, match="strictly monotone"):
                log_likelihood(law, x, Fixed(ts=ts))
        with pytest.raises(ValueError, match="expected ts within"):
            log_likelihood(law, x, Fixed(ts=[1.1, 0.1]))
        with pytest.raises(ValueError, match="n >= 1 steps"):
            log_likelihood(law, x, Fixed(0))

    def test_tolerances_and_scales(self):
        with pytest.raises(ValueError, match="expected tolerances"):
            Adaptive(rtol=0, atol=0)
        with pytest.raises(ValueError, match="finest < coarsest"):
            log_likelihood(gauss(SDE), torch.zeros(1, 2), Adaptive(scales=(1.0, 0.1)))

    def test_no_arrival(self):
        broken = EpsDenoiser(lambda x, t: x * torch.nan, SDE)
        with pytest.raises(RuntimeError, match="2 of 2 samples had not arrived"):
            log_likelihood(broken, torch.zeros(2, 2), Adaptive(max_steps=20))

    def test_cells(self):
        law = gauss(SDE)
        with pytest.raises(TypeError, match="expected integers"):
            bits_per_dim(law, torch.zeros(2, 2), 4, 0, 1)
        with pytest.raises(ValueError, match=r"expected integers 0..3, got 0..4"):
            bits_per_dim(law, torch.tensor([[0, 4]]), 4, 0, 1)
        with pytest.raises(ValueError, match="levels >= 2 and low < high"):
            bits_per_dim(law, torch.tensor([[0, 3]]), 4, 1, 0)

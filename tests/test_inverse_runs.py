"""Whole runs: every method in chunks, in other units, with networks and on devices."""

import pytest
import torch

from scoresde.denoiser import Affine, EpsDenoiser
from scoresde.distributions import GaussianMixture
from scoresde.grids import quadratic
from scoresde.inverse import (
    DDRM,
    DPS,
    Mask,
    Matrix,
    Measurement,
    MomentMatching,
    Observed,
    PiGDM,
    RePaint,
    Replacement,
    posterior,
    sdedit,
)
from scoresde.likelihood import Fixed, log_likelihood
from scoresde.nets import MLP
from scoresde.samplers import DDIM, Ancestral, DPMSolverPP, Recorder, sample
from scoresde.sde import VPSDE

SDE = VPSDE()
METHODS = {
    "Replacement": (Observed, Replacement()),
    "RePaint": (Observed, RePaint(resamples=3)),
    "RePaint, jumps": (Observed, RePaint(resamples=2, jump=3)),
    "DDRM": (Observed, DDRM()),
    "DPS": (DPS, Ancestral()),
    "PiGDM": (PiGDM, Ancestral()),
    "MomentMatching": (MomentMatching, Ancestral()),
}


def two_numbers(rho=0.8):
    cov = torch.tensor([[1.0, rho], [rho, 1.0]])
    return GaussianMixture(torch.ones(1), torch.zeros(1, 2), cov[None], SDE)


class TestOneNumber:
    def test_replacement_of_everything(self):
        """A = I: then y is a state of the forward process, and nothing is approximated."""
        c, std, y, n = 1.5, 0.4, 0.8, 40_000
        law = GaussianMixture(torch.ones(1), torch.zeros(1, 1), c * torch.ones(1, 1, 1), SDE)
        measurement = Measurement(Mask(torch.tensor([True])), torch.tensor([[y]]), std)
        start = SDE.time_of_log_snr(-2 * torch.tensor(std).log())
        ts = torch.tensor([1.0, float(start) * (1 + 1e-9), 0.5 * float(start), 0.0])
        walk = Replacement(Ancestral("optimal", law.mmse))
        x = sample(Observed(law, measurement), walk, (n, 1), ts, seed=0)
        mean, var = c * y / (c + std**2), c * std**2 / (c + std**2)
        assert abs(float(x.mean()) - mean) < 5 * (var / n) ** 0.5
        assert abs(float(x.var()) / var - 1) < 5 * (2 / n) ** 0.5


class TestLikelihood:
    def test_density_of_the_posterior(self):
        """What is conditioned is a denoiser, so it has a density: the posterior's."""
        law = two_numbers()
        measurement = Measurement(Mask(torch.tensor([True, False])), torch.tensor([[0.7]]), 0.5)
        exact = posterior(law, measurement)
        x = exact.sample(5)
        found = log_likelihood(MomentMatching(law, measurement, 1), x, Fixed(64))
        expected = log_likelihood(exact, x, Fixed(64))
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
        # up to the prior at T, which is not the law there: some alpha(1) = 6.6e-3
        torch.testing.assert_close(found, exact.log_prob(x), rtol=0, atol=1e-2)


@pytest.mark.parametrize("name", METHODS)
class TestRuns:
    def build(self, name, y, std=0.3, law=None):
        measurement = Measurement(Mask(torch.tensor([True, False])), y, std)
        method, sampler = METHODS[name]
        return method(law or two_numbers(), measurement), sampler

    def test_chunks(self, name):
        """Each sample keeps its own measurement."""
        y = torch.linspace(-1, 1, 4200)[:, None]
        denoiser, sampler = self.build(name, y)
        run = lambda chunk: sample(
            denoiser, sampler, (4200, 2), quadratic(20), seed=0, chunk=chunk
        )
        whole = run(8192)
        torch.testing.assert_close(run(4096), whole, rtol=1e-10, atol=1e-10)
        # x_1 follows y closely: slope c/(c + s^2) = 0.92, less or more by the method
        assert float(torch.corrcoef(torch.stack([whole[:, 0], y[:, 0]]))[0, 1]) > 0.8

    def test_one_measurement_or_many(self, name):
        x, ts = torch.randn(6, 2), quadratic(10)
        outs = []
        for y in (torch.tensor([[0.4]]), torch.full((6, 1), 0.4)):
            denoiser, sampler = self.build(name, y)
            generator = torch.Generator().manual_seed(1)
            outs.append(sampler(denoiser, x, ts, generator))
        torch.testing.assert_close(*outs, rtol=1e-12, atol=1e-12)

    def test_no_sync(self, name, no_sync):
        denoiser, sampler = self.build(name, torch.tensor([[0.4]]))
        x, ts = torch.randn(4, 2), quadratic(4)
        with no_sync(x, denoiser.measurement.y, denoiser.measurement.operator.index):
            sampler(denoiser, x, ts)

    def test_networks_in_float32(self, name, float32):
        """In inference mode, as in float64; the measurement may stay in float64."""
        net, y = MLP(2, width=16, depth=1), torch.tensor([[0.4]]).double()
        torch.nn.init.normal_(net.trunk.last.weight, std=0.1)
        x, z, outs = torch.randn(4, 2), torch.randn(100, 4, 2), []
        for dtype in (torch.float32, torch.float64):
            model = EpsDenoiser(net.to(dtype), SDE)
            denoiser, sampler = self.build(name, y, 1.0, model)
            noise = lambda k, t, s, shape, device, dtype: z[k].to(dtype)
            outs.append(sampler(denoiser, x.to(dtype), quadratic(10), noise=noise))
        assert outs[0].dtype == torch.float32
        torch.testing.assert_close(outs[0].double(), outs[1], rtol=1e-4, atol=1e-4)

    def test_callback(self, name):
        denoiser, sampler = self.build(name, torch.tensor([[0.4]]))
        record, x, ts = Recorder(), torch.randn(3, 2), quadratic(6)
        out = sampler(denoiser, x, ts, torch.Generator().manual_seed(0), callback=record)
        plain = sampler(denoiser, x, ts, torch.Generator().manual_seed(0))
        torch.testing.assert_close(record.times, ts)
        assert torch.equal(record.x[0], x) and torch.equal(record.x[-1], out)
        torch.testing.assert_close(out, plain, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(record.x0_hat[0], denoiser(x, ts[0]), rtol=1e-9, atol=1e-9)

    @pytest.mark.gpu
    def test_gpu(self, name, float32, no_waiting):
        """On the device of x, without waiting for it, and as on the CPU."""
        x, ts = torch.randn(64, 2), quadratic(20)
        denoiser, sampler = self.build(name, torch.tensor([[0.4]]))
        z = torch.randn(1000, 64, 2)
        noise = lambda k, t, s, shape, device, dtype: z[k].to(device)
        expected = sampler(denoiser, x, ts, noise=noise)
        denoiser, z, x = denoiser.cuda(), z.cuda(), x.cuda()
        sampler(denoiser, x, ts, noise=noise)  # warm
        with no_waiting():
            found = sampler(denoiser, x, ts, noise=noise)
        torch.testing.assert_close(found.cpu(), expected, rtol=1e-3, atol=1e-3)


AFFINES = {
    "one scale": Affine(torch.tensor([0.5, -1.0]).double(), torch.tensor([2.0, 2.0]).double()),
    "two scales": Affine(torch.tensor([0.5, -1]).double(), torch.tensor([2.0, 0.7]).double()),
    "whitening": Affine(torch.zeros(2).double(), torch.tensor([[2.0, 0], [0.5, 0.7]]).double()),
}


class TestUnits:
    """A model of z, data x = mean + scale z: measurements are of x."""

    def both(self, name):
        """The law of z with its map, the law of x, and the matrix of the map."""
        affine, inner = AFFINES[name], two_numbers()
        matrix = affine.scale if affine.whitens else torch.diag(affine.scale)
        outer = GaussianMixture(
            torch.ones(1), affine.mean[None], (matrix @ inner.covs[0] @ matrix.T)[None], SDE
        )
        inner.affine = affine
        return inner, outer, matrix

    @pytest.mark.parametrize("name", AFFINES)
    def test_moment_matching(self, name):
        inner, outer, matrix = self.both(name)
        measurement = Measurement(Matrix(torch.tensor([[1.0, 0.4]])), torch.tensor([[0.9]]), 0.3)
        exact = posterior(outer, measurement).marginal()
        method = MomentMatching(inner, measurement, 1)
        x, t = torch.randn(4, 2), torch.tensor(1e-7)
        # pull at t -> 0 is A^T (y - A x)/s^2 in the units of z
        expected = measurement.operator.adjoint(measurement.residual(inner.affine.inverse(x)))
        pull = method.resolve(x, t)[1]
        torch.testing.assert_close(pull, expected / 0.09 @ matrix, rtol=1e-4, atol=1e-4)
        z = sample(method, Ancestral(), (4000, 2), quadratic(100), seed=0)
        assert float((z.mean(0) - exact[0]).norm()) < 5 * float(exact[1].trace() / 4000) ** 0.5
        # 5 standard errors, and the error of 100 steps
        spread = float(exact[1].diagonal().max())
        atol = spread * (5 * (2 / 4000) ** 0.5 + 0.02)
        torch.testing.assert_close(z.T.cov(), exact[1], rtol=0, atol=atol)

    @pytest.mark.parametrize("build", [PiGDM, lambda d, m: Observed(d, m)], ids=["PiGDM", "walk"])
    def test_one_scale_keeps_the_singular_values(self, build):
        inner, _, _ = self.both("one scale")
        y = torch.tensor([[0.9]])
        denoiser = build(inner, Measurement(Mask(torch.tensor([True, False])), y, 0.0))
        x = sample(denoiser, Replacement(), (5, 2), torch.linspace(1, 0, 11), seed=0)
        torch.testing.assert_close(x[:, 0], torch.full((5,), 0.9))

    @pytest.mark.parametrize("name", ["two scales", "whitening"])
    def test_others_are_refused(self, name):
        inner, _, _ = self.both(name)
        measurement = Measurement(Mask(torch.tensor([True, False])), torch.zeros(1, 1), 0.1)
        with pytest.raises(TypeError, match="use MomentMatching"):
            PiGDM(inner, measurement)
        with pytest.raises(TypeError, match="use MomentMatching"):
            sample(Observed(inner, measurement), DDRM(), (2, 2), quadratic(3))

    def test_sdedit(self):
        """The guide comes and the sample goes in the user's units."""
        inner, outer, _ = self.both("two scales")
        guide, ts = outer.sample(6), torch.linspace(1e-4, 1e-5, 3)
        out = sdedit(inner, DDIM(), guide, ts)
        torch.testing.assert_close(out, guide, rtol=0, atol=0.05)
        assert not torch.equal(sdedit(inner, DDIM(), guide, ts, seed=1), out)


def problem(y=None, std=0.1):
    known = Mask(torch.tensor([True, False]))
    return Measurement(known, torch.zeros(1, 1) if y is None else y, std)


REFUSED = {
    "expected std >= 0": lambda: problem(std=-1.0),
    r"y\[None\] adds the axis": lambda: problem(torch.zeros(1)),
    "expected finite y": lambda: problem(torch.tensor([[float("nan")]])),
    "std > 0: DPS": lambda: DPS(two_numbers(), problem(std=0.0)),
    'rule "likelihood" or "norm"': lambda: DPS(two_numbers(), problem(), rule="l2"),
    "data_var > 0": lambda: PiGDM(two_numbers(), problem(), data_var=0.0),
    "at least one iteration": lambda: MomentMatching(two_numbers(), problem(), 0),
    r"\(4, \*m\)": lambda: DPS(two_numbers(), problem(torch.zeros(3, 1)))(
        torch.zeros(4, 2), torch.tensor(0.5)
    ),
    "got y": lambda: run(Replacement(), problem(torch.zeros(1, 2))),
    "resamples >= 1": lambda: RePaint(resamples=0),
    "jump >= 1": lambda: RePaint(jump=0),
    "eta and eta_b": lambda: DDRM(eta=1.5),
    "remembers nothing": lambda: run(Replacement(DPMSolverPP(2)), problem()),
    "expected Observed": lambda: sample(two_numbers(), DDRM(), (2, 2), quadratic(3)),
    "expected a Linear operator, got function": lambda: posterior(
        two_numbers(), Measurement(lambda x: x, torch.zeros(1, 2), 0.1)
    ),
}


def run(sampler, measurement):
    return sample(Observed(two_numbers(), measurement), sampler, (4, 2), quadratic(3))


@pytest.mark.parametrize("message", REFUSED)
def test_refused(message):
    with pytest.raises((ValueError, TypeError), match=message):
        REFUSED[message]()

"""Measurements and the methods that are denoisers, against exact posteriors."""

import math

import pytest
import torch

from scoresde.denoiser import VDenoiser, Wrapper
from scoresde.distributions import GaussianMixture
from scoresde.inverse import (
    DPS,
    Mask,
    Matrix,
    Measurement,
    MomentMatching,
    PiGDM,
    log_evidence,
    posterior,
    random_projection,
)
from scoresde.nets import MLP
from scoresde.sde import VESDE, VPSDE

SDE = VPSDE()
SAME = dict(rtol=1e-12, atol=1e-12)


@pytest.fixture
def problem(reference):
    """P10, whitened: the law, the measurement with unit noise, and the root of its covariance."""
    item = reference["P10"]["inputs"]
    tensor = lambda name: torch.tensor(item[name])
    law = GaussianMixture(tensor("weights"), tensor("means"), tensor("covs"), SDE)
    root = torch.linalg.cholesky(tensor("R"))
    operator = Matrix(torch.linalg.solve(root, tensor("H")))
    y = torch.linalg.solve(root, tensor("y"))[None]
    return law, Measurement(operator, y, 1.0), root


@pytest.fixture
def point(reference):
    item = reference["P10"]["inputs"]
    return torch.tensor(item["x_t"])[None], torch.tensor(item["t"])


class TestPosterior:
    def test_reference(self, problem, reference):
        law, measurement, root = problem
        expected = reference["P10"]["expected"]
        exact = posterior(law, measurement)
        mean, cov = exact.marginal()
        log_p = log_evidence(law, measurement) - root.diagonal().log().sum()
        close = dict(rtol=1e-7, atol=1e-8)
        for found, name in (
            (exact.weights, "weights"),
            (exact.means, "component_means"),
            (exact.covs, "component_covs"),
            (mean, "mean"),
            (cov, "cov"),
            (log_p[0], "log_evidence"),
        ):
            torch.testing.assert_close(found, torch.tensor(expected[name]), **close)

    def test_the_pull_that_is_exact(self, problem, point, reference):
        law, measurement, _ = problem
        pull = posterior(law, measurement).score(*point) - law.score(*point)
        expected = torch.tensor(reference["P10"]["expected"]["grad_log_p_y_given_xt"])
        torch.testing.assert_close(pull[0], expected, rtol=1e-7, atol=1e-8)

    def test_evidence_of_many(self, problem):
        law, measurement, _ = problem
        y = torch.randn(4, 2)
        many = log_evidence(law, Measurement(measurement.operator, y, 1.0))
        for i in range(4):
            one = Measurement(measurement.operator, y[i, None], 1.0)
            torch.testing.assert_close(many[i, None], log_evidence(law, one), **SAME)
        with pytest.raises(ValueError, match="expected one y, got 4"):
            posterior(law, Measurement(measurement.operator, y, 1.0))

    def test_without_noise(self, problem):
        """What is measured is known, and the rest is conditional."""
        law, _, _ = problem
        mask = Mask(torch.tensor([True, False, False]))
        exact = posterior(law, Measurement(mask, torch.tensor([[0.3]]), 0.0))
        torch.testing.assert_close(exact.means[:, 0], torch.full((3,), 0.3), **SAME)
        assert float(exact.covs[:, 0].abs().max()) < 1e-15
        with pytest.raises(ValueError, match="use std > 0"):
            twice = Matrix(torch.tensor([[1.0, 0, 0], [1.0, 0, 0]]))
            posterior(law, Measurement(twice, torch.zeros(1, 2), 0.0))


class TestPull:
    """grad log p(y | x_t), in each of its approximations."""

    @pytest.mark.parametrize(
        "build, error",
        [(DPS, 5.32), (PiGDM, 1.10), (lambda *a: MomentMatching(*a, iterations=2), 1.04)],
        ids=["DPS", "PiGDM", "MomentMatching"],
    )
    def test_relative_errors_at_the_reference(self, problem, point, reference, build, error):
        """None is exact where p(x0 | x_t) has several modes: theory, section L."""
        law, measurement, _ = problem
        exact = torch.tensor(reference["P10"]["expected"]["grad_log_p_y_given_xt"])
        _, pull = build(law, measurement).resolve(*point)
        assert float((pull[0] - exact).norm() / exact.norm()) == pytest.approx(error, abs=6e-3)

    def test_dps_is_the_gradient_of_its_likelihood(self, problem):
        law, measurement, _ = problem
        x, t = torch.randn(6, 3), 0.1 + 0.5 * torch.rand(6)

        def log_h(x, rule):
            norm = measurement.residual(law(x, t)).norm(dim=1)
            powers = {"likelihood": -norm.square() / 2, "norm": -math.sqrt(2) * norm}
            return (0.7 * powers[rule]).sum()

        for rule in ("likelihood", "norm"):
            expected = torch.func.grad(lambda x, rule=rule: log_h(x, rule))(x)
            method = DPS(law, measurement, 0.7, rule)
            torch.testing.assert_close(method.resolve(x, t)[1], expected, **SAME)
            x0_hat = law(x, t) + (SDE.sigma2(t) / SDE.alpha(t))[:, None] * expected
            torch.testing.assert_close(method(x, t), x0_hat, **SAME)

    def test_the_two_rules_meet(self, problem):
        """Where the residual is what the noise leaves."""
        law, measurement, _ = problem
        x, t = torch.randn(1, 3), torch.tensor(0.3)
        seen = measurement.operator(law(x, t))
        away = torch.randn(1, 2)
        y = seen + math.sqrt(2) * 0.4 * away / away.norm()
        here = Measurement(measurement.operator, y, 0.4)
        pulls = [DPS(law, here, rule=rule).resolve(x, t)[1] for rule in ("likelihood", "norm")]
        torch.testing.assert_close(*pulls, **SAME)

    def test_pigdm_by_dense_matrices(self, problem):
        law, measurement, _ = problem
        x, t = torch.randn(5, 3), 0.1 + 0.5 * torch.rand(5)
        a, c = measurement.operator.matrix((3,)), 0.6
        alpha, sigma2 = SDE.alpha(t), SDE.sigma2(t)
        v = c * sigma2 / (alpha**2 * c + sigma2)
        s = v[:, None, None] * a @ a.T + torch.eye(2)
        force = torch.linalg.solve(s, measurement.residual(law(x, t)))
        jacobian = torch.func.vmap(torch.func.jacrev(lambda x, t: law(x[None], t)[0]))(x, t)
        expected = torch.einsum("bij,ki,bk->bj", jacobian, a, force)
        _, pull = PiGDM(law, measurement, data_var=c).resolve(x, t)
        torch.testing.assert_close(pull, expected, rtol=1e-10, atol=1e-10)

    def test_moment_matching_by_the_exact_covariance(self, problem):
        """Tweedie's second moment is the mixture's own; conjugate gradients solve it."""
        law, measurement, _ = problem
        x, t = torch.randn(5, 3), 0.1 + 0.5 * torch.rand(5)
        a, cov = measurement.operator.matrix((3,)), law.posterior_cov(x, t)
        force = torch.linalg.solve(a @ cov @ a.T + torch.eye(2), measurement.residual(law(x, t)))
        expected = law(x, t) + torch.einsum("bij,kj,bk->bi", cov, a, force)
        for iterations in (2, 6):  # and stays there
            found = MomentMatching(law, measurement, iterations)(x, t)
            torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)

    def test_operator_that_is_not_linear(self, problem):
        """Linearised at x0_hat: by the dense derivative; and a linear one as itself."""
        law, measurement, _ = problem
        x, t = torch.randn(5, 3), 0.1 + 0.5 * torch.rand(5)
        curve = lambda x: torch.stack([x[:, 0] ** 2 + x[:, 1], x[:, 2].sin()], 1)
        here = Measurement(curve, torch.tensor([[0.5, 0.2]]), 0.3)
        x0, cov = law(x, t), law.posterior_cov(x, t)
        a = torch.func.vmap(torch.func.jacrev(lambda x: curve(x[None])[0]))(x0)
        s = a @ cov @ a.mT + 0.09 * torch.eye(2)
        shift = cov @ a.mT @ torch.linalg.solve(s, here.residual(x0))[..., None]
        found = MomentMatching(law, here, 2)(x, t)
        torch.testing.assert_close(found, x0 + shift[..., 0], rtol=1e-9, atol=1e-9)
        bare = Measurement(lambda x: measurement.operator(x), measurement.y, 1.0)
        for method in (DPS, MomentMatching):
            torch.testing.assert_close(
                method(law, bare)(x, t), method(law, measurement)(x, t), **SAME
            )

    @pytest.mark.parametrize("sde", [VPSDE(), VESDE()], ids=lambda sde: type(sde).__name__)
    @pytest.mark.parametrize("name", ["eps", "v", "score", "velocity"])
    def test_all_quantities_agree(self, sde, name):
        """What is overridden against what follows from x0_hat."""
        net = MLP(3, width=16, depth=1)
        torch.nn.init.normal_(net.trunk.last.weight)
        measurement = Measurement(random_projection((3,), 2), torch.randn(1, 2), 0.5)
        method = PiGDM(VDenoiser(net, sde), measurement)
        x, t = torch.randn(5, 3), 0.1 + 0.8 * torch.rand(5)
        plain = Derived(method)
        torch.testing.assert_close(
            getattr(method, name)(x, t), getattr(plain, name)(x, t), rtol=1e-9, atol=1e-9
        )

    def test_regular_at_the_origin(self, problem):
        """There the posterior's own score: all three agree with it."""
        law, measurement, _ = problem
        x, t = law.sample(4), torch.tensor(0.0)
        expected = posterior(law, measurement).score(x, t)
        for method in (DPS, PiGDM, MomentMatching):
            found = method(law, measurement)
            assert found.regular
            torch.testing.assert_close(found.score(x, t), expected, rtol=1e-9, atol=1e-9)


class Derived(Wrapper):
    """Only x0_hat of another, so that the base class must derive all else."""

    def forward(self, x, t, **cond):
        return self.denoiser(x, t, **cond)

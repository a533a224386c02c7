"""The room of exact distributions: conditioning, Gaussian paths, and the names it had before."""

import importlib

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from scoresde import VPSDE, Distribution, distributions
from scoresde.data import OrnsteinUhlenbeck
from scoresde.distributions import (
    GaussianMixture,
    bridge,
    condition,
    gaussian_trajectories,
    log_evidence,
)

SDE = VPSDE()
A = torch.tensor([[1.0, 0.5, -0.3], [0.0, 1.0, 2.0]], dtype=torch.float64)
Y, STD = torch.tensor([0.7, -0.4], dtype=torch.float64), 0.3


def mixture():
    root = torch.randn(2, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    means = torch.tensor([[1.0, 0.0, -0.5], [-1.0, 0.4, 0.2]])
    return GaussianMixture([0.3, 0.7], means, root @ root.mT, SDE)


class TestConditioning:
    def test_the_joint_of_numbers_and_measurements(self):
        """Each component from the precision form, its weight from scipy's density of y."""
        prior, a, y = mixture(), A.numpy(), Y.numpy()
        found = condition(prior, A, Y, STD)
        evidence = []
        for k in range(2):
            m, c = prior.means[k].numpy(), prior.covs[k].numpy()
            cov = np.linalg.inv(np.linalg.inv(c) + a.T @ a / STD**2)
            mean = cov @ (np.linalg.solve(c, m) + a.T @ y / STD**2)
            np.testing.assert_allclose(found.covs[k], cov, rtol=1e-9, atol=1e-12)
            np.testing.assert_allclose(found.means[k], mean, rtol=1e-9, atol=1e-12)
            of_y = multivariate_normal(a @ m, a @ c @ a.T + STD**2 * np.eye(2))
            evidence.append(float(prior.weights[k]) * of_y.pdf(y))
        np.testing.assert_allclose(found.weights, np.array(evidence) / sum(evidence), rtol=1e-11)
        value = log_evidence(prior, A, Y[None], STD)
        np.testing.assert_allclose(value, [np.log(sum(evidence))], rtol=1e-11)

    @pytest.mark.parametrize(
        ("matrix", "y", "std", "message"),
        [
            (A[:, :2], Y, STD, r"expected a matrix \(m, 3\)"),
            (A, Y[:1], STD, "m numbers for each measurement"),
            (A, Y, -1.0, "expected std >= 0"),
            (A[[0, 0]], Y, 0.0, "use std > 0"),
        ],
    )
    def test_clear_errors(self, matrix, y, std, message):
        with pytest.raises(ValueError, match=message):
            condition(mixture(), matrix, y, std)


class TestGaussianTrajectories:
    def test_each_position_belongs_to_its_index(self):
        """Counted from the end, as from the start: a bridge from 2 to -2."""
        family, ends = OrnsteinUhlenbeck(length=7), torch.tensor([[2.0, 0.0], [-2.0, 1.0]])
        known = family.posterior(SDE, (0, 6), ends, 0.1)
        found = family.posterior(SDE, (-1, 0), ends.flip(0), 0.1)
        torch.testing.assert_close(found.means, known.means, rtol=0, atol=1e-12)
        torch.testing.assert_close(found.covs, known.covs, rtol=0, atol=1e-12)

    def test_any_number_of_channels(self):
        """Three coordinates that do not know of each other: a bridge of one is a bridge of all."""
        kernel = OrnsteinUhlenbeck(length=5).covariance[:, 0, :, 0]
        paths = lambda c: gaussian_trajectories(
            torch.zeros(5, c), torch.einsum("st,ab->satb", kernel, torch.eye(c)), SDE
        )
        y = torch.tensor([[1.0, -2.0, 0.5]])
        three, one = (bridge(paths(c), (3,), y[:, :c], 0.2) for c in (3, 1))
        torch.testing.assert_close(three.means[0], one.means[0] * y, rtol=1e-12, atol=0)

    def test_clear_errors(self):
        with pytest.raises(ValueError, match=r"expected a mean \(L, C\)"):
            gaussian_trajectories(torch.zeros(4, 2), torch.zeros(8, 8), SDE)
        with pytest.raises(ValueError, match=r"a position \(2,\) for each"):
            bridge(OrnsteinUhlenbeck(length=4).law(SDE), (0, 1), torch.zeros(2, 3), 0.1)


FORMER = {
    ("scoresde.mixture", "GaussianMixture"): GaussianMixture,
    ("scoresde.mixture", "Law"): Distribution,
    ("scoresde.data", "Boxes"): distributions.Boxes,
    ("scoresde.physics", "Empirical"): distributions.Empirical,
}


@pytest.mark.parametrize(("module", "name"), FORMER)
def test_former_names(module, name):
    thing = FORMER[module, name]
    with pytest.warns(DeprecationWarning, match=f"{module}.{name} is now {thing.__module__}"):
        assert getattr(importlib.import_module(module), name) is thing
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        importlib.import_module(module).Nothing  # noqa: B018

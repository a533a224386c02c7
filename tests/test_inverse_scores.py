"""Every method scored against the exact posterior, on a mixture and on random fields.

`python tests/test_inverse_scores.py` prints the tables of docs/theory/inverse.md.
"""

import json
import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from scoresde.distributions import GaussianMixture
from scoresde.grids import quadratic
from scoresde.inverse import (
    DDRM,
    DPS,
    BlockAverage,
    Blur,
    Fourier,
    Grey,
    Mask,
    Matrix,
    Measurement,
    MomentMatching,
    Observed,
    PiGDM,
    RePaint,
    Replacement,
    log_evidence,
    posterior,
    random_projection,
)
from scoresde.metrics import sliced_wasserstein
from scoresde.samplers import DDIM, Ancestral, DPMSolverPP, PFHeun, TwistedSMC, sample
from scoresde.sde import VPSDE

SDE = VPSDE()


def random_field(*event, slope=1.5, scale=1.0, mean=0.0):
    """A periodic Gaussian field, power (1 + k^2)^-slope, correlated between channels."""
    *channels, height, width = event
    ky, kx = (torch.fft.fftfreq(n, 1 / n) for n in (height, width))
    power = (1 + ky[:, None] ** 2 + kx**2) ** -slope
    rows = torch.fft.ifft2(power).real
    shift = [rows.roll((i, j), (0, 1)).flatten() for i in range(height) for j in range(width)]
    cov = torch.stack(shift) / rows[0, 0] * scale**2
    c = math.prod(channels)
    cov = torch.kron(0.6 * torch.ones(c, c) + 0.4 * torch.eye(c), cov) if c > 1 else cov
    return torch.full(event, mean), cov


def field_law(*event):
    mean, cov = random_field(*event)
    return GaussianMixture(torch.ones(1), mean[None], cov[None], SDE)


def two_fields(*event):
    """Rough fields about -0.5 and smooth ones about 0.8."""
    rough, smooth = (
        random_field(*event, slope=1.0, mean=-0.5),
        random_field(*event, slope=2.5, mean=0.8),
    )
    means, covs = (torch.stack(pair) for pair in zip(rough, smooth, strict=True))
    return GaussianMixture(torch.tensor([0.4, 0.6]), means, covs, SDE)


def half(*event):
    """A mask without the middle of every field."""
    known = torch.ones(event, dtype=torch.bool)
    height, width = event[-2:]
    known[..., height // 4 : -height // 4, width // 4 : -width // 4] = False
    return Mask(known)


def low_frequencies(n, reach):
    k = torch.fft.fftfreq(n, 1 / n).abs()
    return Fourier((k[:, None] <= reach) & (k <= reach))


OPERATORS = {
    "mask": (lambda: half(16, 16), (16, 16)),
    "blocks": (lambda: BlockAverage(4), (16, 16)),
    "blur": (lambda: Blur.gaussian(1.5, (16, 16)), (16, 16)),
    "projection": (lambda: random_projection((16, 16), 40), (16, 16)),
    "fourier": (lambda: low_frequencies(16, 2), (16, 16)),
    "grey": (lambda: Grey(), (3, 8, 8)),
    "mask of colours": (lambda: half(3, 8, 8), (3, 8, 8)),
    "blocks of colours": (lambda: BlockAverage(2), (3, 8, 8)),
}
operators = pytest.mark.parametrize("name", OPERATORS)


def measured(law, operator, std, seed=0):
    generator = torch.Generator().manual_seed(seed)
    y = operator(law.sample(1, generator=generator))
    return Measurement(operator, y + std * torch.randn(y.shape, generator=generator), std)


class TestFields:
    """Exact statements on images."""

    @operators
    def test_bayes(self, name):
        """log p(x|y) = log p(x) + log N(y; A x, s^2) - log p(y), at any x."""
        build, event = OPERATORS[name]
        law, operator, std = two_fields(*event), build(), 0.2
        measurement = measured(law, operator, std)
        x = law.sample(3)
        residual = measurement.residual(x).flatten(1)
        m = residual.shape[1]
        likelihood = -0.5 * residual.square().sum(1) / std**2
        likelihood = likelihood - m * math.log(std * math.sqrt(2 * math.pi))
        expected = law.log_prob(x) + likelihood - log_evidence(law, measurement)
        found = posterior(law, measurement).log_prob(x)
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-5)

    @operators
    def test_exact_for_a_gaussian_field(self, name):
        """The score of the posterior, to 1e-8."""
        build, event = OPERATORS[name]
        law, operator = field_law(*event), build()
        measurement = measured(law, operator, 0.3)
        method = MomentMatching(law, measurement, iterations=80)
        exact = posterior(law, measurement)
        for t in (0.05, 0.3, 0.8):
            x = exact.sample(2, torch.tensor(t))
            found, expected = (d.score(x, torch.tensor(t)) for d in (method, exact))
            assert float((found - expected).abs().max() / expected.abs().max()) < 1e-8

    @operators
    def test_pigdm_is_exact_for_white_noise(self, name):
        build, event = OPERATORS[name]
        d, c = math.prod(event), 0.7
        law = GaussianMixture(
            torch.ones(1), torch.full((1, *event), 0.2), c * torch.eye(d)[None], SDE
        )
        measurement = measured(law, build(), 0.1)
        x, t = torch.randn(2, *event), torch.tensor([0.2, 0.7])
        found = PiGDM(law, measurement, data_var=c).score(x, t)
        expected = posterior(law, measurement).score(x, t)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def largest(law):
    """The largest variance in any direction."""
    return float(torch.linalg.eigvalsh(law.marginal()[1]).max())


METHODS = {
    "exact posterior": lambda law, m: (posterior(law, m), Ancestral()),
    "prior": lambda law, m: (law, Ancestral()),
    "Replacement": lambda law, m: (Observed(law, m), Replacement()),
    "RePaint": lambda law, m: (Observed(law, m), RePaint()),
    "RePaint, jump 10": lambda law, m: (Observed(law, m), RePaint(jump=10)),
    "DDRM": lambda law, m: (Observed(law, m), DDRM()),
    "DPS": lambda law, m: (DPS(law, m), Ancestral()),
    "DPS, norm": lambda law, m: (DPS(law, m, rule="norm"), Ancestral()),
    "PiGDM": lambda law, m: (PiGDM(law, m), Ancestral()),
    "PiGDM, largest c": lambda law, m: (PiGDM(law, m, largest(law)), Ancestral()),
    "MomentMatching, 20": lambda law, m: (MomentMatching(law, m, 20), Ancestral()),
    "MomentMatching": lambda law, m: (MomentMatching(law, m), Ancestral()),
    "TwistedSMC of PiGDM": lambda law, m: (PiGDM(law, m, largest(law)), TwistedSMC(Ancestral())),
    "TwistedSMC": lambda law, m: (MomentMatching(law, m, 20), TwistedSMC(Ancestral())),
}


def score(law, measurement, name, n, steps):
    """Errors of mean and covariance, and sliced W2, in units of the posterior's own spread."""
    exact = posterior(law, measurement)
    denoiser, sampler = METHODS[name](law, measurement)
    x = sample(denoiser, sampler, (n, *law.event), quadratic(steps), seed=0, chunk=n)
    x = x.flatten(1)
    truth = exact.sample(n, generator=torch.Generator().manual_seed(99)).flatten(1)
    mean, cov = exact.marginal()
    spread = cov.trace().sqrt()
    return (
        float((x.mean(0) - mean).norm() / spread),
        float((x.T.cov() - cov).norm() / cov.norm()),
        float(sliced_wasserstein(x, truth) * law.dim**0.5 / spread),
    )


def reference_problem(item):
    tensor = lambda name: torch.tensor(item[name])
    law = GaussianMixture(tensor("weights"), tensor("means"), tensor("covs"), SDE)
    root = torch.linalg.cholesky(tensor("R"))
    operator = Matrix(torch.linalg.solve(root, tensor("H")))
    return law, Measurement(operator, torch.linalg.solve(root, tensor("y"))[None], 1.0)


class TestScores:
    def test_a_mixture(self, reference):
        """P10, whose posterior has two modes: nobody is right, some are less wrong than others."""
        law, measurement = reference_problem(reference["P10"]["inputs"])
        order = ["RePaint", "MomentMatching", "PiGDM", "Replacement", "prior"]
        names = ["exact posterior", "TwistedSMC of PiGDM", *order]
        mean, cov, sw = (
            dict(zip(names, column, strict=True))
            for column in zip(*(score(law, measurement, n, 3000, 60) for n in names), strict=True)
        )
        # 5 standard errors of a mean; covariance and distance include the error of 60 steps
        assert mean["exact posterior"] < 5 / 3000**0.5 and cov["exact posterior"] < 0.06
        assert sw["exact posterior"] < 0.08
        for better, worse in pairwise(order):
            assert sw[better] < sw[worse]
            assert mean[better] < mean[worse]
        for error in (mean, sw):
            assert error["TwistedSMC of PiGDM"] < error["RePaint"] / 3
        assert mean["MomentMatching"] > 0.2  # far outside of any chance

    @pytest.mark.parametrize("name", ["mask", "blocks", "grey"])
    def test_images(self, name):
        """A mixture of two random fields: where one of them is left, moments are enough."""
        build, event = OPERATORS[name]
        law = two_fields(*event)
        measurement = measured(law, build(), 0.2)
        run = lambda method: score(law, measurement, method, 64, 40)
        exact, found = run("exact posterior"), run("MomentMatching, 20")
        assert found[0] < 1.05 * exact[0] + 0.02 and found[2] < 1.05 * exact[2]
        # Block means leave to replacement no more than chance can tell (docs/theory/inverse.md).
        near = {"blocks": (), "mask": ("Replacement",), "grey": ("Replacement",)}
        for other in ("DDRM", "DPS, norm", "PiGDM, largest c", *near[name]):
            assert run(other)[2] > 1.02 * found[2]

    @pytest.mark.parametrize("sampler", [Ancestral(), DDIM(0.5), DPMSolverPP(2), PFHeun()])
    @pytest.mark.parametrize("name", ["mask", "grey"])
    def test_a_gaussian_field(self, name, sampler):
        """With the same noise the samples of moment matching are the posterior's own."""
        build, event = OPERATORS[name]
        law = field_law(*event)
        measurement = measured(law, build(), 0.3)
        run = lambda denoiser: sample(denoiser, sampler, (2, *event), quadratic(12), seed=0)
        found = run(MomentMatching(law, measurement, iterations=60))
        expected = run(posterior(law, measurement))
        torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-7)


def table(title, law, measurement, n, steps):
    """One table of the docs."""
    print(f"\n{title}: {n} samples, {steps} steps\n| method | mean | covariance | sliced W2 |")
    for name in METHODS:
        errors = score(law, measurement, name, n, steps)
        print(f"| {name} |", " | ".join(f"{e:.3g}" for e in errors), "|", flush=True)


if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    path = Path(__file__).parent / "reference" / "public.json"
    items = {item["id"]: item for item in json.loads(path.read_text("utf-8"))["items"]}
    table("P10", *reference_problem(items["P10"]["inputs"]), 10_000, 200)
    for name in ("mask", "blocks", "blur", "grey"):
        build, event = OPERATORS[name]
        law = two_fields(*event)
        table(name, law, measured(law, build(), 0.2), 256, 200)

"""The main demonstration, made small: every part of its page is there, and is measured."""

import json
import re

import pytest
import torch

from scoresde.cli import main
from scoresde.data import ring
from scoresde.demos import points
from scoresde.demos.points.figures import exact_convergence, first_axis, prior_mismatch
from scoresde.distributions import GaussianMixture
from scoresde.sde import VPSDE

pytestmark = pytest.mark.usefixtures("float32")


def _demo(folder, device):
    words = ["demo", "--out", str(folder), "--steps", "60", "--samples", "256"]
    assert main([*words, "--device", device]) == 0
    return (folder / "report.html").read_text(), json.loads((folder / "scores.json").read_text())


def _check(page, scores, chain=1000):
    for heading in (
        "The same walks against time",
        "How far is each from the truth?",
        "Does discrete training matter?",
        "What was learned",
        "Error against evaluations",
        "Guidance to one mode",
        "Both ends of time",
    ):
        assert heading.replace("?", "") in page
    assert page.count("<img") == 8 and page.count("data:image/gif") == 1
    assert page.count("<source") == 7  # a dark version of every figure but the animation
    assert not re.search(r"(src|href|srcset)=\"(?!data:)", page) and "://" not in page
    assert len(page) < 8 * 2**20
    networks = {row["network"] for row in scores}
    views = {row["view"] for row in scores if row["network"] == "A"}
    assert networks == {"A", "B", "exact score"} and views == {"chain", "sde", "ode"}
    best = lambda name: min(r["sliced_w2"] for r in scores if r["network"] == name)
    assert best("exact score") < best("A")  # sixty steps do not make a network
    thousand = [r for r in scores if r["view"] == "chain"]
    assert {r["evaluations"] for r in thousand} == {chain}


@pytest.mark.slow
def test_demo(tmp_path, capsys):
    _check(*_demo(tmp_path / "demo", "cpu"))
    out = capsys.readouterr().out
    assert "exact samples (the floor)" in out and "report.html" in out


@pytest.mark.gpu
@pytest.mark.slow
def test_demo_on_a_gpu(tmp_path, monkeypatch):
    monkeypatch.setattr(points, "CHAIN", 20)
    monkeypatch.setattr(points, "STEPS", (4, 8))
    monkeypatch.setattr(points, "POOL", 2000)
    _check(*_demo(tmp_path / "demo", "cuda"), chain=20)


@pytest.mark.real_gpu
def test_the_whole_demo_on_a_gpu(tmp_path):
    _check(*_demo(tmp_path / "demo", "cuda"))


def test_exact_convergence_ranks_the_orders():
    """At 800 evaluations second order is far ahead, and both chains are of first order."""
    curves, views = exact_convergence(ring(VPSDE()))
    last = {name: errors[-1] for name, (_, errors) in curves.items()}
    assert last["Heun"] < 0.1 * min(v for name, v in last.items() if name != "Heun")
    for name in ("chain β", "DDPM linear, β"):
        n, errors = curves[name]
        assert n[-1] / n[-2] == 2 and errors[-2] / errors[-1] == pytest.approx(2, rel=0.05)
    assert views["Heun"] == "ode"


def test_first_axis_is_the_marginal():
    law = ring(VPSDE())
    t, x = torch.tensor(0.3, dtype=torch.float64), torch.linspace(-2, 2, 5).double()[:, None]
    y = torch.linspace(-6, 6, 1201).double()
    plane = torch.stack([x.expand(-1, len(y)), y.expand(len(x), -1)], -1).reshape(-1, 2)
    density = law.log_prob(plane, t).exp().reshape(len(x), -1)
    marginal = torch.trapezoid(density, y, dim=1)
    torch.testing.assert_close(first_axis(law).log_prob(x, t).exp(), marginal, rtol=1e-8, atol=0)


def test_prior_mismatch_is_the_gaussians():
    """KL(N(m, V) || N(0, 1)) in closed form, at t = 1."""
    law = GaussianMixture([1.0], [[0.8, 0.0]], [[[0.25, 0.0], [0.0, 0.25]]], VPSDE())
    mean, cov = law.marginal(torch.tensor(1.0, dtype=torch.float64))
    exact = 0.5 * (cov.trace() + mean.square().sum() - 2 - cov.logdet())
    assert prior_mismatch(law, law.sde) == pytest.approx(float(exact), rel=1e-6)

"""The bias of every sampler on Gaussian data, without samples: against closed forms and orders."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch

from scoresde import (
    DDIM,
    PFRK4,
    VPSDE,
    Adams,
    Ancestral,
    ClassifierFree,
    CosineVPSDE,
    EulerMaruyama,
    GaussianMixture,
    Guided,
    KarrasSDE,
    Langevin,
    PFHeun,
    PredictorCorrector,
    ReverseDiffusion,
    UniPC,
    X0Denoiser,
    log_snr,
    moments,
    sample,
    uniform,
)
from scoresde.cli import main
from scoresde.cli.exact import bias_table, compare_exact, curves_of, exact_rows, gaussian_of
from scoresde.comparison import Entry
from scoresde.data import gauss, gm1
from scoresde.diagnosis import Bias, bias_entries, exact_bias, power_product
from scoresde.guidance import Tempered
from scoresde.inverse import (
    DDRM,
    DPS,
    Mask,
    Matrix,
    Measurement,
    MomentMatching,
    Observed,
    RePaint,
    Replacement,
    posterior,
)
from scoresde.plots import fit_order
from scoresde.runs import LawData, Run

SDE = VPSDE()


def line(c=0.25, m=0.8, sde=SDE):
    return GaussianMixture([1.0], [[m]], [[[c]]], sde)


def test_known_variances_give_known_distances():
    """N (V_N - c) of Euler-Maruyama at N = 2560 by the table of the theory; W2 and KL from it."""
    found = exact_bias(EulerMaruyama(), line(0.25, 0.0), uniform(2560, 1.0, 0.0))
    v = float(found.cov)
    assert v - 0.25 == pytest.approx(1.37e-4, rel=5e-3)
    assert float(found.w2) == pytest.approx(abs(math.sqrt(v) - 0.5), rel=1e-9)
    rho = 0.25 / v
    assert float(found.kl) == pytest.approx(0.5 * (rho - 1 - math.log(rho)), rel=1e-6)


def test_a_shifted_mean_enters_both():
    truth = line().marginal(torch.tensor(0.0))
    start, ts = (torch.tensor([5.0]), torch.tensor([[2.0]])), uniform(200, 1.0, 0.0)
    found = exact_bias(EulerMaruyama(), line(), ts, start)
    assert float(found.w2) > 1.001 * float(exact_bias(EulerMaruyama(), line(), ts).w2)
    torch.testing.assert_close(found.mean, moments(EulerMaruyama(), line(), ts, start)[0][-1])
    m, v = float(found.mean - truth[0]), float(found.cov)
    assert float(found.w2) == pytest.approx(math.hypot(m, math.sqrt(v) - 0.5), rel=1e-12)
    rho = 0.25 / v
    kl = 0.5 * (rho - 1 - math.log(rho) + m * m / v)
    assert float(found.kl) == pytest.approx(kl, rel=1e-9)


def test_an_anisotropic_gaussian_is_the_product_of_its_axes():
    """W2^2 and KL add up over the principal axes, whatever their direction."""
    turn = torch.linalg.qr(torch.randn(3, 3)).Q
    spectrum, m = torch.tensor([0.04, 0.5, 3.0]), torch.tensor([0.3, -1.0, 0.5])
    law = GaussianMixture([1.0], (turn @ m)[None], ((turn * spectrum) @ turn.T)[None], SDE)
    sampler, ts = PredictorCorrector(ReverseDiffusion(), Langevin()), log_snr(SDE, 40)
    found = exact_bias(sampler, law, ts)
    axes = [
        exact_bias(sampler, line(float(c), float(mu)), ts)
        for c, mu in zip(spectrum, m, strict=True)
    ]
    squares = sum(float(one.w2) ** 2 for one in axes)
    assert float(found.w2) == pytest.approx(math.sqrt(squares), rel=1e-9)
    assert float(found.kl) == pytest.approx(sum(float(one.kl) for one in axes), rel=1e-8)


def test_small_divergences_keep_their_digits():
    """KL ~ x^2/4 at a relative error x of the variance: 1e-16 and below, not rounding."""
    found = exact_bias(Adams(4, 4), line(0.25, 0.0), log_snr(SDE, 640))
    x = float(found.cov / line().marginal(torch.tensor(1e-3))[1] - 1)
    assert 0 < abs(x) < 1e-7
    assert float(found.kl) == pytest.approx(x * x / 4, rel=1e-3)


def test_a_flat_law_is_infinitely_far():
    """DDIM in one step to t = 0 is a point: x0_hat of a start without spread."""
    start = torch.zeros(1), torch.zeros(1, 1)
    found = exact_bias(DDIM(), line(), uniform(1, 1.0, 0.0), start)
    assert math.isinf(float(found.kl)) and math.isfinite(float(found.w2))


def test_samples_follow_the_law_that_is_judged():
    law, ts = gauss(SDE), log_snr(SDE, 12)
    found = exact_bias(EulerMaruyama(), law, ts, (torch.zeros(2), torch.eye(2)))
    x = sample(law, EulerMaruyama(), (60_000, 2), ts, seed=0, dtype=torch.float64, last="stop")
    error = (found.cov.diagonal() / len(x)).sqrt()
    assert ((x.mean(0) - found.mean).abs() < 5 * error).all()
    spread = found.cov.diagonal()
    assert ((x.var(0) - spread).abs() < 5 * spread * math.sqrt(2 / len(x))).all()


def test_p12_langevin_at_rest(reference):
    """Unadjusted Langevin at a fixed time settles at v/(1 - delta/2v), not at v."""
    item = reference["P12"]
    v, delta = item["inputs"]["ula"]["v"], item["inputs"]["ula"]["delta"]
    t = SDE.time_of_log_snr(torch.tensor(math.log(0.8 / 0.2)))  # alpha^2 = 0.8, sigma^2 = 0.2
    a, b, c = Langevin(math.sqrt(delta / 0.4)).row(SDE, t)  # delta = 2 r^2 sigma^2
    data = (v - 0.2) / 0.8
    factor = float(a + b * 0.8**0.5 * data / v)  # x0_hat = alpha data/v x
    at_rest = float(c) ** 2 / (1 - factor**2)
    expected = item["expected"]["ula"]["stationary"]
    assert at_rest == pytest.approx(expected, rel=item["rtol"], abs=item["atol"])


# ---- every sampler ------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def rows():
    return exact_rows(gauss(SDE), (80, 160, 320))


def test_the_orders_are_those_that_are_declared(rows):
    """Read off W2; KL falls twice as fast. Exceptions are named, with their reason."""
    reason = {
        "DDPM chain, β̃": "log(N)/N on a uniform grid",
        "Euler-Maruyama + Langevin": "the corrector's bias is itself of order one, of either sign",
        "reverse diffusion + Langevin": "the same",
        "DDIM + Langevin": "the same: the error changes its sign",
        "SA-Solver": "its predictor and corrector of two steps are of third order here",
        "DPM++ 3M": "its last order shows on this law",
        "UniPC 3": "the same",
        "DEIS 3": "the same",
        "Adams (recommended)": "another grid for every n",
    }
    seen = set()
    for label, own in curves_of(rows).items():
        n, w2, kl = zip(*((r.evaluations, r.w2, r.kl) for r in own), strict=True)
        order = fit_order(n, w2)
        if label not in reason:
            assert order == pytest.approx(own[0].entry.sampler.order, abs=0.25), label
            if min(kl) > 1e-12:
                assert fit_order(n, kl) == pytest.approx(2 * order, abs=0.15), label
        else:
            assert order > 0.85, label
            seen.add(label)
    assert seen == reason.keys() and len(curves_of(rows)) == 25


def test_the_optimal_variance_beats_both_of_ho(rows):
    last = {label: own[-1] for label, own in curves_of(rows).items()}
    best = last["DDPM chain, optimal σ²"]
    assert best.kl < 0.3 * last["DDPM chain, β"].kl < 0.05 * last["DDPM chain, β̃"].kl


def test_evaluations_are_counted_and_never_more_than_asked(rows):
    for own in curves_of(rows).values():
        for row, n in zip(own, (80, 160, 320), strict=True):
            assert 0.95 * n <= row.evaluations <= n


def test_other_processes():
    chains = lambda law: sum(e.view == "chain" for e in bias_entries(law, (20,)))
    assert chains(gm1(SDE).component(0)) == 3
    for sde in (CosineVPSDE(), KarrasSDE()):
        law = line(sde=sde)
        assert chains(law) == 0
        for entry in bias_entries(law, (24,)):
            assert isinstance(entry, Entry)
            assert math.isfinite(float(exact_bias(entry.sampler, law, entry.ts).w2))


def test_what_is_not_affine_is_refused():
    song = PredictorCorrector(ReverseDiffusion(), Langevin(rule="song"))
    with pytest.raises(TypeError, match="not affine"):
        exact_bias(song, line(), log_snr(SDE, 4))
    with pytest.raises(ValueError, match="single Gaussian"):
        exact_bias(DDIM(), gm1(SDE), log_snr(SDE, 4))
    assert Bias._fields == ("w2", "kl", "mean", "cov")


# ---- the command --------------------------------------------------------------------------------
def test_compare_exact_without_a_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["compare", "--exact", "--law", "gm1", "--steps", "8", "16", "32"]) == 0
    out, folder = capsys.readouterr().out, tmp_path / "runs" / "exact-gm1"
    assert "written: runs/exact-gm1/exact.html" in out and "W2 at 32" in out
    rows = json.loads((folder / "exact.json").read_text())["rows"]
    assert len({r["sampler"] for r in rows}) == 25 and len(rows) == 75
    mean, cov = gm1(SDE).marginal()
    law = GaussianMixture([1.0], mean[None], cov[None], SDE)
    row = next(r for r in rows if r["sampler"] == "DDPM chain, β" and r["evaluations"] == 32)
    assert row["W2"] == pytest.approx(
        float(exact_bias(Ancestral("beta"), law, uniform(32, 1.0, 0.0)).w2), rel=1e-9
    )
    assert len(list((folder / "figures").glob("exact-*.png"))) == 6


def test_compare_exact_on_a_run_takes_its_process_and_its_data(tmp_path, capsys):
    out = tmp_path / "r"
    words = ["train", "--law", "gm1", "--process", "cosine", "--out", str(out)]
    assert main([*words, "--steps", "2", "--width", "8", "--device", "cpu"]) == 0
    assert main(["compare", str(out), "--exact", "--steps", "10", "20"]) == 0
    assert "CosineVPSDE" in capsys.readouterr().out and (out / "exact.html").is_file()
    run = Run.open(out)
    law, (mean, cov) = gaussian_of(run), gm1(SDE).marginal()
    torch.testing.assert_close(law.means[0], mean)
    torch.testing.assert_close(law.covs[0], cov)
    # a law that is no mixture is sampled
    boxes = dataclasses.replace(run.config, data=LawData("checkerboard"))
    law = gaussian_of(dataclasses.replace(run, config=boxes))
    exact = dataclasses.replace(run, config=boxes).law
    x = exact.sample(200_000, generator=torch.Generator().manual_seed(1)).double()
    spread = law.covs[0].diagonal()
    assert ((law.means[0] - x.mean(0)).abs() < 5 * (spread / 50_000).sqrt()).all()
    torch.testing.assert_close(x.var(0), spread, rtol=0.02, atol=0)


def test_a_run_on_points_takes_those_held_out_in_the_networks_units(tmp_path):
    out = tmp_path / "r"
    points = np.random.default_rng(0).normal([1000, -5], [300, 0.1], size=(400, 2))
    np.savetxt(tmp_path / "mine.csv", points, delimiter=",")
    words = ["train", "--data", str(tmp_path / "mine.csv"), "--out", str(out), "--steps", "2"]
    assert main([*words, "--width", "8", "--device", "cpu"]) == 0
    law, kept = (
        gaussian_of(Run.open(out)),
        torch.from_numpy(np.load(out / "held-out.npy")).double(),
    )
    affine = Run.open(out).denoiser.affine.double()
    torch.testing.assert_close(law.means[0], affine(kept).mean(0))
    assert law.covs[0].diagonal().tolist() == pytest.approx([1, 1], abs=5 * math.sqrt(2 / 40))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["compare"], "expected the folder of a run"),
        (["compare", "somewhere", "--law", "ring"], "with --exact alone"),
        (["compare", "somewhere", "--exact", "--law", "ring"], "got both"),
        (["compare", "--exact", "--law", "circle"], "expected --law among gm1"),
        (["compare", "--exact", "--law", "checkerboard"], "a mixture of Gaussians"),
        (["compare", "--exact", "--steps", "0"], "expected --steps >= 1"),
        (["compare", "--exact", "--guidance", "2"], "a mixture of several Gaussians"),
        (["compare", "--exact", "--guidance", "2", "--temperature", "2"], "got both"),
        (["compare", "somewhere", "--temperature", "2"], "with --exact alone"),
        (["compare", "--exact", "--law", "gm1", "--guidance", "-9"], "no Gaussian to compare"),
    ],
)
def test_one_line_for_what_goes_wrong(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 1
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1


def test_the_table_has_a_column_for_each_count():
    heads, cells = bias_table(exact_rows(line(), (2, 12)))
    assert heads[2:4] == ["W2 at 2", "W2 at 12"] and all(len(row) == len(heads) for row in cells)
    short = next(row for row in cells if row[0] == "Runge-Kutta 4")
    assert short[2] == "" and float(short[3]) > 0  # two evaluations are not one step


def test_compare_exact_returns_what_it_prints_whatever_the_order_of_the_steps(tmp_path):
    rows = compare_exact(None, None, tmp_path, (8, 2, 8))
    assert len(rows) == 25 + 23 and all(row.w2 > 0 and row.kl > 0 for row in rows)
    assert next(row for row in rows if row.entry.label == "Euler").evaluations == 2
    heads, cells = bias_table(rows)
    short = next(row for row in cells if row[0] == "Runge-Kutta 4")
    assert heads[2:4] == ["W2 at 2", "W2 at 8"] and short[2] == ""


# ---- guided Gaussians ---------------------------------------------------------------------------
plain = lambda c, m=0.0: line(c, m)


def plane(rho=0.8):
    return GaussianMixture([1.0], [[0.0, 0.0]], [[[1.0, rho], [rho, 1.0]]], SDE)


def first_of_two(y=1.0, std=0.0):
    return Measurement(Mask(torch.tensor([True, False])), torch.full((1, 1), y), std)


def limit(sampler, denoiser, n, index):
    """Richardson's value of a moment at the end, for a method of order one: 2 f(2n) - f(n)."""
    coarse, fine = (moments(sampler, denoiser, log_snr(SDE, k))[index][-1] for k in (n, 2 * n))
    return 2 * fine - coarse


def test_n19_classifier_free_in_closed_form():
    """docs/theory/guidance.md: V_ODE at a finite B, V_SDE as B goes to infinity."""
    cc, cu, w = 1.0, 2.0, 3.0
    free = ClassifierFree(plain(cc), plain(cu), w)
    E = float(SDE.alpha(torch.tensor(1.0)) ** -2)
    ode = E * (cc / (E + cc - 1)) ** w * (cu / (E + cu - 1)) ** (1 - w)
    found = moments(PFRK4(), free, uniform(200, t_eps=0.0))[1][-1]
    assert float(found) == pytest.approx(ode, rel=1e-6)
    r = cu / cc
    sde = cc**2 / (cu - cc) * (r - r ** (2 - 2 * w)) / (2 * w - 1)
    found = [
        float(moments(EulerMaruyama(), free, uniform(n, t_eps=0.0))[1][-1]) for n in (400, 800)
    ]
    assert 2 * found[1] - found[0] == pytest.approx(sde, rel=1e-3) == 0.3875


def test_n19_guidance_by_a_quadratic_is_the_same():
    c, u = plain(1.0, 0.7), plain(2.0, -0.2)
    log_h = lambda x, t: c.log_prob(x, t) - u.log_prob(x, t)
    for sampler in (DDIM(), EulerMaruyama(), Adams(3, 3), PFHeun()):
        ts = log_snr(SDE, 10)
        for a, b in zip(
            moments(sampler, Guided(u, log_h, 3.0), ts),
            moments(sampler, ClassifierFree(c, u, 3.0), ts),
            strict=True,
        ):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_n19_temperature_in_closed_form():
    c, T = 0.5, 0.8
    E = float(SDE.alpha(torch.tensor(1.0)) ** -2)
    found = moments(PFRK4(), Tempered(plain(c), T), uniform(200, t_eps=0.0))[1][-1]
    assert float(found) == pytest.approx(E * (c / (E + c - 1)) ** (1 / T), rel=1e-6)


def test_n19_dps_in_closed_form():
    """docs/theory/inverse.md: mean y (1 - e^{-c/R}), variance R/2 (1 - e^{-2c/R})."""
    c, R = 1.5, 0.2
    measurement = Measurement(Matrix(torch.eye(1)), torch.ones(1, 1), math.sqrt(R))
    dps = DPS(plain(c), measurement)
    mean, var = (float(limit(EulerMaruyama(), dps, 2000, k)) for k in (0, 1))
    assert mean == pytest.approx(1 - math.exp(-c / R), abs=1e-3)
    assert var == pytest.approx(R / 2 * (1 - math.exp(-2 * c / R)), abs=1e-3)
    means, covs = moments(PFHeun(), dps, log_snr(SDE, 1000))
    assert float(means[-1]) == pytest.approx(1.2179, abs=1e-3)
    assert float(covs[-1]) == pytest.approx(c * math.exp(-c / R), abs=2e-4)


def test_n19_what_is_exact_samples_the_posterior():
    law, measurement = plane(), first_of_two(0.7, 0.3)
    truth, ts = posterior(law, measurement), log_snr(SDE, 30)
    start = (torch.zeros(2), torch.eye(2))
    for sampler in (DDIM(), Ancestral(), UniPC(3)):
        for a, b in zip(
            moments(sampler, MomentMatching(law, measurement), ts, start),
            moments(sampler, truth, ts, start),
            strict=True,
        ):
            torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


def test_n19_replacement_in_closed_form():
    """Neither mean nor variance is the posterior's, whatever the number of steps."""
    rho = 0.8
    known = Observed(plane(rho), first_of_two())
    walk = Replacement(EulerMaruyama())
    mean, cov = (limit(walk, known, 60, k) for k in (0, 1))
    assert float(mean[1]) == pytest.approx((1 - math.sqrt(1 - rho**2)) / rho, abs=3e-3)
    assert float(cov[1, 1]) == pytest.approx((1 - rho**2) * math.atanh(rho) / rho, abs=3e-3)


CASES = {
    "guided": lambda: (
        EulerMaruyama(),
        Guided(plane(), lambda x, t: -(x.sum(1) - 1.0).square(), 0.7),
    ),
    "tempered": lambda: (Ancestral(), Tempered(plane(), 0.7)),
    "dps": lambda: (DDIM(1.0), DPS(plane(), first_of_two(0.7, 0.6))),
    "replacement": lambda: (Replacement(), Observed(plane(), first_of_two(0.7, 0.2))),
    "repaint": lambda: (RePaint(resamples=2), Observed(plane(), first_of_two())),
    "ddrm": lambda: (DDRM(), Observed(plane(), first_of_two(0.7, 0.2))),
}


@pytest.mark.parametrize("n", [100_000, pytest.param(4_000_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", CASES)
def test_n19_samples_follow_the_moments(name, n):
    sampler, denoiser = CASES[name]()
    ts = log_snr(SDE, 6)
    x = sample(denoiser, sampler, (n, 2), ts, seed=1, dtype=torch.float64, last="stop")
    mean, cov = (moment[-1] for moment in moments(sampler, denoiser, ts))
    assert ((x.mean(0) - mean).abs() < 5 * (cov.diagonal() / n).sqrt() + 1e-12).all()
    var = cov.diagonal()
    error = ((var[:, None] * var + cov.square()) / n).sqrt()
    centred = x - mean
    assert ((centred.T @ centred / n - cov).abs() < 5 * error + 1e-12).all()


def test_n19_what_has_no_exact_law_is_refused():
    ts, law = log_snr(SDE, 6), plain(2.0)
    cube = Guided(law, lambda x, t: -(x**4).sum(1))
    with pytest.raises(ValueError, match=r"affine in x .* got Guided"):
        moments(DDIM(), cube, ts)
    norm = DPS(plane(), first_of_two(0.7, 0.6), rule="norm")
    with pytest.raises(ValueError, match="got DPS"):
        moments(Ancestral(), norm, ts)
    with pytest.raises(TypeError, match=r"steps that do not depend .* jump=3"):
        moments(RePaint(jump=3), Observed(plane(), first_of_two()), ts)
    with pytest.raises(ValueError, match="single Gaussian"):
        moments(DDIM(), Tempered(gm1(SDE), 0.5), ts)
    with pytest.raises(ValueError, match=r"expected start=\(mean, cov\) beside a X0Denoiser"):
        moments(DDIM(), X0Denoiser(torch.nn.Identity(), SDE), ts)
    with pytest.raises(ValueError, match="expected a reference beside a Tempered"):
        exact_bias(DDIM(), Tempered(law, 0.5), ts)


def test_n19_a_network_that_is_affine_has_a_law_too():
    class Halve(torch.nn.Module):
        def forward(self, x, t):
            return 0.5 * x

    start, ts = (torch.ones(1), torch.eye(1)), log_snr(SDE, 3)
    means, covs = moments(DDIM(), X0Denoiser(Halve(), SDE), ts, start)
    x = DDIM()(X0Denoiser(Halve(), SDE), torch.tensor([[1.0], [2.0]]), ts)
    assert float(means[-1]) == pytest.approx(float(x[0]), rel=1e-12)
    assert float(covs[-1].sqrt()) == pytest.approx(float((x[1] - x[0]).abs()), rel=1e-12)


def test_n19_the_product_of_powers():
    found = power_product([plain(1.0, 0.5), plain(2.0)], [3.0, -2.0])
    assert float(found.covs) == pytest.approx(1 / (3 / 1 - 2 / 2))
    assert float(found.means) == pytest.approx(3 * 0.5 / (3 / 1 - 2 / 2))
    with pytest.raises(ValueError, match="precisions add to one that is not positive"):
        power_product([plain(2.0), plain(1.0)], [3.0, -2.0])


def test_n19_compare_exact_with_guidance(tmp_path, capsys):
    words = ["compare", "--exact", "--law", "gm1", "--steps", "10", "--out", str(tmp_path)]
    assert main([*words, "--guidance", "2"]) == 0 and "p(.|y)^w, w = 2" in capsys.readouterr().out
    assert main([*words, "--temperature", "0.5"]) == 0 and "T = 0.5" in capsys.readouterr().out
    rows = json.loads((tmp_path / "exact-tempered.json").read_text())["rows"]
    mean, cov = gm1(SDE).marginal()
    law = GaussianMixture([1.0], mean[None], cov[None], SDE)
    found = exact_bias(
        DDIM(),
        Tempered(law, 0.5),
        log_snr(SDE, 10),
        reference=GaussianMixture([1.0], mean[None], cov[None] / 2, SDE),
    )
    row = next(r for r in rows if r["sampler"] == "DDIM, η = 0")
    assert row["W2"] == pytest.approx(float(found.w2), rel=1e-9) and row["evaluations"] == 10
    assert (tmp_path / "exact-guided.html").is_file()

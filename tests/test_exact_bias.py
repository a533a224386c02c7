"""The bias of every sampler on Gaussian data, without samples: against closed forms and orders."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch

from scoresde import (
    DDIM,
    VPSDE,
    Adams,
    Ancestral,
    CosineVPSDE,
    EulerMaruyama,
    GaussianMixture,
    KarrasSDE,
    Langevin,
    PredictorCorrector,
    ReverseDiffusion,
    log_snr,
    moments,
    sample,
    uniform,
)
from scoresde.cli import main
from scoresde.cli.exact import bias_table, compare_exact, curves_of, exact_rows, gaussian_of
from scoresde.comparison import Entry
from scoresde.data import gauss, gm1
from scoresde.diagnosis import Bias, bias_entries, exact_bias
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

"""The benchmarks run, and their numbers are right: laws, errors, adapters of peers, tables."""

import importlib
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from scoresde import DDIM, log_snr, uniform
from scoresde.samplers import DEIS, DPMSolverPP, UniPC

FOLDER = Path(__file__).parents[1] / "benchmarks"
if not FOLDER.is_dir():
    pytest.skip("the benchmarks are not here", allow_module_level=True)
sys.path.append(str(FOLDER))
common, peers, work_precision, step_overhead, scaling, stability, stochastic, train_throughput = (
    importlib.import_module(name)
    for name in (
        "common", "peers", "work_precision", "step_overhead", "scaling", "stability",
        "stochastic", "train_throughput",
    )
)  # fmt: skip
# what peers warn about is theirs to mend
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def as_users_run_them(float32):
    """Some peers fail where the default is float64; laws and exact flows must not care."""


FIGURES = work_precision, step_overhead, scaling, stability, stochastic


def peer(label):
    """One adapter, or a skip with the reason."""
    library = label.split()[0]
    if not peers.available(library):
        pytest.skip(f"{library} cannot be imported here")
    return next(one for one in peers.peers() if one.label == label)


def walk(label, law, x, nfe):
    return peer(label).make(nfe)(law.eps, x.clone())


@pytest.fixture(scope="module")
def aniso3():
    """The law, its 4096 starting points, and their ends by a fine solution."""
    law = common.laws()["aniso3"]
    x = common.start(law)
    ts = log_snr(common.SDE, 400)
    with torch.no_grad():
        return law, x, common.finish(law, UniPC(3)(law, x, ts), ts, "half")


# Laws and errors


def test_the_laws_of_the_reference_are_read_as_they_are():
    given = common.reference()["laws"]
    for name in given:
        law = common.laws()[name]
        covs, means = (common.double(given[name][key]) for key in ("covs", "means"))
        torch.testing.assert_close(law.covs, covs, rtol=1e-12, atol=1e-14)
        assert torch.equal(law.means, means)


@pytest.mark.parametrize("name", ["ring5", "line4", "space8"])
def test_the_other_laws_suit_a_process_that_ends_in_a_standard_normal(name):
    mean, cov = common.laws()[name].marginal()
    assert float(mean.abs().max()) < 0.6
    assert 0.5 < float(cov.diagonal().sqrt().min()) <= float(cov.diagonal().sqrt().max()) < 1.3


def test_the_flow_is_that_of_a_gaussian():
    """x_t = m_t + S_t^(1/2) S_1^(-1/2) (x_1 - m_1), as all S_t share a basis."""
    law = common.laws()["gauss"]
    x = common.start(law, 16)
    (m1, c1), (m0, c0) = (law.marginal(common.double(t)) for t in (1.0, 0.0))
    spectrum, basis = torch.linalg.eigh(c1)
    root = ((basis.T @ c0 @ basis).diagonal() / spectrum).sqrt()
    exact = m0 + ((x - m1) @ basis * root) @ basis.T
    torch.testing.assert_close(common.flow(law, x), exact, rtol=0, atol=1e-9)


def test_the_flow_is_computed_once_and_kept(tmp_path, monkeypatch):
    law = common.laws()["gauss"]
    x = common.start(law, 4)
    first = common.truth(law, x, tmp_path)
    monkeypatch.setattr(common, "flow", None)  # not to be called again
    assert torch.equal(common.truth(law, x, tmp_path), first)
    assert [path.suffix for path in tmp_path.iterdir()] == [".npy"]
    with pytest.raises(TypeError):
        common.truth(law, x + 1, tmp_path)  # other points are another file


def test_errors():
    x = torch.tensor([[3.0, 4.0], [0.0, 0.0], [0.0, 1.0]])
    found = common.errors(x, torch.zeros(3, 2))
    assert found == {"median": 1.0, "rms": pytest.approx(math.sqrt(26 / 3))}
    x[0, 0] = math.nan
    assert common.errors(x, torch.zeros(3, 2)) == {"median": 1.0, "rms": math.inf}


def test_geometric_mean():
    assert common.geometric_mean([0.5, 2.0, 8.0]) == pytest.approx(2.0)
    assert math.isnan(common.geometric_mean([]))


def test_the_least_errors_on_file_are_reproduced(aniso3):
    """azula's zEAB3 is our DEIS(3), so the file's numbers are ours too."""
    law, x, exact = aniso3
    for nfe in (10, 15, 20):
        listed = common.reference()["best"]["aniso3"][str(nfe)]["median"]
        assert listed["peer"] == "azula zEAB3 logsnr"
        end = DEIS(3)(law, x, log_snr(common.SDE, nfe))
        found = common.errors(end, exact)["median"]
        assert found == pytest.approx(listed["error"], rel=1e-3)


@pytest.mark.parametrize(
    ("label", "listed", "nfe", "measure"),
    [
        ("azula REAB2, log-SNR", "azula REAB2 logsnr", 5, "median"),
        ("azula vAB3, log-SNR", "azula vAB3 logsnr", 20, "rms"),
        ("diffusers UniPC3, log-SNR", "diffusers UniPC3 logsnr", 50, "rms"),
    ],
)
def test_peers_reach_what_is_on_file(aniso3, label, listed, nfe, measure):
    law, x, exact = aniso3
    on_file = common.reference()["best"]["aniso3"][str(nfe)][measure]
    assert on_file["peer"] == listed
    found = common.errors(walk(label, law, x, nfe), exact)[measure]
    assert found == pytest.approx(on_file["error"], rel=2e-3)


# Adapters: where a peer has our sampler, it gives our samples


def grid_to_zero(n):
    return peers.to_zero(peers.GRIDS["log-SNR"])(n)


def chain_grid(n):
    """diffusers' trailing indices as times."""
    return torch.cat([uniform(n, 1.0, 0.0)[:-1], torch.zeros(1)])


@pytest.mark.parametrize(
    ("label", "sampler", "grid", "tolerance"),
    [
        ("azula DDIM, log-SNR", DDIM(), lambda n: log_snr(common.SDE, n), 1e-10),
        ("azula DDIM, uniform t (default)", DDIM(), uniform, 1e-10),
        ("azula zEAB3, log-SNR", DEIS(3), lambda n: log_snr(common.SDE, n), 1e-9),
        ("diffusers DDIM, trailing", DDIM(), chain_grid, 1e-4),
        ("diffusers DPM++2M, log-SNR", DPMSolverPP(2), grid_to_zero, 1e-4),
        ("diffusers UniPC2, log-SNR", UniPC(2), grid_to_zero, 1e-4),
        ("k_diffusion euler, log-SNR", DDIM(), grid_to_zero, 1e-9),
        ("k_diffusion dpmpp_2m, log-SNR", DPMSolverPP(2), grid_to_zero, 1e-9),
        ("smalldiffusion DDIM, log-SNR", DDIM(), grid_to_zero, 1e-9),
    ],
)
def test_an_adapter_gives_our_samples(label, sampler, grid, tolerance):
    """n = 20: diffusers lowers the order of its last steps below 15."""
    law = common.laws()["ring8"]
    x, n = common.start(law, 32), 20
    # k-diffusion starts from (x, sigma/alpha), where alpha is not exactly that of t = 1
    torch.testing.assert_close(
        walk(label, law, x, n), sampler(law, x, grid(n)), rtol=0, atol=tolerance
    )


def test_no_peer_takes_more_evaluations_than_it_is_given():
    """But torchsde, which calls once to check shapes."""
    law = common.laws()["ring8"]
    for one in peers.peers():
        counted = common.Counted(law)
        end = one.make(10)(counted.eps, common.start(law, 4))
        assert end.shape == (4, 2)
        assert counted.calls <= 10 + (one.library == "torchsde"), one.label


def test_a_peer_that_is_absent_is_left_out_with_one_line(monkeypatch, capsys):
    monkeypatch.setattr(peers, "find_spec", lambda name: None)
    peers.available.cache_clear()
    try:
        assert peers.peers() == []
        lines = capsys.readouterr().err.splitlines()
    finally:
        peers.available.cache_clear()
    assert len(lines) == len(common.PEERS)
    assert all("not installed" in line for line in lines)


# Tables


def test_a_recipe_counts_every_evaluation():
    law = common.laws()["ring8"]
    for recipe in work_precision.recipes():
        _, calls = recipe.run(law, common.start(law, 4), 16)
        assert calls <= 16, recipe.name
        assert calls > 16 - recipe.per_step, recipe.name


def test_ratios_and_the_best_peer():
    row = lambda name, who, error: {
        "law": "ring5", "sampler": name, "of": who, "budget": 5, "calls": 5,
        "median": error, "rms": 2 * error,
    }  # fmt: skip
    rows = [row("ours", "scoresde", 1.0), row("a", "peer", 4.0), row("b", "peer", 2.0)]
    rows.append(row("greedy", "peer", 0.1) | {"calls": 6})  # over the budget
    assert work_precision.best_peer(rows, "ring5", 5, "rms") == (4.0, "b")
    assert work_precision.ratios(rows, "ours", "median") == {("ring5", 5): 0.5}
    assert work_precision.ranking(rows)[0]["sampler"] == "greedy"


def test_the_third_order_of_3m():
    found = work_precision.third_order((80, 160, 320))
    assert math.log2(found[160] / found[320]) > 3
    assert found[80] < 1e-5


def test_the_loop_by_hand_is_ddim():
    torch.manual_seed(0)
    net, x = common.TimeMLP(), torch.randn(8, 2)
    by_hand = step_overhead.by_hand(net, x, 5, noise=False)()
    ours = step_overhead.ours(net, x, 5, DDIM(), 1)()
    torch.testing.assert_close(by_hand, ours, rtol=1e-4, atol=1e-4)


def test_peers_whose_state_is_flat_take_images():
    """torchsde's Euler, on pictures as on the same numbers in a row."""
    loop = peer("torchsde euler, uniform t").make(4)
    x = torch.randn(3, 1, 4, 4)
    shapes = []

    def half(x, t):
        shapes.append(tuple(x.shape))
        return 0.5 * x

    np.random.seed(0)  # that of its Brownian path
    pictures = loop(half, x)
    np.random.seed(0)
    rows = loop(lambda x, t: 0.5 * x, x.flatten(1))
    assert set(shapes) == {(3, 1, 4, 4)}
    torch.testing.assert_close(pictures.flatten(1), rows)


def test_what_fails_is_left_out_and_what_was_measured_is_kept(tmp_path, monkeypatch, capsys):
    runs = {"bare": lambda: None, "broken": lambda: [][0]}
    assert list(step_overhead.able(runs)) == ["bare"]
    assert "broken is left out: IndexError" in capsys.readouterr().err

    def overhead(case, quick, compile):
        if case != "tiny @ 256":
            raise KeyboardInterrupt
        row = {"case": case, "sampler": "bare", "calls": 1}
        return [row | {"us a call": 1.0, "us over bare": 0.0, "ratio": 1.0}]

    monkeypatch.setattr(step_overhead, "overhead", overhead)
    with pytest.raises(KeyboardInterrupt):
        step_overhead.main(["--out", str(tmp_path)])
    kept = json.loads((tmp_path / "step_overhead.json").read_text(encoding="utf-8"))
    assert [row["case"] for row in kept["rows"]] == ["tiny @ 256"]


def test_the_bar_of_captured_loops():
    rows = [
        {"case": "MLP", "sampler": name, "us a call": us}
        for name, us in ((step_overhead.BARE_CAPTURED, 10.0), (step_overhead.CAPTURED, 10.4))
    ]
    (row,) = step_overhead.captured_targets(rows)
    assert row["captured"] == pytest.approx(1.04) and row[""] == "PASS"


def test_cells_of_stability():
    law = common.laws()["ring8"]
    exact = law.sample(2000, generator=torch.Generator().manual_seed(0))
    entropy = float(-law.log_prob(exact).mean())
    judge = lambda x: stability._judge(x, exact, 0.05, entropy)["cell"]
    assert judge(exact) == "0.0"
    assert judge(exact * math.nan) == "NaN"
    assert judge(torch.cat([exact[:1000], 9 + exact[:1000]])) == "lost 50%"
    modes = law.means[torch.arange(2000) % 8]
    assert judge(modes).endswith("-")  # too concentrated, though near in distance


# End to end


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    """At most one peer of each library and kind, and a folder of its own for exact flows."""
    chosen = {(p.library, p.noise): p.label for p in reversed(peers.peers())}
    few = lambda *args, **options: [
        p for p in peers.peers(*args, **options) if p.label in chosen.values()
    ]
    for module in FIGURES:
        monkeypatch.setattr(module, "peers", few)
    monkeypatch.setattr(common.truth, "__defaults__", (tmp_path / "flows",))
    return tmp_path / "out"


@pytest.mark.parametrize("module", FIGURES, ids=lambda module: module.__name__)
def test_end_to_end(module, tiny, capsys):
    module.main(["--quick", "--out", str(tiny)])
    name = module.__name__
    found = json.loads((tiny / f"{name}.json").read_text(encoding="utf-8"))
    assert torch.__version__.startswith(found["machine"]["torch"])  # or with the build: +cu130
    assert len(found["rows"]) >= 8
    lines = (tiny / f"{name}.csv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1 + len(found["rows"])
    assert (tiny / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert str(tiny / f"{name}.png") in capsys.readouterr().out


def test_training_end_to_end(tiny):
    train_throughput.main(["--quick", "--out", str(tiny)])
    found = json.loads((tiny / "train_throughput.json").read_text(encoding="utf-8"))
    for row in found["rows"]:
        assert row["ratio"] == pytest.approx(row["fit"] / row["by hand"])


def test_an_unknown_law_is_refused(capsys):
    with pytest.raises(SystemExit):
        work_precision.main(["--laws", "nowhere"])
    assert "invalid choice: 'nowhere'" in capsys.readouterr().err


@pytest.mark.slow
def test_the_device_run_passes_through_all_its_parts(tmp_path):
    """In its dry mode, on a CPU: every part ends well, and every bar is there to be judged."""
    script = FOLDER / "gpu" / "run.py"
    done = subprocess.run(
        [sys.executable, str(script), "--dry", "--out", str(tmp_path)],
        capture_output=True,
        text=True,
    )
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    states = {part["name"]: part["status"] for part in report["parts"]}
    assert done.returncode == 0 and set(states.values()) == {0}, (states, done.stdout)
    assert len(states) == 7
    bars = [what for what, *_ in report["bars"]]
    assert any("training" in what for what in bars) and any("sample of" in what for what in bars)
    assert (tmp_path / "table.txt").read_text(encoding="utf-8").count("\n") >= len(states)
    assert "==== tests" in (tmp_path / "logs.txt").read_text(encoding="utf-8")


class TestDeviceRun:
    """Every part has a limit, and none stops the rest."""

    @pytest.fixture
    def device_run(self, monkeypatch):
        monkeypatch.syspath_prepend(str(FOLDER / "gpu"))
        return importlib.import_module("run")

    def test_a_part_that_hangs_is_stopped(self, device_run, tmp_path):
        words = (sys.executable, "-u", "-c", "import time; print('begun'); time.sleep(60)")
        part = device_run.Part("slow", 8, words)
        found = device_run.run(part, 100.0, tmp_path / "log", os.environ)
        assert found.status is None and "stopped after 8 s; begun" in found.last
        assert device_run.run(part, 5.0, tmp_path / "log", os.environ).last == "no time left"

    def test_bars(self, device_run):
        bench = {
            "step_overhead": {"targets": [{"case": "MLP", "captured": 1.02}, {"ratio": 1.1}]},
            "train_throughput": {"medians": {"ratio": 0.981}},
            "scaling": {"throughput": {"samples": 1000, "ratio": 0.9}},
        }
        assert [row[1:] for row in device_run.bars(bench)] == [
            ("1.020", "at most 1.05"),
            ("0.981", "at least 0.97"),
            ("0.90", "at least 0.8"),
        ]

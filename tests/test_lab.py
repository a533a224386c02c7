"""The laboratory: its numbers are the library's, and its page works in a browser."""

import html
import json
import math
import re
import shutil
import subprocess
import webbrowser
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from scoresde import (
    DDIM,
    VPSDE,
    Ancestral,
    ClassifierFree,
    CosineVPSDE,
    DPMSolverPP,
    EulerMaruyama,
    GaussianMixture,
    PFEuler,
    PFHeun,
    PredictorCorrector,
    ReverseDiffusion,
    Tempered,
    log_snr,
    moments,
    uniform,
)
from scoresde.cli import main
from scoresde.lab import PAGE, page, write
from scoresde.samplers import listings

HERE = Path(__file__).parent
NODE = shutil.which("node")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_node = pytest.mark.skipif(NODE is None, reason="node is not installed")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")

PROCESSES = {
    "linear": ({"kind": "linear", "lowest": 0.1, "highest": 20}, VPSDE()),
    "other ends": ({"kind": "linear", "lowest": 2, "highest": 5.5}, VPSDE(2.0, 5.5)),
    "cosine": ({"kind": "cosine"}, CosineVPSDE()),
    "constant": ({"kind": "constant", "rate": 10}, VPSDE(10.0, 10.0)),
}
SAMPLERS = {
    ("ddpm", 0): Ancestral("posterior"),
    ("ddpmbeta", 0): Ancestral("beta"),
    ("em", 0): EulerMaruyama(),
    ("pc", 0): PredictorCorrector(ReverseDiffusion()),
    ("ddim", 0): DDIM(0.0),
    ("ddim", 0.6): DDIM(0.6),
    ("ddim", 1): DDIM(1.0),
    ("euler", 0): PFEuler(),
    ("heun", 0): PFHeun(),
    ("dpm", 0): DPMSolverPP(2),
}
MODES = [
    {"x": -0.7, "y": -0.3, "width": 0.4, "weight": 0.8},
    {"x": 1.2, "y": 0.7, "width": 0.15, "weight": 0.2},
    {"x": 0.4, "y": -1.5, "width": 0.05, "weight": 1.5},
]
TWO = [{"x": x, "y": 0, "width": 0.25, "weight": 1} for x in (-1, 1)]
OPTIONS = [
    {},
    {"guided": 1, "w": 1},
    {"guided": 1, "w": 0},
    {"guided": 0, "w": 7.5},
    {"delta": 0.1},
    {"guided": 2, "w": 3, "delta": -0.2},
]
GRIDS = {"time": lambda sde, n: uniform(n, sde.t_max), "log-SNR": log_snr}


def ask(*questions):
    """Answers of the laboratory's own scripts, run by node."""
    command = [NODE, str(HERE / "lab_numbers.js"), str(PAGE.parent)]
    run = subprocess.run(
        command, input=json.dumps(questions), capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 0, run.stderr[-2000:]
    return json.loads(run.stdout)


def law_of(modes, sde):
    column = lambda *names: torch.tensor([[float(m[n]) for n in names] for m in modes])
    widths, weights = column("width")[:, 0], column("weight")[:, 0]
    return GaussianMixture.isotropic(weights, column("x", "y"), widths, sde)


def model_of(modes, sde, guided=-1, w=1, delta=0):
    model = law = law_of(modes, sde)
    if guided >= 0:
        model = ClassifierFree(law.component(guided), law, w)
    return Tempered(model, 1 / (1 + delta)) if delta else model


def close(found, expected, tol=1e-10):
    found = torch.tensor(found, dtype=torch.float64).reshape(expected.shape)
    torch.testing.assert_close(found, expected.double(), rtol=tol, atol=tol)


@needs_node
@pytest.mark.parametrize("name", PROCESSES)
def test_processes(name):
    schedule, sde = PROCESSES[name]
    ts = torch.tensor([1e-6, 1e-3, 0.1, 0.49, 0.51, 0.9, sde.t_max])
    levels = torch.tensor([-9.0, -2.0, 0.0, 3.0, 12.0])
    questions = {"ask": "process", "schedule": schedule}
    (found,) = ask({**questions, "ts": ts.tolist(), "levels": levels.tolist()})
    assert found["tMax"] == pytest.approx(sde.t_max, abs=1e-15)
    for what in ("alpha", "sigma", "sigma2", "log_snr", "f", "g2"):
        close(found[what], getattr(sde, what)(ts))
    close(found["time"], sde.time_of_log_snr(levels))
    for spacing, grid in GRIDS.items():
        (times,) = ask({"ask": "grid", "schedule": schedule, "n": 9, "spacing": spacing})
        close(times, grid(sde, 9))


@needs_node
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_denoiser(options):
    schedule, sde = PROCESSES["linear"]
    ts, x = torch.tensor([1e-3, 0.05, 0.3, 0.8, 1.0]), 2 * torch.randn(40, 2)
    model = model_of(MODES, sde, **options)
    question = {"ask": "denoiser", "schedule": schedule, "modes": MODES, "options": options}
    (found,) = ask({**question, "ts": ts.tolist(), "x": x.tolist()})
    for i, t in enumerate(ts):
        close(found["x0_hat"][i], model(x, t), 1e-9)
        close(found["score"][i], model.score(x, t), 1e-8)
        close(found["velocity"][i], model.velocity(x, t), 1e-8)


@needs_node
@pytest.mark.parametrize("name", PROCESSES)
def test_tables(name):
    schedule, sde = PROCESSES[name]
    cases = [(s, g, n) for s in SAMPLERS for g in GRIDS for n in (1, 2, 7)]
    grids = [GRIDS[g](sde, n) for _, g, n in cases]
    found = ask(
        *(
            {"ask": "table", "schedule": schedule, "sampler": case[0], "ts": ts.tolist()}
            for case, ts in zip(cases, grids, strict=True)
        )
    )
    for (key, _, _), ts, rows in zip(cases, grids, found, strict=True):
        table = SAMPLERS[key].table(sde, ts)
        for letter in "tsabcuw":
            close([row[letter] for row in rows], getattr(table, letter))


@needs_node
@pytest.mark.parametrize("options", OPTIONS[::3], ids=str)
@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_walks(name, options):
    """A whole path of every sampler, given the start and every z; then the last evaluation."""
    schedule, sde = PROCESSES[name]
    model, ts = model_of(MODES, sde, **options), log_snr(sde, 9)
    x, z = torch.randn(30, 2), torch.randn(18, 30, 2)
    question = {"ask": "walk", "schedule": schedule, "modes": MODES, "options": options}
    question |= {"ts": ts.tolist(), "x": x.tolist(), "z": z.tolist()}
    found = ask(*({**question, "sampler": key} for key in SAMPLERS))
    for sampler, path in zip(SAMPLERS.values(), found, strict=True):
        states = []
        end = sampler(
            model,
            x,
            ts,
            noise=lambda k, *_: z[k],
            callback=lambda k, t, x, x0_hat, states=states: states.append(x),
        )
        rows = len(path["rows"]) // (len(states) - 1)  # of a step, as the library counts
        scale = end.abs().max()
        close(path["rows"][rows - 1 :: rows], torch.stack(states[1:]), float(1e-9 * scale))
        close(path["end"], (end / sde.alpha(ts[-1]) + model(end, ts[-1])) / 2, float(1e-9 * scale))


@needs_node
def test_no_infinities():
    """A walk that is far out, or has overflowed, is held at numbers that can still be drawn."""
    x = torch.tensor([[1e200, -1e200], [1e30, 0.0], [-1e8, 1e8], [0.3, -0.2]])
    ts, z = uniform(6).tolist(), torch.zeros(12, 4, 2).tolist()
    question = {"ask": "walk", "schedule": PROCESSES["linear"][0], "modes": MODES}
    question |= {"options": {"guided": 0, "w": 15, "delta": 0.3}, "ts": ts, "x": x.tolist()}
    for path in ask(*({**question, "z": z, "sampler": key} for key in SAMPLERS)):
        states = torch.tensor([*path["rows"], path["end"]], dtype=torch.float32)
        assert states.isfinite().all() and (states[:, -2:].abs() < 1e12).all()


@needs_node
def test_noise():
    """Increments of one path add up, and its numbers are normal and not correlated."""
    n = 20_000
    (found,) = ask({"ask": "brownian", "n": n, "seed": 5})
    ts, fine, coarse = (torch.tensor(found[k]) for k in ("ts", "fine", "coarse"))
    steps = fine * (-ts.diff()).sqrt()[:, None]
    joined = steps.reshape(3, 4, -1).sum(1) / (ts[:-1:4] - ts[4::4]).sqrt()[:, None]
    torch.testing.assert_close(coarse, joined, rtol=0, atol=1e-10)
    for z in (fine.flatten(), fine[:, ::2].flatten(), fine[:, 1::2].flatten()):
        m = len(z)
        assert z.mean().abs() < 5 / m**0.5
        assert (z.square().mean() - 1).abs() < 5 * (2 / m) ** 0.5
        assert (z.pow(4).mean() - 3).abs() < 5 * (96 / m) ** 0.5
    for one, other in ((fine[0], fine[1]), (fine[:, ::2], fine[:, 1::2])):
        assert (one * other).mean().abs() < 5 / one.numel() ** 0.5


@needs_node
def test_flow():
    """Runge and Kutta's method on the exact flow: there and back, and as Heun with many steps."""
    schedule, sde = PROCESSES["linear"]
    law, x = law_of(TWO, sde), torch.randn(20, 2)
    question = {"ask": "flow", "schedule": schedule, "modes": TWO, "options": {}}
    (up,) = ask({**question, "x": x.tolist(), "from": 1e-3, "to": 1, "n": 160})
    (back,) = ask({**question, "x": up, "from": 1, "to": 1e-3, "n": 160})
    close(back, x, 1e-5)
    close(up, PFHeun()(law, x, log_snr(sde, 1500).flip(0)), 1e-5)


def exact_width(sampler, law, ts):
    """Standard deviation of the first coordinate, of one Gaussian, after the last evaluation."""
    t = ts[-1]
    end = moments(sampler, law, ts)[1][-1][0, 0].sqrt()
    gain = law(torch.eye(law.dim), t) - law(torch.zeros(1, law.dim), t)
    return float(end * (1 / law.sde.alpha(t) + gain[0, 0]) / 2)


def agree(found, exact, gap):
    """The same order wherever the exact numbers are a factor apart."""
    for one, other in pairwise(sorted(exact, key=exact.get)):
        if exact[other] > gap * exact[one]:
            assert found[one] < found[other], (one, other)


@needs_node
@pytest.mark.parametrize("spacing", GRIDS)
def test_ranking(spacing):
    """Across the line of two equal modes the law is one Gaussian, whose recursion is exact."""
    schedule, sde = PROCESSES["linear"]
    ts, size = GRIDS[spacing](sde, 12), 20_000
    across = GaussianMixture([1.0], [[0.0]], [[[0.0625]]], sde)
    exact = {key: exact_width(sampler, across, ts) for key, sampler in SAMPLERS.items()}
    question = {"ask": "across", "schedule": schedule, "modes": TWO, "ts": ts.tolist()}
    question |= {"n": size, "seed": 3}
    answers = ask(*({**question, "sampler": key} for key in SAMPLERS))
    found = {key: math.sqrt(v) for key, v in zip(SAMPLERS, answers, strict=True)}
    for key in SAMPLERS:
        assert found[key] == pytest.approx(exact[key], rel=5 / math.sqrt(2 * size)), key
    agree(found, exact, 1 + 10 / math.sqrt(2 * size))


@needs_node
def test_judged_ranking():
    """The page's judgement of one Gaussian in the plane, against the exact recursion."""
    schedule, sde = PROCESSES["linear"]
    mode = {"x": 0.8, "y": 0.4, "width": 0.5, "weight": 1}
    law, ts, seeds, n = law_of([mode], sde), uniform(8), 3, 1000
    exact = {key: exact_width(sampler, law, ts) / 0.5 for key, sampler in SAMPLERS.items()}
    question = {"ask": "judge", "schedule": schedule, "modes": [mode], "spacing": "time"}
    question |= {"samplers": list(SAMPLERS), "steps": [8], "seeds": seeds, "n": n}
    (judged,) = ask(question)
    points = [entry["points"][0] for entry in judged["entries"]]
    found = {key: point["width"] for key, point in zip(SAMPLERS, points, strict=True)}
    error = 1 / math.sqrt(4 * seeds * n)  # of a width; the pairs make it smaller
    for key in SAMPLERS:
        assert found[key] == pytest.approx(exact[key], rel=5 * error), key
    agree(found, exact, 1 + 10 * error)
    assert all(point["weights"] == 0 for point in points)


@needs_node
def test_judgement():
    """Errors fall with the order of the sampler; noise that is shared lets one see it."""
    keys, steps = [("em", 0), ("ddim", 0), ("heun", 0)], [6, 12, 80]
    question = {"ask": "judge", "schedule": PROCESSES["linear"][0], "modes": TWO, "seeds": 2}
    question |= {"samplers": keys, "steps": steps, "n": 1000, "spacing": "time"}
    (found,) = ask(question)
    em, ddim, heun = ([p["error"] for p in entry["points"]] for entry in found["entries"])
    assert heun[0] / heun[1] > 3 and 1.6 < ddim[0] / ddim[1] < 2.4  # orders 2 and 1
    assert heun[2] < ddim[2] < found["floor"] / 3 and em[2] < found["floor"] / 2
    assert abs(found["entries"][2]["points"][2]["width"] - 1) < 0.01
    guided = {**question, "options": {"guided": 1, "w": 6}, "samplers": [("ddim", 0)]}
    point = ask({**guided, "steps": [40]})[0]["entries"][0]["points"][0]
    assert point["shares"][1] > 0.99 and point["error"] > 0.3  # not the class law
    assert point["width"] < 0.8  # about their own mean, which has moved away


STATES = [
    {},
    {"law": "ring", "a": "em", "b": "heun", "N": 7, "schedule": "cosine", "spacing": "log-SNR"},
    {"lowest": 0.5, "highest": 9, "spacing": "log-SNR", "N": 6, "compare": False},
    {"a": "ddim", "etaA": 0.35, "b": "dpm", "guided": 1, "w": 4.5, "N": 9},
    {"a": "pc", "b": "ddpmbeta", "times": 3, "N": 5, "delta": 0.1, "schedule": "constant"},
    {"a": "euler", "compare": False, "law": "own", "modes": MODES, "guided": 2, "delta": -0.05},
]


@needs_node
@pytest.mark.parametrize("state", STATES, ids=str)
def test_python(state):
    """The lines that the page shows run, and do what the page does."""
    state = {"n": 200, **state}
    code, walks = ask({"ask": "python", "state": state}, {"ask": "walks", "state": state})
    names = {}
    exec(code, names)
    state, start, sde = walks["state"], names["start"], names["sde"]
    options = {key: state[key] for key in ("guided", "w", "delta")}
    schedule = {key: state[key] for key in ("lowest", "highest", "rate")}
    schedule["kind"] = state["schedule"]
    assert start.shape == (200, 2) and ("right" in names) == state["compare"]
    steps = [state["N"], state["N"] * state["times"]][: len(walks["samplers"])]
    assert [len(ts) - 1 for ts in walks["grids"]] == steps
    for side, key, ts in zip(["left", "right"], walks["samplers"], walks["grids"], strict=False):
        grid = torch.tensor(ts)
        table = SAMPLERS.get(tuple(key), DDIM(key[1])).table(sde, grid)
        z = [
            names["path"](k, row.t, row.s, start.shape, start.device, start.dtype)
            if row.c
            else torch.zeros_like(start)
            for k, row in enumerate(table.rows())
        ]
        question = {"ask": "walk", "schedule": schedule, "modes": state["modes"]}
        question |= {"options": options, "ts": ts, "x": start.tolist(), "sampler": key}
        (path,) = ask({**question, "z": torch.stack(z).tolist()})
        close(path["end"], names[side], 1e-8)


@needs_node
def test_the_page_says_of_samplers_what_the_catalogue_says():
    (names,) = ask({"ask": "names"})
    catalogue = {entry.sampler: entry for entry in listings()}
    assert {key for key, _ in SAMPLERS} == {row[0] for row in names["samplers"]}
    for key, python, view, stages, noise in names["samplers"]:
        sampler = SAMPLERS[key, 0]
        entry = catalogue[sampler]
        assert eval(python) == sampler
        assert (view, stages, noise) == (entry.view, entry.cost, sampler.noise), key


@needs_node
def test_state():
    """An address gives back what was set, and nothing lawless comes out of any address."""
    for answer in ask(*({"ask": "round", "state": state} for state in STATES)):
        assert answer["before"] == answer["after"]
    (names,) = ask({"ask": "names"})
    broken = "#N=NaN&w=1e999&n=-5&law=own&modes=1,2,x;3&a=nothing&at=7&delta=&guided=9&x=1&=&N"
    (state,) = ask({"ask": "decode", "hash": broken})
    assert state == {**names["start"], "n": 100, "at": 1}
    (state,) = ask({"ask": "decode", "hash": "#law=own&modes=9,-9,0,0"})
    assert state["modes"] == [{"x": 2.6, "y": -2.6, "width": 0.03, "weight": 0.01}]


@needs_node
def test_tours():
    """What a tour sets is what the laboratory then shows; its links lead to labels that exist."""
    tours, names = ask({"ask": "tours"}, {"ask": "names"})
    assert len(names["books"]) == 7 and len(tours) == 21
    for stop in tours:
        assert {key: stop["state"][key] for key in stop["set"]} == stop["set"]
    docs = HERE.parent / "docs"
    for folder, anchor, _ in names["books"]:
        label = anchor.removeprefix("equation-")
        assert f":label: {label}\n" in (docs / f"{folder}.md").read_text(encoding="utf-8")


def test_page_stands_alone(tmp_path):
    text = page()
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text)
    assert not re.search(r"<(?:script|img|iframe)[^>]*\bsrc=|<link\b(?![^>]*data:)|@import", text)
    for part in PAGE.parent.glob("*.js"):
        assert part.read_text(encoding="utf-8") in text
    assert write(tmp_path / "lab.html").read_text(encoding="utf-8") == text


def test_command(tmp_path, monkeypatch, capsys):
    opened = []
    monkeypatch.setattr(webbrowser, "open", lambda url: bool(opened.append(url)))
    assert main(["lab"]) == 0
    assert opened == [PAGE.as_uri()] and "no browser here" in capsys.readouterr().out
    assert main(["lab", "--out", str(tmp_path / "one.html")]) == 0
    assert str(tmp_path / "one.html") in capsys.readouterr().out
    assert (tmp_path / "one.html").read_text(encoding="utf-8") == page()
    assert main(["lab", "--out", str(tmp_path)]) == 1 and len(opened) == 1


def browse(tmp_path, size, hash=""):
    """What the page with tests/lab_visit.js in it reports from a headless browser."""
    visit = (HERE / "lab_visit.js").read_text(encoding="utf-8")
    text = page().replace("</body>", f'<pre id="report"></pre><script>{visit}</script></body>')
    (tmp_path / "lab.html").write_text(text, encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"]
    flags += ["--disable-background-networking", "--hide-scrollbars", f"--window-size={size}"]
    command = [CHROMIUM, *flags, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    run = subprocess.run(
        [*command, (tmp_path / "lab.html").as_uri() + hash],
        capture_output=True,
        text=True,
        timeout=180,
    )
    found = re.search(r'<pre id="report">(.*?)</pre>', run.stdout, re.DOTALL)
    assert found and found[1], run.stderr[-2000:]
    return json.loads(html.unescape(found[1]))


@needs_chromium
@pytest.mark.slow
@pytest.mark.parametrize("size", ["1280,1000", "390,844"])
def test_in_a_browser(tmp_path, size):
    report = browse(tmp_path, size, "#law=ring&N=9&a=em&guided=2&w=3&at=0.5")
    assert report["errors"] == []
    set_by_address = {"law": "ring", "N": 9, "a": "em", "guided": 2, "w": 3, "at": 0.5}
    assert report["restored"] == set_by_address
    strengths = 4 if size.startswith("1280") else 1
    assert report["runs"] == 8 * 3 * strengths * 2 and report["bad"] == []
    assert report["same"] and report["differs"]
    keys = {"step": 1, "end": 1, "home": 0, "seed": 1, "play": True, "moved": True}
    assert report["keys"] == keys
    assert report["blank"] == [] and report["themes"] == 2
    assert report["overflow"] <= 0 and report["unnamed"] == []
    assert report["judged"] > 0 and report["tours"] == 21
    assert report["quartile"] < 16

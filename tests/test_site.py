"""The tests of the site see what they are there to see: every kind of broken page turns them red.

(The site itself is built and looked at by `python3 dev.py docs`.)
"""

import re
import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def tools():
    """The modules of docs/, which are scripts and no package."""
    for name in ("sphinx", "sphinx_gallery"):
        pytest.importorskip(name, reason="needs the extra docs")
    sys.path[:0] = [str(DOCS), str(DOCS / "_ext")]
    import browser
    import check

    yield check, browser
    del sys.path[:2]


def test_every_paper_is_in_the_bibliography():
    number = re.compile(r"arxiv(?::|\.org/abs/)(\d{4}\.\d{4,5})", re.I)
    listed = set(number.findall((DOCS / "bibliography.md").read_text(encoding="utf-8")))
    sources = [*(ROOT / "scoresde").rglob("*.py"), *(ROOT / "examples").glob("*.py")]
    pages = [p for folder in (".", "theory", "guides") for p in (DOCS / folder).glob("*.md")]
    cited = {n: p for p in [*sources, *pages] for n in number.findall(p.read_text("utf-8"))}
    assert len(listed) > 50
    missing = {f"arXiv:{n} ({cited[n].relative_to(ROOT)})" for n in cited.keys() - listed}
    assert not missing


def page(body, head=""):
    return (
        "<!doctype html><html><head><meta charset='utf-8'><link rel='icon' href='data:,'>"
        "<style>mjx-container, mjx-math { display: inline-block }"
        "@media (prefers-color-scheme: dark) { body { background: #111; color: #eee } }</style>"
        f"{head}</head><body><article>{body}</article></body></html>"
    )


def formula(number="", label="", style=""):
    eqno = f"<span class='eqno' style='{style}'>{number}</span>" if number else ""
    name = f"id='equation-{label}'" if label else ""
    typeset = "<mjx-container><mjx-math>x=y</mjx-math></mjx-container>"
    return f"<div class='math' {name}>{eqno}{typeset}</div>"


GOOD = page(
    "<p>Some words, <code>\\alpha</code> in code.</p>"
    + formula("(1.1)", "a")
    + "<p><a class='reference internal' href='#equation-a'>(1.1)</a></p>"
    "<details class='sd-dropdown'><summary>Solution</summary>"
    "<div class='sd-summary-content'>" + formula() + "</div></details>"
)
FOLD = "<details class='sd-dropdown'><summary>Solution</summary>{}</details>"
PLAYER = (
    "<div class='animation'><img src='data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA='>"
    "<button title='Play'>go</button><button title='Pause'>stop</button></div>"
)
BROKEN = {  # what is wrong -> (body, head, what is said)
    "not typeset": ("<span class='math'>x</span>", "", "1 formulas, 0 typeset"),
    "error": (formula().replace("x=y", "<mjx-merror>?</mjx-merror>"), "", "with an error"),
    "raw TeX": (r"<p>so \frac{1}{2}</p>", "", "raw TeX"),
    "dollars": ("<p>so $x_0$ is</p>", "", "raw TeX"),
    "no number": ("<p>see (???)</p>", "", "an unresolved number"),
    "label": ("<p>see (eq-forward)</p>", "", "an unresolved number"),
    "markup": ("<p>{eq}`forward-path`</p>", "", "markup"),
    "image": ("<img src='missing.png'>", "", "does not load"),
    "wide": ("<div style='width: 500px'>x</div>", "", "390 px, light: wider than the window"),
    "number over equation": (
        formula("(1.2)", "b", "position: absolute; left: 8px"),
        "",
        "a number over its equation",
    ),
    "dark on dark": (
        "<p style='color: #222'>x</p>",
        "",
        "1280 px, dark: no contrast",
    ),
    "twice": (formula("(1.1)", "a") + formula("(1.1)", "b"), "", "is that of equation-a"),
    "wrong number": (
        formula("(1.1)", "a") + "<a class='reference internal' href='#equation-a'>(1.2)</a>",
        "",
        "(1.2) leads to (1.1)",
    ),
    "nowhere": ("<a class='reference internal' href='#gone'>Theorem 1.1</a>", "", "leads nowhere"),
    "never hidden": (
        FOLD.format("<div class='sd-summary-content'>x</div>"),
        "<style>details::details-content { content-visibility: visible }</style>",
        "not hidden",
    ),
    "blank solution": (
        FOLD.format("<div class='sd-summary-content'>x" + formula() + "</div>"),
        "<style>details .math mjx-container { display: none }</style>",
        "shown without its mathematics",
    ),
    "only a number": (
        "<div class='math'><span class='eqno'>(1.1)</span></div>",
        "",
        "a number without an equation",
    ),
    "out of sight": (
        formula("(1.2)", "b", "margin-left: 1270px"),
        "<style>body { overflow: hidden }</style>",
        "a number out of sight",
    ),
    "no dark mode": ("<p>x</p>", "<style>body { background: #fff !important }</style>", "no dark"),
    "hidden for good": (
        FOLD.format("<div class='sd-summary-content' style='display: none'>x</div>"),
        "",
        "not shown",
    ),
    "still": (PLAYER, "", "does not play"),
    "elsewhere": (
        "",
        "<script src='http://example.org/a.js'></script>",
        "asks http://example.org",
    ),
    "console": ("", "<script>console.error('help')</script>", "prints help"),
    "throws": ("", "<script>null.x</script>", "throws TypeError"),
    "not found": ("", "<script src='gone.js'></script>", "answers 404"),
}


@pytest.fixture(scope="module")
def chromium(tools):
    """One browser for all tests."""
    _, browser = tools
    program = browser.find()
    if program is None:
        pytest.skip("no Chromium here")
    with browser.Chromium(program) as running:
        yield running


@pytest.mark.slow
def test_the_browser_sees_what_is_broken(tools, chromium, tmp_path):
    _, browser = tools
    origin = browser.serve(tmp_path)
    (tmp_path / "good.html").write_text(GOOD, encoding="utf-8")
    assert browser.walk(chromium, origin, ["good.html"]) == []
    for name, (body, head, said) in BROKEN.items():
        (tmp_path / f"{name}.html").write_text(page(body, head), encoding="utf-8")
        found = browser.walk(chromium, origin, [f"{name}.html"])
        assert any(said in f for f in found), (name, found)


def test_a_search_without_a_result_is_seen(tools, chromium, tmp_path, monkeypatch):
    _, browser = tools
    (tmp_path / "search.html").write_text(page("<ul class='search'></ul>"), encoding="utf-8")
    monkeypatch.setattr(browser, "PATIENCE", 0.2)
    found = browser.search(browser.Page(chromium), browser.serve(tmp_path), "Nelson")
    assert found == ["search: Nelson is on no page", "search: no snippet shows Nelson"]


def test_the_check_of_files_sees_what_is_broken(tools, tmp_path):
    check, _ = tools
    assert check.findings(tmp_path) == [f"{tmp_path} holds no pages"]
    (tmp_path / "index.html").write_text(
        "<link rel='stylesheet' href='https://example.org/a.css'><a href='gone.html'>x</a>"
        "<a href='#nothing'>y</a><p>(???)</p>",
        encoding="utf-8",
    )
    found = "\n".join(check.findings(tmp_path))
    for said in (
        "a remote stylesheet or icon",
        "no MathJax",
        "a link to gone.html, which does not exist",
        "a link to #nothing, where nothing has this name",
        "an unresolved number",
        "plot_train_a_spiral.py is not in the gallery",
        "scoresde.sde.VPSDE is not in the API reference",
    ):
        assert said in found, said


def test_a_page_of_the_gallery_must_have_run(tools, tmp_path):
    check, _ = tools
    folder = tmp_path / "gallery"
    folder.mkdir()
    (folder / "plot_train_a_spiral.html").write_text(
        "<p class='sphx-glr-timing'><strong>Total running time of the script:</strong> "
        "(0 minutes 0.000 seconds)</p><a href='n.ipynb'>notebook</a>",
        encoding="utf-8",
    )
    notebook = '{"cells": [{"cell_type": "code", "source": ["import torch"]}]}'
    (folder / "n.ipynb").write_text(notebook, encoding="utf-8")
    found = "\n".join(f for f in check.gallery(tmp_path) if "plot_train_a_spiral.html" in f)
    assert "did not run" in found and "no figure" in found
    assert any("no cell `%pip install scoresde`" in f for f in check.gallery(tmp_path))


def test_without_a_browser_it_says_so(tools, tmp_path, monkeypatch, capsys):
    _, browser = tools
    monkeypatch.delenv("CHROMIUM", raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["browser.py", str(tmp_path)])
    assert browser.main() == 0
    assert "browser test SKIPPED" in capsys.readouterr().out

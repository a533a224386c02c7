"""Assert what a build of the site cannot notice: `python docs/check.py docs/_build/html`.

Nothing remote is loaded; every link and every number resolves; every example ran, and can be
downloaded as a notebook that installs what it needs; every public name is in the API reference.
"""

import html
import importlib
import inspect
import json
import pkgutil
import re
import sys
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urldefrag

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

from bychapter import chapters
from links import homes

ADDRESS = r"[\"']?(?:https?:)?//[^\s\"'>)]*"
STYLE = r"(?=[^>]*\brel\s*=[\"'\s\w]*(?:stylesheet|preload|preconnect|icon))"
REMOTE = {
    "script": r"<script\b[^>]*\bsrc\s*=\s*" + ADDRESS,
    "stylesheet or icon": r"<link\b" + STYLE + r"[^>]*\bhref\s*=\s*" + ADDRESS,
    "image or frame": r"<(?:img|iframe|video|audio|source|embed)\b[^>]*\bsrc\s*=\s*" + ADDRESS,
    "@import": r"@import\s+(?:url\()?\s*" + ADDRESS,
    "url()": r"url\(\s*" + ADDRESS,
}
BROKEN = {
    "an unresolved number": r"\(\?\?\?\)|\(eq-",
    "an equation without its number": r"\$\$",
    "an icon of a font that is not here": r"class=\"fa fa-",
    "a failed reference": r"class=\"problematic\"",
}
MATHJAX = ["tex-chtml.js", "output/chtml/fonts/woff-v2/MathJax_Main-Regular.woff"]
EXAMPLES = Path(__file__).parent.parent / "examples"
INSTALL = "%pip install scoresde"
FIGURE = r'class\s*=\s*"(?:sphx-glr-(?:single|multi)-img|animation)\b'
TIMING = r"Total running time of the script:</strong> \((\d+) minutes ([\d.]+) seconds\)"


class Page(NamedTuple):
    """A page: its text, the names that one can link to, the addresses that it links to."""

    text: str
    names: set[str]
    links: set[str]


class Reader(HTMLParser):
    """Collect names and links of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.names, self.links = set[str](), set[str]()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take in one tag."""
        found = dict(attrs)
        self.names |= {v for k in ("id", "name") if (v := found.get(k))}
        self.links |= {v for k in ("href", "src") if (v := found.get(k))}


@cache
def read(path: Path) -> Page:
    """Read a page once."""
    reader, text = Reader(), path.read_text(encoding="utf-8")
    reader.feed(text)
    return Page(text, reader.names, reader.links)


def remote(site: Path) -> Iterator[str]:
    """What a page would fetch from elsewhere, and what did not resolve."""
    yield from (f"no MathJax: {f}" for f in MATHJAX if not (site / "_static/mathjax" / f).exists())
    for path in [*sorted(site.rglob("*.html")), *site.rglob("*.css")]:
        text = path.read_text(encoding="utf-8")
        for what, pattern in REMOTE.items():
            yield from (f"{path}: a remote {what}: {m}" for m in re.findall(pattern, text, re.I))
        if path.suffix == ".html":
            prose = re.sub(r"<(script|style|pre)\b.*?</\1>", "", text, flags=re.S)
            yield from (f"{path}: {what}" for what, p in BROKEN.items() if re.search(p, prose))


def links(site: Path) -> Iterator[str]:
    """Links to pages, files or places on a page that do not exist."""
    for path in sorted(site.rglob("*.html")):
        for link in sorted(read(path).links):
            address, name = urldefrag(unquote(link))
            if re.match(r"[a-z]+:|//", address) or "{" in address:
                continue  # elsewhere, or a template of a script
            target = (path.parent / address.partition("?")[0]).resolve() if address else path
            target = target / "index.html" if target.is_dir() else target
            if not target.exists():
                yield f"{path}: a link to {link}, which does not exist"
            elif name and target.suffix == ".html" and name not in read(target).names:
                yield f"{path}: a link to {link}, where nothing has this name"


def gallery(site: Path) -> Iterator[str]:
    """Examples of no chapter, that did not run, show nothing, or make no notebook."""
    placed = {name for names in chapters(Path(__file__).parent).values() for name in names}
    for example in sorted(EXAMPLES.glob("plot_*.py")):
        if example.stem not in placed:
            yield f"{example.name} belongs to no chapter: refer to it there, or in bychapter.py"
        path = site / "gallery" / f"{example.stem}.html"
        if not path.exists():
            yield f"{example.name} is not in the gallery"
            continue
        page = read(path)
        ran = re.search(TIMING, page.text)
        if not ran or int(ran[1]) + float(ran[2]) == 0:
            yield f"{path}: the example did not run"
        if not re.search(FIGURE, page.text):
            yield f"{path}: no figure"
        notebooks = [path.parent / k for k in page.links if k.endswith(".ipynb")]
        if not notebooks:
            yield f"{path}: no notebook to download"
        yield from (f"{n}: no cell `{INSTALL}`" for n in notebooks if INSTALL not in cells(n))


def cells(notebook: Path) -> str:
    """The code of a notebook."""
    content = json.loads(notebook.read_text(encoding="utf-8"))
    return "\n".join("".join(c["source"]) for c in content["cells"] if c["cell_type"] == "code")


def public() -> Iterator[tuple[str, list[str]]]:
    """Every public name, and the places where it may be documented."""
    scoresde = importlib.import_module("scoresde")
    modules = [m.name for m in pkgutil.walk_packages(scoresde.__path__, "scoresde.")]
    for module in sorted(m for m in modules if not m.rpartition(".")[2].startswith("_")):
        thing = importlib.import_module(module)
        for name in getattr(thing, "__all__", []):
            if not inspect.ismodule(getattr(thing, name)):
                yield f"{module}.{name}", [f"{module}.{name}", *homes(f"{module}.{name}")]


def reference(site: Path) -> Iterator[str]:
    """Public names that are missing from the API reference, or stand there without a word."""
    text = "\n".join(read(p).text for p in sorted((site / "api").glob("*.html")))
    entry = r'<dt class="sig[^>]*\bid="([^"]+)">.*?</dt>\s*<dd>(.*?)(?=<dt\b|</dd>)'
    purpose = {
        name: html.unescape(re.sub(r"<[^>]+>", "", said)).strip()
        for name, said in re.findall(entry, text, re.S)
    }
    for name, places in public():
        room, _, last = name.rpartition(".")
        inside = (p for p in purpose if p.startswith(f"{room}.") and p.endswith(f".{last}"))
        found = [purpose[p] for p in (*places, *inside) if p in purpose]
        if not found:
            yield f"{name} is not in the API reference"
        elif not any(found):
            yield f"{name} stands in the API reference without its purpose"


def findings(site: Path) -> list[str]:
    """List every defect of a built site."""
    if not (site / "index.html").exists():
        return [f"{site} holds no pages"]
    return [d for look in (remote, links, gallery, reference) for d in look(site)]


if __name__ == "__main__":
    defects = findings(Path(sys.argv[1]))
    print("\n".join(defects) or "site: nothing remote, all links and numbers resolve, all ran")
    sys.exit(bool(defects))

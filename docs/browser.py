"""Look at every page of a built site in a browser: `python docs/browser.py docs/_build/html`.

Served over http on localhost, at the widths of a screen and of a phone, light and dark. What a
page is asked stands in browser.js. Without a Chromium nothing is tested, and the last line
says so.
"""

import argparse
import base64
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from chrome import Chromium, Page, find

LOOKS = [(1280, "light"), (1280, "dark"), (390, "dark"), (390, "light")]
SCRIPT = Path(__file__).with_suffix(".js").read_text(encoding="utf-8")
RARE = "Nelson"  # a word of few pages, for which to search
PATIENCE = 10.0  # seconds for the search to answer
ELSEWHERE = {"lab.html"}  # what moves there has a test of its own


class Silent(SimpleHTTPRequestHandler):
    """A server that does not log."""

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def serve(site: Path) -> str:
    """Serve a folder as long as this program runs; return its address."""
    server = ThreadingHTTPServer(("localhost", 0), partial(Silent, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://localhost:{server.server_port}"


class Numbers:
    """What is numbered on which page, and which number a reference shows."""

    def __init__(self) -> None:
        self.own: dict[str, str] = {}  # address -> number
        self.cited: list[tuple[str, str, str]] = []  # page, address, number shown
        self.pages: set[str] = set()

    def add(self, page: str, found: dict[str, list[list[str]]]) -> None:
        """Take in what one page says."""
        self.pages.add(f"/{page}")
        self.own |= dict(found["own"])
        self.cited += [(page, address, shown) for address, shown in found["cited"]]

    def findings(self) -> Iterator[str]:
        """Numbers given twice, references that lead nowhere or show another number."""
        seen: dict[str, str] = {}
        for address, number in self.own.items():
            name = address.rpartition("#")[2]
            if name.startswith("equation-") and seen.setdefault(number, name) != name:
                yield f"{address}: its number {number} is that of {seen[number]}"
        for page, address, shown in self.cited:
            number = self.own.get(address)
            if number is None and address.partition("#")[0] in self.pages:
                yield f"{page}: {shown} leads nowhere: {address}"
            elif number is not None and number != shown and not number.startswith(f"{shown} "):
                yield f"{page}: {shown} leads to {number}"


def look(page: Page, origin: str, path: str, numbers: Numbers, shots: Path | None) -> list[str]:
    """Open one page, look at it in every way, list what is wrong with it."""
    page.look(*LOOKS[0])
    page.open(f"{origin}/{path}")
    page.run(SCRIPT)
    page.run("site.settle()")
    found = page.run("site.content()")
    for width, theme in LOOKS:
        page.look(width, theme)
        found += [f"{width} px, {theme}: {d}" for d in page.run(f"site.layout('{theme}')")]
        if shots:
            shoot(page, shots / f"{path.replace('/', '.')}.{width}.{theme}.png")
    found += page.run("site.folded()")
    found += [] if path in ELSEWHERE else page.run("site.plays()")
    numbers.add(path, page.run("site.numbers()"))
    return found + page.complaints(origin)


def shoot(page: Page, file: Path) -> None:
    """Take a picture of a whole page, of its first 4000 pixels at most."""
    size = page.run("[innerWidth, Math.min(4000, document.documentElement.scrollHeight)]")
    clip = {"x": 0, "y": 0, "width": size[0], "height": size[1], "scale": 1}
    data = page.call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)["data"]
    file.write_bytes(base64.b64decode(data))


def search(page: Page, origin: str, word: str) -> list[str]:
    """Search for a word as a reader does: a page is found, and a snippet shows the word."""
    page.open(f"{origin}/search.html?q={word}")
    results = "[...document.querySelectorAll('.search li')].map((e) => e.textContent)"
    snippet = "[...document.querySelectorAll('.search p.context')].map((e) => e.textContent)"
    end = time.monotonic() + PATIENCE
    while not any(word in s for s in page.run(snippet)) and time.monotonic() < end:
        time.sleep(0.05)
    found = [] if page.run(results) else [f"search: {word} is on no page"]
    if not any(word in s for s in page.run(snippet)):
        found.append(f"search: no snippet shows {word}")
    return found + [f"search: {c}" for c in page.complaints(origin)]


def demanded(site: Path, pages: list[str]) -> list[str]:
    """What must be somewhere on the site, or its test above has tested nothing."""
    text = {p: (site / p).read_text(encoding="utf-8") for p in pages}
    asked = {
        "a formula": 'class="math ',
        "a numbered equation": 'class="eqno"',
        "a folded solution": "sd-dropdown",
        "an animation": 'class="animation"',
    }
    return [
        f"{what} is on no page"
        for what, mark in asked.items()
        if not any(mark in t for t in text.values())
    ]


def walk(browser: Chromium, origin: str, paths: list[str], shots: Path | None = None) -> list[str]:
    """Look at pages one after the other in one tab; list every defect with its page."""
    page, numbers, found = Page(browser), Numbers(), []
    for path in paths:
        try:
            defects = look(page, origin, path, numbers, shots)
        except (RuntimeError, TimeoutError) as error:
            defects, page = [str(error)], Page(browser)
        found += [f"{path}: {d}" for d in dict.fromkeys(defects)]
    return found + list(numbers.findings())


def main() -> int:
    """Test a whole site, or the pages that are named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("site", type=Path)
    parser.add_argument("pages", nargs="*", help="some pages only, as theory/forward.html")
    parser.add_argument("--shots", type=Path, help="a folder for pictures of the pages")
    options = parser.parse_args()
    program = find()
    if program is None:
        print("browser test SKIPPED: no Chromium here (Debian: apt-get install chromium)")
        return 0
    everything = sorted(
        str(p.relative_to(options.site).as_posix()) for p in options.site.rglob("*.html")
    )
    if options.shots:
        options.shots.mkdir(parents=True, exist_ok=True)
    start, origin = time.monotonic(), serve(options.site)
    with Chromium(program) as browser:
        found = walk(browser, origin, options.pages or everything, options.shots)
        if not options.pages:
            found += search(Page(browser), origin, RARE) + demanded(options.site, everything)
    seconds = time.monotonic() - start
    print("\n".join(found))
    n = len(options.pages or everything)
    print(f"browser: {n} pages x {len(LOOKS)} looks in {seconds:.0f} s, {len(found)} defects")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())

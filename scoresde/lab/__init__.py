"""The laboratory: one page on which the discrete and the continuous view are played with.

Laws of the plane with exact scores, every schedule and sampler as in this library, two of them
side by side under one Brownian path. The page is plain JavaScript, in files beside this one, and
``page`` puts them together: it needs no server and no network.
"""

import re
from pathlib import Path

from ..files import atomically

__all__ = ["PAGE", "page", "write"]

HERE = Path(__file__).resolve().parent
PAGE = HERE / "lab.html"
"""The page with its parts in files beside it, as it is installed."""
STYLE = re.compile(r'<link rel="stylesheet" href="([\w.]+)">')
SCRIPT = re.compile(r'<script src="([\w.]+)"></script>')


def page() -> str:
    """The whole page as text, with its style and its scripts within."""
    html = STYLE.sub(lambda found: f"<style>\n{_part(found[1])}</style>", _part(PAGE.name))
    return SCRIPT.sub(lambda found: f"<script>\n{_part(found[1])}</script>", html)


def write(path: str | Path) -> Path:
    """Write the page to one file, which then stands alone; the path."""
    return atomically(path, lambda part: part.write_text(page(), encoding="utf-8"))


def _part(name: str) -> str:
    """One of the files that the page is made of."""
    return (HERE / name).read_text(encoding="utf-8")

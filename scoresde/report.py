"""A report: figures, tables and sentences in one self-contained HTML page.

Nothing is fetched when the page is opened: images are part of the file. Each figure may come in
two versions, of which the reader's colour scheme chooses one; the page reads on a phone.
"""

import base64
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .files import atomically

__all__ = ["Report"]

LARGEST = 8 * 2**20
KINDS = {".png": "image/png", ".gif": "image/gif", ".svg": "image/svg+xml"}
STYLE = """
:root { color-scheme: light dark; --face: #fff; --ink: #1b2330; --muted: #5a6573;
  --line: #e4e8ed; --soft: #f5f7f9; }
@media (prefers-color-scheme: dark) { :root { --face: #14161a; --ink: #e9ecf1;
  --muted: #9ca7b5; --line: #2b3038; --soft: #1b1e24; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 62rem; background: var(--face);
  color: var(--ink); font: 17px/1.55 system-ui, sans-serif; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .4rem; text-wrap: balance; }
h2 { font-size: 1.2rem; margin: 2.6rem 0 .4rem; }
p { margin: .5rem 0; max-width: 46rem; }
.lead, figcaption, footer { color: var(--muted); }
figure { margin: 1rem 0; }
figure img { display: block; width: 100%; max-width: 46rem; height: auto; border-radius: 6px; }
figure.wide img { max-width: 100%; }
figcaption { max-width: 46rem; margin-top: .4rem; font-size: .95rem; }
.scroll { overflow-x: auto; margin: 1rem 0 .4rem; }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .75rem; text-align: right; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
th { font-weight: 600; border-bottom-color: var(--muted); vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0;
  background: var(--face); }
tr.rule td { border-top: 1px solid var(--muted); }
.facts { display: flex; flex-wrap: wrap; gap: .6rem; padding: 0; list-style: none; }
.facts li { background: var(--soft); border: 1px solid var(--line); border-radius: 6px;
  padding: .45rem .8rem; }
.facts b { display: block; font-size: 1.15rem; }
.facts span { color: var(--muted); font-size: .88rem; }
code { font-size: .92em; background: var(--soft); padding: .1em .3em; border-radius: 4px; }
"""


@dataclass
class Report:
    """A page that is filled from top to bottom and then written.

    Args:
        title: of the page.
        lead: one sentence under it.
    """

    title: str
    lead: str
    _body: list[str] = field(default_factory=list, init=False, repr=False)

    def section(self, title: str, text: str = "") -> None:
        """A heading, and what follows shows, in one sentence."""
        self._body.append(f"<h2>{_text(title)}</h2>")
        if text:
            self.text(text)

    def text(self, text: str) -> None:
        """A paragraph; `words` between backticks are code."""
        self._body.append(f"<p>{_text(text)}</p>")

    def facts(self, facts: Mapping[str, str]) -> None:
        """A row of figures: what it is -> its value with unit."""
        items = (f"<li><b>{_text(v)}</b><span>{_text(k)}</span></li>" for k, v in facts.items())
        self._body.append(f'<ul class="facts">{"".join(items)}</ul>')

    def figure(
        self, path: Path, caption: str, dark: Path | None = None, wide: bool = False
    ) -> None:
        """An image file with a caption, which is its text alternative too.

        Args:
            path: .png, .gif or .svg.
            caption: what it shows, in one sentence.
            dark: the same for a dark page.
            wide: over the whole width.
        """
        source = ""
        if dark is not None:
            media = 'media="(prefers-color-scheme: dark)"'
            source = f'<source srcset="{_embed(dark)}" {media}>'
        image = f'<img src="{_embed(path)}" alt="{html.escape(caption, quote=True)}">'
        self._body.append(
            f"<figure{' class=wide' if wide else ''}><picture>{source}{image}</picture>"
            f"<figcaption>{_text(caption)}</figcaption></figure>"
        )

    def table(
        self, columns: Sequence[str], rows: Sequence[Sequence[str]], rules: Sequence[int] = ()
    ) -> None:
        """A table of ready-made cells; rows numbered in ``rules`` begin a new group."""
        head = "".join(f"<th>{_text(c)}</th>" for c in columns)
        body = "".join(
            f"<tr{' class=rule' if k in rules else ''}>"
            + "".join(f"<td>{_text(cell)}</td>" for cell in row)
            + "</tr>"
            for k, row in enumerate(rows)
        )
        self._body.append(
            '<div class="scroll" tabindex="0"><table>'
            f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
        )

    def write(self, path: Path, footer: str = "") -> Path:
        """Write the page, whole or not at all.

        Raises:
            ValueError: if it would be larger than 8 MB.
        """
        page = (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{html.escape(self.title)}</title><style>{STYLE}</style></head><body>"
            f'<h1>{_text(self.title)}</h1><p class="lead">{_text(self.lead)}</p>'
            f"<main>{''.join(self._body)}</main><footer><p>{_text(footer)}</p></footer>"
            "</body></html>\n"
        )
        if len(page.encode()) > LARGEST:
            raise ValueError(
                f"expected a report of at most 8 MB, got {len(page.encode()) / 2**20:.1f} MB: "
                "save figures at a lower resolution"
            )
        return atomically(path, lambda part: part.write_text(page, encoding="utf-8"))


def _embed(path: Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    return f"data:{KINDS[path.suffix]};base64,{data}"


def _text(text: str) -> str:
    """Escaped, with `code` between backticks."""
    parts = html.escape(text).split("`")
    return "".join(f"<code>{p}</code>" if k % 2 else p for k, p in enumerate(parts))

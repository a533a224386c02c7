"""The laboratory among the pages of the site: lab.html, what `scoresde lab --out` writes."""

from pathlib import Path

from sphinx.application import Sphinx

from scoresde.lab import page


def write(app: Sphinx, failure: Exception | None) -> None:
    """Write the page, told that it stands among the chapters, so that it can link to them."""
    if failure is None and app.builder.format == "html":
        text = page().replace("<html ", "<html data-site ", 1)
        (Path(app.outdir) / "lab.html").write_text(text, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Write it when all else is there."""
    app.connect("build-finished", write)
    return {"parallel_read_safe": True}

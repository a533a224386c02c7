"""An exercise sheet for each chapter: its exercises, without the solutions.

The sheets are written before the sources are read, from the chapters themselves, into
``docs/sheets``; nothing is kept in step by hand.
"""

import re
from pathlib import Path

OPEN = re.compile(r"(?P<fence>`{3,}|:{3,})\{exercise\}(?: (?P<title>.*))?")
HEAD = "{title}\n{line}\n\nThe exercises of {{doc}}`{source}`; their solutions are there.\n"


def exercises(text):
    """Yield (title, body) of every exercise of a chapter."""
    lines = iter(text.splitlines())
    for line in lines:
        if found := OPEN.fullmatch(line):
            body = list(iter(lines.__next__, found["fence"]))
            yield found["title"], "\n".join(b for b in body if not b.startswith(":label:")).strip()


def sheet(chapter, source):
    """Make the sheet of a chapter, or None where it has no exercises."""
    text = chapter.read_text(encoding="utf-8")
    found = list(exercises(text))
    title = "Exercises: " + re.search(r"^# (.*)$", text, re.M)[1]
    parts = [HEAD.format(title=title, line="=" * len(title), source=source)]
    parts += [f"## {k}. {name}\n\n{body}\n" for k, (name, body) in enumerate(found, 1)]
    return "\n".join(parts) if found else None


def write(app):
    """Write all sheets, each only where it has changed."""
    root = Path(app.srcdir)
    (root / "sheets").mkdir(exist_ok=True)
    chapters = [*sorted((root / "theory").glob("*.md")), root / "repaired.md"]
    for chapter in chapters:
        target = root / "sheets" / chapter.name
        source = "/" + chapter.relative_to(root).with_suffix("").as_posix()
        text = sheet(chapter, source)
        if text and not (target.exists() and target.read_text(encoding="utf-8") == text):
            target.write_text(text, encoding="utf-8")


def setup(app):
    """Hook into the build."""
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True}

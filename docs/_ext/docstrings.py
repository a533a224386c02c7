"""Let docstrings be plain text: what they set apart is an equation, and a star is a star.

Docstrings are written to be read in a terminal. An indented block after an empty line is a
displayed formula, shown as it stands; in running text, ``*`` and ``|`` mean themselves, as in
(B, *) and E|s|^2.
"""

import re
from itertools import pairwise
from typing import Any

from sphinx.application import Sphinx

KEPT = r"`+.+?`+(?:__?)?|(?<!\S)\*{1,2}\w[^*]*?\w?\*{1,2}(?!\w)"  # code, emphasis
CODE_OR_MARK = re.compile(rf"({KEPT})|([*|]|(?<=\w)_(?!\w))")


def indent(line: str) -> int:
    """Count the spaces before the text of a line."""
    return len(line) - len(line.lstrip())


def plain(lines: list[str]) -> list[str]:
    """Mark displayed formulas as literal blocks, escape markup characters elsewhere."""
    out: list[str] = []
    literal: int | None = None  # the indentation of the formula that we are in
    text = 0  # the indentation of the last line of running text
    references = doctest = False
    for before, line in pairwise(["", *lines]):
        if line.strip():
            deeper = indent(line) >= text + 2
            if literal is not None and indent(line) < literal:
                literal = None
            elif literal is None and not before.strip() and out and deeper:
                literal = indent(line)
                out += [" " * text + ".. code-block:: text", ""]
        if literal is None and line.strip():
            text = indent(line)
            references = line.strip() == "References:" or (references and text > 0)
            doctest = ">>>" in line or (doctest and bool(before.strip()))
            line = line if doctest else escape(line)
            if references and text > 0:
                line = " " * text + "| " + line.lstrip()  # each on a line of its own
        out.append(line)
    return out


def escape(line: str) -> str:
    """Escape stars, bars and trailing underscores, but for those in code and bold text."""
    return CODE_OR_MARK.sub(lambda m: m[1] or "\\" + m[2], line)


def process(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Rewrite the docstrings of this library alone."""
    if name.startswith("scoresde"):
        # An empty comment, or napoleon takes what stands before a colon for a type.
        typed = what in ("attribute", "data", "property")
        lines[:] = [*([".. ", ""] if typed else []), *plain(lines)]


def setup(app: Sphinx) -> dict[str, bool]:
    """Run before napoleon, whose sections then only need their headings."""
    app.connect("autodoc-process-docstring", process, priority=400)
    return {"parallel_read_safe": True}

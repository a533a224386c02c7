"""The chapters are numbered from 0: stochastic calculus comes before the first one.

Sphinx counts a numbered list of pages from 1, and has no option for that. Once it has counted
sections, equations and theorems, one is taken off the first of their numbers.
"""

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

Number = tuple[int, ...]


def earlier(number: Number) -> Number:
    """(2, 3) -> (1, 3); a section without a number has none."""
    return (number[0] - 1, *number[1:]) if number else number


def renumber(app: Sphinx, env: BuildEnvironment) -> list[str]:
    """Take one off the chapter in every number of every numbered page."""
    for page, sections in env.toc_secnumbers.items():
        for anchor, number in sections.items():
            sections[anchor] = earlier(number)
        numbered: dict[str, dict[str, Any]] = env.toc_fignumbers.get(page, {})
        for kind in numbered.values():
            for name, number in kind.items():
                kind[name] = earlier(number)
        for node in (env.titles[page], *env.tocs[page].findall(nodes.reference)):
            if node.get("secnumber"):
                node["secnumber"] = earlier(tuple(node["secnumber"]))
    return sorted(env.toc_secnumbers)


def setup(app: Sphinx) -> dict[str, bool]:
    """After Sphinx has counted."""
    app.connect("env-get-updated", renumber, priority=900)
    return {"parallel_read_safe": True}

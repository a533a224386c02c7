"""What a page would fetch from elsewhere, from the site itself: MathJax, and some icons."""

import importlib.util
import re
import shutil
from pathlib import Path

from matplotlib import animation
from sphinx.application import Sphinx

# The parts of MathJax that a page with TeX asks for: 2 MB of 22.
MATHJAX = [
    "tex-chtml.js",
    "output/chtml/fonts/woff-v2",
    "input/tex/extensions",
    "a11y/assistive-mml.js",
]

# The buttons of matplotlib's player, drawn in a square of 16, for Font Awesome's names.
ICONS = {
    "minus": "M2 7h12v2H2z",
    "plus": "M2 7h5V2h2v5h5v2H9v5H7V9H2z",
    "fast-backward": "M2 2h2v12H2zM9 2v12L4 8zM14 2v12L9 8z",
    "step-backward": "M3 2h2v12H3zM13 2v12L5 8z",
    "play fa-flip-horizontal": "M13 2v12L3 8z",
    "pause": "M3 2h4v12H3zM9 2h4v12H9z",
    "play": "M3 2v12l10-6z",
    "step-forward": "M11 2h2v12h-2zM3 2v12l8-6z",
    "fast-forward": "M12 2h2v12h-2zM2 2v12l5-6zM7 2v12l5-6z",
}


def icon(match: re.Match[str]) -> str:
    """Draw the icon that a tag of the icon font names."""
    shape = f'<path d="{ICONS[match[1]]}"/>'
    return f'<svg width="14" height="14" viewBox="0 0 16 16" fill="currentColor">{shape}</svg>'


def free_player() -> None:
    """Take the icon font out of matplotlib's HTML player, and put drawings in its buttons."""
    animation.JS_INCLUDE = re.sub(r"<link[^>]*font-awesome[^>]*>", "", animation.JS_INCLUDE)
    animation.DISPLAY_TEMPLATE = re.sub(
        r'<i class="fa fa-([\w -]+)"></i>', icon, animation.DISPLAY_TEMPLATE
    )


def copy_mathjax(app: Sphinx, failure: Exception | None) -> None:
    """Copy the parts of MathJax that the pages need into the site."""
    found = importlib.util.find_spec("sphinx-mathjax-offline")
    if failure or app.builder.format != "html" or found is None:
        return
    source = Path(found.submodule_search_locations[0]) / "static" / "mathjax"
    for part in MATHJAX:
        target = app.outdir / "_static" / "mathjax" / part
        target.parent.mkdir(parents=True, exist_ok=True)
        if (source / part).is_dir():
            shutil.copytree(source / part, target, dirs_exist_ok=True)
        else:
            shutil.copyfile(source / part, target)


def setup(app: Sphinx) -> dict[str, bool]:
    """Serve MathJax from the site itself."""
    free_player()
    app.config.mathjax_path = "mathjax/tex-chtml.js"
    app.connect("build-finished", copy_mathjax)
    return {"parallel_read_safe": True}

"""Assert what a build of the site cannot notice: `python docs/check.py docs/_build/html`."""

import re
import sys
from pathlib import Path

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


def findings(site: Path) -> list[str]:
    """List every defect of a built site."""
    pages = sorted(site.rglob("*.html"))
    found = [] if pages else [f"{site} holds no pages"]
    found += [f"no MathJax: {f}" for f in MATHJAX if not (site / "_static/mathjax" / f).exists()]
    for path in [*pages, *site.rglob("*.css")]:
        text = path.read_text(encoding="utf-8")
        for what, pattern in REMOTE.items():
            found += [f"{path}: a remote {what}: {m}" for m in re.findall(pattern, text, re.I)]
        if path.suffix == ".html":
            prose = re.sub(r"<(script|style|pre)\b.*?</\1>", "", text, flags=re.S)
            found += [f"{path}: {what}" for what, p in BROKEN.items() if re.search(p, prose)]
    return found


if __name__ == "__main__":
    defects = findings(Path(sys.argv[1]))
    print("\n".join(defects) or "site: nothing remote, MathJax there, every reference resolved")
    sys.exit(bool(defects))

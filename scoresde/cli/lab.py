"""The laboratory: ``scoresde lab``."""

import webbrowser
from dataclasses import dataclass
from pathlib import Path

from ..lab import PAGE, write

__all__ = ["Lab"]


@dataclass(frozen=True)
class Lab:
    """Open the laboratory, an interactive page that needs no network, in the browser."""

    out: Path | None = None
    """Write the page to this one file, which then stands alone, and do not open it."""

    def run(self) -> Path:
        """Open the page, or write it; say where it is; return its path."""
        if self.out is not None:
            if self.out.is_dir():
                raise ValueError(
                    f"expected a file, got the folder {self.out}: add a name, lab.html"
                )
            print(f"the laboratory, in one file: {write(self.out).resolve()}")
            return self.out
        print(f"the laboratory: {PAGE}")
        if not _opened(PAGE):
            print("no browser here: scoresde lab --out lab.html writes one file to take elsewhere")
        return PAGE


def _opened(path: Path) -> bool:
    """Whether a browser took the page."""
    try:
        return webbrowser.open(path.as_uri())
    except webbrowser.Error:
        return False

"""The gallery shows what an example writes: the images that appeared while it ran."""

import shutil
import time
from pathlib import Path
from typing import Any

from sphinx_gallery.scrapers import figure_rst

KINDS = {".png", ".gif", ".svg"}
started = 0.0


def reset(gallery_conf: dict[str, Any], name: str) -> None:
    """Note when an example begins: an image older than that is not its own."""
    global started
    started = time.time()


def scrape(
    block: tuple[Any, ...], block_vars: dict[str, Any], gallery_conf: dict[str, Any]
) -> str:
    """Move the images beside the example that are newer than its start into its page."""
    folder = Path(block_vars["src_file"]).parent
    new = [p for p in folder.iterdir() if p.suffix in KINDS and p.stat().st_mtime >= started]
    moved = []
    for path in sorted(new, key=lambda p: p.stat().st_mtime):
        target = Path(block_vars["image_path_iterator"].next()).with_suffix(path.suffix)
        moved.append(shutil.move(path, target))
    return figure_rst(moved, gallery_conf["src_dir"])

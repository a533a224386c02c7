"""The page: self-contained, escaped, small, and whole or not at all."""

import base64
import re

import pytest

from scoresde.files import atomically
from scoresde.report import Report

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


@pytest.fixture
def page(tmp_path):
    image = tmp_path / "dot.png"
    image.write_bytes(PNG)
    report = Report("A < B & C", "one sentence")
    report.section("Heading", "what `code` shows")
    report.figure(image, 'caption with "quotes"', dark=image)
    report.table(["sampler", "error"], [["a <b>", "1"], ["c", "2"]], rules=[1])
    report.facts({"time": "3 s"})
    return report.write(tmp_path / "report.html", "the end").read_text()


def test_everything_is_inside(page):
    assert not re.search(r"(src|href|srcset)=\"(?!data:)", page)
    assert "://" not in page and "url(" not in page and "@import" not in page
    assert page.count(base64.b64encode(PNG).decode()) == 2
    assert '<source srcset="data:image/png' in page and "prefers-color-scheme: dark" in page
    assert 'name="viewport"' in page


def test_text_is_escaped(page):
    assert "<title>A &lt; B &amp; C</title>" in page
    assert 'alt="caption with &quot;quotes&quot;"' in page
    assert "<td>a &lt;b&gt;</td>" in page and "what <code>code</code> shows" in page


def test_a_report_too_large_is_refused_and_the_earlier_one_stays(tmp_path):
    path, image = tmp_path / "report.html", tmp_path / "big.png"
    path.write_text("earlier")
    image.write_bytes(bytes(7 * 2**20))
    report = Report("big", "")
    report.figure(image, "")
    with pytest.raises(ValueError, match="at most 8 MB"):
        report.write(path)
    assert path.read_text() == "earlier"


def test_a_full_disk_loses_nothing(tmp_path):
    path = tmp_path / "new" / "file.txt"
    atomically(path, lambda part: part.write_text("first"))

    def half(part):
        part.write_text("sec")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        atomically(path, half)
    assert path.read_text() == "first"
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]

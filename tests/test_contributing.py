"""What CONTRIBUTING.md tells a newcomer to type passes the battery, as it says."""

import re
from pathlib import Path

TEXT = (Path(__file__).resolve().parent.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_the_examples_of_contributing():
    blocks = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    names = {"__name__": __name__}
    for block in blocks:
        exec(block, names)
    assert {"check_sde", "check_sampler"} <= names.keys()

"""The README is true: its example runs, and every sampler in it comes near the floor."""

import re
from pathlib import Path

import torch

README = Path(__file__).parent.parent / "README.md"


def test_the_twenty_lines(float32, capsys):
    code = re.search(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.S).group(1)
    assert len([line for line in code.splitlines() if line.strip()]) <= 20
    exec(compile(code.replace("progress=True", "seed=0"), str(README), "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    mean, sd = map(float, re.findall(r"tensor\(([\d.]+)", lines[0]))
    distances = [float(line.rsplit(" ", 1)[1]) for line in lines[1:]]
    assert len(distances) == 4
    # a thousand steps do not make a perfect network, but one near the truth
    assert max(distances) < 3 * (mean + 2 * sd), (distances, mean, sd)
    assert torch.get_default_dtype() == torch.float32

"""Fetch what a bare GPU machine lacks, as wheels, on a machine that has pip.

    python benchmarks/gpu/prepare.py [--python 3.12] [--force]

Such a machine has torch, numpy, scipy, matplotlib, scikit-learn, torchdiffeq, torchmetrics, pytest
with xdist and timeout, hypothesis, safetensors and tqdm, and no network. The rest goes into
.wheels, which git ignores and `run.py` installs beside the tree. The sizes are printed: tree and
wheels together should stay below 60 MiB, to travel.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
WHEELS = ROOT / ".wheels"
DIRECT = "torchsde", "POT", "tyro", "diffusers"  # versions: constraints.txt
NEEDED = "trampoline", "docstring_parser", "typeguard", "importlib_metadata==8.7.0"  # by those
PLATFORMS = "manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014", "manylinux1"
MOST = 60  # MiB


def pinned() -> dict[str, str]:
    """Name -> name==version of the development set."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").split()
    return {line.partition("==")[0].lower(): line for line in lines if "==" in line}


def fetch(package: str, python: str) -> str | None:
    """Download one wheel; returns what pip complains of."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", WHEELS]
    command += ["--only-binary=:all:", "--implementation=cp", f"--python-version={python}"]
    command += [word for name in PLATFORMS for word in ("--platform", f"{name}_x86_64")]
    settings = os.environ | {"PIP_CONSTRAINT": ""}  # the machine's own constraints are not these
    done = subprocess.run([*command, package], capture_output=True, text=True, env=settings)
    return None if done.returncode == 0 else done.stderr.strip().splitlines()[-1]


def mib(paths: list[Path]) -> float:
    """Size on disk."""
    return sum(path.stat().st_size for path in paths if path.is_file()) / 2**20


def tree() -> list[Path]:
    """Files that git has, or would take."""
    command = ["git", "ls-files", "-co", "--exclude-standard", "-z"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / name for name in done.stdout.split("\0") if name]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", default="3.12", help="version there")
    parser.add_argument("--force", action="store_true", help="fetch again what is there")
    options = parser.parse_args()
    WHEELS.mkdir(exist_ok=True)
    for wheel in WHEELS.glob("*.whl") if options.force else ():
        wheel.unlink()
    pins, missing = pinned(), 0
    for name in (*DIRECT, *NEEDED):
        if any(WHEELS.glob(f"{name.partition('==')[0].lower()}-*.whl")):
            continue
        complaint = fetch(pins.get(name.lower(), name), options.python)
        if complaint:
            print(f"missing {name}: {complaint}")
            missing += 1
    wheels, own = sorted(WHEELS.glob("*.whl")), tree()
    for wheel in wheels:
        print(f"{mib([wheel]):8.2f} MiB  {wheel.name}")
    total = mib(own) + mib(wheels)
    print(f"tree {mib(own):.1f} MiB + wheels {mib(wheels):.1f} MiB = {total:.1f} of {MOST} MiB")
    return int(bool(missing) or total > MOST)


if __name__ == "__main__":
    sys.exit(main())

"""Everything that a GPU shows, in at most nine minutes and without a network.

    python benchmarks/gpu/run.py [--out DIR] [--minutes 9]      on the machine with the card
    python benchmarks/gpu/run.py --dry [--out DIR]              on a CPU, to see that it runs

The wheels of `prepare.py` are installed aside. Then, each with a limit of its own and none
stopping the rest: all tests marked gpu or real_gpu, both demonstrations on cuda, and the
benchmarks of steps, of training and of size. A table with the bars that the library must reach
comes last. Into DIR (runs/gpu) go table.txt, report.json (the numbers, the machine, the table) and
logs.txt.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
WHEELS = ROOT / ".wheels"
CLI = (sys.executable, "-c", "import sys; from scoresde.cli import main; sys.exit(main())")
VERSIONS = (
    "import sys, torch, torchsde, ot, tyro, scoresde;"
    "card = torch.cuda.get_device_name() if torch.cuda.is_available() else 'no GPU';"
    "print('Python', sys.version.split()[0], 'torch', torch.__version__, card)"
)


@dataclass(frozen=True)
class Part:
    """One command: its name, the seconds it may take, its words."""

    name: str
    seconds: int
    words: tuple[str | Path, ...]


@dataclass(frozen=True)
class Outcome:
    """How it ended: the status (None: stopped at its limit, or not begun), and the last line."""

    name: str
    status: int | None
    seconds: float
    last: str


def parts(dry: bool, scratch: Path) -> list[Part]:
    """What is run, in this order; in a dry run, the least that passes through every one."""
    device, python = "cpu" if dry else "cuda", sys.executable
    pytest = (python, "-m", "pytest", "-q", "--tb=short", "-o", f"cache_dir={scratch / 'pytest'}")
    tests = ("-n", "4", "--timeout=150", "-m", "gpu or real_gpu", "tests")
    if dry:
        tests = ("-n", "0", "tests/test_gpu.py", "-k", "numbers_of_the_cpu and nets")
    quick = ("--quick",) if dry else ()
    bench = lambda name, *words: (
        python,
        ROOT / "benchmarks" / f"{name}.py",
        "--out",
        scratch / "bench",
        *(quick or words),
    )
    demo = lambda kind, *words: (
        *CLI, "demo", *kind, "--device", device, "--out", scratch / f"demo{len(kind)}", *words
    )  # fmt: skip
    look = ("--help",) if dry else ()  # the demonstrations have tests of their own
    few = ("--steps", "400", "--samples", "24", *look)
    cases = ("--cases", "tiny @ 256", "MLP @ 256", "U-Net @ 16")
    return [
        Part("versions", 60, (python, "-c", VERSIONS)),
        Part("tests", 240, (*pytest, *tests)),
        Part("steps", 120, bench("step_overhead", *cases)),
        Part("training", 60, bench("train_throughput", "--rounds", "7")),
        Part("size", 90, bench("scaling")),
        Part("demo of points", 90, demo((), "--steps", "1500", *look)),
        Part(
            "demo of paths",
            60,
            demo(("trajectories",), *few),
        ),
    ]


def run(part: Part, left: float, log: Path, settings: Mapping[str, str]) -> Outcome:
    """Run a part for as long as it and all may take; its output goes into a log."""
    limit, begin = min(part.seconds, left), time.perf_counter()
    if limit < 8:
        return Outcome(part.name, None, 0.0, "no time left")
    with log.open("w", encoding="utf-8") as file:
        try:
            done = subprocess.run(
                [str(word) for word in part.words],
                cwd=ROOT,
                env=dict(settings),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                timeout=limit,
            )
            status = done.returncode
        except subprocess.TimeoutExpired:
            status = None
    lines = [line.strip() for line in log.read_text(encoding="utf-8").splitlines()]
    said = [line for line in lines if line and "it/s]" not in line and "step/s" not in line]
    last = said[-1].strip("= ")[:90] if said else ""
    last = last if status is not None else f"stopped after {limit:.0f} s; {last}"
    return Outcome(part.name, status, time.perf_counter() - begin, last)


def install(site: Path) -> str:
    """The wheels into a folder of their own."""
    wheels = sorted(WHEELS.glob("*.whl"))
    if not wheels:
        return f"no wheels in {WHEELS.name}: what is missing must be there already"
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps"]
    command += ["--no-compile", "--no-cache-dir", "--upgrade", "--target", str(site)]
    done = subprocess.run([*command, *map(str, wheels)], capture_output=True, text=True)
    return f"{len(wheels)} wheels" if done.returncode == 0 else done.stderr.strip()[-200:]


def bars(bench: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(what, found, bar) for everything that was measured."""
    rows = []
    steps = bench.get("step_overhead", {})
    for row in steps.get("targets", []):
        if "captured" in row:  # the other targets of a step are for CPUs
            what = f"captured loop / captured network, {row['case']}"
            rows.append((what, f"{row['captured']:.3f}", "at most 1.05"))
    if "train_throughput" in bench:
        ratio = bench["train_throughput"]["medians"]["ratio"]
        rows.append(("training with an average / by hand", f"{ratio:.3f}", "at least 0.97"))
    if "scaling" in bench:
        most = bench["scaling"]["throughput"]
        what = f"sample of {most['samples']} points / network at its best batch"
        rows.append((what, f"{most['ratio']:.2f}", "at least 0.8"))
    return rows


def table(outcomes: list[Outcome], found: list[tuple[str, str, str]]) -> str:
    """What is printed last."""
    lines = [
        f"{one.name:18}{'stop' if one.status is None else one.status:>5}{one.seconds:7.0f} s  "
        f"{one.last}"
        for one in outcomes
    ]
    lines += [""] + [f"{what:52}{value:>10}   {bar}" for what, value, bar in found]
    return "\n".join(lines) + "\n"


def read(folder: Path) -> dict[str, Any]:
    """The JSON of every benchmark that wrote one."""
    found = {}
    for path in sorted(folder.glob("*.json")):
        found[path.stem] = json.loads(path.read_text(encoding="utf-8"))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"), help="folder")
    parser.add_argument("--minutes", type=float, default=9.0, help="for everything")
    parser.add_argument("--dry", action="store_true", help="on a CPU, in small")
    options = parser.parse_args()
    end = time.perf_counter() + 60 * options.minutes
    options.out.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix="scoresde-gpu-"))
    print("dry: nothing is installed" if options.dry else install(scratch / "site"), flush=True)
    before = os.environ.get("PYTHONPATH")
    settings = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), str(scratch / "site"), before])),
        "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1", "MPLBACKEND": "Agg",
        "OMP_NUM_THREADS": "1", "TORCHINDUCTOR_CACHE_DIR": str(scratch / "inductor"),
    }  # fmt: skip
    outcomes, logs = [], []
    for part in parts(options.dry, scratch):
        log = scratch / f"{part.name.replace(' ', '-')}.log"
        outcome = run(part, end - time.perf_counter(), log, settings)
        outcomes.append(outcome)
        text = log.read_text(encoding="utf-8") if log.exists() else ""
        logs.append(f"==== {part.name}\n{text}\n")
        failed = [line for line in text.splitlines() if line.startswith(("FAILED", "ERROR"))]
        print(f"{outcome.name}: {outcome.status}, {outcome.last}", *failed[:20], sep="\n  ")
        bench = read(scratch / "bench")  # after every part: what was measured is kept
        shown = table(outcomes, bars(bench))
        report = {"parts": [asdict(one) for one in outcomes], "bars": bars(bench), **bench}
        (options.out / "logs.txt").write_text("".join(logs), encoding="utf-8")
        (options.out / "report.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
        (options.out / "table.txt").write_text(shown, encoding="utf-8")
    shutil.rmtree(scratch, ignore_errors=True)
    print(f"\n{shown}\nwrote table.txt, report.json and logs.txt to {options.out}")
    return int(any(one.status != 0 for one in outcomes))


if __name__ == "__main__":
    sys.exit(main())

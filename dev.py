#!/usr/bin/env python3
"""What a developer types: needs Python and pip, nothing else, on Linux, macOS and Windows.

    python3 dev.py demo [arguments of `scoresde demo`]   install, run the demonstration
    python3 dev.py test [arguments of pytest]            install, lint, check types, test
    python3 dev.py docs [arguments of sphinx-build]      install, build the site, check it

Everything goes into .venv beside this file. pip's environment variables are honoured.
"""

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
WINDOWS = os.name == "nt"
PYTHON = VENV / ("Scripts/python.exe" if WINDOWS else "bin/python")
SCORESDE = VENV / ("Scripts/scoresde.exe" if WINDOWS else "bin/scoresde")
STAMP = VENV / "scoresde-installed.json"
REMEDY = "on Debian and Ubuntu: sudo apt install python3-venv"


def run(*command, **environment):
    """Show a command, run it at the root of the repository, return its exit status."""
    command = [str(c) for c in command]
    print("$", *command, flush=True)
    return subprocess.run(command, cwd=str(ROOT), env={**os.environ, **environment}).returncode


def has(module):
    """Tell whether this interpreter, the one outside .venv, can import a module."""
    return importlib.util.find_spec(module) is not None


def create():
    """Make .venv; without a pip of its own where Debian has left out ensurepip."""
    if not has("venv") or not (has("ensurepip") or has("pip")):
        sys.exit("dev.py needs the modules venv and ensurepip; " + REMEDY)
    import venv

    venv.create(str(VENV), clear=True, with_pip=has("ensurepip"), symlinks=not WINDOWS)


def pip():
    """Choose the pip of .venv, or else the one outside, working on .venv."""
    if subprocess.run([str(PYTHON), "-c", "import pip"], capture_output=True).returncode == 0:
        return [PYTHON, "-m", "pip"]
    if has("pip"):
        return [sys.executable, "-m", "pip", "--python", PYTHON]
    sys.exit("No pip, neither in .venv nor outside: delete .venv; " + REMEDY)


def install(extra):
    """Install scoresde[extra], unless it is there and its requirements are what they were."""
    if not PYTHON.exists():
        create()
    files = [ROOT / "pyproject.toml", ROOT / "constraints.txt"]
    digest = hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest()
    done = json.loads(STAMP.read_text()) if STAMP.exists() else {}
    extras = done.get("extras", []) if done.get("requirements") == digest else []
    if extra in extras:
        return
    target = ".[{}]".format(extra) if extra else "."
    if run(*pip(), "install", "--no-input", "-c", "constraints.txt", "-e", target):
        sys.exit("The installation failed: what pip says is above.")
    STAMP.write_text(json.dumps({"requirements": digest, "extras": [*extras, extra]}))


def demo(arguments):
    """Install the library, and nothing for developers; run its demonstration."""
    install("")
    return run(SCORESDE, "demo", *arguments)


def test(arguments):
    """Lint, types and tests: all are run, and each must pass."""
    install("dev")
    ruff, mypy = [PYTHON, "-m", "ruff"], [PYTHON, "-m", "mypy"]
    lint = [run(*ruff, "check"), run(*ruff, "format", "--check"), run(*mypy)]
    workers = min(os.cpu_count() or 1, 8)
    # A worker has one thread: more would fight over the same cores.
    tests = run(PYTHON, "-m", "pytest", "-n", workers, *arguments, OMP_NUM_THREADS="1")
    if any(lint):
        print("ruff or mypy complained: see above the tests.", file=sys.stderr)
    return next(filter(None, [*lint, tests]), 0)


def docs(arguments):
    """Build the site with warnings as errors; look for what a build does not notice."""
    install("docs")
    site = "docs/_build/html"
    sphinx = [PYTHON, "-m", "sphinx", "-b", "html", "-n", "-W", "--keep-going", *arguments]
    built = run(*sphinx, "docs", site, OMP_NUM_THREADS="1")
    # The browser looks at what there is, even where warnings have failed the build.
    looks = [run(PYTHON, "docs/" + look + ".py", site) for look in ("check", "browser")]
    return next(filter(None, [built, *looks]), 0)


def main():
    """Refuse an old Python, else do what the first argument says."""
    commands = {"demo": demo, "test": test, "docs": docs}
    if sys.version_info < (3, 11):
        sys.exit("scoresde needs Python 3.11 or newer; this is " + sys.version.split()[0])
    if len(sys.argv) < 2 or sys.argv[1] not in commands:
        sys.exit(__doc__)
    sys.exit(commands[sys.argv[1]](sys.argv[2:]))


if __name__ == "__main__":
    main()

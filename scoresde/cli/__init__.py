"""The command line: ``scoresde demo | train | sample | compare | evaluate | diagnose | info``.

Each command is a frozen dataclass of options whose ``run`` does the work; ``--help`` after it
lists them. A run is a folder: see ``scoresde.runs``.
"""

import sys
from collections.abc import Sequence
from typing import Protocol

__all__ = ["main"]

USAGE = """\
usage: scoresde COMMAND [options]

  demo [points]    learn a law of the plane, walk it back in three ways, write a report
  demo trajectories
                   learn orbits, generate, judge, plan from A to B; another report
  train            learn a named law, a family of trajectories, or your own from a file
  sample RUN       draw samples from a trained run
  compare RUN      every sampler at several numbers of steps: one table, one figure
  compare --exact  the same on a Gaussian, without a run and without a sample
  evaluate RUN     distances from the truth, or from a file, each beside its noise floor
  diagnose RUN     of a run on a named law: is it the prior, the network, or the steps?
  info [RUN]       versions and devices; what a run holds
  lab              the laboratory, an interactive page, in the browser

scoresde COMMAND --help lists the options of a command.
"""


class Command(Protocol):
    """What every command is."""

    def run(self) -> object:
        """Do the work."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, run, and turn an expected error into one line on standard error.

    Args:
        arguments: those of the process if not given.

    Returns:
        0, or 1 for an error, 2 for a command that does not exist, 130 if interrupted.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0
    import tyro

    try:
        found = _find(words)  # the help of a command reads the catalogue of samplers
        if found is None:
            unknown = " ".join(words[:2])
            print(f"scoresde: unknown command {unknown!r}\n\n{USAGE}", end="", file=sys.stderr)
            return 2
        command, prog, rest = found
        options: Command = tyro.cli(
            command, args=rest, prog=prog, config=(tyro.conf.OmitArgPrefixes,)
        )
        options.run()
    except (ValueError, TypeError, FloatingPointError, OSError) as error:
        print(f"scoresde: {_words(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nscoresde: interrupted; what was written before is whole", file=sys.stderr)
        return 130
    return 0


def _words(error: Exception) -> str:
    """What went wrong, on one line; of the system's own errors, with the file."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}; choose another place or check its rights"
    return " ".join(str(error).split())


def _find(words: list[str]) -> tuple[type[Command], str, list[str]] | None:
    """The class of the command, its name for help texts, and the remaining words."""
    name, rest = words[0], words[1:]
    if name == "demo":
        from ..demos import DEMOS

        if rest and rest[0] in DEMOS:
            return DEMOS[rest[0]], f"scoresde demo {rest[0]}", rest[1:]
        if rest and not rest[0].startswith("-"):
            return None
        return DEMOS["points"], "scoresde demo", rest
    from .commands import COMMANDS

    return (COMMANDS[name], f"scoresde {name}", rest) if name in COMMANDS else None

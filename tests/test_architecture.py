"""The shape of the library: what may import what, and that every public name is explained.

`python tests/test_architecture.py --write` renews the import graph in CONTRIBUTING.md.
"""

import ast
import importlib
import inspect
import io
import re
import subprocess
import sys
import tokenize
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "scoresde"

# From the ground up. A room imports only rooms named before it, on its floor or below.
FLOORS = {
    1: "version deprecated autodiff sde grids chain noise files estimate",
    2: "prediction tilt denoiser nets",
    3: "distributions mixture guidance losses samplers inverse likelihood",
    4: "physics data metrics training",
    5: "plots baselines interop lab",
    6: "comparison diagnosis report runs",
    7: "demos cli",
    8: "testing",
}
ROOMS = {room: floor for floor, rooms in FLOORS.items() for room in rooms.split()}
ORDER = list(ROOMS)
FORBIDDEN = (
    {("samplers", "guidance"), ("samplers", "losses"), ("data", "inverse")}
    | {(room, "nets") for room, floor in ROOMS.items() if floor < 4}
    | {(room, "mixture") for room in ROOMS}  # a former name, for others
)
EAGER = {"torch", "numpy"}  # what `import scoresde` may load; the rest waits until it is used

FILES = sorted(PACKAGE.rglob("*.py"))
MODULES = [".".join(f.relative_to(ROOT).with_suffix("").parts) for f in FILES]
MODULES = [name.removesuffix(".__init__") for name in MODULES]


def room_of(path):
    """Name the room a file belongs to; that of scoresde/__init__.py is ''."""
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py").removeprefix("__init__")


def nodes(tree, lazy):
    """Walk a tree; unless lazy imports count, not into functions and what is only for types."""
    for child in ast.iter_child_nodes(tree):
        yield child
        function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
        typing = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
        if lazy or not (function or typing):
            yield from nodes(child, lazy)


@cache
def parsed(path):
    """Read a file once, whatever number of tests look at it."""
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path, lazy=True):
    """Yield the absolute dotted name of everything a file imports."""
    package = [PACKAGE.name, *path.relative_to(PACKAGE).parent.parts]
    for node in nodes(parsed(path), lazy):
        if isinstance(node, ast.Import):
            yield from (f"{alias.name}." for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            base = [*base, *(node.module.split(".") if node.module else [])]
            yield from (".".join([*base, alias.name]) for alias in node.names)


@cache
def import_graph():
    """Map each room to the other rooms it imports, both from the ground up ('' is the package)."""
    rooms = {room_of(path) for path in FILES}
    graph = {room: set() for room in rooms}
    for path in FILES:
        names = [name.split(".") for name in imports(path)]
        found = {name[1] if name[1] in rooms else "" for name in names if name[0] == "scoresde"}
        graph[room_of(path)] |= found - {room_of(path)}
    return {room: sorted(graph[room], key=height) for room in sorted(graph, key=height)}


def height(room):
    """Rank a room; one without a floor stands on top."""
    return (ORDER.index(room) if room in ORDER else len(ORDER), room)


def render(graph):
    """Draw the graph as text: one line for each room, top floor first."""
    rooms = [room for room in reversed(graph) if room]
    lines = [f"{ROOMS.get(room, '?')}  {room:<13}  {' '.join(graph[room])}" for room in rooms]
    return "\n".join(["```text", *map(str.rstrip, lines), "```"])


def contributing():
    """Split CONTRIBUTING.md into what stands before, in and after the import graph."""
    mark, end = "<!-- import-graph -->", "<!-- /import-graph -->"
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    before, _, rest = text.partition(mark)
    block, _, after = rest.partition(end)
    return before + mark, block.strip(), end + after


@pytest.mark.parametrize("room", [room for room in import_graph() if room])
def test_imports_only_go_down(room):
    assert room in ROOMS, f"give {room} a floor in FLOORS"
    for other in import_graph()[room]:
        assert height(other) < height(room), f"{room} must not import scoresde.{other}"
        assert (room, other) not in FORBIDDEN, f"{room} must not import scoresde.{other}"


@pytest.mark.parametrize("path", FILES, ids=MODULES)
def test_third_parties(path):
    """The two ground floors stand on torch alone; higher up, imports are lazy."""
    ground = ROOMS.get(room_of(path), 9) <= 2
    names = {name.split(".")[0] for name in imports(path, lazy=ground)}
    foreign = names - set(sys.stdlib_module_names) - {"scoresde"}
    allowed = {"torch"} if ground else EAGER | ({"tyro"} if room_of(path) == "cli" else set())
    assert foreign <= allowed, f"import {foreign - allowed} inside the function that needs it"


def test_import_is_light():
    script = (
        "import sys, torch; before = set(sys.modules); import scoresde;"
        "print(*{m.split('.')[0] for m in set(sys.modules) - before})"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True
    )
    loaded = set(done.stdout.split()) - set(sys.stdlib_module_names)
    heavy = "matplotlib ot scipy sklearn torchdiffeq torchsde torchmetrics diffusers tyro tqdm"
    assert not loaded & set(heavy.split())


@pytest.mark.parametrize("name", MODULES)
def test_everything_public_is_documented(name):
    module = importlib.import_module(name)
    missing = [] if (module.__doc__ or "").strip() else [name]
    for key, thing in public(module):
        if inspect.isclass(thing):
            # a dataclass without a docstring is given its signature for one
            if not thing.__dict__.get("__doc__") or thing.__doc__.startswith(f"{key}("):
                missing.append(key)
            missing += [f"{key}.{method}" for method in undocumented_methods(thing)]
        elif not inspect.getdoc(thing):
            missing.append(key)
    assert not missing, f"no docstring in {name}: {', '.join(missing)}"


def public(module):
    """List the functions and classes that a module defines, or else promises in __all__."""
    for key, thing in vars(module).items():
        here = getattr(thing, "__module__", None) == module.__name__ and not key.startswith("_")
        if (here or key in getattr(module, "__all__", ())) and (
            inspect.isclass(thing) or inspect.isroutine(thing)
        ):
            yield key, thing


def undocumented_methods(cls):
    """List the public methods and properties of a class that no docstring explains."""
    described = (property, classmethod, staticmethod)
    for key, thing in vars(cls).items():
        if key.startswith("_") or not (inspect.isfunction(thing) or isinstance(thing, described)):
            continue
        if not inspect.getdoc(getattr(cls, key)):
            yield key


def test_all_is_true():
    """Every name promised exists."""
    for name in MODULES:
        module = importlib.import_module(name)
        for key in getattr(module, "__all__", ()):
            assert hasattr(module, key), f"{name}.__all__ promises {key}"


def test_no_utils():
    names = [path.stem for path in FILES] + [path.parent.name for path in FILES]
    assert not {"utils", "util", "helpers", "misc", "common"} & set(names)


def test_import_graph_in_contributing():
    _, block, _ = contributing()
    assert block == render(import_graph()), (
        "the import graph moved: python tests/test_architecture.py --write"
    )


if __name__ == "__main__":
    before, _, after = contributing()
    text = f"{before}\n{render(import_graph())}\n{after}"
    if "--write" in sys.argv:
        (ROOT / "CONTRIBUTING.md").write_text(text, encoding="utf-8", newline="\n")
    print(render(import_graph()))


# ---- words --------------------------------------------------------------------------------------

CORE = [room for room, floor in ROOMS.items() if floor <= 3] + "physics diagnosis testing".split()
WORDS = {
    r"laws?": "distribution",
    r"truth": "reference, or exact value",
    r"walk(s|ed|ing)?": "integrate, step, or solve",
}
KEPT = r"law of large numbers|Bayes' law|power laws?|random walks?|conservation law|--law"
FIRST = {"Refuse", "What", "Of", "of"}
CODE = r"``[^`]*``|`[^`]*`|>>>.*|\.\.\. .*|^ *\w+: |\"[^\"]*\"|\bwalks? *=|\blaw\.\w+"


def prose(path):
    """Yield (line, text) of a file's docstrings, comments and messages, without code in them."""
    text = path.read_text(encoding="utf-8")
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Raise | ast.Call):
            name = "" if isinstance(node, ast.Raise) else ast.unparse(node.func)
            if isinstance(node, ast.Raise) or name.endswith(("warn", "add_note")):
                for part in ast.walk(node):
                    if isinstance(part, ast.Constant) and isinstance(part.value, str):
                        yield part.lineno, part.value
        body = getattr(node, "body", None)
        first = body[0] if isinstance(body, list) and body else None
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
            if isinstance(first.value.value, str):
                yield first.lineno, first.value.value


def in_core(path):
    return room_of(path) in CORE


@pytest.mark.parametrize("path", [p for p in FILES if in_core(p)], ids=lambda p: p.stem)
def test_the_words_are_those_of_the_field(path):
    """A word of our own has an equivalent that every reader knows."""
    found = []
    for line, text in prose(path):
        rest = re.sub(KEPT, "", re.sub(CODE, "", text, flags=re.MULTILINE))
        for word, better in WORDS.items():
            found += [(line, m.group(), better) for m in re.finditer(rf"\b{word}\b", rest)]
    assert not found, f"{path.name}: (line, word, better): {found[:10]}"


@pytest.mark.parametrize("path", [p for p in FILES if in_core(p)], ids=lambda p: p.stem)
def test_docstrings_begin_as_sentences(path):
    """Not with a fragment: "Random seed.", not "Of everything random."."""
    tree, found = ast.parse(path.read_text(encoding="utf-8")), []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
            first = (ast.get_docstring(node) or "").split(" ")[0]
            if first in FIRST:
                found.append((getattr(node, "name", path.name), first))
    assert not found, found

"""Links to re-exported names, and to other libraries without asking them: the few we use.

A name that is not listed here is a warning, hence an error: add it, or mend the docstring.
"""

import re
from functools import partial, reduce

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

import scoresde

PYTHON = "https://docs.python.org/3/library/"
TORCH = "https://docs.pytorch.org/docs/stable/"
NUMPY = "https://numpy.org/doc/stable/reference/"
MATPLOTLIB = "https://matplotlib.org/stable/api/"

LINKS = {
    "abc.ABC": PYTHON + "abc.html#abc.ABC",
    "collections.abc.Callable": PYTHON + "collections.abc.html#collections.abc.Callable",
    "collections.abc.Iterable": PYTHON + "collections.abc.html#collections.abc.Iterable",
    "collections.abc.Iterator": PYTHON + "collections.abc.html#collections.abc.Iterator",
    "collections.abc.Mapping": PYTHON + "collections.abc.html#collections.abc.Mapping",
    "collections.abc.Sequence": PYTHON + "collections.abc.html#collections.abc.Sequence",
    "contextlib.AbstractContextManager": PYTHON
    + "contextlib.html#contextlib.AbstractContextManager",
    "pathlib.Path": PYTHON + "pathlib.html#pathlib.Path",
    "matplotlib.animation.FuncAnimation": MATPLOTLIB
    + "_as_gen/matplotlib.animation.FuncAnimation.html",
    "matplotlib.axes.Axes": MATPLOTLIB + "axes_api.html",
    "matplotlib.colors.Colormap": MATPLOTLIB + "_as_gen/matplotlib.colors.Colormap.html",
    "matplotlib.figure.Figure": MATPLOTLIB + "figure_api.html#matplotlib.figure.Figure",
    "numpy.dtype": NUMPY + "generated/numpy.dtype.html",
    "numpy.float64": NUMPY + "arrays.scalars.html#numpy.float64",
    "numpy.floating": NUMPY + "arrays.scalars.html#numpy.floating",
    "numpy.ndarray": NUMPY + "generated/numpy.ndarray.html",
    "torch.Generator": TORCH + "generated/torch.Generator.html",
    "torch.Tensor": TORCH + "tensors.html#torch.Tensor",
    "torch.Size": TORCH + "size.html#torch.Size",
    "torch.device": TORCH + "tensor_attributes.html#torch.device",
    "torch.dtype": TORCH + "tensor_attributes.html#torch.dtype",
    "torch.nn.Module": TORCH + "generated/torch.nn.Module.html",
    "torch.optim.Optimizer": TORCH + "optim.html#torch.optim.Optimizer",
    "torch.utils.data.DataLoader": TORCH + "data.html#torch.utils.data.DataLoader",
    "torch.utils.data.Dataset": TORCH + "data.html#torch.utils.data.Dataset",
}
ALIASES = {
    "Axes": "matplotlib.axes.Axes",
    "Callable": "collections.abc.Callable",
    "Colormap": "matplotlib.colors.Colormap",
    "Figure": "matplotlib.figure.Figure",
    "FuncAnimation": "matplotlib.animation.FuncAnimation",
    "Module": "torch.nn.Module",
    "Path": "pathlib.Path",
    "Sequence": "collections.abc.Sequence",
    "Tensor": "torch.Tensor",
    "nn.Module": "torch.nn.Module",
    "np.ndarray": "numpy.ndarray",
    "torch._C.Generator": "torch.Generator",
    "torch.utils.data.dataloader.DataLoader": "torch.utils.data.DataLoader",
    "torch.utils.data.dataset.Dataset": "torch.utils.data.Dataset",
    "torch.nn.modules.module.Module": "torch.nn.Module",
}


def homes(target: str) -> list[str]:
    """Name where a public name may be documented: scoresde.VPSDE under scoresde.sde.VPSDE.

    A function that hides the module of its own name is documented in the package above.
    """
    path = target.split(".")[1:]
    try:
        try:
            thing = reduce(getattr, path, scoresde)
        except AttributeError:  # a module hidden by the function of its name
            thing = reduce(getattr, [*path[:-2], path[-1]], scoresde)
        places, name = [thing.__module__, thing.__module__.rpartition(".")[0]], thing.__qualname__
    except AttributeError:
        return []
    return [f"{place}.{name}" for place in places]


def resolve(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.Node
) -> nodes.Node | None:
    """Resolve what Sphinx cannot: re-exported names, and those of other libraries."""
    target = node.get("reftarget", "")
    if target.startswith(("'", '"')) or (target.startswith("scoresde.") and "._" in target):
        return content  # a literal, or a private base class: neither has a page
    if target == "Positional" or re.match(r"[\w.]*\bAnnotated(\[|$)", target):
        return content  # marks for the command line
    if target.startswith("scoresde."):
        find = partial(env.domains["py"].resolve_xref, env, node["refdoc"], app.builder)
        found = (find(node["reftype"], name, node, content) for name in homes(target))
        return next(filter(None, found), None)
    address = LINKS.get(ALIASES.get(target, target))
    if address is None:
        return None
    return nodes.reference("", "", content, refuri=address, internal=False)


def own_sources(app: Sphinx, env: BuildEnvironment) -> None:
    """Take Python's builtins, which have no source page, off the list of modules."""
    getattr(env, "_viewcode_modules", {}).pop("builtins", None)


def setup(app: Sphinx) -> dict[str, bool]:
    """Ask after Sphinx has tried."""
    app.connect("missing-reference", resolve)
    app.connect("env-updated", own_sources)
    return {"parallel_read_safe": True}

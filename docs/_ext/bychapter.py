"""The examples, chapter by chapter: each stands under the chapters that refer to it."""

import re
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList
from sphinx.application import Sphinx

LINK = re.compile(r"gallery/(?:images/sphx_glr_)?(plot_[a-z0-9_]+?)(?=[`>]|_\d{3})")
# Where an example belongs that a chapter could do without.
HOMES = {
    "plot_bounds_and_gaps": "chain",
    "plot_entropy_and_information": "physics",
    "plot_exact_bias": "solvers",
    "plot_fidelity_against_diversity": "guidance",
    "plot_guide_to_one_mode": "guidance",
    "plot_learn_orbits": "trajectories",
    "plot_memorisation": "physics",
    "plot_one_noise_two_views": "reversal",
    "plot_path_from_three_observations": "inverse",
    "plot_plan_a_to_b": "inverse",
    "plot_posterior_in_the_noise": "inverse",
    "plot_samplers_compared": "solvers",
    "plot_sde_and_ode_paths": "flow",
    "plot_speciation": "physics",
    "plot_train_a_spiral": "learning",
    "plot_trajectory_families": "trajectories",
    "plot_watch_it_melt": "flow",
    "plot_what_w_samples": "guidance",
    "plot_which_points_do_not_belong": "flow",
    "plot_why_the_sde_forgives": "flow",
}


def order(docs: Path) -> list[str]:
    """The chapters, as the table of contents has them, and the page on trajectories."""
    contents = (docs / "theory" / "index.md").read_text(encoding="utf-8")
    names = [f"theory/{name}" for name in re.findall(r"^[a-z]+$", contents, re.M)]
    return [n for n in [*names, "trajectories"] if (docs / f"{n}.md").exists()]


def chapters(docs: Path) -> dict[str, list[str]]:
    """The examples of each chapter: those of its text, in their order, and those at home there."""
    found = {}
    for name in order(docs):
        text = (docs / f"{name}.md").read_text(encoding="utf-8")
        own = [example for example, home in HOMES.items() if home == name.rpartition("/")[2]]
        found[name] = list(dict.fromkeys([*LINK.findall(text), *own]))
    return found


class ByChapter(Directive):
    """List chapters with links to their examples."""

    def run(self) -> list[nodes.Node]:
        """Write the list and let Sphinx read it."""
        source = Path(self.state.document.settings.env.srcdir)
        lines = StringList()
        for chapter, examples in chapters(source).items():
            there = [e for e in examples if (source / "gallery" / f"{e}.rst").exists()]
            if there:
                shown = ", ".join(f":doc:`/gallery/{e}`" for e in there)
                lines.append(f"* :doc:`/{chapter}`: {shown}", "bychapter", 0)
        around = nodes.container(classes=["by-chapter"])
        self.state.nested_parse(lines, self.content_offset, around)
        return [around]


def setup(app: Sphinx) -> dict[str, bool]:
    """Give the directive its name."""
    app.add_directive("by-chapter", ByChapter)
    return {"parallel_read_safe": True}

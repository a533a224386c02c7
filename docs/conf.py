"""Sphinx configuration: everything the site needs is on this machine once it is installed."""

import sys
from pathlib import Path

import scoresde

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))

project = "scoresde"
author = "the scoresde authors"
copyright = "2026, the scoresde authors"
version = release = scoresde.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_exercise",
    "sphinx_gallery.gen_gallery",
    "sphinx_proof",
    "bychapter",  # from here on: docs/_ext
    "chapters",
    "docstrings",
    "laboratory",
    "links",
    "offline",
    "sheets",
]
exclude_patterns = ["_build", "gallery/*.ipynb", "gallery/*.py", "gallery/*.md5"]
templates_path = ["_templates"]
nitpicky = True
default_role = "code"
highlight_options = {"pycon": {"stripnl": True}}  # doctests end in an empty line

# Equations and theorems are numbered within their chapter, once for text and docstrings.
numfig = True
math_numfig = True
numfig_secnum_depth = 1
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
mathjax3_config = {
    "tex": {
        "macros": {
            "abar": r"\bar\alpha",
            "dd": r"\mathrm{d}",
            "E": r"\mathbb{E}",
            "eps": r"\varepsilon",
            "N": r"\mathcal{N}",
            "Cov": r"\operatorname{Cov}",
            "KL": r"\operatorname{KL}",
            "Var": r"\operatorname{Var}",
        }
    }
}

autosummary_generate = True
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
napoleon_use_ivar = True

copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "filename_pattern": r"\.py$",  # every example is run,
    "abort_on_example_error": True,  # and each must run
    "within_subsection_order": "FileNameSortKey",
    "image_scrapers": ("matplotlib", "figures.scrape"),  # docs/_ext
    "reset_modules": ("matplotlib", "figures.reset"),
    "matplotlib_animations": (True, "jshtml"),
    "write_computation_times": False,  # that page loads scripts from elsewhere
    "download_all_examples": False,
    "remove_config_comments": True,
    "first_notebook_cell": "%pip install scoresde\n%matplotlib inline",
    "show_memory": False,
}

html_theme = "furo"
html_title = "scoresde"
html_favicon = "_static/favicon.svg"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False

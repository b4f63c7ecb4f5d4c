"""The documentation's settings, and the reference pages, made from the modules' __all__ at each build."""

import importlib
import inspect
import textwrap
from pathlib import Path

import numpy as np
from numpydoc.docscrape_sphinx import get_doc_object

import pynn

project = "pynn"
author = "The pynn developers"
copyright = "The pynn developers"
version = release = pynn.__version__

extensions = ["sphinx.ext.autodoc", "numpydoc", "myst_parser"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
exclude_patterns = ["_build"]
nitpicky = False
myst_heading_anchors = 3
numpydoc_show_class_members = False
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # docstrings say what is wanted, in words

html_theme = "pydata_sphinx_theme"
html_title = f"pynn {release}"
html_theme_options = {
    "navigation_with_keys": False,
    "show_nav_level": 2,
    "secondary_sidebar_items": ["page-toc"],
}
html_show_sourcelink = False

#: The modules of the reference and their headings, in its order.
MODULES = {
    "pynn": "Functions",
    "pynn.activations": "The table of activations",
    "pynn.layers": "Layers",
    "pynn.networks": "Networks",
    "pynn.losses": "Losses",
    "pynn.functions": "The book's functions",
    "pynn.optimizers": "Optimizers",
    "pynn.initializers": "Initializers",
    "pynn.random": "Random numbers",
    "pynn.reference": "The reference in NumPy",
}


def entry(module, name):
    """The directive for a public name; of a ufunc, which autodoc takes for data, with its docstring."""
    value = getattr(module, name)
    full = f"{module.__name__}.{name}"
    if isinstance(value, np.ufunc):
        operands = ", ".join(
            inspect.getdoc(value).split("\n", 1)[0].split("(", 1)[1].split(")")[0].split(", ")
        )
        body = str(get_doc_object(value, "function", inspect.getdoc(value).split("\n\n", 1)[1]))
        return f".. py:function:: {full}({operands})\n\n{textwrap.indent(body, '   ')}\n"
    if inspect.isclass(value):
        return f".. autoclass:: {full}\n   :members:\n   :inherited-members: object, tuple, BitGenerator\n"
    if callable(value):
        return f".. autofunction:: {full}\n"
    return f".. autodata:: {full}\n   :no-value:\n"


def write_reference(app):
    """One page per module."""
    folder = Path(app.srcdir) / "reference"
    folder.mkdir(exist_ok=True)
    wanted = {"index.rst": ["Reference", "=========", "", ".. toctree::", ""]}
    for module_name, title in MODULES.items():
        module = importlib.import_module(module_name)
        names = [name for name in module.__all__ if not inspect.ismodule(getattr(module, name))]
        lines = [title, "=" * len(title), ""]
        if module_name != "pynn":
            lines += [f".. automodule:: {module_name}", ""]
        lines += [entry(module, name) for name in names]
        wanted[f"{module_name}.rst"] = lines
        wanted["index.rst"].append(f"   {module_name}")
    for name, lines in wanted.items():
        path, text = folder / name, "\n".join(lines) + "\n"
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
    for path in folder.glob("*.rst"):
        if path.name not in wanted:
            path.unlink()


def setup(app):
    app.connect("builder-inited", write_reference)

"""Every public name has an example, and every example, in docstrings and on pages, gives what it says."""

import doctest
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import numpy as np
import pytest

import pynn

ROOT = Path(__file__).parents[1]
MODULES = sorted(
    m.name
    for m in pkgutil.iter_modules(pynn.__path__, "pynn.")
    if not m.name.startswith("pynn._") and not m.ispkg and m.name != "pynn.cli"
)
OBJECTS = {
    f"{module.__name__}.{name}": getattr(module, name)
    for module in map(importlib.import_module, ["pynn", *MODULES])
    for name in module.__all__
}
CALLABLE = {name: value for name, value in OBJECTS.items() if callable(value)}
#: What is called by the commands alone; their help and docs/prompt.md are what explains them.
TOOLS = ("pynn.accuracy.", "pynn.selftest.")
PAGES = sorted([*ROOT.glob("docs/*.md"), *ROOT.glob("README.md")])
FENCE = re.compile(r"^```python\n(.*?)^```$", re.M | re.S)


def check(text, name, namespace=None):
    """Run the examples of a text; the report of those that fail."""
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    runner = doctest.DocTestRunner(verbose=False, optionflags=flags)
    namespace = {} if namespace is None else namespace
    test = doctest.DocTestParser().get_doctest(text, namespace, name, name, 0)
    report = []
    runner.run(test, out=report.append, clear_globs=False)
    namespace.update(test.globs)
    assert not runner.failures, "".join(report)
    return len(test.examples)


@pytest.mark.parametrize("name", [n for n in CALLABLE if not n.startswith(TOOLS)])
def test_example(name):
    text = inspect.getdoc(CALLABLE[name]) or ""
    if inspect.isclass(CALLABLE[name]):  # or one in a method
        text += "".join(
            f"\n\n{inspect.cleandoc(m.__doc__)}"
            for m in vars(CALLABLE[name]).values()
            if m.__doc__ and callable(m)
        )
    assert check(text, name), f"{name} has no example"


@pytest.mark.parametrize("name", ["pynn", *MODULES])
def test_module(name):
    check(importlib.import_module(name).__doc__, name)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_page(page, tmp_path, monkeypatch):
    """Its Python blocks run one after the other; those with prompts give what stands there."""
    monkeypatch.chdir(tmp_path)
    namespace = {}
    for block in FENCE.findall(page.read_text(encoding="utf-8")):
        if ">>>" in block:
            assert check(block, page.name, namespace)
        else:
            exec(compile(block, page.name, "exec"), namespace)


def test_there_are_pages():
    if not PAGES:
        pytest.skip("no documentation beside the tests")
    assert sum(len(FENCE.findall(page.read_text(encoding="utf-8"))) for page in PAGES) > 8


def test_a_wrong_example_is_noticed():
    with pytest.raises(AssertionError, match="Expected"):
        check(">>> 1 + 1\n3\n", "wrong")
    assert not check("no example", "none")
    assert {"pynn.relu", "pynn.gelu_backward", "pynn.layers.Affine"} <= CALLABLE.keys()
    assert all(isinstance(OBJECTS[f"pynn.{name}"], np.ufunc) for name in pynn.ACTIVATIONS)


@pytest.mark.skipif(not (ROOT / "README.md").exists(), reason="no README beside the tests")
def test_readme_shows_the_selftest_of_today():
    from pynn import selftest

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    hashes = len(selftest.published())
    assert set(re.findall(r"^published bits  (\d+ of \d+)", text, re.M)) == {
        f"{hashes} of {hashes}"
    }
    assert f"\naccuracy        {len(pynn.ACTIVATIONS)} activations" in text

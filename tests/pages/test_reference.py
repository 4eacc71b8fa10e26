"""The reference pages: every public name is on one, with an example, its arguments and links that lead somewhere."""

import doctest
import importlib
import inspect
import pydoc
import re
import sys

import pytest

import lightning_mi
from docs_build import hooks, markdown_docstrings, recipes_page, reference
from docs_build.bounds_table import bounds_table
from docs_build.formulas import to_mathml
from docs_build.reference import _PAGES, page_path, public_names, public_paths, reference_pages
from lightning_mi import bounds
from lightning_mi.utilities.recipe_registry import list_files

NAMES = [(package, name) for package in _PAGES for name in public_names(importlib.import_module(package))]
every_name = pytest.mark.parametrize(("package", "name"), NAMES, ids=[f"{package}.{name}" for package, name in NAMES])
PUBLIC = public_paths()
ROLE = re.compile(r":(?:class|meth|func|attr|data|mod|exc):`~?([\w.]+)`")


def found(package, name):
    value = getattr(importlib.import_module(package), name)
    return value, inspect.getdoc(value) or ""


def is_error(value):
    return inspect.isclass(value) and issubclass(value, Exception)


def documented(value):
    """A class with its public methods and properties, or a function."""
    members = vars(value).items() if inspect.isclass(value) else ()
    return [value, *(member for name, member in members if not name.startswith("_") and inspect.getdoc(member))]


def leads_somewhere(target, member, value):
    """Whether a role's target is public, an attribute, a name of the member's module, or an import path."""
    first, *rest = target.split(".")
    attributes = re.findall(r"^ *(\w+): ", inspect.getdoc(value) or "", flags=re.MULTILINE)
    if first in attributes or hasattr(value, first) or pydoc.locate(target) is not None:
        return True
    module = sys.modules[getattr(member, "__module__", value.__module__)]
    start = pydoc.locate(PUBLIC[first]) if first in PUBLIC else getattr(module, first, None)
    return start is not None and (not rest or hasattr(start, rest[0]))


@every_name
def test_public_name_has_a_purpose_and_an_example(package, name):
    value, text = found(package, name)
    if not callable(value):  # a mapping, whose type has the docstring
        return
    assert value.__doc__, "no docstring of its own"
    first = text.splitlines()[0]
    assert first.endswith((".", ":")), first
    is_result = re.search(r"(result|output) of :", text)
    if not (is_result or is_error(value) or name.startswith("Abstract")):
        assert re.search(r"^Example:$", text, flags=re.MULTILINE)


@every_name
def test_arguments_of_a_public_name_are_documented(package, name):
    value, text = found(package, name)
    if not callable(value) or is_error(value) or value is lightning_mi.Scores:
        return  # Scores are made by class methods
    if value in (lightning_mi.regularizers.Squared, lightning_mi.regularizers.Absolute):
        return  # the arguments are those of the base class, on the same page
    names = [each.name for each in inspect.signature(value).parameters.values() if each.kind < 4]
    missing = [each for each in names if each not in ("args", "self") and not re.search(rf"\b{each}\b", text)]
    assert missing == []


@every_name
def test_roles_of_a_public_name_lead_somewhere(package, name):
    value, _ = found(package, name)
    if callable(value):
        targets = [(each, target) for each in documented(value) for target in ROLE.findall(inspect.getdoc(each) or "")]
        assert [target for each, target in targets if not leads_somewhere(target, each, value)] == []


def test_every_public_package_has_a_page():
    packages = [importlib.import_module(f"lightning_mi.{name}") for name in lightning_mi._MODULES]
    inner = [getattr(package, name) for package in packages for name in package.__all__]
    modules = {module.__name__ for module in [*packages, *inner] if inspect.ismodule(module)}
    assert modules <= set(_PAGES)


def test_pages_have_an_entry_for_each_name():
    pages = reference_pages()
    for package, name in NAMES:
        assert re.search(rf"^::: {package}\.{name}(\.{name})?$", pages[page_path(package)], flags=re.MULTILINE)


def test_table_of_bounds_states_their_declarations():
    rows = {line.split("|")[1].strip().split("`")[1]: line.split("|")[2:-1] for line in bounds_table().splitlines()[2:]}
    assert [cell.strip() for cell in rows["InfoNCE"]] == ["yes", "", "yes", "", "yes", ""]
    assert [cell.strip() for cell in rows["NWJ"]] == ["yes", "", "", "yes", "", ""]
    classes = {name: getattr(bounds, name) for name in bounds.__all__}
    assert set(rows) == {name for name, each in classes.items() if hasattr(each, "terms")} - {"AbstractBound"}


def test_recipes_page_has_a_section_for_each_recipe():
    page = recipes_page.recipes_page()
    for file in list_files("recipe"):
        assert f"### `{file.name}`\n\n{file.purpose}\n" in page
    for file in list_files("benchmark"):
        assert f"### `bench {file.name}`" in page


def test_formulas_become_mathml():
    pytest.importorskip("latex2mathml")
    page = r'<p><span class="arithmatex">\(x^2 &lt; 1\)</span></p><div class="arithmatex">\[\log r\]</div>'
    made = to_mathml(page)
    assert made.count("<math") == 2
    assert "arithmatex" not in made
    assert 'display="block"' in made


@pytest.mark.parametrize("module", [hooks, markdown_docstrings, recipes_page, reference])
def test_examples_of_the_build_hold(module):
    outcome = doctest.testmod(module)
    assert outcome.attempted > 0
    assert outcome.failed == 0

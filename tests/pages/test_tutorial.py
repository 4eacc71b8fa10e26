"""The tutorials: their names exist, their links and commands work; the code of the first one runs."""

import ast
import importlib
import inspect
import math
import re
import runpy
import shlex
from dataclasses import replace

import pytest
import yaml
from matplotlib.figure import Figure

from docs_build import hooks
from docs_build.reference import reference_pages
from lightning_mi.cli.commands import TRAINING_COMMANDS, build_parser
from lightning_mi.cli.main import main
from lightning_mi.estimation import options
from tests.helpers.paths import ROOT

DOCS = ROOT / "docs"
TUTORIALS = sorted((DOCS / "tutorials").glob("*.py"))
TUTORIAL = DOCS / "tutorials" / "two_arrays.py"
SITE = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))


def codes(result):
    return {finding.code for finding in result.findings}


def test_tutorial_runs_with_short_training(monkeypatch):
    short = {
        name: replace(plan, members=1, schedule=replace(plan.schedule, max_steps=2, check_every=1))
        for name, plan in options.PLANS.items()
    }
    monkeypatch.setattr(options, "PLANS", short)
    names = runpy.run_path(str(TUTORIAL))
    assert names["result"].upper is not None
    assert isinstance(names["matrix"].plot(), Figure)


@pytest.mark.slow
def test_statements_of_the_tutorial_hold(capsys):
    names = runpy.run_path(str(TUTORIAL))
    printed = capsys.readouterr().out
    result, law = names["result"], names["law"]
    assert result.lower < law.true_mi < result.upper
    assert result.p_value == 1 / 1000
    assert codes(result) == set()
    # No correlation, and dependence.
    assert names["clusters"].upper is None
    assert 0 < names["clusters"].lower < names["around"].true_mi
    assert abs(float(re.search(r"correlation (\S+),", printed).group(1))) < 0.1
    assert names["labels"].kinds == ("discrete", "continuous")
    # A time series.
    assert "autocorrelated" in codes(names["alone"])
    assert "autocorrelated" not in codes(names["blocked"])
    assert names["alone"].lower > 0.01 > names["blocked"].lower
    # Conditional MI.
    assert names["without"].lower > 0.03 > names["given"].lower
    assert "not_extrapolated" in codes(names["given"])
    assert "heavy_tails" in codes(names["heavy"])
    assert 0 < names["heavy"].lower < names["cauchy"].true_mi
    # All pairs.
    matrix = names["matrix"]
    stars = [pair for pair in matrix.results if matrix.adjusted_p_values[tuple(map(matrix.names.index, pair))] < 0.05]
    assert stars == [("dose", "response")]
    command_line, _, rest = printed.partition("\nfrom pairwise:\n")
    assert command_line.splitlines()[-3:] == rest.splitlines()[:3]
    # Large MI.
    assert names["strong"].true_mi > math.log(500 / 4)
    assert "near_ceiling" in codes(names["high"])
    assert names["high"].lower < names["strong"].true_mi


def text_of(tutorial):
    """The text of the markdown cells."""
    cells = re.split(r"^# %%", tutorial.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    return "\n".join(re.sub(r"^# ?", "", cell, flags=re.MULTILINE) for cell in cells if cell.startswith(" [markdown]"))


def programs(source):
    """The tutorial and the programs that it writes, parsed."""
    tree = ast.parse(source)
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return [tree, *(ast.parse(text) for text in texts if "import lightning_mi" in text or "from lightning_mi" in text)]


def is_ours(target):
    return getattr(target, "__module__", "").startswith("lightning_mi")


def imported_names(tree):
    """Imported objects by the name that they have in the tutorial; an import that fails raises."""
    names: dict[str, object] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.asname: importlib.import_module(alias.name) for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module)
            names |= {alias.asname or alias.name: getattr(module, alias.name) for alias in node.names}
    return names


def called(function, names):
    """The object that a call such as `bounds.DV()` calls, or None if it is not imported."""
    if isinstance(function, ast.Name):
        return names.get(function.id)
    owner = called(function.value, names) if isinstance(function, ast.Attribute) else None
    return None if owner is None else getattr(owner, function.attr)


@pytest.mark.parametrize("tutorial", TUTORIALS, ids=lambda path: path.stem)
def test_names_and_arguments_of_tutorials_exist(tutorial):
    for tree in programs(tutorial.read_text(encoding="utf-8")):
        names = imported_names(tree)
        calls = [(call, called(call.func, names)) for call in ast.walk(tree) if isinstance(call, ast.Call)]
        ours = [(call, target) for call, target in calls if is_ours(target)]
        assert ours
        for call, target in ours:
            keywords = {keyword.arg: None for keyword in call.keywords if keyword.arg}
            inspect.signature(target).bind_partial(**keywords)


@pytest.mark.parametrize("tutorial", TUTORIALS, ids=lambda path: path.stem)
def test_commands_of_tutorials_parse(tutorial, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    commands = [shlex.split(line) for line in re.findall(r"^lightning-mi .*$", text_of(tutorial), flags=re.MULTILINE)]
    assert len(commands) >= 2
    for _, *arguments in commands:
        if arguments[0] in TRAINING_COMMANDS:
            assert main([*arguments, "--print_config"]) == 0, arguments
        else:
            build_parser().parse_args(arguments)


def linked_text(tutorial, page):
    """The text that a link leads to: `../PAGE.html`, `TUTORIAL.html`, or the tutorial itself."""
    if not page:
        return text_of(tutorial)
    if page.startswith("../"):
        return (DOCS / page.removeprefix("../")).with_suffix(".md").read_text(encoding="utf-8")
    return text_of(tutorial.with_name(page).with_suffix(".py"))


@pytest.mark.parametrize("tutorial", TUTORIALS, ids=lambda path: path.stem)
def test_links_of_tutorials_lead_to_pages_and_headings(tutorial):
    text = text_of(tutorial)
    links = re.findall(r"\]\(((?:\.\./)?\w+\.html)?(?:#([\w-]+))?\)", text.replace("\n", " "))
    assert len(links) == text.count("](") > 0
    for page, anchor in links:
        headings = [
            re.sub(r"[^\w -]", "", line.lower()).replace(" ", "-")
            for line in re.findall(r"^#+ (.+)$", linked_text(tutorial, page), re.M)
        ]
        assert not anchor or anchor in headings


def pages(nav):
    """The files of a navigation."""
    values = [value for entry in nav for value in (entry.values() if isinstance(entry, dict) else [entry])]
    return [page for value in values for page in (pages(value) if isinstance(value, list) else [value])]


def test_navigation_has_every_page():
    sources = [path.relative_to(DOCS).as_posix() for path in (*DOCS.glob("*.md"), *DOCS.glob("tutorials/*.py"))]
    made = {"index.md", "changelog.md", "contributing.md", "recipes.md", *reference_pages()}  # by the hooks
    assert sorted(pages(SITE["nav"])) == sorted([*sources, *made])


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        ("[`DV`](../lightning_mi/bounds/base.py)", "`DV`"),
        ("[home](../README.md#use-it)", "[home](index.md#use-it)"),
        ("[laws](laws.md) ![figure](images/a.png)", "[laws](laws.md) ![figure](images/a.png)"),
    ],
)
def test_links_outside_docs_have_no_target(link, expected):
    assert hooks.replace_outside(link) == expected


def test_home_page_is_the_readme():
    readme = "[a](docs/a.md) ![b](docs/images/b.png) [c](LICENSE) [d](#d) [e](https://e.org)"
    expected = "[a](a.md) ![b](images/b.png) c [d](#d) [e](https://e.org)"
    assert hooks.replace_outside(hooks.to_page(readme)) == expected

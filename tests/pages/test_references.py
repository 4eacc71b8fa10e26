"""docs/references.md and the sources that the package cites agree."""

import re
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT

PAGE = ROOT / "docs" / "references.md"
KEYS = set(re.findall(r"^### (.+)$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE))
MODULES = sorted((ROOT / "lightning_mi").rglob("*.py"))
YEAR = r"((?:18|19|20)\d\d)\b"
AUTHOR = r"\b(?:van den )?[A-Z][\w-]+"
# "Kong 1992" for one author; "Choi and Lee 2022", "Poole et al. (2019)" or "Gao et al., RepL4NLP 2021" for several.
CITATION = re.compile(
    rf"({AUTHOR})(?:((?:, {AUTHOR})*,? and {AUTHOR}| et al\.)[\s,(]*(?:[A-Z]\w*[\s,]+){{0,4}}| ){YEAR}",
)


def citations(text: str) -> set[str]:
    """The works that a text cites, in the form of the page's keys."""
    text = re.sub(r'"[^"]*"|\*[^*]+\*', "", " ".join(text.replace("&", "and").split()))  # without titles
    return {
        f"{first} et al. {year}" if "," in others else f"{first}{others} {year}"
        for first, others, year in CITATION.findall(text)
    }


# "Author Year", "A and B Year" or "A et al. Year"; then optionally a locator and a note in parentheses.
KEY = rf"{AUTHOR}(?: and {AUTHOR}| et al\.)? {YEAR}"
LOCATOR = r"(?:section|chapter|appendix|equation) [\w.]+|released code"
ENTRY = re.compile(rf"{KEY}(?:, (?:{LOCATOR}))?(?: \([^()]+\))?")


def sources(module: Path) -> list[str]:
    """The ``Source:`` entries of a module's docstrings, each on one line."""
    pattern = r"^ *Source:(.*?)(?=^\s*$|\"\"\")"
    found = re.findall(pattern, module.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    return [" ".join(source.split()) for source in found]


def wrong_entries(source: str) -> list[str]:
    """The entries of a source that are not of the form of ``ENTRY``."""
    return [entry for entry in source.removesuffix(".").split("; ") if not ENTRY.fullmatch(entry)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Mann 1945; van den Oord et al. 2018, section 2.", "Mann 1945, van den Oord et al. 2018"),
        ("The benchmark of Choi & Lee (UAI 2022); Poole et al. (2019).", "Choi and Lee 2022, Poole et al. 2019"),
        ('Gao et al., "Scaling Deep Learning", RepL4NLP 2021 (as in CVPR).', "Gao et al. 2021"),
        ("Chan, Golub and LeVeque 1983", "Chan et al. 1983"),
        ("The delta method, at 2000 steps; arXiv 2011.07932.", ""),
    ],
)
def test_citations_are_found_in_each_form(text: str, expected: str) -> None:
    assert ", ".join(sorted(citations(text), key=str.lower)) == expected


CITING = pytest.mark.parametrize(
    "module", [module for module in MODULES if sources(module)], ids=lambda path: path.stem
)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("Mann 1945; van den Oord et al. 2018, section 2.1 (ties); Choi and Lee 2022, released code.", []),
        ("Choi & Lee (UAI 2022).", ["Choi & Lee (UAI 2022)"]),
        ("The delta method.", ["The delta method"]),
        ("Kong 1992, as in Owen 2013.", ["Kong 1992, as in Owen 2013"]),
    ],
)
def test_other_forms_of_sources_are_found(source: str, expected: list[str]) -> None:
    assert wrong_entries(source) == expected


@CITING
def test_each_source_has_the_form_author_year(module: Path) -> None:
    wrong = [entry for source in sources(module) for entry in wrong_entries(source)]
    assert not wrong, f"Write `Source: Author Year, section N (note); ...` instead of {wrong}"


@CITING
def test_each_source_is_on_the_page(module: Path) -> None:
    missing = sorted(set().union(*map(citations, sources(module))) - KEYS)
    assert not missing, f"Add {', '.join(f'`### {key}`' for key in missing)} with `Used for:` to docs/references.md"


def test_each_key_is_cited_in_package_or_docs() -> None:
    pages = " ".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs").glob("*.md") if page != PAGE)
    in_package = set().union(*(citations(source) for module in MODULES for source in sources(module)))
    assert [key for key in KEYS - in_package if key not in " ".join(pages.split())] == []


def test_each_entry_names_its_use() -> None:
    entries = re.split(r"^### ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    assert [entry.partition("\n")[0] for entry in entries if entry.count("\nUsed for: ") != 1] == []

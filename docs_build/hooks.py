"""Hooks of MkDocs: pages that come from files outside of docs/ or from the package, and links between them."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from docs_build.bounds_table import bounds_table
from docs_build.formulas import to_mathml
from docs_build.recipes_page import recipes_page
from docs_build.reference import reference_pages

if TYPE_CHECKING:
    from mkdocs.structure.files import Files

_ROOT = Path(__file__).parents[1]
_OUTSIDE = re.compile(r"(?<!!)\[([^\]]+)\]\(\.\./([^)\s]+)\)")
# Files at the top of the repository that are pages of the site.
_PAGES = {"README.md": "index.md", "CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}


def on_files(files: "Files", config: Any) -> "Files":
    """Add the pages that are not in docs/."""
    from mkdocs.structure.files import File  # here, so that the tests need no mkdocs

    generated = {page: to_page((_ROOT / name).read_text(encoding="utf-8")) for name, page in _PAGES.items()}
    generated |= {"recipes.md": recipes_page()} | reference_pages()
    for page, text in generated.items():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace links to files that the site does not have, mark formulas, and insert the table of bounds."""
    markdown = re.sub(r"^```math\n(.*?)^```$", r"$$\n\1$$", markdown, flags=re.DOTALL | re.MULTILINE)
    markdown = markdown.replace("<!-- table of bounds -->", bounds_table()) if "<!-- table of" in markdown else markdown
    return replace_outside(markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Draw the formulas."""
    return to_mathml(html)


def to_page(text: str) -> str:
    """Make links relative to docs/ that are relative to the top of the repository.

    Example:
        >>> to_page("[theory](docs/theory.md), [license](LICENSE), [what is new](CHANGELOG.md)")
        '[theory](theory.md), [license](../LICENSE), [what is new](../CHANGELOG.md)'
    """
    local = re.sub(r"\]\((?![a-z]+:|#|docs/)", "](../", text)
    return local.replace("](docs/", "](")


def replace_outside(markdown: str) -> str:
    """Point links to pages of the site; keep only the text of other links to files outside of docs/.

    Example:
        >>> replace_outside("[`DV`](../lightning_mi/bounds/base.py), [home](../README.md#use-it), [laws](laws.md)")
        '`DV`, [home](index.md#use-it), [laws](laws.md)'
    """

    def replacement(match: re.Match[str]) -> str:
        text, target = match.groups()
        path, mark, anchor = target.partition("#")
        return f"[{text}]({_PAGES[path]}{mark}{anchor})" if path in _PAGES else text

    return _OUTSIDE.sub(replacement, markdown)

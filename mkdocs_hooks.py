"""Hooks of the documentation's build: the README as home page, and links that point outside docs/."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.structure.files import Files

_README = Path(__file__).with_name("README.md")
_OUTSIDE = re.compile(r"(?<!!)\[([^\]]+)\]\(\.\./([^)\s]+)\)")


def on_files(files: "Files", config: Any) -> "Files":
    """Add README.md as index.md."""
    from mkdocs.structure.files import File  # here, so that the tests need no mkdocs

    files.append(File.generated(config, "index.md", content=to_index(_README.read_text(encoding="utf-8"))))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace links to files outside of docs/, which the site does not have."""
    return replace_outside(markdown)


def to_index(readme: str) -> str:
    """Make links relative to docs/ that are relative to the top of the repository."""
    local = re.sub(r"\]\((?![a-z]+:|#|docs/)", "](../", readme)
    return local.replace("](docs/", "](")


def replace_outside(markdown: str) -> str:
    """Point links to the README to index.md; keep only the text of other links to files outside of docs/.

    Example:
        >>> replace_outside("[`DV`](../lightning_mi/bounds/base.py), [home](../README.md#use-it), [laws](laws.md)")
        '`DV`, [home](index.md#use-it), [laws](laws.md)'
    """

    def replacement(match: re.Match[str]) -> str:
        text, target = match.groups()
        path, mark, anchor = target.partition("#")
        return f"[{text}](index.md{mark}{anchor})" if path == "README.md" else text

    return _OUTSIDE.sub(replacement, markdown)

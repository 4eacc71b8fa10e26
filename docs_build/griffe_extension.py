"""Extension of Griffe, which reads the docstrings of the reference pages."""

from typing import Any

import griffe

from docs_build.markdown_docstrings import to_markdown
from docs_build.reference import public_paths

_PUBLIC = public_paths()


class MarkdownDocstrings(griffe.Extension):
    """Rewrites docstrings as Markdown, with links to the names that a role mentions."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of a module, class, function or attribute."""
        if obj.docstring is None:
            return

        def link(words: str, target: str) -> str:
            # Without a warning for a target that has no entry: private helpers, and names of other packages.
            return f'<autoref identifier="{_path(obj, target)}" optional><code>{words}</code></autoref>'

        obj.docstring.value = to_markdown(obj.docstring.value, link)


def _path(obj: griffe.Object, name: str) -> str:
    """The full path of what a name means in the scope of an object; the name itself if it is unknown."""
    first, dot, rest = name.partition(".")
    if first in _PUBLIC:
        return f"{_PUBLIC[first]}{dot}{rest}"
    try:
        path: str = obj.resolve(name)
    except griffe.NameResolutionError:
        return name
    return path

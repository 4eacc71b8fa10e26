"""Extension of Griffe, which reads the docstrings of the reference pages."""

from typing import Any

import griffe

from docs_build.markdown_docstrings import to_markdown


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
    """The full name of what ``name`` means in the scope of an object; the name itself if it is unknown."""
    try:
        path: str = obj.resolve(name)
    except griffe.NameResolutionError:
        return name
    return path

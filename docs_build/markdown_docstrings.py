"""Docstrings with Sphinx roles and directives as Markdown."""

import re
from collections.abc import Callable

_ROLE = re.compile(r":(class|meth|func|attr|data|mod|exc):`(~?)([\w.]+)`")
_DIRECTIVE = re.compile(
    r"^(?P<indent> *)\.\. math::(?P<first>.*)\n(?P<rest>(?:(?P=indent) +\S.*\n|\s*\n)*)", re.MULTILINE
)


def to_markdown(text: str, link: Callable[[str, str], str]) -> str:
    r"""A docstring with Markdown's code, links and formulas. Doctests stay as they are.

    Args:
        text: The docstring, without the indent of its quotes.
        link: Makes a link of the words and the target of a role.

    Example:
        >>> text = "A :class:`~lightning_mi.Scores` with ``N`` rows and :math:`N^2` pairs.\n\n.. math:: x =\n    1\n"
        >>> print(to_markdown(text, lambda words, target: f"[{words}][{target}]"))
        A [Scores][lightning_mi.Scores] with `N` rows and $N^2$ pairs.
        <BLANKLINE>
        $$
        x =
        1
        $$
        <BLANKLINE>
        <BLANKLINE>
    """

    def role(match: re.Match[str]) -> str:
        _, tilde, target = match.groups()
        return link(target.rpartition(".")[2] if tilde else target, target)

    def formula(match: re.Match[str]) -> str:
        indent = match["indent"]
        lines = [line.strip() for line in [match["first"], *match["rest"].splitlines()] if line.strip()]
        return "".join(f"{indent}{line}\n" for line in ["$$", *lines, "$$"]) + "\n"

    text = _DIRECTIVE.sub(formula, text if text.endswith("\n") else text + "\n")
    text = re.sub(r"^( *)Example:$", r"\1Examples:", text, flags=re.MULTILINE)  # Griffe's name of the section
    text = re.sub(r"^( *)Source: ", r"\1**Source:** ", text, flags=re.MULTILINE)
    parts = re.split(r"^( *(?:>>>|\.\.\.) .*\n)", text, flags=re.MULTILINE)  # odd parts are lines of doctests
    for i in range(0, len(parts), 2):
        part = re.sub(r":math:`([^`]+)`", r"$\1$", parts[i])
        parts[i] = re.sub(r"``([^`]+)``", r"`\1`", _ROLE.sub(role, part))
    return "".join(parts)

"""Formulas as MathML, which browsers draw themselves: without scripts, offline, in the colors of the page."""

import html
import re

_OPERATOR = re.compile(r"(<mi>(?:log|exp|max|min|sup|inf|softplus|sigmoid)</mi>)(?!<mo stretchy|<mo>\(|</)")
_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)


def to_mathml(page: str) -> str:
    """A page whose formulas, as pymdownx.arithmatex marks them, are MathML."""
    from latex2mathml.converter import convert

    def replacement(match: re.Match[str]) -> str:
        is_block = match[2] == "["
        formula = convert(html.unescape(match[3]).strip(), display="block" if is_block else "inline")
        formula = _OPERATOR.sub(r'\1<mspace width="0.17em"/>', formula)
        formula = formula.replace("<mo>&#x23DF;</mo>", '<mo stretchy="true">&#x23DF;</mo>')  # braces below
        return f'<div class="formula">{formula}</div>' if is_block else formula

    return _FORMULA.sub(replacement, page)

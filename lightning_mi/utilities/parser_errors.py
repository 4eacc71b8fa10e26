"""Errors of jsonargparse, shortened to their reason."""

import re

# Lines of jsonargparse errors that repeat types and whole configurations around the reason.
_NOISE = re.compile(
    r"(Does not validate against any of the Union subtypes"
    r"|Subtypes: |Errors:$|Given value type: |Given value: (NestedArg|Namespace|\{)"
    r"|Expected a <class 'NoneType'>"
    r"|Expected a path but .* not accessible or invalid)"
)


def readable(message: str) -> str:
    r"""The reason in an error message of jsonargparse, on one line.

    Example:
        >>> message = "Parser key \"trainer.max_epochs\":\n  Does not validate against any of the Union subtypes\n"
        >>> message += "  Subtypes: [<class 'int'>, <class 'NoneType'>]\n  Errors:\n    - Expected a <class 'int'>\n"
        >>> message += "    - Expected a <class 'NoneType'>\n  Given value type: <class 'str'>\n  Given value: abc"
        >>> print(readable(message))
        Parser key "trainer.max_epochs": Expected int; Given value: abc
    """
    lines = [line.strip() for line in message.splitlines()]
    reasons = [line for line in (line.removeprefix("- ") for line in lines) if line and not _NOISE.match(line)]
    text = "; ".join(reasons or lines).replace(":; ", ": ")
    return re.sub(r"(?:a )?<class '([\w.]+)'>", r"\1", text)

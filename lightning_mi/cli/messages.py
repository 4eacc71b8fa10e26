"""What a training command says: errors short enough to read, and no notices that a user can do nothing about."""

import logging
import re
import warnings

# How jsonargparse reports its attempts: the reason stands between lines that repeat types and whole configurations.
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


def silence_notices() -> None:
    """Drop advertisements, and the warnings that Lightning causes in torch by itself."""
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_is_no_advertisement)
    # Lightning 2.6 counts parameters with a class that torch 2.14 deprecates: nothing a user could change
    warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)`", category=FutureWarning)


def silence_training_state() -> None:
    """Drop the warnings that a checkpoint's training state is not restored: an evaluation has no use for it."""
    warnings.filterwarnings("ignore", message="The dirpath has changed from", category=UserWarning)
    warnings.filterwarnings("ignore", message="Be aware that when using `ckpt_path`", category=UserWarning)


def _is_no_advertisement(record: logging.LogRecord) -> bool:
    return not (record.levelno == logging.INFO and "Tip: For seamless cloud" in str(record.msg))

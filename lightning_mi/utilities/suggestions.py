"""Suggestions for misspelled names: the closest known name, by `difflib`."""

from collections.abc import Iterable
from difflib import SequenceMatcher

_MIN_RATIO = 0.6  # the cutoff of difflib.get_close_matches
_MOST = 4  # suggestions with the same similarity


def closest(word: str, known: Iterable[str]) -> list[str]:
    """The known names that are most similar to a word, at most four; none if no name is similar.

    Upper and lower case are the same. A name with separators, such as `supervised/digits` or `model.bound`, is also
    compared by its last part.

    Example:
        >>> closest("gausian", ["gaussian", "onehot"])
        ['gaussian']
        >>> closest("digit", ["contrastive/digits", "supervised/digits", "onehot"])
        ['contrastive/digits', 'supervised/digits']
        >>> closest("max_ep", ["max_steps", "max_epochs"])
        ['max_epochs']
        >>> closest("nwg", ["NWJ", "DV"]), closest("xyz", ["NWJ", "DV"])
        (['NWJ'], [])
    """
    scored = [(_similarity(word.lower(), name.lower()), name) for name in dict.fromkeys(known)]
    best = max((score for score, _ in scored), default=0.0)
    return [name for score, name in scored if score == best][:_MOST] if best >= _MIN_RATIO else []


def _similarity(word: str, name: str) -> float:
    if word and name.startswith(word) and word != name:
        return 0.97 + 0.02 * SequenceMatcher(None, word, name).ratio()  # an abbreviation, which may be short
    last = name.replace("/", ".").rpartition(".")[2]
    # A match by the last part alone counts less, so that `gaussian` is closer to `gausian` than `minimize/gaussian`.
    last_only = 0.0 if last == name else 0.95 * SequenceMatcher(None, word, last).ratio()
    return max(SequenceMatcher(None, word, name).ratio(), last_only)


def did_you_mean(word: str, known: Iterable[str], prefix: str = "") -> str:
    """A sentence with the closest known names, after a space; empty if no name is similar.

    Args:
        word: What was given.
        known: The names.
        prefix: Put before each name, such as `--`.

    Example:
        >>> print("There is no recipe 'gausian'." + did_you_mean("gausian", ["gaussian", "onehot"]))
        There is no recipe 'gausian'. Did you mean gaussian?
        >>> did_you_mean("xyz", ["gaussian"])
        ''
    """
    names = [f"{prefix}{name}" for name in closest(word, known)]
    if not names:
        return ""
    return f" Did you mean {', '.join(names[:-1])}{' or ' if names[:-1] else ''}{names[-1]}?"

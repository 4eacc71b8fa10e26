"""What observers read of a training step: of an MIEstimationModule, or of any module that hands it over."""

from typing import Any

import lightning.pytorch as L

from lightning_mi.bounds import AbstractBound, BoundTerms
from lightning_mi.scores.scores import Scores


def observed(outputs: Any, pl_module: L.LightningModule, observer: str) -> tuple[BoundTerms, Scores]:
    """The terms and scores in what a step returned.

    Args:
        outputs: What ``training_step``, ``validation_step`` or ``test_step`` returned, as callbacks get it.
        pl_module: Whose step it was.
        observer: Who asks, for the error.

    Raises:
        TypeError: They are not in there.
    """
    found = outputs if isinstance(outputs, dict) else {}
    terms, scores = found.get("terms"), found.get("scores")
    if not isinstance(terms, BoundTerms) or not isinstance(scores, Scores):
        got = ", ".join(map(repr, found)) if found else type(outputs).__name__
        raise TypeError(
            f"{observer} reads the terms and the scores of each step, but a step of {type(pl_module).__name__} "
            f'returned {got}. Return {{"loss": loss, "terms": terms, "scores": scores}}, with the BoundTerms that a '
            "bound of lightning_mi.bounds gave and the Scores that it read, or use an MIEstimationModule."
        )
    return terms, scores


def bound_of(pl_module: L.LightningModule, bound: AbstractBound | None, observer: str) -> AbstractBound:
    """The bound that was given, or else the module's attribute ``bound``.

    Raises:
        TypeError: There is neither.
    """
    found = getattr(pl_module, "bound", None) if bound is None else bound
    if isinstance(found, AbstractBound):
        return found
    if isinstance(original := getattr(found, "_orig_mod", None), AbstractBound):  # compiled by torch.compile
        return original
    held = "is missing" if found is None else f"is of type {type(found).__name__}, not a bound of lightning_mi.bounds"
    raise TypeError(
        f"{observer} needs to know the bound that {type(pl_module).__name__} trains with, and the attribute `bound` "
        f"{held}. Keep it there, or pass {observer}(bound=...)."
    )

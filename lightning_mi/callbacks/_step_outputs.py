"""Read terms and scores from the outputs of any module's training step; find its bound and regularizer; log metrics."""

from collections.abc import Mapping
from typing import Any

import lightning.pytorch as L
import torch

from lightning_mi._compat.lightning_logs import logged_step
from lightning_mi._compat.torch_names import unwrap_compiled
from lightning_mi.bounds import AbstractBound, BoundTerms
from lightning_mi.regularizers import AbstractRegularizer
from lightning_mi.scores.scores import Scores


def read_step(outputs: Any, pl_module: L.LightningModule, observer: str) -> tuple[BoundTerms, Scores]:
    """The terms and scores in the outputs of a step.

    Args:
        outputs: The return value of ``training_step``, ``validation_step`` or ``test_step``, as callbacks receive it.
        pl_module: The module.
        observer: The name of the callback, for the error.

    Raises:
        TypeError: The outputs contain no terms or no scores.
    """
    entries = outputs if isinstance(outputs, dict) else {}
    terms, scores = entries.get("terms"), entries.get("scores")
    if not isinstance(terms, BoundTerms) or not isinstance(scores, Scores):
        returned = ", ".join(map(repr, entries)) if entries else type(outputs).__name__
        raise TypeError(
            f"Got {returned} from a step of {type(pl_module).__name__}: {observer} reads the terms and the scores of "
            'each step. Return {"loss": loss, "terms": terms, "scores": scores}, with the Scores and the BoundTerms of '
            "a bound of lightning_mi.bounds, or use an MIEstimationModule."
        )
    return terms, scores


def find_bound(pl_module: L.LightningModule, bound: AbstractBound | None, observer: str) -> AbstractBound:
    """The bound that was passed to the callback, or by default the module's attribute ``bound``.

    Raises:
        TypeError: There is no bound.
    """
    attribute = getattr(pl_module, "bound", None) if bound is None else bound
    found = unwrap_compiled(attribute)
    if isinstance(found, AbstractBound):
        return found
    received = "None" if attribute is None else f"an object of type {type(attribute).__name__}"
    raise TypeError(
        f"Got {received} as attribute `bound` of {type(pl_module).__name__}: {observer} needs the bound of "
        f"lightning_mi.bounds that the module trains with. Set the attribute, or pass {observer}(bound=...)."
    )


def find_regularizer(pl_module: L.LightningModule) -> AbstractRegularizer | None:
    """The module's attribute ``regularizer``; None if it is not a regularizer of this package."""
    found = getattr(pl_module, "regularizer", None)
    return found if isinstance(found, AbstractRegularizer) else None


def log_metrics(trainer: L.Trainer, metrics: Mapping[str, float]) -> None:
    """Write metrics straight to the trainer's loggers, bypassing ``LightningModule.log``.

    Lightning's ``LearningRateMonitor`` does the same. ``LightningModule.log_dict`` of four numbers takes as long as a
    small critic's step, and repeats them at later steps. Other callbacks find them in ``trainer.callback_metrics``.

    Args:
        trainer: The trainer, at the end of a training batch.
        metrics: The same numbers on every rank.
    """
    for logger in trainer.loggers:
        logger.log_metrics(dict(metrics), step=logged_step(trainer))
    trainer.callback_metrics.update({name: torch.tensor(value) for name, value in metrics.items()})

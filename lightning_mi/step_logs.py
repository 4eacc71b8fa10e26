"""What is logged of a training step, by the module or by a callback that observes one."""

import math
from collections.abc import Collection

import lightning.pytorch as L
from torch import Tensor

from lightning_mi.bounds import AbstractBound, BoundTerms
from lightning_mi.scores import Scores


def term_logs(terms: BoundTerms, scores: Scores, loss: Tensor) -> dict[str, Tensor]:
    """The names under which a step's terms are logged, in nats; without joint pairs no value and no joint term.

    Example:
        >>> import torch
        >>> from lightning_mi import bounds
        >>> scores = Scores.from_matrix(torch.zeros(3, 3))
        >>> sorted(term_logs(bounds.DV()(scores), scores, torch.tensor(0.0)))
        ['joint_term', 'log_normalizer', 'loss', 'marginal_term', 'mi']
    """
    logs = {"marginal_term": terms.marginal_term, "log_normalizer": terms.log_normalizer, "loss": loss}
    if scores.num_joint > 0:
        logs |= {"mi": terms.value, "joint_term": terms.joint_term}
    return logs


def references(trainer: L.Trainer, bound: AbstractBound | None, scores: Scores) -> dict[str, float]:
    """The truth, where the data module knows it, and the ceiling, where the bound has one; nats."""
    found = {}
    true_mi = getattr(getattr(trainer, "datamodule", None), "true_mi", None)
    if true_mi is not None:
        found["true_mi"] = float(true_mi())
    if bound is not None and bound.capped_at_log_n and scores.num_candidates is not None:
        found["log_n"] = math.log(scores.num_candidates)
    return found


def forget_unlogged(trainer: L.Trainer, hook: str, logged: Collection[str]) -> None:
    """Drop the estimate of an earlier step where this one has none.

    Lightning writes the last value of a name again, as if it were this step's, until it is logged anew.

    Args:
        trainer: In a training step.
        hook: Where the names are logged.
        logged: Of this step.
    """
    for name in {"mi", "joint_term"} - set(logged):
        trainer._results.pop(f"{hook}.train/{name}", None)  # type: ignore[union-attr]  # there is one in a loop

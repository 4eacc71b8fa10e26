"""What is logged of a training step, by the module or by a callback that observes one."""

import math
from collections.abc import Collection

import lightning.pytorch as L
from torch import Tensor, nn

from lightning_mi.bounds import AbstractBound, BoundTerms
from lightning_mi.pairs import AbstractPairing
from lightning_mi.pairs.known_law import known_mi
from lightning_mi.scores.scores import Scores


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


def references(
    trainer: L.Trainer, module: nn.Module, bound: AbstractBound | None, scores: Scores
) -> dict[str, float | Tensor]:
    """What a step's estimate is compared with, nats: ``true_mi``, where it is known, and ``log_n``, InfoNCE's ceiling.

    Every rank must call it: of pooled scores the ceiling is that of all ranks.

    Args:
        trainer: Its data module may know the truth.
        module: Its pairing says what is estimated.
        bound: Without one nothing is logged.
        scores: Of the step.
    """
    found: dict[str, float | Tensor] = {}
    if bound is None:
        return found
    if (truth := true_value(trainer, module, bound)) is not None:
        found["true_mi"] = truth
    if bound.capped_at_log_n:
        found["log_n"] = scores.row_ceiling()
    return found


def true_value(trainer: L.Trainer, module: nn.Module, bound: AbstractBound) -> float | None:
    """What a bound estimates on a module's pairs, as far as the data module and the pairing know it; nats.

    A module without a pairing of this package is taken to estimate ``true_mi()`` of the data module.

    Example:
        >>> from lightning_mi.bounds import DV
        >>> true_value(L.Trainer(barebones=True), nn.Identity(), DV()) is None
        True
    """
    data = getattr(trainer, "datamodule", None)
    if data is None or getattr(trainer, "overfit_batches", None):  # a few batches again and again are another law
        return None
    if (pairs := _pairing(module)) is None:
        return known_mi(data)
    return None if _mixes_encoders(module, pairs) else pairs.true_value(data, bound)


def max_value(trainer: L.Trainer, module: nn.Module, bound: AbstractBound) -> float:
    """What a bound's value cannot exceed beyond noise, nats; infinite where nothing is known or the bound has no limit.

    Example:
        >>> from lightning_mi.bounds import DV
        >>> max_value(L.Trainer(barebones=True), nn.Identity(), DV())
        inf
    """
    data, pairs = getattr(trainer, "datamodule", None), _pairing(module)
    if pairs is None:
        limit = true_value(trainer, module, bound)
    elif data is None or getattr(trainer, "overfit_batches", None) or _mixes_encoders(module, pairs):
        limit = None
    else:
        limit = pairs.max_value(data, bound)
    return math.inf if limit is None or not bound.is_lower_bound else limit


def _pairing(module: nn.Module) -> AbstractPairing | None:
    return next((part for part in module.modules() if isinstance(part, AbstractPairing)), None)


def _mixes_encoders(module: nn.Module, pairs: AbstractPairing) -> bool:
    encoders = getattr(module, "encoders", ())
    return pairs.mixes_views and isinstance(encoders, nn.ModuleList) and len(encoders) > 1


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

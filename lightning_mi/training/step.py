"""Output of one training step, its entries for callbacks, and its log row."""

import math
from typing import Any, NamedTuple

import lightning.pytorch as L
import torch
from torch import Tensor, nn

from lightning_mi._compat.lightning_logs import log_step
from lightning_mi.bounds import AbstractBound, BoundTerms
from lightning_mi.loss import reported_terms
from lightning_mi.pairs import AbstractPairing
from lightning_mi.pairs.known_law import known_mi
from lightning_mi.scores.scores import Scores


class StepOutput(NamedTuple):
    """The output of one step on one batch.

    Attributes:
        scores: Scores of the joint and marginal pairs.
        terms: Terms of the bound; scalars, nats.
        penalty: The regularizer's part of the loss; a scalar, at least 0, or None without a regularizer.
        loss: The minimized scalar, penalty - objective by default. It does not include the loss of a probe.
        features: (N, D) first representation, detached.
        labels: (N,) integers, or None if the batch contains none.
    """

    scores: Scores
    terms: BoundTerms
    penalty: Tensor | None
    loss: Tensor
    features: Tensor
    labels: Tensor | None

    def for_callbacks(self, probe_loss: Tensor | None = None) -> dict[str, Any]:
        """The outputs for callbacks. Only the loss, which includes the probe's loss, has an autograd graph.

        Terms are those of all ranks. Scores are those of this rank, so that a callback on one rank may reduce them
        without a collective.
        """
        return {
            "loss": self.loss if probe_loss is None else self.loss + probe_loss,
            "terms": BoundTerms(*(term.detach() for term in self.terms)),
            "scores": self.scores.local().detach(),
            "features": self.features,
            "labels": self.labels,
        }

    def logs(self, probe_loss: Tensor | None, count_pairs: bool) -> dict[str, Any]:
        """Values to log for a training step, by name."""
        logs: dict[str, Any] = dict(term_logs(self.terms, self.scores, self.loss))
        if count_pairs:
            logs["joint_pairs"] = float(self.scores.num_joint)
        if self.penalty is not None:
            logs["penalty"] = self.penalty
        if probe_loss is not None:
            logs["probe_loss"] = probe_loss
        return logs


def log_training_step(module: L.LightningModule, logs: dict[str, Any]) -> None:
    """Log the values of a training step as ``train/<name>``; the progress bar shows ``train/mi``."""
    has_bar = module.trainer.progress_bar_callback is not None
    for name, value in logs.items():
        log_step(module, f"train/{name}", value, prog_bar=has_bar and name == "mi")


def log_evaluation_step(
    module: L.LightningModule, stage: str, output: StepOutput, references: dict[str, float | Tensor]
) -> None:
    """Log the loss of a validation or test step and its references, averaged over joint pairs, batches and ranks."""
    # A batch without marginal pairs has no loss: it gets weight 0.
    has_loss = output.scores.num_marginal > 0
    means = {"loss": output.loss if has_loss else torch.zeros_like(output.loss)} | references
    logs = {f"{stage}/{name}": value for name, value in means.items()}
    module.log_dict(logs, on_epoch=True, sync_dist=True, batch_size=output.scores.num_joint if has_loss else 0)


def term_logs(terms: BoundTerms, scores: Scores, loss: Tensor) -> dict[str, Tensor]:
    """The terms of a step by log name, nats.

    Without joint pairs the estimate and the joint term are NaN: Lightning would log the values of an earlier step
    again if the names were missing.

    Example:
        >>> from lightning_mi import bounds
        >>> scores = Scores.from_matrix(torch.zeros(3, 3))
        >>> sorted(term_logs(bounds.DV()(scores), scores, torch.tensor(0.0)))
        ['joint_term', 'log_normalizer', 'loss', 'marginal_term', 'mi']
    """
    reported = reported_terms(terms, scores)
    return {
        "mi": reported.value,
        "joint_term": reported.joint_term,
        "marginal_term": reported.marginal_term,
        "log_normalizer": reported.log_normalizer,
        "loss": loss,
    }


def references(
    trainer: L.Trainer, module: nn.Module, bound: AbstractBound | None, scores: Scores
) -> dict[str, float | Tensor]:
    """Reference values for a step's estimate, nats: ``true_mi`` if it is known, and ``log_n``, the ceiling of InfoNCE.

    With pooled scores, ``log_n`` needs a collective: every rank must call this function.

    Args:
        trainer: Its data module may declare the true value.
        module: The estimated value depends on its pairing.
        bound: If None, there are no references.
        scores: Scores of the step.
    """
    values: dict[str, float | Tensor] = {}
    if bound is None:
        return values
    if (truth := true_value(trainer, module, bound)) is not None:
        values["true_mi"] = truth
    if bound.capped_at_log_n:
        values["log_n"] = scores.row_ceiling()
    return values


def true_value(trainer: L.Trainer, module: nn.Module, bound: AbstractBound) -> float | None:
    """The true value of a bound's estimate on a module's pairs, nats; None if it is unknown.

    For a module without a pairing of this package it is ``true_mi()`` of the data module.

    Example:
        >>> from lightning_mi.bounds import DV
        >>> true_value(L.Trainer(barebones=True), nn.Identity(), DV()) is None
        True
    """
    data = getattr(trainer, "datamodule", None)
    if data is None or getattr(trainer, "overfit_batches", None):  # a few repeated batches have another law
        return None
    if (pairs := _pairing(module)) is None:
        return known_mi(data)
    return None if _mixes_encoders(module, pairs) else pairs.true_value(data, bound)


def max_value(trainer: L.Trainer, module: nn.Module, bound: AbstractBound) -> float:
    """Upper limit of a bound's value, up to noise, nats; infinite if it is unknown or the bound has none.

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
    """Whether x and y, which the pairing mixes, have different encoders or heads."""
    networks = [getattr(module, name, None) for name in ("encoders", "heads")]
    differ = any(isinstance(listed, nn.ModuleList) and len(listed) > 1 for listed in networks)
    return pairs.mixes_views and (differ or getattr(module, "momentum_encoder", None) is not None)

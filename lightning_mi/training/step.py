"""What one batch gave, from its scores to its loss."""

from typing import Any, NamedTuple

from torch import Tensor

from lightning_mi.bounds import BoundTerms
from lightning_mi.scores.scores import Scores
from lightning_mi.training.step_logs import term_logs


class StepOutput(NamedTuple):
    """What one batch gave.

    Attributes:
        scores: The critic's values.
        terms: What the bound read in them; scalars, nats.
        penalty: The regularizer's share of the loss; a scalar, at least 0, or None without a regularizer.
        loss: What is minimized: penalty - objective. A probe's loss is not in it.
        features: (N, D) the first representation, detached.
        labels: (N,) integers, or None where the batch holds none.
    """

    scores: Scores
    terms: BoundTerms
    penalty: Tensor | None
    loss: Tensor
    features: Tensor
    labels: Tensor | None

    def for_callbacks(self, probe_loss: Tensor | None = None) -> dict[str, Any]:
        """What callbacks get as a step's outputs. Only the loss, which includes the probe's, keeps its graph.

        The terms are of all processes. The scores are of this one, so that an observer may ask them anything alone.
        """
        return {
            "loss": self.loss if probe_loss is None else self.loss + probe_loss,
            "terms": BoundTerms(*(term.detach() for term in self.terms)),
            "scores": self.scores.local().detach(),
            "features": self.features,
            "labels": self.labels,
        }

    def logs(self, probe_loss: Tensor | None, count_pairs: bool) -> dict[str, Any]:
        """What is logged of a training step; without joint pairs there is no value and no joint term."""
        logs: dict[str, Any] = dict(term_logs(self.terms, self.scores, self.loss))
        if count_pairs:
            logs["joint_pairs"] = float(self.scores.num_joint)
        if self.penalty is not None:
            logs["penalty"] = self.penalty
        if probe_loss is not None:
            logs["probe_loss"] = probe_loss
        return logs

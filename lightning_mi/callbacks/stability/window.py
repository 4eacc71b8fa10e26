"""Blocks of training steps: summaries for callbacks at intervals, equal on all ranks."""

import math
from typing import Any, NamedTuple, final

import torch
from torch import Tensor

from lightning_mi.bounds import BoundTerms
from lightning_mi.metrics.functional import effective_sample_fraction
from lightning_mi.scores.batch_shard import gather
from lightning_mi.scores.scores import Scores


class Block(NamedTuple):
    """Summary of consecutive training steps over all ranks; nats.

    Attributes:
        step: The number of batches trained on at the end of the block.
        value: Mean of the steps' values.
        joint_term: Mean of their joint terms.
        log_normalizer: Mean of their log-normalizers.
        pushes: Number of steps whose log-normalizer exceeds a threshold and whose objective is the value, so that
            ``exp(log_normalizer)`` enters the gradient unbounded; the maximum over ranks.
        finite: 1 if all terms and losses are finite, else 0.
        score_range: Highest minus lowest score of the last step.
        effective_pairs: Effective number of marginal pairs of the last step, mean over ranks: ``num_marginal`` times
            :class:`~lightning_mi.metrics.EffectiveSampleFraction`.
        effective_fraction: The same as a fraction of the marginal pairs.
        log_candidates: InfoNCE's ceiling at the last step; infinite without rows.
        limit: Upper limit of the estimate; infinite if unknown.
    """

    step: int
    value: float
    joint_term: float
    log_normalizer: float
    pushes: float
    finite: float
    score_range: float
    effective_pairs: float
    effective_fraction: float
    log_candidates: float
    limit: float = math.inf


@final
class BlockReader:
    """Collects the terms of a block's steps on their device, and summarizes them at the end of the block.

    Args:
        num_steps: The number of steps of a block.

    Example:
        >>> from lightning_mi import Scores, bounds
        >>> reader, scores = BlockReader(num_steps=1), Scores.from_matrix(torch.eye(4))
        >>> reader.add(bounds.DV()(scores), scores)
        >>> reader.full, reader.close(scores, step=1).value
        (True, 1.0)
    """

    def __init__(self, num_steps: int) -> None:
        self._num_steps = num_steps
        self._steps = 0
        self._terms: list[Tensor] = []  # flat: the terms and the loss of each step
        self._resumed: list[float] = []  # flat: terms and losses of the steps before a resume

    @property
    def full(self) -> bool:
        """True if the block is complete and can be closed."""
        return self._steps >= self._num_steps

    def add(self, terms: BoundTerms, scores: Scores, loss: Any = None) -> None:
        """Record a step. A step without joint pairs has no estimate: only the number of steps increases."""
        self._steps += 1
        if scores.num_joint == 0:
            return
        # This runs at every step: detach only if needed.
        for term in (*terms, loss if isinstance(loss, Tensor) else terms.value):
            self._terms.append(term.detach() if term.requires_grad else term)

    @torch.no_grad()
    def close(self, scores: Scores, step: int, push_above: float = math.inf) -> Block | None:
        """Summarize the block over all ranks and start the next; None if no step of any rank has joint pairs.

        Every rank must call it. One host-device sync.

        Args:
            scores: The scores of the last step.
            step: The number of batches trained on.
            push_above: The log-normalizer above which a step counts as a push; nats.
        """
        summary = self._summary(scores.joint.device, push_above)
        gathered = gather(torch.cat((summary, _score_statistics(scores)))).double().cpu()
        self._steps, self._terms, self._resumed = 0, [], []
        counts, sums = gathered[:, 0], gathered[:, 1:4]
        pushes, finite, low, high, pairs, fraction, candidates = gathered[:, 4:].T
        if (total := counts.sum()) == 0:
            return None
        value, joint_term, log_normalizer = (sums.sum(dim=0) / total).tolist()
        return Block(
            step,
            value,
            joint_term,
            log_normalizer,
            float(pushes.max()),
            float(finite.min()),
            float(high.max() - low.min()),
            float(pairs.nanmean()),
            float(fraction.nanmean()),
            float(candidates.max()),
        )

    def state_dict(self) -> dict[str, Any]:
        """The current block."""
        terms = torch.stack(self._terms).tolist() if self._terms else []
        return {"steps_in_block": self._steps, "rows": self._resumed + terms}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the current block."""
        self._steps, self._terms, self._resumed = state_dict["steps_in_block"], [], state_dict["rows"]

    def _summary(self, device: torch.device, push_above: float) -> Tensor:
        """(6,) number of steps; sums of value, joint term and log-normalizer; number of pushes; 1 if all is finite."""
        if not (self._terms or self._resumed):
            return torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, 1.0], device=device)
        resumed = torch.tensor(self._resumed, dtype=torch.float32, device=device)
        recorded = torch.stack(self._terms).float() if self._terms else resumed.new_empty(0)
        rows = torch.cat((resumed, recorded)).view(-1, len(BoundTerms._fields) + 1)
        value, objective, joint_term, _, log_normalizer, _ = rows.T
        pushes = ((objective == value) & (log_normalizer > push_above)).sum()
        finite = rows.isfinite().all().float()
        sums = torch.stack((value, joint_term, log_normalizer)).sum(dim=1)
        return torch.cat((rows.new_tensor([len(rows)]), sums, torch.stack((pushes, finite))))


def _score_statistics(scores: Scores) -> Tensor:
    """(5,) lowest and highest score, effective number and fraction of marginal pairs, InfoNCE's ceiling."""
    low, high = scores.extremes()
    fraction = effective_sample_fraction(scores)
    ceiling = scores.row_ceiling() if scores.has_rows else fraction.new_tensor(math.inf)
    parts = (low, high, scores.num_marginal * fraction, fraction, ceiling)
    return torch.stack([part.float() for part in parts])

"""Blocks of training steps, summed up: what a callback reads at intervals, the same on all processes."""

import math
from typing import Any, NamedTuple, final

import torch
from torch import Tensor

from lightning_mi.bounds import BoundTerms
from lightning_mi.metrics.functional import effective_sample_fraction
from lightning_mi.scores.batch_shard import gather
from lightning_mi.scores.scores import Scores


class Block(NamedTuple):
    """Some consecutive steps of all processes; nats.

    Attributes:
        step: The trainer's global step at its end.
        value: The mean of the steps' values.
        joint_term: The mean of their joint terms.
        log_normalizer: The mean of their log-normalizers.
        pushes: How many of the steps had a log-normalizer above a given one, and the value itself as the objective, so
            that its exponential entered the gradient as it is; on the process that had the most of them.
        finite: 1 if every term and loss was finite, else 0.
        score_range: Highest minus lowest score of the last step.
        effective_pairs: How many of the marginal pairs of the last step its mean of exponentials rests on, on each
            process: ``num_marginal`` times :class:`~lightning_mi.metrics.EffectiveSampleFraction`.
        effective_share: The same as a share of the marginal pairs.
        log_candidates: What InfoNCE could read of the last step at most, nats; infinite without rows.
        limit: What the estimate could not exceed, nats, as far as who reads it knows.
    """

    step: int
    value: float
    joint_term: float
    log_normalizer: float
    pushes: float
    finite: float
    score_range: float
    effective_pairs: float
    effective_share: float
    log_candidates: float
    limit: float = math.inf


@final
class BlockReader:
    """Keeps the terms of a block's steps on their device, and sums them up when asked.

    Args:
        num_steps: Of a block.

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
        self._rows: list[Tensor] = []
        self._resumed: list[float] = []

    @property
    def full(self) -> bool:
        """Whether the block has all its steps, so that it is to be closed."""
        return self._steps >= self._num_steps

    def add(self, terms: BoundTerms, scores: Scores, loss: Any = None) -> None:
        """Take in a step. One without a joint pair reads no estimate and only counts."""
        self._steps += 1
        if scores.num_joint == 0:
            return
        # Nothing is computed here, at every step; and what holds no graph is not detached from one.
        for term in (*terms, loss if isinstance(loss, Tensor) else terms.value):
            self._rows.append(term.detach() if term.requires_grad else term)

    @torch.no_grad()
    def close(self, scores: Scores, step: int, push_above: float = math.inf) -> Block | None:
        """The block, over all processes, and begin the next; None if no process has a step in it.

        Every process must call it. It is the only place where the processor waits for the device.

        Args:
            scores: Of the last step.
            step: The trainer's global step.
            push_above: Steps with a log-normalizer above it count as pushes; nats.
        """
        summary = self._summary(scores.joint.device, push_above)
        gathered = gather(torch.cat((summary, _of_scores(scores)))).double().cpu()
        self._steps, self._rows, self._resumed = 0, [], []
        counts, sums = gathered[:, 0], gathered[:, 1:4]
        pushes, finite, low, high, pairs, share, candidates = gathered[:, 4:].T
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
            float(share.nanmean()),
            float(candidates.max()),
        )

    def state_dict(self) -> dict[str, Any]:
        """The block that has begun."""
        rows = torch.stack(self._rows).tolist() if self._rows else []
        return {"steps_in_block": self._steps, "rows": self._resumed + rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with that block."""
        self._steps, self._rows, self._resumed = state_dict["steps_in_block"], [], state_dict["rows"]

    def _summary(self, device: torch.device, push_above: float) -> Tensor:
        """(6,) the number of steps, sums of value, joint term and log-normalizer, the pushes, whether all is finite."""
        if not (self._rows or self._resumed):
            return torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, 1.0], device=device)
        resumed = torch.tensor(self._resumed, dtype=torch.float32, device=device)
        read = torch.stack(self._rows).float() if self._rows else resumed.new_empty(0)
        rows = torch.cat((resumed, read)).view(-1, len(BoundTerms._fields) + 1)
        value, objective, joint_term, _, log_normalizer, _ = rows.T
        pushes = ((objective == value) & (log_normalizer > push_above)).sum()
        finite = rows.isfinite().all().float()
        sums = torch.stack((value, joint_term, log_normalizer)).sum(dim=1)
        return torch.cat((rows.new_tensor([len(rows)]), sums, torch.stack((pushes, finite))))


def _of_scores(scores: Scores) -> Tensor:
    """(5,) the lowest and highest score, effective number and share of marginal pairs, InfoNCE's ceiling."""
    low, high = scores.extremes()
    share = effective_sample_fraction(scores)
    ceiling = scores.row_ceiling() if scores.has_rows else share.new_tensor(math.inf)
    parts = (low, high, scores.num_marginal * share, share, ceiling)
    return torch.stack([part.float() for part in parts])

"""OverlappingLabels: positives by shared labels, for samples with several labels."""

from typing import Any, ClassVar, Literal, final, get_args

import torch
from torch import Tensor

from lightning_mi.critics import AbstractCritic
from lightning_mi.pairs._batch_checks import check_batch_size, check_num_views
from lightning_mi.pairs.base import AbstractPairing
from lightning_mi.pairs.same_label import anchor_weights
from lightning_mi.scores.batch_shard import BatchShard
from lightning_mi.scores.scores import Scores
from lightning_mi.utilities.checks import check_choice
from lightning_mi.utilities.distributed import raise_on_all_ranks
from lightning_mi.utilities.numerics import full_precision, upcast

Overlap = Literal["equal", "jaccard"]


@final
class OverlappingLabels(AbstractPairing):
    r"""Two samples that share a label are a joint pair; every two samples are a marginal pair.

    The labels of a batch are a multi-hot matrix, the entry after x: 1 where a sample has a label. No sample is paired
    with itself. Each sample with a joint pair, the anchor, has the same weight, shared by its joint pairs: equally, or
    in proportion to the Jaccard index of the label sets, :math:`|A \cap B| / |A \cup B|`. With one label each and equal
    weights these are the pairs of ``SameLabel(weighting="anchor")``. A sample without any label is a candidate and no
    anchor.

    The joint law depends on the weights, so the value estimates the mutual information of two samples that are drawn by
    overlap, and no truth is known. All scores are in memory: there are no tiles.

    Args:
        weights: The joint pairs of an anchor weigh ``"equal"``, or by ``"jaccard"`` index.
        gather: As in :class:`AbstractPairing`.

    Raises:
        TypeError: The labels are not a tensor of numbers.
        ValueError: The labels are not (N, C) numbers 0 and 1; or, in training, a batch has fewer than two samples or no
            two that share a label.

    Example:
        >>> from lightning_mi import critics
        >>> labels = torch.tensor([[1, 1, 0], [0, 1, 1], [0, 0, 1], [0, 0, 0]])
        >>> scores = OverlappingLabels()(critics.InnerProductCritic(), torch.ones(4, 2), labels)
        >>> scores.num_joint, scores.num_marginal, scores.num_candidates
        (4, 12, 3)
    """

    num_views: ClassVar[int | None] = 1  # the multi-hot matrix follows; a module passes further entries unchanged

    def __init__(self, weights: Overlap = "equal", *, gather: bool = True) -> None:
        super().__init__(gather=gather)
        check_choice("weights", weights, get_args(Overlap))
        self.weights = weights

    def forward(self, critic: AbstractCritic, *views: Tensor) -> Scores:
        """Scores of all pairs of x (N, D) with a multi-hot matrix (N, C)."""
        check_num_views(views, "x", "labels", pairing="OverlappingLabels")
        x = views[0]
        labels, shard = self._shard(x, views[1])
        check_batch_size(shard, self.training)
        candidates, candidate_labels = shard.gather_all(x, labels)
        candidate_labels = candidate_labels.detach()
        if self.training and not bool((candidate_labels.sum(dim=0) > 1).any()):
            raise ValueError(
                f"Got {shard.total} samples of which no two share a label, so there is no joint pair. Raise the batch "
                "size, or check the multi-hot matrix: 1 where a sample has a label."
            )
        matrix = critic.pairwise(x, candidates)
        shared = self._overlap(labels, candidate_labels).to(upcast(matrix).dtype)
        rows = torch.arange(shard.start, shard.start + len(x), device=x.device)
        others = rows.unsqueeze(1) != torch.arange(shard.total, device=x.device)
        return Scores.from_matrix(
            matrix,
            joint=anchor_weights(shared * others),
            marginal=others,
            allow_no_joint=not self.training,
            allow_no_marginal=not self.training,
            y=candidates,
            pooled=shard.pooled,
        )

    def true_value(self, data: object, bound: object) -> float | None:
        """Unknown: the data modules with known MI have no multi-hot labels."""
        del data, bound
        return None

    def _overlap(self, labels: Tensor, others: Tensor) -> Tensor:
        """(N, M) relative weights of pairs with a shared label, 0 for others; in float32 or wider."""
        with full_precision(labels.device.type):
            common = labels @ others.T
        if self.weights == "equal":
            return (common > 0).to(common)
        union = labels.sum(dim=1, keepdim=True) + others.sum(dim=1) - common
        return common / union.clamp(min=1)

    def _shard(self, x: Tensor, given: Any) -> tuple[Tensor, BatchShard]:
        """The multi-hot matrix in the precision of the scores, and the shard; an error on one rank raises on all."""
        problem, labels = None, x
        try:
            labels = _check_multi_hot(given, len(x)).to(upcast(x))
        except (TypeError, ValueError) as error:
            problem = error
        if self.training and not self.gather:  # no all-gather of shapes, but DDP's all-reduce of gradients would block
            raise_on_all_ranks(problem, x.device)
        return labels, self.shard(x, labels, problem=problem)


def _check_multi_hot(labels: Any, num_samples: int) -> Tensor:
    """The (N, C) labels.

    Raises:
        TypeError: They are not a tensor of numbers.
        ValueError: They have another shape or other numbers than 0 and 1.
    """
    if not isinstance(labels, Tensor) or labels.is_complex():
        kind = str(labels.dtype)[6:] if isinstance(labels, Tensor) else type(labels).__name__
        raise TypeError(
            f"OverlappingLabels got labels of type {kind}: they are a multi-hot matrix, a tensor with 1 where a sample "
            "has a label and 0 elsewhere."
        )
    if labels.ndim != 2 or len(labels) != num_samples:
        raise ValueError(
            f"OverlappingLabels got labels of shape {tuple(labels.shape)} for {num_samples} samples: they are a "
            f"multi-hot matrix, ({num_samples}, C) for C labels. For one label each use pairs.SameLabel()."
        )
    if not bool(((labels == 0) | (labels == 1)).all()):
        raise ValueError(
            "OverlappingLabels got labels other than 0 and 1: a multi-hot matrix has 1 where a sample has a label. "
            "Threshold probabilities: labels > 0.5."
        )
    return labels

"""SameLabel: pairs of samples with the same label."""

import math
from typing import ClassVar, final

import torch
from torch import Tensor

from lightning_mi.bounds import AbstractBound
from lightning_mi.critics import AbstractCritic
from lightning_mi.pairs._batch_checks import check_batch_size, check_num_views
from lightning_mi.pairs.base import AbstractPairing
from lightning_mi.pairs.known_law import cross_entropy, known_counts, known_mi
from lightning_mi.scores.global_counts import GlobalCounts
from lightning_mi.scores.scores import Scores


@final
class SameLabel(AbstractPairing):
    r"""Two samples with the same label are a joint pair; every two samples are a marginal pair.

    No sample is paired with itself. Pairs with the same label are also marginal pairs, as pairs of independent samples
    are.

    **The estimated quantity**, if each sample determines its label. Two independent samples both have label c with
    probability p(c)^2, so a joint pair is of class c with probability :math:`w(c) = p(c)^2 / \sum_b p(b)^2`. Two
    samples with the same label have the density ratio :math:`r = 1 / \sum_b p(b)^2`, and the value at the optimum is
    :math:`\log r = -\log \sum_c p(c)^2`: for C equally frequent classes H(Y) = log C, otherwise less than H(Y).

    For InfoNCE a row is a sample against all others, and it counts once for each of its joint pairs. The ratio that is
    normalized by rows is :math:`p(x' | x) / p(x') = 1 / p(c)`, and the value at the optimum
    :math:`-\sum_c w(c) \log p(c) \le -\log \sum_c p(c)^2` (the difference is :math:`\mathrm{KL}(w \| p)`). With k joint
    pairs among the R candidates of each row it is at most :math:`\log (R / k)`.

    Of the pairs of n samples without replacement, n(c) of them in class c, the fraction
    :math:`\sum_c n(c) (n(c) - 1) / (n (n - 1))` has the same label. Its negative logarithm exceeds the value above by
    about (C - 1) / n; it is the maximum of every lower bound (``max_value``).

    A class with one sample in the batch has no joint pair. A batch without joint pairs gives scores with ``num_joint``
    0: means over joint pairs are then 0 with a zero gradient, and the terms of a bound are no estimate.

    **With** ``exclude_same_label`` only samples of different labels are marginal pairs. Their law is not p(x) p(x'), so
    the estimate is not one of the mutual information. For C equally frequent classes, the density ratio
    r = p(x, x') / (p(x) p(x')) is replaced by :math:`r' = (1 - 1/C) \, r / (1 - r/C)`, and the value at the optimum by

    .. math:: E_P[\log r'] = I + \log(1 - 1/C) - E_P[\log(1 - r/C)] \ge \frac{C}{C - 1} \, I.

    If x determines its label, r is C at every joint pair and the value is unbounded: no marginal pair resembles a joint
    pair. InfoNCE does not change, since its rows include the joint pairs in any case.

    Source: Choi and Lee 2022.

    Args:
        exclude_same_label: Exclude pairs with the same label from the marginal pairs; see above.
        gather: As in :class:`AbstractPairing`.

    Raises:
        TypeError: The labels are not integers.
        ValueError: A training batch has fewer than two samples, the labels have a wrong shape, one is negative, or no
            marginal pair is left.

    Example:
        >>> from lightning_mi import critics
        >>> scores = SameLabel()(critics.InnerProductCritic(), torch.ones(4, 2), torch.tensor([7, 3, 7, 5]))
        >>> scores.num_joint, scores.num_marginal, scores.num_candidates
        (2, 12, 3)
    """

    num_views: ClassVar[int | None] = 1
    takes_labels: ClassVar[bool] = True

    def __init__(self, exclude_same_label: bool = False, *, gather: bool = True) -> None:
        super().__init__(gather=gather)
        self.exclude_same_label = exclude_same_label

    def forward(self, critic: AbstractCritic, *views: Tensor) -> Scores:
        """Scores of all pairs of x (N, D) with labels (N,)."""
        check_num_views(views, "x", "labels", pairing="SameLabel")
        x = views[0]
        shard, labels = self.labeled_shard(x, views[1])
        check_batch_size(shard, self.training)
        candidates, candidate_labels = shard.gather_all(x, labels)
        if self.training and self.exclude_same_label and bool((candidate_labels == candidate_labels[0]).all()):
            raise ValueError(
                f"Got a batch of {shard.total} samples that all have label {int(candidate_labels[0])}: with "
                "exclude_same_label=True no marginal pair is left. Raise the batch size, shuffle the samples, or drop "
                "the option."
            )
        same_label = labels.unsqueeze(1) == candidate_labels
        rows = torch.arange(shard.start, shard.start + len(x), device=x.device)
        others = rows.unsqueeze(1) != torch.arange(shard.total, device=x.device)
        return Scores.from_matrix(
            critic.pairwise(x, candidates),
            joint=same_label & others,
            marginal=~same_label if self.exclude_same_label else others,
            allow_no_joint=True,
            allow_no_marginal=not self.training,
            y=candidates,
            pooled=shard.pooled and self._global_counts(candidate_labels, len(shard.counts)),
        )

    def true_value(self, data: object, bound: AbstractBound) -> float | None:
        """The value at the optimum (class docstring); None with ``exclude_same_label`` or if samples are ambiguous.

        Each sample determines its label if and only if I(x; label) = H(label).
        """
        mi, counts = known_mi(data), known_counts(data)
        if self.exclude_same_label or mi is None or counts is None:
            return None
        law = counts / counts.sum()
        if not math.isclose(mi, cross_entropy(law, law), abs_tol=1e-6):
            return None
        squares = law.square()
        if bound.normalized_by_row:
            return cross_entropy(squares / squares.sum(), law)
        return -math.log(squares.sum())

    def max_value(self, data: object, bound: AbstractBound) -> float:
        """The maximum for samples without replacement; infinite with ``exclude_same_label``."""
        counts = known_counts(data)
        if self.exclude_same_label or counts is None:
            return math.inf
        total, same = counts.sum(), (counts * (counts - 1)).sum()
        return math.log(total * (total - 1) / same) if same > 0 else math.inf

    def _global_counts(self, labels: Tensor, world_size: int) -> GlobalCounts:
        """The numbers of pairs over all ranks, from the labels of all ranks."""
        count = len(labels)
        same_label = int(torch.unique(labels, return_counts=True)[1].square().sum())  # a sample with itself included
        num_marginal = count**2 - (same_label if self.exclude_same_label else count)
        return GlobalCounts(same_label - count, num_marginal, count, count - 1, world_size)

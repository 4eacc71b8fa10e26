"""Pairs of samples that share a label."""

import math
from typing import ClassVar, final

import torch
from torch import Tensor

from lightning_mi.bounds import AbstractBound
from lightning_mi.critics import AbstractCritic
from lightning_mi.pairs.base import AbstractPairing, check_count, check_two_or_more
from lightning_mi.pairs.known_law import cross_entropy, known_counts, known_mi
from lightning_mi.scores.global_counts import GlobalCounts
from lightning_mi.scores.scores import Scores


@final
class SameLabel(AbstractPairing):
    r"""Two samples of a batch are a joint pair where they have the same label; every two samples are a marginal pair.

    No sample is paired with itself. Same-label pairs are among the marginal pairs, because that is what independent
    samples are.

    What is estimated, where each sample determines its label: two independent samples share label c with probability
    p(c)^2, so a joint pair is of class c with probability :math:`w(c) = p(c)^2 / \sum_b p(b)^2`. Two samples with the
    same label have the density ratio :math:`r = 1 / \sum_b p(b)^2`, and the value at the optimum is
    :math:`\log r = -\log \sum_c p(c)^2`: H(Y) = log C where C classes are equally frequent, less than H(Y) elsewhere.

    For InfoNCE a row is a sample against all others, and counts once for each of its joint pairs. Normalized by rows,
    the ratio is :math:`p(x' | x) / p(x') = 1 / p(c)`, and the value at the optimum
    :math:`-\sum_c w(c) \log p(c) \le -\log \sum_c p(c)^2` (they differ by :math:`\mathrm{KL}(w \| p)`). With k joint
    pairs among the R candidates of each row it cannot exceed :math:`\log (R / k)`.

    Of n samples, n(c) in class c, that are paired without replacement, a share
    :math:`\sum_c n(c) (n(c) - 1) / (n (n - 1))` of the pairs has the same label. Minus its logarithm exceeds the value
    above by about (C - 1) / n, and is what no lower bound can exceed (``max_value``).

    A class with a single sample in the batch has no joint pair. A batch without any gives scores with ``num_joint`` 0:
    averages over joint pairs are then 0 with a zero gradient, what remains holds the marginal pairs, and what a bound
    reads is no estimate.

    With ``exclude_same_label`` only samples of different labels are marginal pairs. These are no longer drawn from
    p(x) p(x'), so what is estimated is no longer the mutual information. Where C classes are equally frequent, the
    density ratio r = p(x, x') / (p(x) p(x')) is replaced by :math:`r' = (1 - 1/C) \, r / (1 - r/C)`, and the value at
    the optimum by

    .. math:: E_P[\log r'] = I + \log(1 - 1/C) - E_P[\log(1 - r/C)] \ge \frac{C}{C - 1} \, I.

    Where x determines its label, r is C at every joint pair and the value has no bound: no marginal pair looks like a
    joint one any more. InfoNCE does not change, since its rows hold the joint pairs in any case.

    Source: Choi and Lee 2022.

    Args:
        exclude_same_label: Drop same-label pairs from the marginal pairs; see above for what that costs.
        gather: As in :class:`AbstractPairing`.

    Raises:
        TypeError: The labels are not integers.
        ValueError: The batch has one sample, the labels do not fit it or one is negative, or no marginal pair is left.

    Example:
        >>> from lightning_mi import critics
        >>> scores = SameLabel()(critics.InnerProductCritic(), torch.ones(4, 2), torch.tensor([7, 3, 7, 5]))
        >>> scores.num_joint, scores.num_marginal, scores.num_candidates
        (2, 12, 3)
    """

    num_views: ClassVar[int | None] = 1
    takes_labels: ClassVar[bool] = True

    def __init__(self, exclude_same_label: bool = False, gather: bool = True) -> None:
        super().__init__(gather)
        self.exclude_same_label = exclude_same_label

    def forward(self, critic: AbstractCritic, *views: Tensor) -> Scores:
        """Scores of all pairs of x (N, D) with labels (N,)."""
        check_count(views, "x", "labels", pairing="SameLabel")
        x = views[0]
        share, labels = self.labeled_share(x, views[1])
        check_two_or_more(share, self.training)
        candidates, their_labels = share.gather_all(x, labels)
        if self.training and self.exclude_same_label and bool((their_labels == their_labels[0]).all()):
            raise ValueError(
                f"Got a batch of {share.total} samples that all have label {int(their_labels[0])}: with "
                "exclude_same_label=True no marginal pair is left. Raise the batch size, shuffle the samples, or leave "
                "the option out."
            )
        same_label = labels.unsqueeze(1) == their_labels
        own = torch.arange(share.start, share.start + len(x), device=x.device)
        others = own.unsqueeze(1) != torch.arange(share.total, device=x.device)
        return Scores.from_matrix(
            critic.pairwise(x, candidates),
            joint=same_label & others,
            marginal=~same_label if self.exclude_same_label else others,
            allow_no_joint=True,
            allow_no_marginal=not self.training,
            y=candidates,
            pooled=share.pooled and self._pool(their_labels, len(share.counts)),
        )

    def true_value(self, data: object, bound: AbstractBound) -> float | None:
        """See the class; None with ``exclude_same_label``, or where a sample may not determine its label.

        It does if and only if I(x; label) = H(label).
        """
        mi, counts = known_mi(data), known_counts(data)
        if self.exclude_same_label or mi is None or counts is None:
            return None
        law = counts / counts.sum()
        if not math.isclose(mi, cross_entropy(law, law), abs_tol=1e-6):
            return None
        squares = law.square()
        if bound.capped_at_log_n:
            return cross_entropy(squares / squares.sum(), law)
        return -math.log(squares.sum())

    def max_value(self, data: object, bound: AbstractBound) -> float:
        """That of samples paired without replacement; infinite with ``exclude_same_label``."""
        counts = known_counts(data)
        if self.exclude_same_label or counts is None:
            return math.inf
        total, same = counts.sum(), (counts * (counts - 1)).sum()
        return math.log(total * (total - 1) / same) if same > 0 else math.inf

    def _pool(self, labels: Tensor, world_size: int) -> GlobalCounts:
        """That of all processes, from the labels of all."""
        count = len(labels)
        alike = int(torch.unique(labels, return_counts=True)[1].square().sum())  # a sample with itself among them
        num_marginal = count**2 - (alike if self.exclude_same_label else count)
        return GlobalCounts(alike - count, num_marginal, count, count - 1, world_size)

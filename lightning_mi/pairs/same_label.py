"""SameLabel: pairs of samples with the same label."""

import math
from typing import ClassVar, Literal, final, get_args

import torch
from torch import Tensor

from lightning_mi.bounds import AbstractBound
from lightning_mi.critics import AbstractCritic
from lightning_mi.pairs._batch_checks import check_batch_size, check_num_views
from lightning_mi.pairs.base import AbstractPairing
from lightning_mi.pairs.known_law import cross_entropy, known_counts, known_mi
from lightning_mi.scores.batch_shard import BatchShard
from lightning_mi.scores.global_counts import GlobalCounts
from lightning_mi.scores.scores import Scores
from lightning_mi.utilities.checks import check_choice, check_whole
from lightning_mi.utilities.labels import is_labels
from lightning_mi.utilities.numerics import upcast

Weighting = Literal["pair", "anchor"]


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

    **With** ``weighting="anchor"`` each anchor, a sample with a joint pair, has the same weight, shared equally by its
    joint pairs: the loss :math:`L_{out}` of supervised contrastive learning. A joint pair is then of class c with
    probability p(c) instead of w(c), and the value at the optimum is H(Y) for every bound, if each sample determines
    its label. In a batch, samples without a joint pair are left out, which favors frequent classes unless all are
    equally frequent. The maximum for n samples without replacement is
    :math:`\sum_c \frac{n(c)}{n} \log \frac{n - 1}{n(c) - 1}`, if no class has one sample.

    Source: Choi and Lee 2022; Khosla et al. 2020, equation 2 (weighting by anchor).

    Args:
        exclude_same_label: Exclude pairs with the same label from the marginal pairs; see above.
        weighting: The weights of joint pairs in means over them: ``"pair"``, all equal, or ``"anchor"``; see above.
        ignore_index: Samples with this label, which may be negative, take no part: they are neither anchors nor
            positives nor candidates. None by default.
        num_views: The number of views of each sample. They form one list of samples of the same label.
        gather: As in :class:`AbstractPairing`.

    Raises:
        TypeError: The labels are not integers.
        ValueError: A training batch has fewer than two samples that are not ignored, the labels have a wrong shape, one
            is negative, the views differ in shape, or no marginal pair is left.

    Example:
        >>> from lightning_mi import critics
        >>> scores = SameLabel()(critics.InnerProductCritic(), torch.ones(4, 2), torch.tensor([7, 3, 7, 5]))
        >>> scores.num_joint, scores.num_marginal, scores.num_candidates
        (2, 12, 3)
    """

    num_views: ClassVar[int | None] = 1
    takes_labels: ClassVar[bool] = True

    def __init__(
        self,
        exclude_same_label: bool = False,
        *,
        weighting: Weighting = "pair",
        ignore_index: int | None = None,
        num_views: int = 1,
        gather: bool = True,
    ) -> None:
        super().__init__(gather=gather)
        check_choice("weighting", weighting, get_args(Weighting))
        check_whole("num_views", num_views, 1)
        self.exclude_same_label = exclude_same_label
        self.weighting = weighting
        self.ignore_index = ignore_index
        # Read as attributes of the object, like the class attributes.
        self.num_views, self.mixes_views = num_views, num_views > 1  # type: ignore[misc]

    def forward(self, critic: AbstractCritic, *views: Tensor) -> Scores:
        """Scores of all pairs of x (N, D) with labels (N,), or of all views, each (N, D), with the labels of one."""
        check_num_views(views, *view_names(self.num_views), "labels", pairing="SameLabel")
        x, labels = self._samples(*views)
        shard, labels = self.labeled_shard(x, labels)
        self._check_size(shard)
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
        matrix, joint = critic.pairwise(x, candidates), same_label & others
        return Scores.from_matrix(
            matrix,
            joint=joint if self.weighting == "pair" else anchor_weights(joint.to(upcast(matrix).dtype)),
            marginal=~same_label if self.exclude_same_label else others,
            allow_no_joint=True,
            allow_no_marginal=not self.training,
            y=candidates,
            pooled=shard.pooled and self._global_counts(candidate_labels, len(shard.counts)),
        )

    def true_value(self, data: object, bound: AbstractBound) -> float | None:
        """The value at the optimum; None with ``exclude_same_label``, several views, or if samples are ambiguous.

        Each sample determines its label if and only if I(x; label) = H(label).
        """
        mi, counts = known_mi(data), known_counts(data)
        if self.exclude_same_label or self.num_views != 1 or mi is None or counts is None:
            return None
        law = counts / counts.sum()
        if not math.isclose(mi, cross_entropy(law, law), abs_tol=1e-6):
            return None
        if self.weighting == "anchor":
            return cross_entropy(law, law)
        squares = law.square()
        if bound.normalized_by_row:
            return cross_entropy(squares / squares.sum(), law)
        return -math.log(squares.sum())

    def max_value(self, data: object, bound: AbstractBound) -> float:
        """The maximum for samples without replacement; infinite with ``exclude_same_label`` or several views."""
        counts = known_counts(data)
        if self.exclude_same_label or self.num_views != 1 or counts is None:
            return math.inf
        total, same = counts.sum(), (counts * (counts - 1)).sum()
        if self.weighting == "anchor" and same > 0:
            counts = counts[counts > 1]
            anchors = counts.sum()
            return float((counts * (total * (total - 1) / (anchors * (counts - 1))).log()).sum() / anchors)
        return math.log(total * (total - 1) / same) if same > 0 else math.inf

    def _global_counts(self, labels: Tensor, world_size: int) -> GlobalCounts:
        """The numbers of pairs over all ranks, from the labels of all ranks."""
        count, of_label = len(labels), torch.unique(labels, return_counts=True)[1]
        same_label = int(of_label.square().sum())  # a sample with itself included
        num_marginal = count**2 - (same_label if self.exclude_same_label else count)
        anchors = float(of_label[of_label > 1].sum()) if self.weighting == "anchor" else None
        return GlobalCounts(same_label - count, num_marginal, count, count - 1, world_size, anchors)

    def _samples(self, *views: Tensor) -> tuple[Tensor, Tensor]:
        """All views in one list and their labels, without samples to ignore; invalid labels remain for their check."""
        (first, *others), labels = views[:-1], views[-1]
        if any(view.shape != first.shape for view in others):
            shapes = ", ".join(str(tuple(view.shape)) for view in views[:-1])
            raise ValueError(
                f"Got views of shapes {shapes}: SameLabel scores every view against every other, so all have the same "
                "shape. Use one encoder for all views."
            )
        if self.ignore_index is not None and is_labels(labels) and len(labels) == len(first):
            kept = labels != self.ignore_index
            first, *others = (view[kept.to(view.device)] for view in views[:-1])
            labels = labels[kept]
        if not others:
            return first, labels
        return torch.cat([first, *others]), labels.repeat(self.num_views or 1) if is_labels(labels) else labels

    def _check_size(self, shard: BatchShard) -> None:
        if self.ignore_index is not None and shard.total < (2 if self.training else 1):
            raise ValueError(
                f"Got {shard.total} samples with another label than ignore_index={self.ignore_index}: pairs are made "
                "of labelled samples, so a training batch has two or more, and an evaluation batch one. Raise the "
                "batch size, or sample more labels."
            )
        check_batch_size(shard, self.training)


def view_names(num_views: int | None) -> list[str]:
    """The names of views in errors: x, then y, then numbers.

    Example:
        >>> view_names(1), view_names(3)
        (['x'], ['x', 'y', 'view 2'])
    """
    return ["x", "y", *(f"view {i}" for i in range(2, num_views or 1))][:num_views]


def anchor_weights(joint: Tensor) -> Tensor:
    """Weights of joint pairs that sum to 1 in each row with a joint pair, its anchor.

    Args:
        joint: (N, M) relative weights of joint pairs within their row, 0 where there is none.

    Example:
        >>> anchor_weights(torch.tensor([[1.0, 1.0], [0.0, 0.0]]))
        tensor([[0.5000, 0.5000],
                [0.0000, 0.0000]])
    """
    total = joint.sum(dim=1, keepdim=True)
    return joint / total.masked_fill(total == 0, 1.0)

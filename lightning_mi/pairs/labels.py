"""Pairings that read class labels."""

import math
from collections.abc import Sequence
from typing import ClassVar, final

import torch
from torch import Tensor

from lightning_mi.critics import AbstractCritic
from lightning_mi.labels import check_labels
from lightning_mi.numerics import upcast
from lightning_mi.pairs.base import AbstractPairing, check_two_or_more
from lightning_mi.scores import Scores


@final
class EnumeratedLabels(AbstractPairing):
    """y is a label, and every x is scored against all C labels, so E_Q has no sampling noise in y.

    The joint pair of a sample is with its own label. The marginal pairs are all N x C, weighed by the prior p(y). The
    critic gives T(x, y) of representations (N, D) and labels (M,): :class:`~lightning_mi.critics.LabelCritic` reads
    the logits of a classifier.

    The prior is meant to be that of the data. Under another one, a bound reads the mutual information plus the
    Kullback-Leibler divergence of the data's label frequencies from it: with uniform labels over half of C classes,
    and a uniform prior over all C, log C instead of log(C / 2).

    Source: Choi and Lee 2022, the supervised benchmark.

    Args:
        num_classes: C, at least 2; labels run from 0 to C - 1.
        prior: The C probabilities p(y), positive, with sum 1; uniform by default.

    Raises:
        ValueError: There are fewer than two classes, the prior does not fit, a label is out of range, or the critic
            does not give a score for each label.
        TypeError: The labels are not integers.

    Example:
        >>> from lightning_mi import bounds, critics
        >>> logits, labels = 100 * torch.eye(3), torch.tensor([0, 1, 2])
        >>> bounds.DV()(EnumeratedLabels(3)(critics.LabelCritic(), logits, labels)).value  # log 3
        tensor(1.0986)
    """

    num_views: ClassVar[int | None] = 1
    takes_labels: ClassVar[bool] = True
    prior: Tensor | None

    def __init__(self, num_classes: int, prior: Sequence[float] | None = None) -> None:
        super().__init__()
        if num_classes < 2:
            raise ValueError(f"Got num_classes={num_classes}: a label tells something only of two or more classes.")
        self.num_classes = num_classes
        given = None if prior is None else torch.tensor(_check_prior(prior, num_classes))
        # An argument, so not saved: a checkpoint of one prior does not decide another run's.
        self.register_buffer("prior", given, persistent=False)

    def forward(self, critic: AbstractCritic, *views: Tensor) -> Scores:
        """Scores of x (N, D), the first view, with all labels; the second view is its labels (N,)."""
        x, labels = _labelled(views, type(self).__name__)
        outside = (labels < 0) | (labels >= self.num_classes)
        if outside.any():
            first = int(outside.nonzero()[0, 0])
            raise ValueError(
                f"Label {int(labels[first])} at index {first} is out of range: EnumeratedLabels({self.num_classes}) "
                f"takes labels from 0 to {self.num_classes - 1}. Raise num_classes, or check the labels."
            )
        matrix = self._score(critic, x)
        everything = torch.arange(self.num_classes, device=x.device)
        own = labels.unsqueeze(1) == everything
        log_prior = None if self.prior is None else self.prior.to(upcast(matrix).dtype).log()
        return Scores.from_matrix(matrix, joint=own, marginal=torch.ones_like(own), log_weights=log_prior, y=everything)

    def predict(self, critic: AbstractCritic, x: Tensor) -> Tensor:
        """The label that the critic scores highest, for each row of x (N, D): (N,) int64.

        It is the label under which x is most likely, p(x | y); the prior is not in it.
        """
        return self._score(critic, x).argmax(dim=1)

    def extra_repr(self) -> str:
        """The arguments, for ``print(module)``."""
        return f"num_classes={self.num_classes}, prior={'uniform' if self.prior is None else 'given'}"

    def _score(self, critic: AbstractCritic, x: Tensor) -> Tensor:
        matrix = critic.pairwise(x, torch.arange(self.num_classes, device=x.device))
        if matrix.shape != (len(x), self.num_classes):
            raise ValueError(
                f"{type(critic).__name__} gave scores of shape {tuple(matrix.shape)} for {len(x)} samples: "
                f"EnumeratedLabels({self.num_classes}) needs one for each of the {self.num_classes} labels."
            )
        return matrix


@final
class SameLabel(AbstractPairing):
    """Two different samples of the batch with the same label are a joint pair; any two different ones a marginal pair.

    Same-label pairs are among the marginal pairs: that is what two independent draws are. For InfoNCE a row is x_i
    against all others, and counts once for each of its joint pairs. A sample that is alone in its class has no joint
    pair, and only marginal ones. A batch without any joint pair has no estimate: its joint term is 0, with gradient
    0, and only the marginal term trains; ``MIEstimationModule`` logs no value for it.

    Source: Choi and Lee 2022, the contrastive benchmark.

    Args:
        exclude_same_label: Leave same-label pairs out of the marginal pairs, as some contrastive losses do. The
            marginal pairs are then no longer draws from p(x) p(x'), and what is estimated is no longer the mutual
            information: with C equally frequent classes the optimal value grows without limit (the classes of joint
            and of marginal pairs have nothing in common), instead of reading log C.

    Raises:
        ValueError: The batch has one sample, or there is not one view with its labels, or every pair has one label
            where same-label pairs are excluded.
        TypeError: The labels are not integers.

    Example:
        >>> from lightning_mi import critics
        >>> scores = SameLabel()(critics.InnerProductCritic(), torch.ones(4, 2), torch.tensor([0, 0, 1, 2]))
        >>> scores.num_joint, scores.num_marginal
        (2, 12)
    """

    num_views: ClassVar[int | None] = 1
    takes_labels: ClassVar[bool] = True

    def __init__(self, exclude_same_label: bool = False) -> None:
        super().__init__()
        self.exclude_same_label = exclude_same_label

    def forward(self, critic: AbstractCritic, *views: Tensor) -> Scores:
        """Scores of x (N, D), the first view, with itself; the second view is its labels (N,)."""
        x, labels = _labelled(views, type(self).__name__)
        check_two_or_more(x)
        same = labels.unsqueeze(1) == labels
        different = ~torch.eye(len(x), dtype=torch.bool, device=x.device)
        marginal = ~same if self.exclude_same_label else different
        return Scores.from_matrix(
            critic.pairwise(x, x), joint=same & different, marginal=marginal, y=x, allow_no_joint=True
        )

    def extra_repr(self) -> str:
        """The argument, for ``print(module)``."""
        return f"exclude_same_label={self.exclude_same_label}"


def _labelled(views: tuple[Tensor, ...], pairing: str) -> tuple[Tensor, Tensor]:
    if len(views) != 2:
        raise ValueError(
            f"Got {len(views)} entries of the batch: {pairing} takes a view and its labels. "
            "Choose another pairing, or override `unpack_batch` to return the two."
        )
    x, labels = views
    check_labels(labels, len(x), pairing)
    return x, labels


def _check_prior(prior: Sequence[float], num_classes: int) -> list[float]:
    values = [float(p) for p in prior]
    if len(values) != num_classes:
        raise ValueError(
            f"Got a prior of {len(values)} probabilities for {num_classes} classes: there is one for each."
        )
    if not all(p > 0 for p in values) or not math.isclose(sum(values), 1.0, rel_tol=1e-4):
        raise ValueError(
            f"Got a prior whose smallest entry is {min(values):g} and whose sum is {sum(values):g}: probabilities of "
            "classes are positive and sum to 1. Leave a class that never occurs out of the labels."
        )
    return [p / sum(values) for p in values]

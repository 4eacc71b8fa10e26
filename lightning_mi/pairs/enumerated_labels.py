"""Samples against all labels: the label marginal without sampling noise."""

import math
from collections.abc import Sequence
from typing import ClassVar, final

import torch
from torch import Tensor

from lightning_mi.critics import AbstractCritic, Calibrated, LabelCritic
from lightning_mi.pairs.base import AbstractPairing, check_count
from lightning_mi.pooling import Pool
from lightning_mi.scores import Scores


@final
class EnumeratedLabels(AbstractPairing):
    r"""A sample and its label are a joint pair; a sample and each of the C labels are marginal pairs, weighted by p(y).

    E_Q runs over the labels instead of sampling them, so all of its noise comes from x, and a batch of one is enough.
    The critic scores x against the labels 0..C-1: :class:`~lightning_mi.critics.LabelCritic` for a classifier's
    outputs. They are also the candidates that a learned baseline of TUBA sees, as in ``nn.Embedding(C, 1)``. For
    InfoNCE a row is a sample against all labels; its ceiling is log C, where they have equal weights.

    With a prior q(y) that is not the law p(y) of the data, what is estimated is
    :math:`I(X; Y) + \mathrm{KL}(p(y) \| q(y))`. So with a uniform prior over more classes than the data holds the value
    goes up to log C, not to the entropy of the labels that are there.

    Source: Choi and Lee 2022.

    Args:
        num_classes: C.
        prior: (C,) the probability of each label, q(y); uniform by default. A label may have probability 0, as long as
            no sample has that label.
        gather: As in :class:`AbstractPairing`.

    Raises:
        TypeError: The labels are not integers.
        ValueError: The prior is not a law of C labels; a label is not in 0..C-1, has prior 0, or there is not one for
            each sample; the critic gives no C scores for each.

    Example:
        >>> from lightning_mi import bounds, critics
        >>> labels = torch.tensor([2, 0, 1, 2])
        >>> scores = EnumeratedLabels(3)(critics.LabelCritic(), 99 * torch.eye(3)[labels], labels)
        >>> scores.num_joint, scores.num_marginal
        (4, 12)
        >>> bounds.DV()(scores).value  # log 3
        tensor(1.0986)
    """

    num_views: ClassVar[int | None] = 1
    takes_labels: ClassVar[bool] = True

    def __init__(self, num_classes: int, prior: Sequence[float] | Tensor | None = None, gather: bool = True) -> None:
        super().__init__(gather)
        if num_classes < 2:
            raise ValueError(f"Got num_classes={num_classes}: a label tells something where there are two or more.")
        self.num_classes = num_classes
        # Not a buffer, which half-precision training would round; on the processor, where float64 always is.
        self._log_prior = None if prior is None else _check_prior(prior, num_classes).log()

    def forward(self, critic: AbstractCritic, *views: Tensor) -> Scores:
        """Scores of x (N, D), of labels (N,), against all labels."""
        check_count(views, "x", "labels", pairing="EnumeratedLabels")
        x, labels = views
        share, labels = self.labeled_share(x, labels)
        matrix = self._all_scores(critic, x)
        rows, classes = share.total, self.num_classes
        return Scores.from_matrix(
            matrix,
            joint=labels.unsqueeze(1) == torch.arange(self.num_classes, device=x.device),
            marginal=torch.ones_like(matrix, dtype=torch.bool),
            log_weights=self._log_prior,
            y=torch.arange(self.num_classes, device=x.device),
            pooled=share.pooled and Pool(rows, rows * classes, rows, classes, len(share.counts)),
        )

    def check_labels(self, labels: Tensor) -> Tensor:
        """The labels, which are in 0..C-1 and have a positive prior, or a ValueError."""
        outside = (labels < 0) | (labels >= self.num_classes)
        if self._log_prior is not None:
            impossible = self._log_prior.to(labels.device, torch.float32) == -math.inf
            outside |= impossible[labels.clamp(0, self.num_classes - 1)]
        if not bool(outside.any()):
            return labels
        index = int(outside.nonzero()[0])
        label = int(labels[index])
        if 0 <= label < self.num_classes:
            raise ValueError(
                f"Got label {label} at position {index}, to which the prior gives probability 0: the value would be "
                "infinite. Give every label that occurs a positive probability."
            )
        raise ValueError(
            f"Got label {label} at position {index}: the {self.num_classes} labels of EnumeratedLabels are 0 to "
            f"{self.num_classes - 1}. Set `num_classes` to the number of classes, or number the labels from 0."
        )

    @torch.no_grad()
    def predict(self, critic: AbstractCritic, x: Tensor) -> Tensor:
        """The label with the highest score, for each sample.

        At the optimum the score is log p(y | x) / q(y) plus a constant: with the uniform prior it is the likeliest
        label, with another one the label that x speaks for most, whatever its frequency.

        Args:
            critic: Gives T(x, y).
            x: (N, D) representations.

        Returns:
            (N,) int64 labels.

        Example:
            >>> from lightning_mi import critics
            >>> EnumeratedLabels(3).predict(critics.LabelCritic(), torch.tensor([[0.0, 2.0, 1.0]]))
            tensor([1])
        """
        return self._all_scores(critic, x).argmax(dim=1)

    def _all_scores(self, critic: AbstractCritic, x: Tensor) -> Tensor:
        scored = critic
        while isinstance(scored, Calibrated):
            scored = scored.critic
        # A LabelCritic would silently leave outputs beyond num_classes out.
        if isinstance(scored, LabelCritic) and x.shape[1:] != (self.num_classes,):
            raise ValueError(
                f"Got x of shape {tuple(x.shape)}: the encoder has {x.shape[-1]} outputs for the {self.num_classes} "
                f"labels of EnumeratedLabels. Give it {self.num_classes} outputs, or set `num_classes`."
            )
        matrix = critic.pairwise(x, torch.arange(self.num_classes, device=x.device))
        if matrix.shape != (len(x), self.num_classes):
            raise ValueError(
                f"{type(critic).__name__} gave scores of shape {tuple(matrix.shape)} for x of shape {tuple(x.shape)} "
                f"and {self.num_classes} labels: EnumeratedLabels takes one for each label, "
                f"({len(x)}, {self.num_classes}). The encoder has {x.shape[-1]} outputs; use LabelCritic with one for "
                "each label, or a critic that embeds labels."
            )
        return matrix


def _check_prior(prior: Sequence[float] | Tensor, num_classes: int) -> Tensor:
    law = torch.as_tensor(prior, dtype=torch.float64, device="cpu").detach()
    if law.shape != (num_classes,):
        raise ValueError(
            f"Got a prior of shape {tuple(law.shape)} for {num_classes} classes: it gives each label its probability, "
            f"({num_classes},)."
        )
    if not bool((law.isfinite() & (law >= 0)).all()):
        raise ValueError(f"Got the prior {law.tolist()}: probabilities are finite and not negative.")
    if abs(float(law.sum()) - 1) > 1e-4:
        raise ValueError(
            f"Got a prior that sums to {float(law.sum()):g}: probabilities sum to 1. Divide counts by their sum."
        )
    return law / law.sum()  # What is left is rounding, as of probabilities in float32.

"""Samples against all labels: the label marginal without sampling noise."""

import math
from collections.abc import Sequence
from typing import ClassVar, Literal, final

import torch
from torch import Tensor

from lightning_mi.bounds import AbstractBound
from lightning_mi.critics import AbstractCritic, CalibratedCritic, LabelCritic
from lightning_mi.pairs.base import AbstractPairing, check_count
from lightning_mi.pairs.known_law import cross_entropy, known_counts, known_mi
from lightning_mi.scores.global_counts import GlobalCounts
from lightning_mi.scores.scores import Scores
from lightning_mi.utilities.distributed import all_gather_rows, world_size
from lightning_mi.utilities.numerics import upcast


@final
class EnumeratedLabels(AbstractPairing):
    r"""A sample and its label are a joint pair; a sample and each of the C labels are marginal pairs, weighted by p(y).

    E_Q runs over the labels instead of sampling them, so all of its noise comes from x, and a batch of one is enough.
    The critic scores x against the labels 0..C-1: :class:`~lightning_mi.critics.LabelCritic` for a classifier's
    outputs. They are also the candidates that a learned baseline of TUBA sees, as in ``nn.Embedding(C, 1)``. For
    InfoNCE a row is a sample against all labels, so it cannot read more than the mean of -log q(label), which is log C
    where q is uniform.

    With a prior q(y) the critic's optimum is :math:`\log p(y | x) / q(y)`, up to a constant for bounds that leave it
    free, and what is estimated is

    .. math:: E_P\Big[\log \frac{p(y | x)}{q(y)}\Big] = I(X; Y) + \mathrm{KL}(p(y) \| q(y)),

    which is at most :math:`-\sum_y p(y) \log q(y)`. That is I(X; Y) only if q is the law p(y) of the labels. So by
    default q is the frequencies of the training labels. If the trainer's data module knows them
    (``class_counts("train")``), they are set at the start of a fit. Otherwise the labels of each batch in training
    mode are counted, on all ranks together, before the batch is scored. Evaluation mode uses the counts of training.
    They are in the state dict. In the sanity check before the first batch nothing is counted yet: there, q is uniform.

    Source: Choi and Lee 2022.

    Args:
        num_classes: C.
        prior: (C,) the probability of each label, q(y); ``"uniform"`` for 1/C each; by default the frequencies of the
            training labels. A label may have probability 0 if no sample has that label.
        gather: As in :class:`AbstractPairing`.

    Attributes:
        label_counts: (C,) int64, the training labels of each class; None if a prior is given.

    Raises:
        TypeError: The labels are not integers.
        ValueError: The prior is not a law of C labels; a label is not in 0..C-1, has prior 0, or there is not one for
            each sample; in evaluation mode no prior is given and no training label was counted; the critic gives no C
            scores for each sample.

    Example:
        >>> from lightning_mi import bounds, critics
        >>> labels = torch.tensor([2, 0, 2, 1, 0, 1])
        >>> pairing = EnumeratedLabels(3)
        >>> scores = pairing(critics.LabelCritic(), 99 * torch.eye(3)[labels], labels)
        >>> scores.num_joint, scores.num_marginal, pairing.label_counts
        (6, 18, tensor([2, 2, 2]))
        >>> bounds.DV()(scores).value  # log 3
        tensor(1.0986)
    """

    num_views: ClassVar[int | None] = 1
    takes_labels: ClassVar[bool] = True

    label_counts: Tensor | None
    is_counting: Tensor

    def __init__(
        self,
        num_classes: int,
        prior: Literal["uniform"] | Sequence[float] | Tensor | None = None,
        gather: bool = True,
    ) -> None:
        super().__init__(gather)
        if num_classes < 2:
            raise ValueError(f"Got num_classes={num_classes}: a label tells something where there are two or more.")
        self.num_classes = num_classes
        # Not a buffer, which half-precision training would round; on the processor, where float64 always is.
        self._log_prior = None if prior is None else _check_prior(prior, num_classes).log()
        self._in_fit = False
        self.register_buffer("label_counts", None)
        if prior is None:
            self.register_buffer("label_counts", torch.zeros(num_classes, dtype=torch.int64))
            # False where a data module gave all counts. A factor, so that no step waits for the device.
            self.register_buffer("is_counting", torch.ones((), dtype=torch.bool))

    def prepare(self, data: object) -> None:
        """Take the counts of the training labels from a data module that knows them; otherwise count in training."""
        self._in_fit = True
        if self.label_counts is None:
            return
        counts = known_counts(data, "train")
        if counts is not None:
            self.label_counts.copy_(counts)
        elif not self.is_counting:  # they are those of other data
            self.label_counts.zero_()
        self.is_counting.fill_(counts is None)

    def true_value(self, data: object, bound: AbstractBound) -> float | None:
        """I(X; Y) + KL(p || q), for the law p of the labels in the split in force.

        Without ``class_counts`` it is known only if q is counted, and then as I(X; Y).
        """
        mi, counts, prior = known_mi(data), known_counts(data), self._prior()
        if mi is None or prior is None:
            return None
        if counts is None:
            return mi if self.label_counts is not None else None
        law = counts / counts.sum()
        return mi + cross_entropy(law, prior) - cross_entropy(law, law)

    def max_value(self, data: object, bound: AbstractBound) -> float:
        """-sum_y p(y) log q(y), whatever x tells of its label."""
        counts, prior = known_counts(data), self._prior()
        if counts is None or prior is None:
            return super().max_value(data, bound)
        return cross_entropy(counts / counts.sum(), prior)

    def forward(self, critic: AbstractCritic, *views: Tensor) -> Scores:
        """Scores of x (N, D), of labels (N,), against all labels."""
        check_count(views, "x", "labels", pairing="EnumeratedLabels")
        x, labels = views
        share, labels = self.labeled_share(x, labels)
        matrix = self._all_scores(critic, x)
        joint = labels.unsqueeze(1) == torch.arange(self.num_classes, device=x.device)
        if self.training and self.label_counts is not None:
            self._count(joint.sum(dim=0), self.label_counts)
        rows, classes = share.total, self.num_classes
        return Scores.from_matrix(
            matrix,
            joint=joint,
            marginal=torch.ones_like(matrix, dtype=torch.bool),
            log_weights=self._log_weights(matrix, counted=self.training),
            y=torch.arange(self.num_classes, device=x.device),
            pooled=share.pooled and GlobalCounts(rows, rows * classes, rows, classes, len(share.counts)),
        )

    def check_labels(self, labels: Tensor) -> Tensor:
        """The labels, or a ValueError if one has prior 0."""
        if self.training and self.label_counts is not None:
            return labels  # which are counted before they are scored
        impossible = self._log_weights(torch.empty(0, device=labels.device)) == -math.inf
        if not bool(impossible.any()) or not bool((outside := impossible.to(labels.device)[labels]).any()):
            return labels
        position = int(outside.nonzero()[0, 0])
        found = f"Got label {int(labels[position])} at position {position}, to which the prior gives probability 0: "
        raise ValueError(
            f"{found}no training label was in that class, and the value would be infinite. Train on all classes, or "
            "give `prior`."
            if self._log_prior is None
            else f"{found}the value would be infinite. Give every label that occurs a positive probability."
        )

    @torch.no_grad()
    def predict(self, critic: AbstractCritic, x: Tensor) -> Tensor:
        """The likeliest label of each sample: the highest score plus log q(y).

        At the optimum the score is log p(y | x) / q(y) plus a constant, so the sum is log p(y | x) plus a constant.

        Args:
            critic: Gives T(x, y).
            x: (N, D) representations.

        Returns:
            (N,) int64 labels.

        Example:
            >>> from lightning_mi import critics
            >>> x = torch.tensor([[0.0, 2.0, 1.0]])
            >>> EnumeratedLabels(3, prior="uniform").predict(critics.LabelCritic(), x)
            tensor([1])
            >>> EnumeratedLabels(3, prior=[0.1, 0.1, 0.8]).predict(critics.LabelCritic(), x)
            tensor([2])
        """
        scores = upcast(self._all_scores(critic, x))
        return (scores + self._log_weights(scores).to(scores)).argmax(dim=1)

    def _count(self, counts: Tensor, total: Tensor) -> None:
        """Add the labels of a batch, of all ranks, to the counts."""
        if world_size() > 1 and bool(self.is_counting):  # the same on all ranks
            counts = all_gather_rows(counts.unsqueeze(0)).sum(dim=0)
        total += counts.to(total.device) * self.is_counting

    def _prior(self) -> Tensor | None:
        """(C,) q(y) in float64 on the CPU; None where nothing was counted."""
        if self._log_prior is not None:
            return self._log_prior.exp()
        assert self.label_counts is not None
        counts = self.label_counts.double().cpu()
        return counts / counts.sum() if counts.sum() > 0 else None

    def _log_weights(self, like: Tensor, counted: bool = False) -> Tensor:
        """(C,) log q(y): a given prior as it is, one of counts in the type and on the device of scores.

        Args:
            like: Scores.
            counted: There are counts for certain, which saves a host-device sync.
        """
        if self._log_prior is not None:
            return self._log_prior
        assert self.label_counts is not None
        counts = self.label_counts.to(like.device, upcast(like).dtype)
        if not counted and not bool(counts.any()):
            if not self._in_fit:
                raise ValueError(
                    "EnumeratedLabels has prior=None, the frequencies of the training labels, and has seen no training "
                    "label. Train first, load a trained checkpoint, or give `prior`: the probabilities of the labels, "
                    'or "uniform".'
                )
            counts = torch.ones_like(counts)
        return counts.log() - counts.sum().log()

    def _all_scores(self, critic: AbstractCritic, x: Tensor) -> Tensor:
        scored = critic
        while isinstance(scored, CalibratedCritic):
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


def _check_prior(prior: str | Sequence[float] | Tensor, num_classes: int) -> Tensor:
    if isinstance(prior, str):
        if prior != "uniform":
            raise ValueError(f'Got prior={prior!r}: it is "uniform", the probability of each label, or None.')
        return torch.full((num_classes,), 1 / num_classes, dtype=torch.float64)
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

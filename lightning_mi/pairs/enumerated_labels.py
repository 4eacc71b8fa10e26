"""EnumeratedLabels: each sample against all labels, with the exact label marginal."""

import math
from collections.abc import Sequence
from typing import ClassVar, Literal, final

import torch
from torch import Tensor

from lightning_mi.bounds import AbstractBound
from lightning_mi.critics import AbstractCritic, CalibratedCritic, LabelCritic
from lightning_mi.pairs._batch_checks import check_not_empty, check_num_views
from lightning_mi.pairs._label_prior import check_prior
from lightning_mi.pairs.base import AbstractPairing
from lightning_mi.pairs.known_law import cross_entropy, known_counts, known_mi
from lightning_mi.scores.global_counts import GlobalCounts
from lightning_mi.scores.scores import Scores
from lightning_mi.utilities.checks import check_whole
from lightning_mi.utilities.distributed import all_gather_rows, world_size
from lightning_mi.utilities.numerics import upcast


@final
class EnumeratedLabels(AbstractPairing):
    r"""A sample and its label are a joint pair; a sample and each of the C labels are marginal pairs of weight q(y).

    E_Q is exact over the labels, so its only noise comes from x, and a batch of one sample is sufficient. The critic
    scores x against the labels 0..C-1: :class:`~lightning_mi.critics.LabelCritic` for the outputs of a classifier. The
    labels are also the candidates of TUBA's learned baseline, for example ``nn.Embedding(C, 1)``. For InfoNCE a row is
    a sample against all labels, so its value is at most the mean of -log q(label): log C for a uniform q.

    With a prior q(y) the optimal critic is :math:`\log p(y | x) / q(y)`, for some bounds plus any constant, and the
    estimated quantity is

    .. math:: E_P\Big[\log \frac{p(y | x)}{q(y)}\Big] = I(X; Y) + \mathrm{KL}(p(y) \| q(y)),

    at most :math:`-\sum_y p(y) \log q(y)`. It is I(X; Y) only if q is the law p(y) of the labels. So by default q is
    the frequencies of the training labels. If the data module has a method ``class_counts``, they are set at the start
    of a fit. Otherwise the labels of each training batch are counted over all ranks before the
    batch is scored. Evaluation mode uses the training counts, which are in the state dict. In the sanity check before
    the first batch there are no counts, and q is uniform.

    Source: Choi and Lee 2022.

    Args:
        num_classes: C, at least 2.
        prior: (C,) the probabilities q(y); ``"uniform"`` for 1/C each; by default the frequencies of the training
            labels. A label may have probability 0 if no sample has it.
        gather: As in :class:`AbstractPairing`.

    Attributes:
        label_counts: (C,) int64, the number of training labels of each class; None if a prior is given.

    Raises:
        TypeError: The labels are not integers.
        ValueError: The prior is not a law of C labels; a label is outside 0..C-1 or has prior 0; the number of labels
            differs from that of samples; the critic does not give C scores for each sample; or, in evaluation mode, no
            prior is given and no training label was counted.

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
        *,
        gather: bool = True,
    ) -> None:
        super().__init__(gather=gather)
        check_whole("num_classes", num_classes, 2)
        self.num_classes = num_classes
        # Not a buffer, which half-precision training would round; on the CPU, which always has float64.
        self._log_prior = None if prior is None else check_prior(prior, num_classes).log()
        self._in_fit = False
        self.register_buffer("label_counts", None)
        if prior is None:
            self.register_buffer("label_counts", torch.zeros(num_classes, dtype=torch.int64))
            # False if a data module gave the counts. It multiplies the counts of a batch: no host-device sync.
            self.register_buffer("is_counting", torch.ones((), dtype=torch.bool))

    def prepare(self, data: object) -> None:
        """Set the counts of training labels if the data module provides them; otherwise count them in training."""
        self._in_fit = True
        if self.label_counts is None:
            return
        counts = known_counts(data, "train")
        if counts is not None:
            self.label_counts.copy_(counts)
        elif not self.is_counting:  # the counts are those of other data
            self.label_counts.zero_()
        self.is_counting.fill_(counts is None)

    def true_value(self, data: object, bound: AbstractBound) -> float | None:
        """I(X; Y) + KL(p || q), with p the law of the labels in the current split.

        Without ``class_counts`` it is known only if q is counted in training: then it is I(X; Y).
        """
        mi, counts, prior = known_mi(data), known_counts(data), self._prior()
        if mi is None or prior is None:
            return None
        if counts is None:
            return mi if self.label_counts is not None else None
        law = counts / counts.sum()
        return mi + cross_entropy(law, prior) - cross_entropy(law, law)

    def max_value(self, data: object, bound: AbstractBound) -> float:
        """-sum_y p(y) log q(y), for any x."""
        counts, prior = known_counts(data), self._prior()
        if counts is None or prior is None:
            return super().max_value(data, bound)
        return cross_entropy(counts / counts.sum(), prior)

    def forward(self, critic: AbstractCritic, *views: Tensor) -> Scores:
        """Scores of x (N, D), of labels (N,), against all labels."""
        check_num_views(views, "x", "labels", pairing="EnumeratedLabels")
        x, labels = views
        shard, labels = self.labeled_shard(x, labels)
        check_not_empty(shard)
        matrix = self._all_scores(critic, x)
        joint = labels.unsqueeze(1) == torch.arange(self.num_classes, device=x.device)
        if self.training and self.label_counts is not None:
            self._count(joint.sum(dim=0), self.label_counts)
        rows, classes = shard.total, self.num_classes
        return Scores.from_matrix(
            matrix,
            joint=joint,
            marginal=torch.ones_like(matrix, dtype=torch.bool),
            log_weights=self._log_weights(matrix, counted=self.training),
            y=torch.arange(self.num_classes, device=x.device),
            pooled=shard.pooled and GlobalCounts(rows, rows * classes, rows, classes, len(shard.counts)),
        )

    def check_labels(self, labels: Tensor) -> Tensor:
        """The labels, or a ValueError if one has prior 0."""
        if self.training and self.label_counts is not None:
            return labels  # counted before they are scored, so none has probability 0
        impossible = self._log_weights(torch.empty(0, device=labels.device)) == -math.inf
        if not bool(impossible.any()):
            return labels
        positions = impossible.to(labels.device)[labels].nonzero()
        if len(positions) == 0:
            return labels
        position = int(positions[0, 0])
        problem = f"Got label {int(labels[position])} at position {position}, with prior probability 0"
        if self._log_prior is None:
            raise ValueError(f"{problem}: no training label was in its class. Train on all classes, or give `prior`.")
        raise ValueError(f"{problem}: the value would be infinite. Give each label of the data a positive probability.")

    @torch.no_grad()
    def predict(self, critic: AbstractCritic, x: Tensor) -> Tensor:
        """The most probable label of each sample: the argmax of score plus log q(y).

        At the optimum the score is log p(y | x) / q(y) plus a constant, so the sum is log p(y | x) plus a constant.

        Args:
            critic: T(x, y).
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
        """(C,) q(y) in float64 on the CPU; None before any label is counted."""
        if self._log_prior is not None:
            return self._log_prior.exp()
        assert self.label_counts is not None
        counts = self.label_counts.double().cpu()
        return counts / counts.sum() if counts.sum() > 0 else None

    def _log_weights(self, like: Tensor, counted: bool = False) -> Tensor:
        """(C,) log q(y): a given prior unchanged, frequencies in the dtype and on the device of scores.

        Args:
            like: Scores.
            counted: Labels have been counted, so that no check with a host-device sync is needed.
        """
        if self._log_prior is not None:
            return self._log_prior
        assert self.label_counts is not None
        counts = self.label_counts.to(like.device, upcast(like).dtype)
        if not counted and not bool(counts.any()):
            if not self._in_fit:
                raise ValueError(
                    "Got prior=None, the frequencies of the training labels, but no training label was counted. Train "
                    'first, load a trained checkpoint, or give `prior`: the probabilities of the labels, or "uniform".'
                )
            counts = torch.ones_like(counts)
        return counts.log() - counts.sum().log()

    def _all_scores(self, critic: AbstractCritic, x: Tensor) -> Tensor:
        inner = critic
        while isinstance(inner, CalibratedCritic):
            inner = inner.critic
        # A LabelCritic would silently ignore outputs beyond num_classes.
        if isinstance(inner, LabelCritic) and inner.network is None and x.shape[1:] != (self.num_classes,):
            raise ValueError(
                f"Got x of shape {tuple(x.shape)}: the encoder has {x.shape[-1]} outputs for the {self.num_classes} "
                f"labels of EnumeratedLabels. Give it {self.num_classes} outputs, or set `num_classes`."
            )
        matrix = critic.pairwise(x, torch.arange(self.num_classes, device=x.device))
        if matrix.shape != (len(x), self.num_classes):
            raise ValueError(
                f"{type(critic).__name__} gave scores of shape {tuple(matrix.shape)} for x of shape {tuple(x.shape)} "
                f"and {self.num_classes} labels: EnumeratedLabels needs one for each label, "
                f"({len(x)}, {self.num_classes}). The encoder has {x.shape[-1]} outputs; use LabelCritic with one for "
                "each label, or a critic that embeds labels."
            )
        return matrix

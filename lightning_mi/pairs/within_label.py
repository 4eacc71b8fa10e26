"""WithinLabel: marginal pairs of samples with the same label, for the conditional mutual information."""

from typing import ClassVar, final

import torch
from torch import Tensor

from lightning_mi.critics import AbstractCritic
from lightning_mi.pairs._batch_checks import check_batch_size, check_num_views
from lightning_mi.pairs._shuffles import random_cycles
from lightning_mi.pairs.base import AbstractPairing
from lightning_mi.scores.scores import Scores


@final
class WithinLabel(AbstractPairing):
    r"""Row i of x and row i of y are a joint pair; marginal pairs come from a shuffle of y among samples of one label.

    Joint pairs have the law p(x, y, z), marginal pairs p(z) p(x | z) p(y | z). The divergence of the two is the
    conditional mutual information I(x; y | z), with z the label. **The critic must see the label** for this: append it
    to y, as one-hot columns or an embedding; without it, the value is at most I(x; y | z), and less if the dependence
    differs between labels.

    The shuffle has no fixed points: it is a random cycle of the samples of each label. A sample that is alone with its
    label has no pairs. It has no rows, so InfoNCE cannot use it. Each rank shuffles its local samples, and means run
    over the pairs of all ranks.

    Args:
        gather: As in :class:`AbstractPairing`.

    Raises:
        TypeError: The labels are not integers.
        ValueError: A training batch has no two samples with the same label, or views and labels differ in length.

    Source: Cover and Thomas 2006, chapter 2 (conditional mutual information).

    Example:
        >>> import torch
        >>> from lightning_mi import critics
        >>> labels = torch.tensor([0, 1, 0, 2])
        >>> scores = WithinLabel()(critics.InnerProductCritic(), torch.eye(4), torch.eye(4), labels)
        >>> scores.num_joint, scores.num_marginal  # samples 0 and 2
        (2, 2)
    """

    num_views: ClassVar[int | None] = 2
    takes_labels: ClassVar[bool] = True

    def forward(self, critic: AbstractCritic, *views: Tensor) -> Scores:
        """Scores of x (N, Dx) with y (N, Dy), and with y shuffled among samples of the same label (N,)."""
        check_num_views(views, "x", "y", "labels", pairing="WithinLabel")
        x, y, given = views
        shard, labels = self.labeled_shard(x, given, y)
        check_batch_size(shard, self.training)
        shuffle = random_cycles(labels)
        has_partner = (shuffle != torch.arange(len(shuffle), device=shuffle.device)).nonzero().squeeze(1)
        shuffle = shuffle[has_partner]
        return Scores.from_samples(
            critic.paired(x[has_partner], y[has_partner]),
            critic.paired(x[has_partner], y[shuffle]),
            y=y,
            joint_columns=has_partner,
            marginal_columns=shuffle,
            allow_no_marginal=not self.training,
            pooled=shard.pooled,
        )

    def check_labels(self, labels: Tensor) -> Tensor:
        """The labels, (N,); raise a ValueError if each occurs once."""
        if len(labels) and len(torch.unique(labels)) == len(labels):
            raise ValueError(
                f"Got {len(labels)} samples of as many labels: WithinLabel pairs samples with the same label. "
                "Raise the batch size, or use labels that occur more often."
            )
        return labels

    def true_value(self, data: object, bound: object) -> float | None:
        """Unknown: the data modules with known MI state no conditional one."""
        del data, bound
        return None

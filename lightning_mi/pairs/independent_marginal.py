"""IndependentMarginal: marginal pairs that the batch brings."""

from typing import ClassVar, final

import torch
from torch import Tensor

from lightning_mi.critics import AbstractCritic
from lightning_mi.pairs.base import AbstractPairing, check_count
from lightning_mi.scores.global_counts import GlobalCounts
from lightning_mi.scores.scores import Scores


@final
class IndependentMarginal(AbstractPairing):
    """The batch brings its own marginal pairs: views x, y of joint pairs and x', y' of independently drawn ones.

    Without rows: InfoNCE cannot use it. Averages run over the pairs of all processes.

    Raises:
        ValueError: x and y, or x' and y', differ in length, or there are not four views.

    Example:
        >>> from lightning_mi import critics
        >>> x = torch.ones(4, 2)
        >>> IndependentMarginal()(critics.InnerProductCritic(), x, x, x[:3], x[:3]).num_marginal
        3
    """

    num_views: ClassVar[int | None] = 4

    def forward(self, critic: AbstractCritic, *views: Tensor) -> Scores:
        """Scores of x (N, Dx) with y (N, Dy), and of x' (K, Dx) with y' (K, Dy)."""
        names = ("x", "y", "x_marginal", "y_marginal")
        check_count(views, *names, pairing="IndependentMarginal")
        for first, second in (0, 2), (1, 3):
            _check_alike(names[first], views[first], names[second], views[second])
        share, _, marginal, _ = self.shares(*views)
        x, y, x_marginal, y_marginal = views
        pooled = share.pooled and GlobalCounts(
            share.total, marginal.total, marginal.total, world_size=len(share.counts)
        )
        return Scores.from_samples(
            critic.paired(x, y),
            critic.paired(x_marginal, y_marginal),
            y=torch.cat([y, y_marginal]),
            pooled=pooled,
        )


def _check_alike(name: str, view: Tensor, marginal_name: str, marginal: Tensor) -> None:
    """Check that independent samples are of the type and width of the joint ones."""
    if marginal.shape[1:] != view.shape[1:]:
        raise ValueError(
            f"Got {name} of shape {tuple(view.shape)} and {marginal_name} of shape {tuple(marginal.shape)}: both are "
            "samples of one variable, so they differ in length alone. Check the order of the batch: x, y, x', y'."
        )
    if marginal.dtype != view.dtype:
        raise TypeError(
            f"Got {name} of type {view.dtype} and {marginal_name} of type {marginal.dtype}: both are samples of one "
            f"variable. Write {marginal_name}.to({view.dtype})."
        )

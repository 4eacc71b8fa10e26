"""Outputs of ``predict_step``: representations, pointwise mutual information, or both."""

from collections.abc import Callable, Sequence
from typing import Literal, final

import torch
from torch import Tensor

from lightning_mi.bounds import AbstractBound
from lightning_mi.scores.scores import Scores
from lightning_mi.training.finite_checks import view_name

Prediction = Literal["features", "pmi", "both"]


def name_features(representations: Sequence[Tensor]) -> dict[str, Tensor]:
    """Representations by the name of their view.

    Example:
        >>> list(name_features([torch.zeros(2, 3)] * 5))
        ['x', 'y', 'x_marginal', 'y_marginal', 'view_4']
    """
    names = [view_name(position) for position in range(len(representations))]
    return {f"view_{name}" if name.isdigit() else name: t for name, t in zip(names, representations, strict=True)}


@final
class PointwiseMI:
    """Pointwise mutual information of the joint pairs, for consecutive batches.

    It is normalized by the marginal pairs of the batch. A batch of one sample has none: it is appended to the previous
    batch of its data loader.

    Example:
        >>> PointwiseMI().clear()
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Drop the previous batch."""
        self._loader, self._previous = 0, []  # type: tuple[int, list[Tensor]]

    def __call__(
        self,
        views: Sequence[Tensor],
        score: Callable[..., Scores],
        bound: AbstractBound,
        batch_idx: int,
        dataloader_idx: int,
    ) -> Tensor:
        """The log density ratio of each joint pair, log p(x, y) / (p(x) p(y)), up to the critic's error.

        Args:
            views: Representations, then labels if the pairing takes them.
            score: Returns the scores of views.
            bound: Turns scores into log density ratios.
            batch_idx: Index of the batch in its data loader.
            dataloader_idx: Index of the data loader.

        Returns:
            (J,) nats.

        Raises:
            ValueError: Neither this batch nor the previous one has marginal pairs.
        """
        scores = score(*views)
        if scores.num_marginal or not scores.num_joint:
            self._loader, self._previous = dataloader_idx, [view.detach() for view in views]
            return bound.log_ratio(scores)
        if batch_idx == 0 or self._loader != dataloader_idx or not self._previous:
            raise ValueError(
                "Got a batch without marginal pairs to predict, and no previous batch in its data loader: pointwise "
                "mutual information is normalized by the scores of marginal pairs. Raise the batch size to two or more."
            )
        ratios = bound.log_ratio(score(*map(torch.cat, zip(self._previous, views, strict=True))))
        # One block of joint pairs, or one for each view. In each block, the pairs of this batch come last.
        count = len(views[0])
        return ratios.view(scores.num_joint // count, -1)[:, -count:].flatten()

"""What every pairing has in common, and the checks that several share."""

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from lightning_mi.critics import AbstractCritic
from lightning_mi.scores import Scores


class AbstractPairing(nn.Module, ABC):
    """Turns the representations of a batch into scores of joint and marginal pairs.

    Attributes:
        num_views: How many leading entries of a batch are views, to be encoded; None if all are.
        takes_labels: Whether the labels, the entry after the views, are passed on after the representations.
    """

    num_views: ClassVar[int | None] = None
    takes_labels: ClassVar[bool] = False

    @abstractmethod
    def forward(self, critic: AbstractCritic, *views: Tensor) -> Scores:
        """Score the batch.

        Args:
            critic: Gives T(x, y).
            views: The representations, x and y first.
        """


def check_two_or_more(x: Tensor) -> None:
    """Refuse a batch of one.

    Raises:
        ValueError: The batch has one sample.
    """
    if len(x) < 2:
        raise ValueError(
            f"Got a batch of {len(x)}: marginal pairs combine different samples, so a batch holds two or more. "
            "Raise the batch size, or drop the last, smaller batch with `drop_last=True`."
        )

"""What every pairing has in common, and the checks of what it is given."""

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from lightning_mi.critics import AbstractCritic
from lightning_mi.scores import Scores


class AbstractPairing(nn.Module, ABC):
    """Turns the representations of a batch into scores of joint and marginal pairs.

    Attributes:
        num_views: How many views of a batch, its first ones, the encoders turn into representations; None for all.
        takes_labels: The labels of the samples, (N,), follow the representations.
    """

    num_views: ClassVar[int | None] = None
    takes_labels: ClassVar[bool] = False

    @abstractmethod
    def forward(self, critic: AbstractCritic, *views: Tensor) -> Scores:
        """Score the batch.

        Args:
            critic: Gives T(x, y).
            views: The representations, x and y first; then the labels, if the pairing takes them.
        """


def check_views(views: tuple[Tensor, ...], *names: str, pairing: str) -> tuple[Tensor, ...]:
    """As many views as there are names, the first two of them equally long.

    Raises:
        ValueError: There are more or fewer views, or x and y differ in length.
    """
    check_count(views, *names, pairing=pairing)
    x, y = views[0], views[1]
    if len(x) != len(y):
        raise ValueError(f"Got {len(x)} x and {len(y)} y: row i of both is one joint pair, so they are equally long.")
    return views


def check_count(views: tuple[Tensor, ...], *names: str, pairing: str) -> None:
    """Raise a ValueError unless there are as many views as names."""
    if len(views) != len(names):
        raise ValueError(
            f"Got {len(views)} view{'s' * (len(views) != 1)} of the batch: {pairing} takes {len(names)}, "
            f"{', '.join(names)}. Choose another pairing, or override `unpack_batch` to return them."
        )


def check_two_or_more(x: Tensor) -> None:
    """Raise a ValueError unless the batch holds two or more samples."""
    if len(x) < 2:
        raise ValueError(
            f"Got a batch of {len(x)}: marginal pairs combine different samples, so a batch holds two or more. "
            "Raise the batch size, or drop the last, smaller batch with `drop_last=True`."
        )

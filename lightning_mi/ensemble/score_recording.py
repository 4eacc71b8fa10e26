"""A critic's answers, recorded where it is asked and replayed elsewhere."""

from collections.abc import Sequence
from typing import final

from torch import Tensor, nn

from lightning_mi.critics import AbstractCritic
from lightning_mi.pairs import AbstractPairing
from lightning_mi.scores.scores import Scores


@final
class ScoreTensors(nn.Module):
    """What a critic answers to a pairing, as plain tensors: what ``torch.vmap`` can return, where it cannot a Scores.

    Example:
        >>> import torch
        >>> from lightning_mi import critics, pairs
        >>> x = torch.eye(2)
        >>> critic, pairing = critics.InnerProductCritic(), pairs.AllPairs()
        >>> tensors = ScoreTensors(critic, pairing)(x, x)
        >>> replayed(pairing, tensors, x, x).joint
        tensor([1., 1.])
    """

    def __init__(self, critic: AbstractCritic, pairs: AbstractPairing) -> None:
        super().__init__()
        self.critic = critic
        self._pairs = (pairs,)  # in a tuple: its numbers are none of this module's

    def forward(self, *representations: Tensor) -> tuple[Tensor, ...]:
        """The tensors, in the order in which they were asked for."""
        recording = _Recording(self.critic)
        self._pairs[0](recording, *representations)
        return tuple(recording.answers)


def replayed(pairs: AbstractPairing, answers: Sequence[Tensor], *representations: Tensor) -> Scores:
    """The scores that a pairing makes of a critic's answers, as :class:`ScoreTensors` gives them."""
    scores: Scores = pairs(_Replay(answers), *representations)
    return scores


@final
class _Recording(AbstractCritic):
    def __init__(self, critic: AbstractCritic) -> None:
        super().__init__()
        self._critic = critic
        self.answers: list[Tensor] = []

    def paired(self, x: Tensor, y: Tensor) -> Tensor:
        self.answers.append(self._critic.paired(x, y))
        return self.answers[-1]

    def pairwise(self, x: Tensor, y: Tensor) -> Tensor:
        self.answers.append(self._critic.pairwise(x, y))
        return self.answers[-1]


@final
class _Replay(AbstractCritic):
    def __init__(self, answers: Sequence[Tensor]) -> None:
        super().__init__()
        self._answers = iter(answers)

    def paired(self, x: Tensor, y: Tensor) -> Tensor:
        return next(self._answers)

    def pairwise(self, x: Tensor, y: Tensor) -> Tensor:
        return next(self._answers)

"""Record the tensors that a critic returns to a pairing, and replay them: ``torch.vmap`` cannot return a Scores."""

from collections.abc import Sequence
from typing import final

from torch import Tensor, nn

from lightning_mi.critics import AbstractCritic
from lightning_mi.pairs import AbstractPairing
from lightning_mi.scores.scores import Scores


@final
class RecordedScores(nn.Module):
    """A critic and a pairing as a function from representations to plain tensors, for ``torch.vmap``.

    Example:
        >>> import torch
        >>> from lightning_mi import critics, pairs
        >>> x = torch.eye(2)
        >>> critic, pairing = critics.InnerProductCritic(), pairs.AllPairs()
        >>> tensors = RecordedScores(critic, pairing)(x, x)
        >>> replay_scores(pairing, tensors, x, x).joint
        tensor([1., 1.])
    """

    def __init__(self, critic: AbstractCritic, pairs: AbstractPairing) -> None:
        super().__init__()
        self.critic = critic
        self._pairs = (pairs,)  # in a tuple, so that its parameters are not this module's

    def forward(self, *representations: Tensor) -> tuple[Tensor, ...]:
        """The tensors that the critic returned, in the order of the calls."""
        recorder = _Recorder(self.critic)
        self._pairs[0](recorder, *representations)
        return tuple(recorder.returned)


def replay_scores(pairs: AbstractPairing, recorded: Sequence[Tensor], *representations: Tensor) -> Scores:
    """The scores of a pairing whose critic returns the recorded tensors of :class:`RecordedScores`."""
    scores: Scores = pairs(_Replay(recorded), *representations)
    return scores


@final
class _Recorder(AbstractCritic):
    def __init__(self, critic: AbstractCritic) -> None:
        super().__init__()
        self._critic = critic
        self.returned: list[Tensor] = []

    def paired(self, x: Tensor, y: Tensor) -> Tensor:
        self.returned.append(self._critic.paired(x, y))
        return self.returned[-1]

    def pairwise(self, x: Tensor, y: Tensor) -> Tensor:
        self.returned.append(self._critic.pairwise(x, y))
        return self.returned[-1]


@final
class _Replay(AbstractCritic):
    def __init__(self, recorded: Sequence[Tensor]) -> None:
        super().__init__()
        self._recorded = iter(recorded)

    def paired(self, x: Tensor, y: Tensor) -> Tensor:
        return next(self._recorded)

    def pairwise(self, x: Tensor, y: Tensor) -> Tensor:
        return next(self._recorded)

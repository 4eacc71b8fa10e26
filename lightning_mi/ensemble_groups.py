"""How the members of an ensemble take a step: many as one batched critic, or one after the other."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.func import functional_call

from lightning_mi.alike import Stack, alike
from lightning_mi.bounds import BoundTerms
from lightning_mi.critics import JointCritic
from lightning_mi.module import MIEstimationModule
from lightning_mi.numerics import full_precision
from lightning_mi.pairs import AllPairs, IndependentMarginal
from lightning_mi.recorded_scores import ScoreTensors, replayed
from lightning_mi.step_output import StepOutput

Members = Sequence[MIEstimationModule]
Settings = Sequence[dict[str, Any]]
READINGS = (*BoundTerms._fields, "penalty", "loss")


class AbstractGroup(ABC):
    """Members of an ensemble that take a step together.

    Args:
        members: In the order of what :meth:`step` returns.
    """

    def __init__(self, members: Members) -> None:
        self.members = members

    @abstractmethod
    def parameter_groups(self, own: Sequence[Settings]) -> list[dict[str, Any]]:
        """What trains, as an optimizer takes it.

        Args:
            own: The parameter groups of each member's own optimizer.
        """

    @abstractmethod
    def step(self, batch: Any, backward: Callable[[Tensor], Any]) -> tuple[Tensor, Callable[[int], StepOutput]]:
        """Compute the members' gradients on a batch.

        Args:
            batch: As a data module gives it.
            backward: Called with losses; adds to the gradients.

        Returns:
            (G, 7) ``READINGS`` of G members, without gradient, and what gives a member's whole output.
        """


@final
class OneByOne(AbstractGroup):
    """Each member takes its own step: exactly what it would do in a training of its own."""

    def parameter_groups(self, own: Sequence[Settings]) -> list[dict[str, Any]]:
        """The members' own parameters."""
        return [group for groups in own for group in groups]

    def step(self, batch: Any, backward: Callable[[Tensor], Any]) -> tuple[Tensor, Callable[[int], StepOutput]]:
        """Each member's graph is gone before the next is made, so that they meet in the cache and not in memory."""
        outputs = []
        for member in self.members:
            output = member.step(batch)
            backward(output.loss)
            outputs.append(output)
        return torch.stack([_readings(output) for output in outputs]).detach(), outputs.__getitem__


@final
class Batched(AbstractGroup):
    """Members whose critics are alike score a batch in one pass; those whose bounds are alike read it in one.

    Args:
        members: As :func:`grouped` puts them together, those whose bounds are alike one after the other.
    """

    def __init__(self, members: Members) -> None:
        super().__init__(members)
        first = members[0]
        self._critics = Stack([member.critic for member in members])
        self._score = ScoreTensors(first.critic, first.pairs)
        ends = [i for i in range(1, len(members)) if not _read_alike(members[i - 1], members[i])]
        self._readers = [_Readers(members[a:b]) for a, b in pairwise([0, *ends, len(members)])]

    def parameter_groups(self, own: Sequence[Settings]) -> list[dict[str, Any]]:
        """The stacked parameters, one tensor for a layer of all members, under the settings that all share."""
        critics = [p for p in self._critics.parameters.values() if p.requires_grad]
        return [own[0][0] | {"params": critics + [p for readers in self._readers for p in readers.parameters()]}]

    def step(self, batch: Any, backward: Callable[[Tensor], Any]) -> tuple[Tensor, Callable[[int], StepOutput]]:
        """The members' losses have no number in common, so the gradient of their sum is each one's own."""
        representations, _ = self.members[0]._represent(batch, with_labels=False)
        numbers = [{f"critic.{name}": t for name, t in kind.items()} for kind in self._critics.numbers()]

        def score(*numbers: dict[str, Tensor]) -> tuple[Tensor, ...]:
            answers: tuple[Tensor, ...] = functional_call(self._score, numbers, tuple(representations))
            return answers

        answers = torch.vmap(score)(*numbers)
        sizes = [len(readers.members) for readers in self._readers]
        parts = zip(*(torch.split(answer, sizes) for answer in answers), strict=True)
        read = [readers(part, representations) for readers, part in zip(self._readers, parts, strict=True)]
        readings = torch.cat(read)
        backward(readings[:, -1].sum())
        readings = readings.detach()
        detached = [answer.detach() for answer in answers]
        features = representations[0].detach()

        def output(index: int) -> StepOutput:
            member, own = self.members[index], readings[index]
            scores = replayed(member.pairs, [answer[index] for answer in detached], *representations)
            penalty = None if member.regularizer is None else own[-2]
            return StepOutput(scores, BoundTerms(*own[:5]), penalty, own[-1], features, None)

        return readings, output


@final
class _Readers:
    """Bounds that are alike, with their regularizers."""

    def __init__(self, members: Members) -> None:
        self.members = members
        self._module = _Reader(members[0])
        self._stack = Stack([_Reader(member) for member in members]) if len(members) > 1 else None

    def parameters(self) -> list[nn.Parameter]:
        parameters = self._module.parameters() if self._stack is None else self._stack.parameters.values()
        return [p for p in parameters if p.requires_grad]

    def __call__(self, answers: Sequence[Tensor], representations: Sequence[Tensor]) -> Tensor:
        if self._stack is None:
            alone: Tensor = self._module([answer[0] for answer in answers], representations)
            return alone.unsqueeze(0)

        def read(parameters: dict[str, Tensor], buffers: dict[str, Tensor], *answers: Tensor) -> Tensor:
            readings: Tensor = functional_call(self._module, (parameters, buffers), (answers, representations))
            return readings

        readings: Tensor = torch.vmap(read)(*self._stack.numbers(), *answers)
        return readings


@final
class _Reader(nn.Module):
    """What a member makes of its scores."""

    def __init__(self, member: MIEstimationModule) -> None:
        super().__init__()
        self.bound, self.regularizer = member.bound, member.regularizer
        self._pairs, self._loss = member.pairs, (member.loss,)

    def forward(self, answers: Sequence[Tensor], representations: Sequence[Tensor]) -> Tensor:
        scores = replayed(self._pairs, answers, *representations)
        with full_precision(scores.joint.device.type):
            terms = self.bound.terms(scores)
            regularizer = self.regularizer
            penalty = None if regularizer is None else regularizer.penalty(terms.log_normalizer, self.bound)
        loss = self._loss[0](terms, penalty)
        return torch.stack([*terms, torch.zeros_like(loss) if penalty is None else penalty, loss])


def grouped(members: Members, own: Sequence[Settings], batched: bool) -> list[tuple[AbstractGroup, list[int]]]:
    """Groups of members with the places of each group's members among all.

    Args:
        members: Of an ensemble.
        own: The parameter groups of each member's own optimizer.
        batched: Batch members where that is faster.
    """

    def together(i: int, j: int) -> bool:
        return _score_alike(members[i], members[j]) and _settings(own[i]) == _settings(own[j])

    batchable = [i for i in range(len(members)) if batched and _can_be_batched(members[i]) and len(own[i]) == 1]
    groups = [group for group in _classes(batchable, together) if len(group) > 1]
    alone = sorted(set(range(len(members))) - {i for group in groups for i in group})
    made: list[tuple[AbstractGroup, list[int]]] = []
    if alone:
        made.append((OneByOne([members[i] for i in alone]), alone))
    for group in groups:
        kinds = _classes(group, lambda i, j: _read_alike(members[i], members[j]))
        places = [i for kind in kinds for i in kind]
        made.append((Batched([members[i] for i in places]), places))
    return made


def _classes(numbers: Sequence[int], same: Callable[[int, int], bool]) -> list[list[int]]:
    classes: list[list[int]] = []
    for i in numbers:
        found = next((members for members in classes if same(members[0], i)), None)
        if found is None:
            classes.append([i])
        else:
            found.append(i)
    return classes


def _settings(groups: Settings) -> list[dict[str, Any]]:
    return [{name: value for name, value in group.items() if name != "params"} for group in groups]


def _can_be_batched(member: MIEstimationModule) -> bool:
    """Whether vmap takes its step, and is faster: all pairs of many joint critics leave the cache, which is slower."""
    return (
        type(member) is MIEstimationModule
        and isinstance(member.pairs, AllPairs | IndependentMarginal)
        and not (isinstance(member.pairs, AllPairs) and isinstance(member.critic, JointCritic))
        and next(member.encoders.parameters(), None) is None
    )


def _score_alike(one: MIEstimationModule, other: MIEstimationModule) -> bool:
    parts = ("encoders", "critic", "pairs")
    return all(alike(getattr(one, part), getattr(other, part)) for part in parts)


def _read_alike(one: MIEstimationModule, other: MIEstimationModule) -> bool:
    if one.regularizer is None or other.regularizer is None:
        return one.regularizer is other.regularizer and alike(one.bound, other.bound)
    return alike(one.bound, other.bound) and alike(one.regularizer, other.regularizer)


def _readings(output: StepOutput) -> Tensor:
    penalty = torch.zeros_like(output.loss) if output.penalty is None else output.penalty
    return torch.stack([*output.terms, penalty, output.loss])

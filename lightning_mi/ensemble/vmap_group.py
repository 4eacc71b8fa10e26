"""Members of an ensemble as one batched critic."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar, final

import torch
from torch import Tensor, nn
from torch.func import functional_call

from lightning_mi.bounds import AbstractBound, BoundTerms
from lightning_mi.critics import JointCritic
from lightning_mi.ensemble.groups import AbstractGroup, Members, OneByOne, Settings
from lightning_mi.ensemble.module_stack import Stack, same_architecture
from lightning_mi.ensemble.score_recording import ScoreTensors, replayed
from lightning_mi.module import MIEstimationModule
from lightning_mi.pairs import AbstractPairing, AllPairs, IndependentMarginal
from lightning_mi.training.step import StepOutput
from lightning_mi.utilities.numerics import full_precision

_Item = TypeVar("_Item")


@final
class Batched(AbstractGroup):
    """Members whose critics are alike score a batch in one pass; those whose bounds are alike read it in one.

    Args:
        members: As :func:`grouped` orders them: bounds alike in a row, and among those regularizers alike.
    """

    def __init__(self, members: Members) -> None:
        super().__init__(members)
        first = members[0]
        self._critics = Stack([member.critic for member in members])
        self._score = ScoreTensors(first.critic, first.pairs)
        self._readers = [_Readers(same) for same in _classes(members, _same_bound)]

    def parameter_groups(self, own: Sequence[Settings]) -> list[dict[str, Any]]:
        """The stacked parameters, one tensor for a layer of all members, under the settings that all share."""
        critics = [p for p in self._critics.parameters.values() if p.requires_grad]
        return [own[0][0] | {"params": critics + [p for readers in self._readers for p in readers.parameters()]}]

    def step(self, batch: Any, backward: Callable[[Tensor], Any]) -> tuple[Tensor, Callable[[int], StepOutput]]:
        """The members' losses have no number in common, so the gradient of their sum is each one's own."""
        representations, _ = self.members[0]._represent(batch, None)
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
    """Bounds that are alike, with their members' regularizers."""

    def __init__(self, members: Members) -> None:
        self.members = members
        self._terms = _Terms(members[0].bound, members[0].pairs)
        self._stack = Stack([_Terms(member.bound, member.pairs) for member in members])
        self._regularized = _classes(members, _same_regularizer)

    def parameters(self) -> list[nn.Parameter]:
        return [p for p in self._stack.parameters.values() if p.requires_grad]

    def __call__(self, answers: Sequence[Tensor], representations: Sequence[Tensor]) -> Tensor:
        """(B, 7) readings of B members, with gradient."""
        terms = self._read(answers, representations)
        log_normalizers = torch.split(terms[:, -1], [len(members) for members in self._regularized])
        penalties = torch.cat([self._penalize(*some) for some in zip(self._regularized, log_normalizers, strict=True)])
        losses = penalties - terms[:, BoundTerms._fields.index("objective")]
        return torch.cat([terms, penalties.unsqueeze(1), losses.unsqueeze(1)], dim=1)

    def _read(self, answers: Sequence[Tensor], representations: Sequence[Tensor]) -> Tensor:
        """(B, 5) terms."""
        numbers = self._stack.numbers()

        def read(numbers: tuple[dict[str, Tensor], dict[str, Tensor]], *answers: Tensor) -> Tensor:
            # Most bounds have no numbers of their own, and need no call that puts the stack's in their place.
            inputs = (answers, representations)
            terms: Tensor = functional_call(self._terms, numbers, inputs) if any(numbers) else self._terms(*inputs)
            return terms

        if len(self.members) == 1 and not any(numbers):
            return read(numbers, *(answer[0] for answer in answers)).unsqueeze(0)
        terms: Tensor = torch.vmap(read)(numbers, *answers)
        return terms

    def _penalize(self, members: Members, log_normalizers: Tensor) -> Tensor:
        regularizer = members[0].regularizer
        if regularizer is None:
            return torch.zeros_like(log_normalizers)
        penalties: Tensor = torch.vmap(regularizer.penalty)(log_normalizers)
        return penalties


@final
class _Terms(nn.Module):
    """A bound as ``torch.vmap`` takes it: tensors in, a tensor out, no warning."""

    def __init__(self, bound: AbstractBound, pairs: AbstractPairing) -> None:
        super().__init__()
        self.bound = bound
        self._pairs = (pairs,)  # in a tuple: its numbers are none of this module's

    def forward(self, answers: Sequence[Tensor], representations: Sequence[Tensor]) -> Tensor:
        scores = replayed(self._pairs[0], answers, *representations)
        with full_precision(scores.joint.device.type):
            return torch.stack(self.bound.terms(scores))


def grouped(members: Members, own: Sequence[Settings], batched: bool) -> list[tuple[AbstractGroup, list[int]]]:
    """Groups of members with the places of each group's members among all.

    Args:
        members: Of an ensemble.
        own: The parameter groups of each member's own optimizer.
        batched: Batch members where that is faster.
    """

    def together(i: int, j: int) -> bool:
        return _same_critic(members[i], members[j]) and _settings(own[i]) == _settings(own[j])

    batchable = [i for i in range(len(members)) if batched and _can_be_batched(members[i]) and len(own[i]) == 1]
    groups = [group for group in _classes(batchable, together) if len(group) > 1]
    alone = sorted(set(range(len(members))) - {i for group in groups for i in group})
    made: list[tuple[AbstractGroup, list[int]]] = []
    if alone:
        made.append((OneByOne([members[i] for i in alone]), alone))
    for group in groups:
        bounds = _classes(group, lambda i, j: _same_bound(members[i], members[j]))
        kinds = [_classes(kind, lambda i, j: _same_regularizer(members[i], members[j])) for kind in bounds]
        places = [i for same_bound in kinds for same in same_bound for i in same]
        made.append((Batched([members[i] for i in places]), places))
    return made


def _classes(items: Sequence[_Item], same: Callable[[_Item, _Item], bool]) -> list[list[_Item]]:
    classes: list[list[_Item]] = []
    for item in items:
        found = next((members for members in classes if same(members[0], item)), None)
        if found is None:
            classes.append([item])
        else:
            found.append(item)
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


def _same_critic(one: MIEstimationModule, other: MIEstimationModule) -> bool:
    parts = ("encoders", "critic", "pairs")
    return all(same_architecture(getattr(one, part), getattr(other, part)) for part in parts)


def _same_bound(one: MIEstimationModule, other: MIEstimationModule) -> bool:
    return same_architecture(one.bound, other.bound)


def _same_regularizer(one: MIEstimationModule, other: MIEstimationModule) -> bool:
    if one.regularizer is None or other.regularizer is None:
        return one.regularizer is other.regularizer
    return same_architecture(one.regularizer, other.regularizer)

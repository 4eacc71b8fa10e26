"""Ensemble members with identical critics as one group: their critics and bounds run under ``torch.vmap``."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar, final

import torch
from torch import Tensor, nn
from torch.func import functional_call

from lightning_mi.bounds import AbstractBound, BoundTerms
from lightning_mi.critics import JointCritic
from lightning_mi.ensemble.groups import (
    AbstractGroup,
    GroupStep,
    Members,
    ParamGroups,
    SequentialGroup,
    batch_of_member,
)
from lightning_mi.ensemble.module_stack import ModuleStack, same_architecture
from lightning_mi.ensemble.score_recording import RecordedScores, replay_scores
from lightning_mi.module import MIEstimationModule
from lightning_mi.pairs import AbstractPairing, AllPairs, IndependentMarginal
from lightning_mi.training.step import StepOutput
from lightning_mi.utilities.numerics import full_precision

_Item = TypeVar("_Item")


@final
class VmapGroup(AbstractGroup):
    """Members with identical critics: one vmapped pass scores a batch, and one for each kind of bound computes terms.

    Args:
        members: Sorted by bound, and within a bound by regularizer, as :func:`group_members` does.
        separate_batches: As in :class:`AbstractGroup`.
    """

    def __init__(self, members: Members, *, separate_batches: bool = False) -> None:
        super().__init__(members, separate_batches=separate_batches)
        first = members[0]
        self._critics = ModuleStack([member.critic for member in members])
        self._recorded_scores = RecordedScores(first.critic, first.pairs)
        self._bounds = [_BoundStack(part) for part in _partition(members, _same_bound)]

    def param_groups(self, member_groups: Sequence[ParamGroups]) -> list[dict[str, Any]]:
        """One parameter group: the stacked parameters of critics and bounds, with the settings of the first member."""
        bounds = [parameter for stack in self._bounds for parameter in stack.parameters()]
        return [member_groups[0][0] | {"params": self._critics.trainable() + bounds}]

    def step(self, batch: Any, backward: Callable[[Tensor], Any]) -> GroupStep:
        """Compute all gradients in one backward pass: the members share no parameter, so their losses can be summed."""
        representations = self._represent(batch)
        recorded = self._score(representations)
        sizes = [len(stack.members) for stack in self._bounds]
        by_bound = zip(*(torch.split(tensor, sizes) for tensor in (*recorded, *representations)), strict=True)
        parts = [
            stack(tensors[: len(recorded)], tensors[len(recorded) :])
            for stack, tensors in zip(self._bounds, by_bound, strict=True)
        ]
        readings = torch.cat(parts)
        backward(readings[:, -1].sum())
        readings = readings.detach()
        detached = [tensor.detach() for tensor in recorded]

        def output(index: int) -> StepOutput:
            member, values = self.members[index], readings[index]
            views = batch_of_member(representations, index)
            scores = replay_scores(member.pairs, batch_of_member(detached, index), *views)
            penalty = None if member.regularizer is None else values[-2]
            return StepOutput(scores, BoundTerms(*values[:5]), penalty, values[-1], views[0].detach(), None)

        return GroupStep(readings, output)

    def _represent(self, batch: Any) -> list[Tensor]:
        """(K, N, ...) representations of the K members; of a common batch, without copies."""
        first, num_members = self.members[0], len(self.members)
        if not self.separate_batches:
            representations = first._scored_entries(first._encode_batch(batch, None))
            return [view.expand(num_members, *view.shape) for view in representations]
        # The encoders have no parameters: one pass over the rows of all members.
        rows = [entry.flatten(0, 1) for entry in batch]
        representations = first._scored_entries(first._encode_batch(rows, None))
        return [view.reshape(num_members, -1, *view.shape[1:]) for view in representations]

    def _score(self, representations: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """(K, ...) tensors that the K members' critics return to the pairing."""

        def score(parameters: dict[str, Tensor], buffers: dict[str, Tensor], *views: Tensor) -> tuple[Tensor, ...]:
            tensors: tuple[Tensor, ...] = functional_call(self._recorded_scores, (parameters, buffers), views)
            return tensors

        parameters, buffers = self._critics.tensors()
        views = representations if self.separate_batches else [view[0] for view in representations]
        in_dims = (0, 0, *(0 if self.separate_batches else None for _ in views))
        vmapped = torch.vmap(score, in_dims)
        recorded: tuple[Tensor, ...] = vmapped(_prefixed(parameters), _prefixed(buffers), *views)
        return recorded


@final
class _BoundStack:
    """B members with identical bounds, and their regularizers."""

    def __init__(self, members: Members) -> None:
        self.members = members
        self._terms = _Terms(members[0].bound, members[0].pairs)
        self._stack = ModuleStack([_Terms(member.bound, member.pairs) for member in members])
        self._by_regularizer = _partition(members, _same_regularizer)

    def parameters(self) -> list[nn.Parameter]:
        return self._stack.trainable()

    def __call__(self, recorded: Sequence[Tensor], representations: Sequence[Tensor]) -> Tensor:
        """(B, 7) readings with gradient."""
        terms = self._bound_terms(recorded, representations)
        log_normalizers = torch.split(terms[:, -1], [len(members) for members in self._by_regularizer])
        penalties = torch.cat([_penalties(*pair) for pair in zip(self._by_regularizer, log_normalizers, strict=True)])
        losses = penalties - terms[:, BoundTerms._fields.index("objective")]
        return torch.cat([terms, penalties.unsqueeze(1), losses.unsqueeze(1)], dim=1)

    def _bound_terms(self, recorded: Sequence[Tensor], representations: Sequence[Tensor]) -> Tensor:
        """(B, 5) terms."""
        tensors = self._stack.tensors()
        stateless = not any(tensors)  # most bounds: no functional_call is needed

        def compute(
            tensors: tuple[dict[str, Tensor], dict[str, Tensor]], recorded: Sequence[Tensor], views: Sequence[Tensor]
        ) -> Tensor:
            inputs = (recorded, views)
            terms: Tensor = self._terms(*inputs) if stateless else functional_call(self._terms, tensors, inputs)
            return terms

        if len(self.members) == 1 and stateless:
            return compute(tensors, batch_of_member(recorded, 0), batch_of_member(representations, 0)).unsqueeze(0)
        terms: Tensor = torch.vmap(compute)(tensors, tuple(recorded), tuple(representations))
        return terms


@final
class _Terms(nn.Module):
    """A bound as a function of tensors that returns a tensor, without warnings, for ``torch.vmap``."""

    def __init__(self, bound: AbstractBound, pairs: AbstractPairing) -> None:
        super().__init__()
        self.bound = bound
        self._pairs = (pairs,)  # in a tuple, so that its parameters are not this module's

    def forward(self, recorded: Sequence[Tensor], representations: Sequence[Tensor]) -> Tensor:
        scores = replay_scores(self._pairs[0], recorded, *representations)
        with full_precision(scores.joint.device.type):
            return torch.stack(self.bound.terms(scores))


def group_members(
    members: Members, member_groups: Sequence[ParamGroups], batched: bool, separate_batches: bool = False
) -> list[tuple[AbstractGroup, list[int]]]:
    """Groups of members, each with the indices of its members in the ensemble.

    Args:
        members: The members of an ensemble.
        member_groups: The parameter groups of each member's optimizer.
        batched: True to vmap members where that is faster; False for the sequential group alone.
        separate_batches: As in :class:`AbstractGroup`.
    """

    def same_critic(i: int, j: int) -> bool:
        return _same_critic(members[i], members[j]) and _settings(member_groups[i]) == _settings(member_groups[j])

    indices = range(len(members))
    candidates = [i for i in indices if batched and _can_be_vmapped(members[i]) and len(member_groups[i]) == 1]
    vmapped = [group for group in _partition(candidates, same_critic) if len(group) > 1]
    sequential = sorted(set(indices) - {i for group in vmapped for i in group})
    groups: list[tuple[AbstractGroup, list[int]]] = []
    if sequential:
        group_of_rest = SequentialGroup([members[i] for i in sequential], separate_batches=separate_batches)
        groups.append((group_of_rest, sequential))
    for group in vmapped:
        by_bound = _partition(group, lambda i, j: _same_bound(members[i], members[j]))
        by_regularizer = [_partition(part, lambda i, j: _same_regularizer(members[i], members[j])) for part in by_bound]
        ordered = [i for bound in by_regularizer for regularizer in bound for i in regularizer]
        groups.append((VmapGroup([members[i] for i in ordered], separate_batches=separate_batches), ordered))
    return groups


def _penalties(members: Members, log_normalizers: Tensor) -> Tensor:
    """(R,) penalties of R members with identical regularizers."""
    regularizer = members[0].regularizer
    if regularizer is None:
        return torch.zeros_like(log_normalizers)
    penalties: Tensor = torch.vmap(regularizer.penalty)(log_normalizers)
    return penalties


def _prefixed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The critic's tensors, by their names in :class:`RecordedScores`."""
    return {f"critic.{name}": tensor for name, tensor in tensors.items()}


def _partition(items: Sequence[_Item], same: Callable[[_Item, _Item], bool]) -> list[list[_Item]]:
    """Equivalence classes, in the order of their first items."""
    classes: list[list[_Item]] = []
    for item in items:
        found = next((members for members in classes if same(members[0], item)), None)
        if found is None:
            classes.append([item])
        else:
            found.append(item)
    return classes


def _settings(groups: ParamGroups) -> list[dict[str, Any]]:
    return [{name: value for name, value in group.items() if name != "params"} for group in groups]


def _can_be_vmapped(member: MIEstimationModule) -> bool:
    """True if vmap supports the member's step and is faster. All pairs of many joint critics exceed the cache."""
    return (
        type(member) is MIEstimationModule
        and isinstance(member.pairs, AllPairs | IndependentMarginal)
        and not (isinstance(member.pairs, AllPairs) and isinstance(member.critic, JointCritic))
        and not member.critic.is_log_density  # recorded scores have rows of x
        and next(member.encoders.parameters(), None) is None
        and not member.heads
    )


def _same_critic(first: MIEstimationModule, second: MIEstimationModule) -> bool:
    parts = ("encoders", "critic", "pairs")
    return all(same_architecture(getattr(first, part), getattr(second, part)) for part in parts)


def _same_bound(first: MIEstimationModule, second: MIEstimationModule) -> bool:
    return same_architecture(first.bound, second.bound)


def _same_regularizer(first: MIEstimationModule, second: MIEstimationModule) -> bool:
    if first.regularizer is None or second.regularizer is None:
        return first.regularizer is second.regularizer
    return same_architecture(first.regularizer, second.regularizer)

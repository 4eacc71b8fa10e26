"""TimeSteps: the context at each time against representations some steps later."""

from collections.abc import Sequence
from typing import ClassVar, final

import torch
from torch import Tensor

from lightning_mi.critics import AbstractCritic
from lightning_mi.pairs._batch_checks import check_batch_size, check_num_views
from lightning_mi.pairs._rows import AbstractRowPairing, Rows
from lightning_mi.scores.joint_columns import JointColumns
from lightning_mi.utilities.checks import check_whole


@final
class TimeSteps(AbstractRowPairing):
    r"""The context of a sequence at time t and its representation at time t + k are a joint pair.

    The context with representations of **other** sequences, at all times from the smallest offset on, are marginal
    pairs. For InfoNCE a row is one context at one offset; with N sequences of T times and one offset k it has
    (N - 1) (T - k) + 1 candidates. For stationary sequences that are independent of each other, the estimate is
    :math:`I(c_t; z_{t + k})`, averaged over offsets with their numbers of times, T - k, as weights. For sequences that
    are not stationary, times are part of what is estimated: a context that shows its time has information on the time
    of its future.

    **One prediction for each offset.** With several offsets and a context of (N, T, D), all offsets share the critic.
    As in contrastive predictive coding, give the critic one prediction for each offset, (N, T, K, D), in the order of
    the offsets. The matrices :math:`W_k` of its scores :math:`z_{t+k}^\top W_k c_t` are then one layer of the encoder,
    with ``critics.InnerProductCritic()`` and all offsets in one product of matrices::

        self.predict = nn.Linear(context_dim, len(offsets) * dim)
        context = self.predict(context).unflatten(-1, (len(offsets), dim))

    A critic of log-densities is q(context | future).

    **With** ``same_sequence`` other times of the same sequence are marginal pairs too. They depend on the context, so
    their law is not p(c) p(z), and the estimate is not one of the mutual information: it is lower if such pairs
    resemble joint pairs.

    Source: van den Oord et al. 2018.

    Args:
        offsets: The number of steps k ahead, at least 0, or several.
        same_sequence: Other times of the same sequence are marginal pairs too; see above.
        gather: As in :class:`AbstractPairing`.
        tile_bytes: As in :class:`AllPairs`.

    Raises:
        TypeError: An offset is not a whole number.
        ValueError: There is no offset, one is negative, or one occurs twice. In use: an offset is T or more, a view has
            another shape, a training batch has fewer than two sequences, or the number of views is not two.

    Example:
        >>> from lightning_mi import critics
        >>> context, future = torch.ones(4, 10, 8), torch.ones(4, 10, 5)
        >>> scores = TimeSteps(3)(critics.BilinearCritic(8, 5), context, future)
        >>> scores.num_joint, scores.num_candidates  # 4 * 7 and 3 * 7 + 1
        (28, 22)
    """

    num_views: ClassVar[int | None] = 2
    has_ring: ClassVar[bool] = False  # a row is no candidate

    def __init__(
        self,
        offsets: int | Sequence[int] = 1,
        *,
        same_sequence: bool = False,
        gather: bool = True,
        tile_bytes: float | None = None,
    ) -> None:
        super().__init__(gather=gather, tile_bytes=tile_bytes)
        self.offsets = tuple(offsets) if isinstance(offsets, Sequence) else (offsets,)
        for offset in self.offsets:
            check_whole("offset", offset, 0)
        if not self.offsets or len(set(self.offsets)) < len(self.offsets):
            raise ValueError(
                f"Got offsets={self.offsets}: they are one or more different numbers of steps. Write offsets=(1, 2, 4)."
            )
        self.same_sequence = same_sequence

    def arrange(self, critic: AbstractCritic, *views: Tensor) -> Rows:
        """Rows of contexts, (N, T, D) or (N, T, K, D), with futures (N, T, Dz) as candidates."""
        check_num_views(views, "context", "future", pairing="TimeSteps")
        context, future = views
        shard = self.shard(context, future, problem=self._shape_problem(context, future))
        check_batch_size(shard, self.training)
        first, num_times = min(self.offsets), future.shape[1]
        columns_per_sequence = num_times - first
        device = context.device
        start = torch.arange(shard.start, shard.start + len(context), device=device) * columns_per_sequence
        x, joint = [], []
        for index, offset in enumerate(self.offsets):
            at = context if context.ndim == 3 else context[:, :, index]
            # Block by block: all sequences at the first time, then all at the second.
            x.append(at[:, : num_times - offset].transpose(0, 1).flatten(0, 1))
            times = torch.arange(offset - first, columns_per_sequence, device=device)
            joint.append((times.unsqueeze(1) + start).flatten())
        columns = torch.cat(joint)
        excluded = None if self.same_sequence else _other_times(columns, columns_per_sequence)
        num_rows = sum(num_times - offset for offset in self.offsets) * shard.total
        y = shard.gather(future[:, first:]).flatten(0, 1)
        return Rows(torch.cat(x), y, JointColumns(columns, excluded), shard, num_rows)

    def true_value(self, data: object, bound: object) -> float | None:
        """Unknown: data modules state the mutual information of whole views."""
        del data, bound
        return None

    def _shape_problem(self, context: Tensor, future: Tensor) -> ValueError | None:
        count = len(self.offsets)
        if (
            not (context.ndim in (3, 4) and future.ndim == 3)
            or context.shape[1] != future.shape[1]
            or (context.ndim == 4 and context.shape[2] != count)
        ):
            return ValueError(
                f"Got a context of shape {tuple(context.shape)} and a future of shape {tuple(future.shape)}: TimeSteps "
                f"takes (N, T, D), or (N, T, {count}, D) with one prediction for each of its {count} offsets, and "
                "(N, T, Dz), with the same T."
            )
        if max(self.offsets) >= future.shape[1]:
            return ValueError(
                f"Got offset {max(self.offsets)} and sequences of {future.shape[1]} times: no time has a future so far "
                "ahead. Choose an offset below T, or longer sequences."
            )
        return None


def _other_times(joint: Tensor, length: int) -> Tensor:
    """(R, length - 1) the columns of the same sequence as the joint pair's, without it.

    Args:
        joint: (R,) the column of each joint pair.
        length: The number of columns of a sequence.

    Example:
        >>> _other_times(torch.tensor([0, 4]), length=3)
        tensor([[1, 2],
                [3, 5]])
    """
    others = (joint % length).unsqueeze(1) + torch.arange(1, length, device=joint.device)
    return ((joint - joint % length).unsqueeze(1) + others % length).sort(dim=1).values

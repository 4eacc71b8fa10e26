"""SameId: positives by id, as of several captions of one image."""

from typing import Any, ClassVar, final

import torch
from torch import Tensor

from lightning_mi.critics import AbstractCritic
from lightning_mi.pairs._batch_checks import check_batch_size, check_num_views
from lightning_mi.pairs._both_directions import check_has_directions, score_both_directions
from lightning_mi.pairs.base import AbstractPairing
from lightning_mi.scores.batch_shard import BatchShard
from lightning_mi.scores.scores import Scores
from lightning_mi.utilities.distributed import raise_on_all_ranks
from lightning_mi.utilities.labels import is_labels
from lightning_mi.utilities.numerics import upcast


@final
class SameId(AbstractPairing):
    r"""x and y with the same id are joint pairs; with different ids, marginal pairs.

    For data with several views of one item in a batch, such as several captions of one image. Two views with the same
    id are never a marginal pair. As in :class:`TwoTowers`, x is compared with every y, and y with every x: the rows of
    scores are those of each x, then those of each y.

    For InfoNCE each joint pair is compared with the marginal pairs of its row alone, not with the row's other joint
    pairs. Each row averages over its joint pairs, the value is the mean over the rows of one direction, averaged over
    both directions, and it is at most log(1 + K) with K marginal pairs in a row. If no id repeats, it is the value of
    :class:`TwoTowers`. In other bounds, means over joint pairs have the same weights. Rows without a joint pair are
    left out.

    The pairs are those of a batch that shares ids, so the value estimates the mutual information of two views of one
    item, drawn independently among its views in the batch.

    x and y may differ in length. All scores are in memory: there are no tiles. x is never compared with x; for one list
    of views use :class:`SameLabel`, whose rows hold all joint pairs.

    Args:
        gather: As in :class:`AbstractPairing`.

    Raises:
        TypeError: The ids are not integers.
        ValueError: There is not one id for each x and y; a training batch has fewer than two samples, one id only (no
            marginal pair), or no joint pair; or the critic gives log-densities.

    Source: Radford et al. 2021 (both directions).

    Example:
        >>> from lightning_mi import critics
        >>> images, captions = torch.eye(3), torch.eye(3)[[0, 0, 1, 2]]
        >>> ids = torch.tensor([5, 6, 7, 5, 5, 6, 7])  # of 3 images, then of 4 captions
        >>> scores = SameId()(critics.InnerProductCritic(), images, captions, ids)
        >>> scores.num_joint, scores.num_marginal
        (8, 16)
    """

    num_views: ClassVar[int | None] = 2
    takes_labels: ClassVar[bool] = True

    def forward(self, critic: AbstractCritic, *views: Tensor) -> Scores:
        """Scores of all pairs of x (N, Dx) and y (K, Dy).

        Args:
            critic: T(x, y).
            views: x, y and ids: (N,) integers for both if N = K, or (N + K,) for x and then y.
        """
        check_num_views(views, "x", "y", "labels", pairing="SameId")
        check_has_directions(critic, "SameId")
        x, y, given = views
        ids, shards = self._shards(x, y, given)
        self._check_sizes(shards)
        all_x = all_y = None
        all_ids = ids
        if shards[0].pooled:
            (all_x, all_x_ids), (all_y, all_y_ids) = (
                shard.gather_all(view, own) for shard, view, own in zip(shards, (x, y), ids, strict=True)
            )
            all_ids = all_x_ids, all_y_ids
        self._check_ids(*all_ids)
        candidates = None if all_x is None or all_y is None else (all_x, all_y)
        matrix = score_both_directions(critic, (x, y), candidates)
        matrix = matrix if isinstance(matrix, Tensor) else matrix.matrix()
        same, valid = self._masks(ids, all_ids, matrix.shape[1])
        return Scores.from_matrix(
            matrix,
            joint=self._weights(same.to(upcast(matrix).dtype), ids, all_ids),
            marginal=valid & ~same,
            separate_joint=True,
            allow_no_joint=not self.training,
            allow_no_marginal=not self.training,
            pooled=shards[0].pooled,
        )

    def true_value(self, data: object, bound: object) -> float | None:
        """Unknown: the data modules with known MI state none of views that share an id."""
        del data, bound
        return None

    def _shards(self, x: Tensor, y: Tensor, given: Any) -> tuple[tuple[Tensor, Tensor], list[BatchShard]]:
        """The ids of x and of y, and the shards of both; if the check fails on one rank, raise on all."""
        problem, ids = None, (given, given)
        try:
            ids = _split_ids(given, x, y)
        except (TypeError, ValueError) as error:
            problem = error
        if self.training and not self.gather:  # no all-gather of shapes, but DDP's all-reduce of gradients would block
            raise_on_all_ranks(problem, x.device)
        shards = self.shards(x, x, y, y, problem=problem)
        return ids, [shards[0], shards[2]]

    def _check_sizes(self, shards: list[BatchShard]) -> None:
        for shard in shards:
            check_batch_size(shard, self.training)

    def _check_ids(self, x: Tensor, y: Tensor) -> None:
        """Raise a ValueError unless a training batch has joint and marginal pairs; the same on every rank."""
        if not self.training:
            return
        if bool((x == x[0]).all() and (y == x[0]).all()):
            raise ValueError(
                f"Got a batch of {len(x)} x and {len(y)} y that all have id {int(x[0])}: entries of one id are no "
                "marginal pair, so none is left. Raise the batch size, or shuffle the samples."
            )
        if not bool(torch.isin(x, y).any()):
            raise ValueError(
                f"Got {len(x)} x and {len(y)} y without a common id: no two are a joint pair. Give both views of an "
                "item the same id, and put them into one batch."
            )

    def _masks(self, ids: tuple[Tensor, Tensor], all_ids: tuple[Tensor, Tensor], width: int) -> tuple[Tensor, Tensor]:
        """Boolean (N + K, M): whether row and column have the same id, and whether the column is a candidate."""
        (x, y), (all_x, all_y) = ids, all_ids
        same = torch.zeros(len(x) + len(y), width, dtype=torch.bool, device=x.device)
        valid = torch.zeros_like(same)
        for row, candidates, rows in ((x, all_y, slice(len(x))), (y, all_x, slice(len(x), None))):
            same[rows, : len(candidates)] = row.unsqueeze(1) == candidates
            valid[rows, : len(candidates)] = True
        return same, valid

    def _weights(self, same: Tensor, ids: tuple[Tensor, Tensor], all_ids: tuple[Tensor, Tensor]) -> Tensor:
        """Weights of joint pairs: equal rows in each direction, both directions alike, and a sum of all rows."""
        anchors = [torch.isin(own, other).sum() for own, other in (all_ids, all_ids[::-1])]
        in_row = same.sum(dim=1, keepdim=True)
        weights = same / in_row.masked_fill(in_row == 0, 1.0)
        mean = (anchors[0] + anchors[1]).to(weights) / 2
        for count, rows in zip(anchors, (slice(len(ids[0])), slice(len(ids[0]), None)), strict=True):
            weights[rows] *= mean / count.clamp(min=1)
        return weights


def _split_ids(ids: Any, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The ids of x and of y as int64.

    Raises:
        TypeError: The ids are not a tensor of integers.
        ValueError: Their number fits neither one view nor both.
    """
    if not isinstance(ids, Tensor) or ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        kind = str(ids.dtype)[6:] if isinstance(ids, Tensor) else type(ids).__name__
        raise TypeError(
            f"SameId got ids of type {kind}: ids are a tensor of integers, the same for all views of an item. Number "
            "the items of the data set."
        )
    rows, both = len(x), len(x) + len(y)
    if not is_labels(ids) or len(ids) not in ({rows, both} if rows == len(y) else {both}):
        one = f"({rows},) for x and y alike, or " if rows == len(y) else ""
        raise ValueError(
            f"SameId got ids of shape {tuple(ids.shape)} for {rows} x and {len(y)} y: there is one id for each, of "
            f"shape {one}({both},) for x and then y."
        )
    ids = ids.to(x.device).long()
    return (ids, ids) if len(ids) == rows and rows == len(y) else (ids[:rows], ids[rows:])

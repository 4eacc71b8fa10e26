"""LocalGlobal: the features of each location against the global features of every sample."""

from typing import ClassVar, final

import torch
from torch import Tensor

from lightning_mi.critics import AbstractCritic
from lightning_mi.pairs._batch_checks import check_batch_size, check_num_views
from lightning_mi.pairs._rows import AbstractRowPairing, Rows
from lightning_mi.scores.joint_columns import JointColumns


@final
class LocalGlobal(AbstractRowPairing):
    """Each location of a sample and the sample's global features are a joint pair.

    A location with the global features of another sample is a marginal pair: N P joint and N (N - 1) P marginal pairs
    for N samples of P locations. For InfoNCE a row is one location against the global features of all samples, so its
    ceiling is log N, whatever P. (In Deep InfoMax a row is one global vector against locations.)

    A critic of log-densities is q(local | global): it scores a location given global features.

    The estimate is the mutual information of the features of a random location with the global features. It is not
    that of the images, and not a sum over locations. The position of a location is part of x only if the encoder adds
    it.

    The first view holds local features in one of two layouts: (N, D, H, W), as of a convolution, with any number of
    dimensions of space after the features on axis 1; or (N, L, D), as of a transformer, with the features on the last
    axis. For a convolution over one dimension, (N, D, L), write ``local.transpose(1, 2)``. The second view is
    (N, Dy). All samples, on all ranks, have the same number of locations.

    Source: Hjelm et al. 2019.

    Args:
        gather: As in :class:`AbstractPairing`.
        tile_bytes: As in :class:`AllPairs`.

    Raises:
        ValueError: A view has another shape, a training batch has fewer than two samples, the views differ in length,
            there is no location, or the number of views is not two.

    Example:
        >>> from lightning_mi import critics
        >>> local, summary = torch.ones(4, 8, 3, 3), torch.ones(4, 5)
        >>> scores = LocalGlobal()(critics.BilinearCritic(8, 5), local, summary)
        >>> scores.num_joint, scores.num_marginal, scores.num_candidates
        (36, 108, 4)
    """

    num_views: ClassVar[int | None] = 2
    has_ring: ClassVar[bool] = False  # a row is no candidate

    def arrange(self, critic: AbstractCritic, *views: Tensor) -> Rows:
        """Rows of locations, (N, D, H, W) or (N, L, D), with global features (N, Dy) as candidates."""
        check_num_views(views, "local", "global", pairing="LocalGlobal")
        local, summary = views
        shard = self.shard(local, summary, problem=_shape_problem(local, summary))
        check_batch_size(shard, self.training)
        # Block by block: all samples at the first location, then all at the second.
        locations = local.transpose(0, 1) if local.ndim == 3 else local.flatten(2).permute(2, 0, 1)
        joint = torch.arange(shard.start, shard.start + len(local), device=local.device).repeat(len(locations))
        num_rows = len(locations) * shard.total
        return Rows(locations.flatten(0, 1), shard.gather(summary), JointColumns(joint), shard, num_rows)

    def true_value(self, data: object, bound: object) -> float | None:
        """Unknown: data modules state the mutual information of whole views."""
        del data, bound
        return None


def _shape_problem(local: Tensor, summary: Tensor) -> ValueError | None:
    if local.ndim >= 3 and summary.ndim == 2 and 0 not in local.shape[1:]:
        return None
    return ValueError(
        f"Got local features of shape {tuple(local.shape)} and global features of shape {tuple(summary.shape)}: "
        "LocalGlobal takes (N, D, H, W) or (N, L, D), with one location or more, and (N, Dy). Pool the global features "
        "over locations, and do not flatten the local ones."
    )

"""The largest value that InfoNCE can reach on the rows of a batch."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from lightning_mi.scores.checks import check_has_rows
from lightning_mi.scores.layout import Layout


def row_ceiling(
    layout: Layout, num_joint: int, longest_row: int | None, mean_over_joint: Callable[[Tensor], Tensor]
) -> Tensor:
    r"""The largest value of InfoNCE, a scalar in nats: the mean over joint pairs of :math:`-\log (w k)`.

    Let row i have candidates with weights w that sum to 1 and k joint pairs, and let s be the softmax of
    :math:`T + \log w` over the row. A joint pair contributes :math:`T - \log \sum w e^T = \log s - \log w`. The k
    values of s sum to at most 1, so the sum of their logarithms is at most :math:`-k \log k`. The ceiling is log N
    for one joint pair among N candidates, log(N / k) for k of them, and -log q(y) for labels with a prior q.

    Args:
        layout: The pairs.
        num_joint: The number of joint pairs, over all ranks if pooled. If it is 0, the ceiling is that of one joint
            pair in the longest row.
        longest_row: The number of pairs in the longest row; None with unequal weights, which have no upper limit.
        mean_over_joint: Mean of (J,) values, over all ranks if pooled.

    Raises:
        ValueError: There are no rows.
    """
    rows, row_count = check_has_rows(layout.joint_rows), layout.row_count
    if isinstance(row_count, int) or num_joint == 0:  # an int: one joint pair in each row
        return layout.joint.new_tensor(math.inf if longest_row is None else math.log(longest_row))
    if layout.log_weights is None:
        negative_log_w = row_count[rows].to(layout.joint).log()
    else:
        negative_log_w = -layout.log_weights[layout.joint_columns]
    if layout.separate_joint:  # k = 1
        return mean_over_joint(negative_log_w)
    k = torch.zeros_like(row_count).index_add_(0, rows, torch.ones_like(rows))
    return mean_over_joint(negative_log_w - k[rows].to(layout.joint).log())

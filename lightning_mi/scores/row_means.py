"""Means over joint pairs of scores relative to a statistic of their rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from torch import Tensor

from lightning_mi.scores.checks import check_has_rows
from lightning_mi.scores.layout import Layout

RowStatistic = Literal["log_mean_exp", "leave_one_out", "mean"]


def row_means(
    layout: Layout, statistic: RowStatistic, together: Callable[[Callable[[Any], Iterable[Tensor]]], tuple[Tensor, ...]]
) -> tuple[Tensor, Tensor]:
    """Means over joint pairs: of the score minus a statistic of its row, and of the statistic; scalars, nats.

    The difference within each row is more precise than the difference of two means of large scores.

    Args:
        layout: The pairs.
        statistic: ``"log_mean_exp"`` or ``"mean"`` of the row's marginal and joint pairs, or ``"leave_one_out"``, the
            log-mean-exp of its marginal pairs; joint pairs without any in their row are then excluded.
        together: :meth:`Scores.together`.

    Raises:
        ValueError: There are no rows.
    """
    joint_rows, has_marginal = check_has_rows(layout.joint_rows), layout.has_marginal
    if statistic == "mean":
        rows = layout.marginals.row_mean()[joint_rows]
    else:
        rows = layout.joint_row_log_mean_exp(joint=statistic == "log_mean_exp", uniform_upstream=True)
    differences = layout.joint - rows
    if statistic != "leave_one_out" or has_marginal is None:
        difference, row = together(lambda s: (s.mean_over_joint(differences), s.mean_over_joint(rows)))
        return difference, row
    included = has_marginal[joint_rows]
    zero = rows.new_zeros(())
    parts = [torch.where(included, values, zero) for values in (differences, rows, torch.ones_like(rows))]
    difference, row, share = together(lambda s: [s.mean_over_joint(part) for part in parts])
    share = share.masked_fill(share == 0, 1.0)
    return difference / share, row / share

"""Readings: fit a probe to rows and read it on held-out rows; without rows to fit to, by cross-fitting."""

import math
from typing import NamedTuple

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor
from torch.nn import functional as F

from lightning_mi.callbacks.watch.probes import AbstractProbe, CriticProbe, LabelProbe, Rows, fit_probe
from lightning_mi.callbacks.watch.whitening import fit_coordinates, fit_whitening
from lightning_mi.exceptions import MIWarning
from lightning_mi.metrics.moments import Estimate

_FOLDS = 4
_MIN_ROWS = 4  # to fit to, and to read


class Reading(NamedTuple):
    """A held-out estimate of mutual information.

    Attributes:
        value: Nats.
        standard_error: Over held-out samples, for the fitted probe; nats.
        gap: The value on the rows that the probe was fitted to, minus the held-out value; nats.
        limit: The largest value that the samples can show, nats: H(Y) for labels; log n for numbers, where n is the
            number of held-out samples.
        num_fitted: Rows that the probe was fitted to.
        num_held_out: Rows that it was read on.
    """

    value: float
    standard_error: float
    gap: float
    limit: float
    num_fitted: int
    num_held_out: int


def read_pair(fitted: Rows | None, held_out: Rows, *, noise: float, hidden: int, seed: int) -> Reading:
    """Fit a probe and read it.

    Labels are read by a :class:`LabelProbe`, numbers by a :class:`CriticProbe`. NaN if a row is not finite, or with too
    few rows.

    Args:
        fitted: x and y to fit to; None for cross-fitting: each quarter of the held-out rows is read by a probe of the
            other three.
        held_out: x and y to read.
        noise: Deviation of the Gaussian noise that is added to x, in units of the root mean square deviation of the
            features of x.
        hidden: Width of the probes.
        seed: Seed of torch's global generators, which the function draws from.

    Source: McAllester and Stratos 2020 (the limit log n).
    """
    torch.manual_seed(seed)
    held_out, fitted = _with_small_labels(held_out, fitted)
    x, y = _oriented(held_out)
    fit_x, fit_y = (x, y) if fitted is None else _oriented(fitted)
    too_few = min(len(x), len(fit_x)) < _MIN_ROWS
    if too_few or not all(bool(rows.isfinite().all()) for rows in (x, y, fit_x, fit_y)):
        return Reading(math.nan, math.nan, math.nan, math.nan, len(fit_x), len(x))
    if noise:
        deviation = noise * float(fit_x.var(dim=0).mean().sqrt())
        fit_x = fit_x + deviation * torch.randn(fit_x.shape).to(fit_x)
        x = fit_x if fitted is None else x + deviation * torch.randn(x.shape).to(x)
    if fitted is None:
        folds = torch.randperm(len(x)).to(x.device).chunk(_FOLDS)
        others = [torch.cat([f for f in folds if f is not fold]) for fold in folds]
        parts = [
            _fit_and_read((x[rest], y[rest]), (x[fold], y[fold]), hidden)
            for rest, fold in zip(others, folds, strict=True)
        ]
    else:
        parts = [_fit_and_read((fit_x, fit_y), (x, y), hidden)]
    read = [part[0] for part in parts]
    value = sum(float(estimate.value) for estimate in read) / len(read)
    error = math.sqrt(sum(float(estimate.standard_error) ** 2 for estimate in read)) / len(read)
    gap = sum(part[1] for part in parts) / len(parts) - value
    limit = _entropy(y) if y.ndim == 1 else math.log(len(x))
    num_fitted = len(fit_x) if fitted is not None else len(x) - len(x) // _FOLDS
    return Reading(value, error, gap, limit, num_fitted, len(x))


def _with_small_labels(held_out: Rows, fitted: Rows | None) -> tuple[Rows, Rows | None]:
    """Labels as 0 to C - 1: some data sets number few classes by large numbers."""
    parts = [held_out] if fitted is None else [held_out, fitted]
    columns = []
    for column in zip(*parts, strict=True):
        if column[0].ndim == 1:
            classes = torch.unique(torch.cat(column))
            columns.append([torch.searchsorted(classes, labels) for labels in column])
        else:
            columns.append(list(column))
    found = list(zip(*columns, strict=True))
    return found[0], None if fitted is None else found[1]


def _oriented(rows: Rows) -> Rows:
    """Labels, if any, second; a first variable of labels as one-hot rows."""
    x, y = rows
    if x.ndim == 1 and y.ndim > 1:
        x, y = y, x
    return (x if x.ndim > 1 else F.one_hot(x).float()), y


def _fit_and_read(fitted: Rows, held_out: Rows, hidden: int) -> tuple[Estimate, float]:
    """The estimate on held-out rows, and the value on the fitted ones."""
    (fit_x, fit_y), (x, y) = fitted, held_out
    probe: AbstractProbe
    if y.ndim == 1:
        if unknown := len(y) - int(torch.isin(y, fit_y).sum()):
            rank_zero_warn(
                f"Got {unknown} of {len(y)} held-out samples with a label that no fitted sample has: the reading is "
                "too low. Shuffle the training data, or raise buffer=.",
                category=MIWarning,
            )
        whiten = fit_whitening(fit_x)
        fit_x, x = whiten(fit_x), whiten(x)
        probe = LabelProbe(fit_x.shape[1], 1 + int(max(fit_y.max(), y.max())), hidden)
    else:
        x_coordinates, y_coordinates = fit_coordinates(fit_x), fit_coordinates(fit_y)
        fit_x, x, fit_y, y = x_coordinates(fit_x), x_coordinates(x), y_coordinates(fit_y), y_coordinates(y)
        probe = CriticProbe(fit_x.shape[1], fit_y.shape[1], hidden)
    probe = fit_probe(probe.to(fit_x.device), fit_x, fit_y)
    return probe.read(x, y), float(probe.read(fit_x, fit_y).value)


def _entropy(labels: Tensor) -> float:
    law = torch.bincount(labels).double() / len(labels)
    return float(torch.special.entr(law).sum())

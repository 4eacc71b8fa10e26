"""Criteria for drift and explosion of a training, on blocks of its steps; thresholds: docs/monitoring.md."""

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from lightning_mi.bounds import AbstractBound
from lightning_mi.callbacks.stability.trend import Trend, trend
from lightning_mi.callbacks.stability.window import Block

# Chosen on seeds 10 to 19 of the one-hot toy; docs/monitoring.md reports seeds 0 to 4.
RECENT = 10  # blocks in which an explosion is detected
MIN_BLOCKS = 20  # of a window: with fewer, a trend test has too little power
SATURATED = math.log(float(np.finfo(np.float32).max))  # nats, 88.7: its exponential overflows float32
PUSH = 5.0  # gradient weight of the marginal pairs, relative to that at the optimum
MANY_PUSHES = 3  # in the recent blocks
FEW_PAIRS = 1.4  # effective number of marginal pairs
EXCESS = 0.25  # nats above the limit of the estimate; the bias of a healthy small batch is less
STANDARD_ERRORS = 3.0


class Drift(NamedTuple):
    """Trends over a window; rates in nats per 1000 steps.

    Attributes:
        rate: Trend of the log-normalizer.
        value_rate: Trend of the value; NaN if the log-normalizer's trend alone excludes a drift.
        detected: True if joint term and log-normalizer have significant trends of the same sign, above the minimum
            rate, and the value's rate is less than half of the slower one.
    """

    rate: float
    value_rate: float
    detected: bool


def push_above(bound: AbstractBound) -> float:
    """The log-normalizer above which a step of a self-normalized bound counts as a push; nats."""
    return math.log(PUSH) if bound.self_normalized else math.inf


def detect_drift(
    blocks: Sequence[Block], num_blocks: int, min_rate: float, alpha: float, target: float | None
) -> Drift:
    """Mann-Kendall tests for trends of the joint term and of the log-normalizer.

    They run over the whole window and over its last half, quarter, ... down to ``MIN_BLOCKS``. The minimum rate of a
    part is higher in proportion, for the same total change: a fast drift is detected in less than a window.

    Args:
        blocks: The blocks so far, at most a window.
        num_blocks: The number of blocks in a window.
        min_rate: The minimum rate of both terms over a whole window, nats per 1000 steps.
        alpha: Two-sided level of each test. Both must reject, so it bounds the false-alarm rate.
        target: The target of the log-normalizer; a trend towards it is not a drift. None if there is no target.

    Returns:
        The drift over the longest part where one is detected; otherwise the trends over all blocks.
    """
    span, whole = num_blocks, None
    while span >= MIN_BLOCKS:
        if len(blocks) >= span:
            found = _trends(blocks[-span:], min_rate * num_blocks / span, alpha, target)
            if found.detected:
                return found
            whole = found if len(blocks) == span else whole
        span //= 2
    return _trends(blocks, math.inf, alpha, target) if whole is None else whole


def detect_explosion(blocks: Sequence[Block], bound: AbstractBound) -> str | None:
    """Description of the evidence for an explosion in the recent blocks; None if there is none.

    For a bound that is normalized by rows, or whose scores are log-densities, only infinite terms and a value above its
    limit can show an explosion.

    Args:
        blocks: At least one; the last ``RECENT`` are read.
        bound: The bound that is trained.
    """
    recent, last = blocks[-RECENT:], blocks[-1]
    # The highest limit of these blocks: it changes with the distribution and with the batch size.
    limit = max(min(b.limit, b.log_candidates if bound.capped_at_log_n else math.inf) for b in recent)
    if not last.finite:
        return "a term or the loss is infinite or NaN"
    full = len(recent) == RECENT
    if full and (excess := _significant_excess(recent, limit)) > EXCESS:
        mean = sum(block.value for block in recent) / RECENT
        return (
            f"the mean of the values, {mean:.2f} nats, is above {limit:.2f}, the upper limit of the estimate, by more "
            f"than {STANDARD_ERRORS:g} standard errors and {EXCESS:g} nats (excess {excess:.2f})"
        )
    if bound.normalized_by_row or bound.needs_log_density:
        return None
    if (pushes := sum(block.pushes for block in recent)) >= MANY_PUSHES:
        return (
            f"{pushes:.0f} of the last batches have more than {PUSH:g} times the gradient weight of the optimum, "
            "because the exponential of the log-normalizer multiplies the gradient of the marginal pairs"
        )
    if last.score_range > SATURATED:
        return (
            f"the scores span {last.score_range:.0f} nats, more than the {SATURATED:.1f} by which two exponentials can "
            "differ in float32: most pairs no longer count"
        )
    if full and (pairs := sum(block.effective_pairs for block in recent) / RECENT) < FEW_PAIRS:
        return f"the marginal term rests on {pairs:.1f} pairs of each batch (effective sample size)"
    return None


def _trends(blocks: Sequence[Block], min_rate: float, alpha: float, target: float | None) -> Drift:
    times = np.array([block.step for block in blocks]) / 1000
    critical = NormalDist().inv_cdf(1 - alpha / 2)

    def block_trend(name: str) -> Trend:
        return trend(times, np.array([getattr(block, name) for block in blocks]))

    normalizer = block_trend("log_normalizer")
    # This check usually suffices, so that the other two trends are not computed.
    if abs(normalizer.z) <= critical or abs(normalizer.rate) < min_rate or _approaches(blocks, target):
        return Drift(normalizer.rate, math.nan, False)
    joint, value = block_trend("joint_term"), block_trend("value")
    slower = min(abs(joint.rate), abs(normalizer.rate))
    detected = (
        joint.rate * normalizer.rate > 0
        and abs(joint.z) > critical
        and slower >= min_rate
        and abs(value.rate) < slower / 2
    )
    return Drift(normalizer.rate, value.rate, detected)


def _approaches(blocks: Sequence[Block], target: float | None) -> bool:
    """True if the last quarter's mean log-normalizer is nearer to the target than the first quarter's."""
    if target is None:
        return False
    quarter = len(blocks) // 4
    early, late = (sum(b.log_normalizer for b in part) / quarter for part in (blocks[:quarter], blocks[-quarter:]))
    return abs(late - target) < abs(early - target)


def _significant_excess(blocks: Sequence[Block], limit: float) -> float:
    """The excess of the mean value over the limit, less ``STANDARD_ERRORS`` standard errors; nats."""
    if not all(block.finite for block in blocks):
        return -math.inf
    values = np.array([block.value for block in blocks])
    standard_error = float(values.std(ddof=1)) / math.sqrt(len(values))
    return float(values.mean()) - STANDARD_ERRORS * standard_error - limit

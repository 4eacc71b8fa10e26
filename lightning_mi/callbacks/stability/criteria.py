"""The rules by which a training is said to drift or to explode, on blocks of its steps."""

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from lightning_mi.bounds import AbstractBound
from lightning_mi.callbacks.stability.trend import Trend, trend
from lightning_mi.callbacks.stability.window import Block

RECENT = 10  # blocks that an explosion is told from
MIN_BLOCKS = 20  # of a window: with fewer, a trend test sees only trends that need none
SATURATED = math.log(float(np.finfo(np.float32).max))  # nats, 88.7: e to it leaves float32
PUSH = 5.0  # times as hard as at the optimum
MANY_PUSHES = 3  # of the recent batches
FEW_PAIRS = 1.4  # marginal pairs that the log-normalizer rests on
EXCESS = 0.25  # nats above the limit of the estimate; the bias of a healthy small batch is less
STANDARD_ERRORS = 3.0


class Drift(NamedTuple):
    """How the terms move over a window; rates in nats per 1000 steps.

    Attributes:
        rate: Of the log-normalizer.
        value_rate: Of the value; NaN where the log-normalizer's trend decides alone.
        together: Both terms have a significant trend of the same sign, beyond the least rate, and the value has none
            that is half as fast.
    """

    rate: float
    value_rate: float
    together: bool


def push_above(bound: AbstractBound) -> float:
    """The log-normalizer above which a step of a self-normalized bound counts as a push; nats."""
    return math.log(PUSH) if bound.self_normalized else math.inf


def read_drift(blocks: Sequence[Block], num_blocks: int, min_rate: float, alpha: float, target: float | None) -> Drift:
    """Test the trends of the joint term and of the log-normalizer, with Mann and Kendall.

    Over the whole window and over its last half, quarter, ... down to ``MIN_BLOCKS``: a fast drift shows in less than a
    window, for which it has to be faster, so that the terms move as far.

    Args:
        blocks: Those there are, not more than a window's.
        num_blocks: Of a whole window.
        min_rate: The least rate of both that counts over a whole window, nats per 1000 steps.
        alpha: The level of each test, two-sided. Both must reject, so this bounds the rate of false alarms.
        target: Where something holds the log-normalizer: moving there is no drift. None where nothing does.

    Returns:
        Of the longest part of the window over which the terms drift; of all the blocks if there is none.
    """
    span, whole = num_blocks, None
    while span >= MIN_BLOCKS:
        if len(blocks) >= span:
            found = _drift(blocks[-span:], min_rate * num_blocks / span, alpha, target)
            if found.together:
                return found
            whole = found if len(blocks) == span else whole
        span //= 2
    return _drift(blocks, math.inf, alpha, target) if whole is None else whole


def read_explosion(blocks: Sequence[Block], bound: AbstractBound) -> str | None:
    """What shows that the training explodes, in words, or None.

    A bound that is capped at log N holds the joint pair in every row: it can only be infinite or above its limit.

    Args:
        blocks: The last ones, not more than ``RECENT`` of which are looked at.
        bound: What is trained.
    """
    recent, last = blocks[-RECENT:], blocks[-1]
    # The largest: data whose law changes, or batches of several sizes, have several.
    limit = max(min(b.limit, b.log_candidates if bound.capped_at_log_n else math.inf) for b in recent)
    if not last.finite:
        return "a term or the loss is infinite or not a number"
    full = len(recent) == RECENT
    if full and (excess := _excess(recent, limit)) > EXCESS:
        mean = sum(block.value for block in recent) / RECENT
        return (
            f"the mean of the values, {mean:.2f} nats, is above {limit:.2f}, which the estimate cannot exceed, by more "
            f"than {STANDARD_ERRORS:g} standard errors and {EXCESS:g} nats (excess {excess:.2f})"
        )
    if bound.capped_at_log_n:
        return None
    if (pushes := sum(block.pushes for block in recent)) >= MANY_PUSHES:
        return (
            f"{pushes:.0f} of the last batches pushed the scores more than {PUSH:g} times as hard as a batch does at "
            "the optimum, since the exponential of their log-normalizer enters the gradient as it is"
        )
    if last.score_range > SATURATED:
        return (
            f"the scores span {last.score_range:.0f} nats, more than the {SATURATED:.1f} by which two exponentials can "
            "differ in float32: most pairs no longer count"
        )
    if full and (pairs := sum(block.effective_pairs for block in recent) / RECENT) < FEW_PAIRS:
        return f"the marginal term rests on {pairs:.1f} pairs of each batch (effective sample size)"
    return None


def _drift(blocks: Sequence[Block], min_rate: float, alpha: float, target: float | None) -> Drift:
    times = np.array([block.step for block in blocks]) / 1000
    critical = NormalDist().inv_cdf(1 - alpha / 2)

    def of(name: str) -> Trend:
        return trend(times, np.array([getattr(block, name) for block in blocks]))

    normalizer = of("log_normalizer")
    # The others cost as much, and mostly need not be known.
    if abs(normalizer.z) <= critical or abs(normalizer.rate) < min_rate or _approaches(blocks, target):
        return Drift(normalizer.rate, math.nan, False)
    joint, value = of("joint_term"), of("value")
    slower = min(abs(joint.rate), abs(normalizer.rate))
    together = (
        joint.rate * normalizer.rate > 0
        and abs(joint.z) > critical
        and slower >= min_rate
        and abs(value.rate) < slower / 2
    )
    return Drift(normalizer.rate, value.rate, together)


def _approaches(blocks: Sequence[Block], target: float | None) -> bool:
    if target is None:
        return False
    quarter = len(blocks) // 4
    early, late = (sum(b.log_normalizer for b in part) / quarter for part in (blocks[:quarter], blocks[-quarter:]))
    return abs(late - target) < abs(early - target)


def _excess(blocks: Sequence[Block], limit: float) -> float:
    """By how much the values are above the limit for certain, nats."""
    if not all(block.finite for block in blocks):
        return -math.inf
    values = np.array([block.value for block in blocks])
    standard_error = float(values.std(ddof=1)) / math.sqrt(len(values))
    return float(values.mean()) - STANDARD_ERRORS * standard_error - limit

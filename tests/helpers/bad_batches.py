"""Four batches of which one holds a non-finite value."""

import math

from tests.helpers.small_module import Batches, draw

BAD = 2  # the step


def with_bad_batch(value=math.nan):
    batches = draw(8, 8, 8, 8)
    batches.batches[BAD][0][3, 1] = value
    return batches


def without_bad_batch():
    return Batches(batch for step, batch in enumerate(draw(8, 8, 8, 8)) if step != BAD)

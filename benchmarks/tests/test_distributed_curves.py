"""The recipe `gaussian` on one rank and on two, launched as a user does."""

import pytest

from benchmarks import distributed_curves


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["ddp", "torchrun"])
def test_two_ranks_draw_the_curves_of_one(launcher, tmp_path):
    alone = distributed_curves.curves(tmp_path / "1", 1, 20, "64-true")
    two = distributed_curves.curves(tmp_path / "2", 2, 20, "64-true", launcher)
    assert len(alone["train/mi"]) == 20
    assert all(different <= 1e-5 for different in distributed_curves.largest_differences(alone, two).values())

"""The recipe `gaussian` by one process and by two, launched as a user does."""

import importlib.util

import pytest

from tests.distributed.processes import ROOT


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["ddp", "torchrun"])
def test_two_processes_draw_the_curves_of_one(launcher, tmp_path):
    spec = importlib.util.spec_from_file_location("distributed_curves", ROOT / "benchmarks" / "distributed_curves.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    alone = script.curves(tmp_path / "1", 1, 20, "64-true")
    two = script.curves(tmp_path / "2", 2, 20, "64-true", launcher)
    assert len(alone["train/mi"]) == 20
    assert all(different <= 1e-5 for different in script.apart(alone, two).values())

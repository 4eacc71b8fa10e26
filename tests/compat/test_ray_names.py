"""The private names of Ray in `_compat.ray_names`."""

import sys

import pytest

from lightning_mi._compat import ray_names


def test_ray_names_exist():
    ray = pytest.importorskip("ray")
    ray_names.preload_ray_shutdown()
    assert "ray.dag" in sys.modules
    error = ray.exceptions.RayTaskError("task", "traceback", ValueError("inner"))
    assert str(ray_names.ray_task_cause(error)) == "inner"

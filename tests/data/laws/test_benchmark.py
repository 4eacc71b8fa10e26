"""The 40 tasks of "Beyond Normal": identifiers, truths and dimensions."""

import pytest
import torch

from lightning_mi.data import laws

# The values of the benchmark's own package, in nats.
SPARSE = "multinormal-sparse-{0}-{0}-2-2.0"
TRUTHS = {
    **dict.fromkeys([f"{m}1v1-normal-0.75" for m in ("", "normal_cdf-", "wiggly-", "half_cube-")], 0.4133),
    "1v1-bimodal-0.75": 0.4133,
    "swissroll_x-normal_cdf-1v1-normal-0.75": 0.4133,
    "1v1-additive-0.1": 1.7094,
    "1v1-additive-0.75": 0.3333,
    "student-identity-1-1-1": 0.2242,
    "asinh-student-identity-1-1-1": 0.2242,
    "student-identity-2-2-1": 0.4319,
    "student-identity-2-2-2": 0.1931,
    "student-identity-3-3-2": 0.2909,
    "student-identity-3-3-3": 0.1787,
    "student-identity-5-5-2": 0.4482,
    "student-identity-5-5-3": 0.2985,
    "asinh-student-identity-2-2-1": 0.4319,
    "asinh-student-identity-3-3-2": 0.2909,
    "asinh-student-identity-5-5-2": 0.4482,
    "multinormal-dense-2-2-0.5": 0.2939,
    "multinormal-dense-3-3-0.5": 0.4133,
    "multinormal-dense-5-5-0.5": 0.5928,
    "multinormal-dense-25-25-0.5": 1.2922,
    "multinormal-dense-50-50-0.5": 1.6243,
    **dict.fromkeys([SPARSE.format(dim) for dim in (2, 3, 5, 25)], 1.0217),
    **{
        f"{name}-{SPARSE.format(dim)}": 1.0217
        for name in ("normal_cdf", "half_cube", "spiral", "spiral-normal_cdf")
        for dim in (3, 5, 25)
    },
}
TASKS = laws.benchmark_tasks()


def test_the_tasks_are_the_forty_of_the_benchmark():
    assert len(TRUTHS) == 40
    assert TASKS.keys() == TRUTHS.keys()


@pytest.mark.parametrize("name", TASKS)
def test_truth_is_that_of_the_benchmark(name):
    assert TASKS[name].true_mi == pytest.approx(TRUTHS[name], abs=5.1e-5)


@pytest.mark.parametrize("name", TASKS)
def test_dimensions_are_those_of_the_identifier(name):
    x, y = TASKS[name].sample(3, torch.Generator().manual_seed(0))
    numbers = [part for part in name.split("-") if part.isdigit()]
    expected = (1, 1) if "1v1" in name else (int(numbers[0]), int(numbers[1]))
    if name.startswith("swissroll"):
        expected = (2, 1)
    assert (x.shape[1], y.shape[1]) == expected

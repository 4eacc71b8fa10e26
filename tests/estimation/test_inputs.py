"""Arguments of `estimate`: accepted types, detection of labels, typed errors."""

import numpy as np
import pytest
import torch

from lightning_mi.estimation.inputs import read_variable
from lightning_mi.exceptions import EstimateInputError

N = 60
NUMBERS = np.random.default_rng(0).normal(size=N)


class Column:
    """As a column of pandas or polars."""

    def to_numpy(self):
        return NUMBERS


@pytest.mark.parametrize(
    "data",
    [NUMBERS, NUMBERS[:, None], NUMBERS.tolist(), torch.tensor(NUMBERS), Column(), NUMBERS.astype(object)],
    ids=["1-D", "2-D", "list", "tensor", "column", "object"],
)
def test_numbers_become_a_column_of_float64(data):
    variable = read_variable(data, "x")
    np.testing.assert_array_equal(variable.values, NUMBERS[:, None])
    assert variable.kind == "continuous"


def test_half_precision_tensors_are_accepted():
    assert read_variable(torch.randn(N, dtype=torch.bfloat16), "x").values.dtype == np.float64


@pytest.mark.parametrize(
    ("data", "kind", "num_classes"),
    [
        (np.arange(N) % 3, "discrete", 3),
        (np.arange(N) % 2 == 0, "discrete", 2),
        (np.arange(N), "continuous", 0),
        ((np.arange(N) % 3).astype(float), "discrete", 3),
        (np.where(np.arange(N) % 3, NUMBERS, 0.0), "mixed", 0),
    ],
    ids=["few integers", "Boolean", "many integers", "few numbers", "zero-inflated"],
)
def test_kind_is_detected(data, kind, num_classes):
    variable = read_variable(data, "x")
    assert (variable.kind, variable.num_classes) == (kind, num_classes)


def test_labels_may_be_text_if_declared():
    variable = read_variable(np.array(["b", "a"] * (N // 2)), "y", discrete=True)
    np.testing.assert_array_equal(variable.labels, [1, 0] * (N // 2))


def test_rows_of_labels_are_joint_labels():
    rows = np.array([[0, 0], [0, 1], [1, 0]] * (N // 3))
    assert read_variable(rows, "x", discrete=True).num_classes == 3


WRONG = {
    "text": (["a"] * N, None, "with text or objects.*discrete={'x': True}"),
    "objects": (np.array([object()] * N), None, "with text or objects"),
    "numbers beside text": (np.array([[1.5, "a"]] * N, dtype=object), None, "Encode each column of text as numbers"),
    "text declared as numbers": (["a"] * N, False, "with text or objects"),
    "masked": (np.ma.masked_less(NUMBERS, NUMBERS.min() + 0.5), None, "masked entries: no row is dropped"),
    "integers beyond float64": ([10**30 + i for i in range(N)], None, "float64 does not tell apart"),
    "int64 beyond float64": (2**62 + np.arange(N), None, "float64 does not tell apart"),
    "scalar": (3.0, None, "Got x=3.0, a float: pass an array"),
    "ragged": ([[1.0], [1.0, 2.0]] * N, None, "no array"),
    "3-D": (np.zeros((N, 2, 2)), None, r"shape \(60, 2, 2\)"),
    "no column": (np.zeros((N, 0)), None, r"shape \(60, 0\)"),
    "one sample": (np.zeros(1), None, "Got 1 samples of x: at least 50"),
    "NaN": (
        np.where(np.arange(N) == 7, np.nan, NUMBERS),
        None,
        "1 values that are NaN or infinite, the first in row 7",
    ),
    "infinite": (np.where(np.arange(N) == 7, np.inf, NUMBERS), None, "no row is dropped"),
    "complex": (NUMBERS + 1j, None, "complex"),
    "times": (np.arange(N).astype("datetime64[s]"), None, "dtype datetime64"),
    "missing label": (
        np.array(["a", None] * (N // 2), dtype=object),
        True,
        "30 labels that are missing, the first in row 1",
    ),
    "labels that occur once": (NUMBERS, True, "60 labels for 60 samples"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_unusable_data_raise(wrong):
    data, discrete, message = WRONG[wrong]
    with pytest.raises(EstimateInputError, match=message):
        read_variable(data, "x", discrete)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_categories_are_labels(library):
    frames = pytest.importorskip(library)
    categories = {"pandas": "category", "polars": getattr(frames, "Categorical", None)}[library]
    column = frames.Series(["a", "b"] * (N // 2))
    column = column.astype(categories) if library == "pandas" else column.cast(categories)
    variable = read_variable(column, "x")
    assert (variable.kind, variable.num_classes) == ("discrete", 2)
    with pytest.raises(EstimateInputError, match="with text"):
        read_variable(frames.Series(["a", "b"] * (N // 2)), "x")

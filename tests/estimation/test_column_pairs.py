"""`pairwise`: frames, groups of columns, matrices and their output, typed errors that name the column."""

import json
import math

import numpy as np
import pytest

from lightning_mi import estimate, pairwise
from lightning_mi.estimation.multiple_tests import adjust_p_values
from lightning_mi.exceptions import EstimateInputError, MIWarning

N = 80
RNG = np.random.default_rng(0)
A, C = RNG.normal(size=N), RNG.normal(size=N)
DATA = {"a": A, "b": A + 0.3 * RNG.normal(size=N), "c": C, "label": np.where(C > 0, "up", "down")}
LABELS = {"label": True}
QUICK = {"budget": "quick", "folds": 2}


pytestmark = pytest.mark.usefixtures("short_training_of_module")


@pytest.fixture(scope="module")
def result(short_training_of_module):
    return pairwise(DATA, discrete=LABELS, folds=2)


def test_each_pair_is_one_estimate(result):
    assert result.names == ("a", "b", "c", "label")
    assert list(result.results) == [
        ("a", "b"), ("a", "c"), ("a", "label"), ("b", "c"), ("b", "label"), ("c", "label"),
    ]  # fmt: skip
    single = estimate(DATA["b"], DATA["label"], discrete={"y": True}, **QUICK)
    assert result.results["b", "label"].mi == single.mi
    assert result.results["b", "label"].p_value == single.p_value


def test_matrices_are_symmetric_with_an_empty_diagonal(result):
    for name in ("mi", "lower", "p_values", "adjusted_p_values"):
        matrix = getattr(result, name)
        np.testing.assert_array_equal(matrix, matrix.T)
        assert np.isnan(matrix.diagonal()).all()
        assert np.isnan(matrix).sum() == 4
    assert result.mi[1, 3] == result.results["b", "label"].mi
    assert result.lower[0, 1] == result.results["a", "b"].lower


def test_p_values_are_adjusted_for_all_pairs(result):
    upper = np.triu_indices(4, 1)
    np.testing.assert_array_equal(result.adjusted_p_values[upper], adjust_p_values(result.p_values[upper], "holm"))
    assert result.adjusted_p_values[0, 1] == pytest.approx(0.006)  # six pairs, 999 permutations
    fdr = pairwise(DATA, columns=["a", "b", "c"], folds=2, adjust="fdr")
    upper = np.triu_indices(3, 1)
    np.testing.assert_array_equal(fdr.adjusted_p_values[upper], adjust_p_values(fdr.p_values[upper], "fdr"))


def test_groups_of_columns_are_one_variable():
    together = pairwise(np.column_stack([A, C, DATA["b"]]), columns={"both": [0, 1], "b": 2}, folds=2)
    assert together.names == ("both", "b")
    assert together.mi[0, 1] == estimate(np.column_stack([A, C]), DATA["b"], **QUICK).mi


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_data_frames_are_read(library, result):
    frame = pytest.importorskip(library).DataFrame(DATA)
    np.testing.assert_array_equal(pairwise(frame, discrete=LABELS, folds=2).mi, result.mi)
    assert pairwise(frame, columns={"ab": ["a", "b"], "c": "c"}, folds=2).names == ("ab", "c")


def test_arrays_number_their_columns():
    assert pairwise(np.column_stack([A, C]), folds=2).names == ("0", "1")
    assert pairwise(np.column_stack([A, C, A]), columns=[2, 1], folds=2).names == ("2", "1")


def test_blocks_and_units_pass_through():
    bits = pairwise({"a": A, "c": C}, folds=2, blocks=5, units="bits")
    assert bits.mi[0, 1] * math.log(2) == pytest.approx(estimate(A, C, **QUICK, blocks=5).mi)
    assert bits.units == "bits"


def test_text_html_json_and_figure(result):
    lines = str(result).splitlines()
    assert lines[0] == "MI of 4 columns, 6 pairs, nats; * p < 0.05, adjusted by Holm"
    strongest = max(result.results, key=lambda pair: result.results[pair].mi)
    assert lines[1].split()[:2] == [f"{strongest[0]},", strongest[1]]
    assert "n_too_small (6)" in lines[-1]
    assert f"<td>{result.mi[0, 1]:.3f}*</td>" in result._repr_html_()
    [first, *_] = json.loads(result.to_json())["pairs"]
    assert (first["x"], first["y"], first["mi"]) == ("a", "b", result.mi[0, 1])
    axes = result.plot().axes[0]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == list(result.names)
    assert f"{result.mi[0, 1]:.2f}*" in [text.get_text() for text in axes.texts]


def test_text_lists_the_ten_strongest_pairs():
    text = str(pairwise(RNG.normal(size=(60, 6)), folds=2, permutations=399))
    assert "and 5 weaker pairs" in text
    assert len(text.splitlines()) == 13


def test_names_are_escaped_in_html():
    assert "<b>" not in pairwise({"<b>": A, "c": C}, folds=2)._repr_html_()


def test_long_frame_has_one_row_for_each_pair(result):
    pytest.importorskip("pandas")
    frame = result.to_frame()
    assert list(zip(frame["x"], frame["y"], strict=True)) == list(result.results)
    assert frame["adjusted_p_value"][0] == result.adjusted_p_values[0, 1]


def test_few_permutations_warn():
    with pytest.warns(MIWarning, match=r"Got permutations=19 for 3 pairs: .* at least 0.15, not below 0.05"):
        pairwise({"a": A, "b": DATA["b"], "c": C}, folds=2, permutations=19)


WRONG = {
    "unknown column": (
        DATA,
        {"columns": ["a", "z"]},
        EstimateInputError,
        "Got column 'z': the frame has a, b, c, label",
    ),
    "one column": (DATA, {"columns": ["a"]}, EstimateInputError, "Got 1 columns: pairs need at least 2"),
    "repeated": (DATA, {"columns": ["a", "a"]}, EstimateInputError, "Got the column 'a' twice"),
    "text": (DATA, {}, EstimateInputError, "Got label with text or objects.*discrete={'label': True}"),
    "NaN": ({"a": A, "bad": A * np.nan}, {}, EstimateInputError, "Got bad with 80 values that are NaN"),
    "lengths": ({"a": A, "b": A[:60]}, {}, EstimateInputError, "Got 80 samples of a and 60 of b"),
    "list of labels": (DATA, {"discrete": ["a"]}, TypeError, "pass a mapping of names"),
    "discrete": (DATA, {"discrete": {"z": True}}, EstimateInputError, "Got discrete for 'z': the columns are a, b"),
    "empty group": (DATA, {"columns": {"g": [], "a": "a"}}, EstimateInputError, "Got 'g' without columns"),
    "1-D": (A, {}, EstimateInputError, r"Got a frame of shape \(80,\)"),
    "folds": ({"a": A, "c": C}, {"folds": 20}, EstimateInputError, "Columns a and c: Got a fold of 4 samples"),
    "single name": (DATA, {"columns": "ab"}, TypeError, "Got columns='ab', a str: pass a list"),
    "adjust": (DATA, {"adjust": "bonferroni"}, ValueError, "Got adjust='bonferroni'"),
    "budget": ({"a": A, "c": C}, {"budget": "fast"}, ValueError, "Got budget='fast'"),
    "blocks": ({"a": A, "c": C}, {"blocks": 0}, ValueError, "Got blocks=0"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_frames_and_options_raise(wrong):
    frame, options, error, message = WRONG[wrong]
    with pytest.raises(error, match=message):
        pairwise(frame, **options)


def test_frames_that_cannot_be_indexed_raise():
    class Lazy:
        columns = ("a", "b")

        def collect(self):
            raise NotImplementedError

    with pytest.raises(EstimateInputError, match=r"Got a lazy frame: pass frame.collect\(\)"):
        pairwise(Lazy())


def test_frames_with_repeated_names_raise():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(np.column_stack([A, C, A]), columns=["a", "c", "a"])
    with pytest.raises(EstimateInputError, match="Got the column 'a' twice"):
        pairwise(frame)
    with pytest.raises(EstimateInputError, match="Got a frame with two columns called 'a'"):
        pairwise(frame, columns=["a", "c"])

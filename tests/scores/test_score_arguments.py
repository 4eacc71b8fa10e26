"""Arguments of Scores that do not fit each other are an error."""

import math

import pytest
import torch

from lightning_mi import Scores
from lightning_mi.scores.joint_columns import JointColumns
from lightning_mi.scores.tiles import ProductTiles

EYE, NONE = torch.eye(3, dtype=torch.bool), torch.zeros(3, 3, dtype=torch.bool)
ONES, LOG_THIRDS = torch.ones(3, 3, dtype=torch.bool), torch.full((3,), 1 / 3).log()
# fmt: off
MATRIX_ERRORS = [  # shape, arguments, message
    ((3, 4), {}, r"square matrix of at least 2 x 2.*pass `joint` and `marginal`"),
    ((4, 3), {}, "square matrix of at least 2 x 2"),
    ((1, 1), {}, "square matrix of at least 2 x 2"),
    ((1, 2), {"allow_no_marginal": True}, "square matrix of at least 1 x 1"),
    ((4,), {}, r"Got `matrix` of shape \(4,\).*floating-point numbers in 2 dimensions"),
    ((2, 2, 2), {}, r"Got `matrix` of shape \(2, 2, 2\)"),
    ((0, 0), {}, r"Got `matrix` of shape \(0, 0\)"),
    ((3, 3), {"diagonal": 1}, r"shape \(3, 3\) and diagonal=1"),
    ((3, 3), {"diagonal": -1}, r"shape \(3, 3\) and diagonal=-1"),
    ((3, 3), {"joint": EYE, "diagonal": 1}, "Got a `joint` mask and diagonal=1"),
    ((3, 3), {"marginal": ONES, "diagonal": 1}, "column diagonal [+] i, which each row must"),
    ((5, 3), {"log_weights": LOG_THIRDS}, r"Got scores of shape \(5, 3\) and diagonal=0: without a `joint` mask"),
    ((3, 3), {"joint": torch.ones(3, 3).int()}, "Got a `joint` mask of shape .*boolean and of the same shape"),
    ((3, 3), {"joint": torch.ones(2, 3)}, r"weights of `joint` pairs of shape \(2, 3\) for scores of shape \(3, 3\)"),
    ((3, 3), {"joint": -torch.eye(3)}, "weights of `joint` pairs that are negative or not finite"),
    ((3, 3), {"marginal": torch.ones(3, 4, dtype=torch.bool)}, "Got a `marginal` mask of shape"),
    ((3, 3), {"joint": torch.ones(3, dtype=torch.bool)}, "Got a `joint` mask of shape"),
    ((3, 3), {"joint": NONE}, "Got a `joint` mask without a single True"),
    ((3, 3), {"marginal": NONE}, "Got a `marginal` mask without a single True"),
    ((3, 3), {"joint": NONE, "marginal": NONE, "allow_no_joint": True}, "Got a `marginal` mask without a single True"),
    ((4, 4), {"y": torch.zeros(3, 2)}, "3 candidates `y` for 4 columns"),
    ((3, 5), {"log_weights": LOG_THIRDS}, r"log_weights of shape \(3,\) .* number for each candidate, \(5,\)"),
    ((3, 3), {"log_weights": torch.ones(3, dtype=torch.long)}, "type torch.int64"),
    ((3, 3), {"log_weights": torch.full((3,), 0.5).log()}, "weights sum to 1.5: they are probabilities"),
    ((3, 3), {"log_weights": torch.tensor([0.5, 0.5, math.nan]).log()}, "weights sum to nan"),
    ((3, 3), {"log_weights": LOG_THIRDS, "marginal": ~EYE}, "the weights sum to 1 over every row's pairs"),
]
SAMPLE_ERRORS = [
    ({"joint": torch.zeros(2, 2)}, "Got `joint` of shape .*in 1 dimension,"),
    ({"marginal": torch.zeros(0)}, "Got `marginal` of shape"),
    ({"joint": torch.zeros(2).long()}, "Got `joint` of shape .*torch.int64"),
    ({"marginal": torch.zeros(())}, "Got `marginal` of shape"),
    ({"joint_columns": torch.zeros(1).long()}, r"joint_columns of shape \(1,\) for joint scores of shape \(2,\)"),
    ({"marginal_columns": torch.zeros(1).long()}, r"marginal_columns of shape \(1,\) for marginal scores"),
    ({"y": torch.zeros(2, 4)}, "Got 2 candidates `y` for 2 joint and 3 marginal scores: by default"),
    ({"y": torch.zeros(6, 4)}, "Got 6 candidates `y` for 2 joint and 3 marginal scores"),
    ({"y": torch.zeros(1, 4), "marginal_columns": torch.zeros(3).long()}, "Got 1 candidates `y` for 2 joint"),
]
# fmt: on


def test_scores_that_are_no_tensor_raise() -> None:
    with pytest.raises(TypeError, match=r"Got `matrix` of type list: .* Write torch.as_tensor\(matrix\)"):
        Scores.from_matrix([[1.0, 2.0], [3.0, 4.0]])


@pytest.mark.parametrize(("shape", "arguments", "message"), MATRIX_ERRORS, ids=range(len(MATRIX_ERRORS)))
def test_matrix_arguments_that_do_not_fit_are_an_error(shape: tuple, arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Scores.from_matrix(torch.zeros(shape), **arguments)


def test_one_score_may_be_the_joint_pair_alone() -> None:
    scores = Scores.from_matrix(torch.full((1, 1), 3.0), allow_no_marginal=True)
    assert (scores.joint.tolist(), scores.num_marginal) == ([3.0], 0)
    assert scores.detach().marginal_values().tolist() == []


@pytest.mark.parametrize(("arguments", "message"), SAMPLE_ERRORS, ids=range(len(SAMPLE_ERRORS)))
def test_sample_arguments_that_do_not_fit_are_an_error(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Scores.from_samples(**({"joint": torch.zeros(2), "marginal": torch.zeros(3)} | arguments))


def test_integer_scores_are_an_error() -> None:
    x = torch.ones(3, 2, dtype=torch.long)
    for make in (
        lambda: Scores.from_matrix(torch.zeros(3, 3).long()),
        lambda: Scores.from_columns(ProductTiles(x, x), JointColumns.of_diagonal(x)),
    ):
        with pytest.raises(ValueError, match=r"Got `matrix` of shape \(3, 3\) and type torch.int64"):
            make()

"""Arguments of Scores that contradict a default, or that a default does not fit."""

import pytest
import torch

from lightning_mi import Scores


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"joint": torch.eye(3, dtype=torch.bool), "diagonal": 1}, "Got a `joint` mask and diagonal=1"),
        ({"diagonal": 1}, r"shape \(3, 3\) and diagonal=1"),
        ({"diagonal": -1}, r"shape \(3, 3\) and diagonal=-1"),
        ({"marginal": torch.ones(3, 3, dtype=torch.bool), "diagonal": 1}, "column diagonal [+] i, which each row must"),
    ],
    ids=str,
)
def test_diagonal_that_misses_a_row_is_an_error(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Scores.from_matrix(torch.zeros(3, 3), **arguments)


def test_diagonal_of_a_matrix_with_more_rows_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"Got scores of shape \(5, 3\) and diagonal=0: without a `joint` mask"):
        Scores.from_matrix(torch.zeros(5, 3), log_weights=torch.full((3,), 1 / 3).log())


@pytest.mark.parametrize(
    ("rows", "columns"),
    [(2, {}), (6, {}), (1, {"marginal_columns": torch.zeros(3, dtype=torch.long)})],
    ids=["one for each joint pair", "too many", "too few for the joint pairs"],
)
def test_candidates_that_the_default_columns_do_not_fit_are_an_error(rows: int, columns: dict) -> None:
    with pytest.raises(ValueError, match=f"Got {rows} candidates `y` for 2 joint and 3 marginal scores: by default"):
        Scores.from_samples(torch.zeros(2), torch.zeros(3), y=torch.zeros(rows, 4), **columns)

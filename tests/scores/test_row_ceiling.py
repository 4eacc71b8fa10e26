"""The ceiling of InfoNCE, against an optimizer that searches all scores."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from lightning_mi import Scores, bounds, critics, pairs


def best_row_value(weights: np.ndarray, joint: np.ndarray) -> float:
    """The highest InfoNCE value over all scores, found by an optimizer; rows of weights that sum to 1."""

    def negative(flat: np.ndarray) -> float:
        t = flat.reshape(joint.shape)
        rows = np.log((weights * np.exp(t)).sum(axis=1, keepdims=True))
        return -float((t - rows)[joint].mean())

    limits, exact = [(-30, 30)] * joint.size, {"ftol": 0.0, "gtol": 1e-12}
    return -minimize(negative, np.zeros(joint.size), method="L-BFGS-B", bounds=limits, options=exact).fun


@pytest.mark.parametrize("case", ["several joint pairs", "a row without one", "weights", "weights and several"])
def test_row_ceiling_is_the_highest_value_of_any_critic(case: str) -> None:
    joint = np.eye(3, 5, dtype=bool)
    if "several" in case:
        joint[0, [1, 4]] = joint[1, 3] = True
    if "without" in case:
        joint[2] = False
    law = np.array([0.4, 0.05, 0.1, 0.2, 0.25]) if "weights" in case else np.full(5, 0.2)
    given = {"log_weights": torch.tensor(law).log()} if "weights" in case else {}
    scores = Scores.from_matrix(torch.randn(3, 5, dtype=torch.float64), joint=torch.tensor(joint), **given)
    assert scores.row_ceiling().item() == pytest.approx(best_row_value(np.tile(law, (3, 1)), joint), abs=1e-5)
    assert bounds.InfoNCE()(scores).value < scores.row_ceiling()


def test_row_ceiling_of_rows_with_unlike_candidates_is_their_mean() -> None:
    joint = torch.eye(2, 4, dtype=torch.bool)
    marginal = torch.tensor([[False, True, True, True], [True, False, False, False]])
    scores = Scores.from_matrix(torch.zeros(2, 4), joint=joint, marginal=marginal)
    assert scores.row_ceiling().item() == pytest.approx((math.log(4) + math.log(2)) / 2, rel=1e-6)


def test_two_lists_of_pairs_have_no_row_ceiling() -> None:
    scores = Scores.from_samples(torch.zeros(2), torch.zeros(3))
    assert not scores.has_rows
    with pytest.raises(ValueError, match="Got two lists of pairs"):
        scores.row_ceiling()


@pytest.mark.parametrize(
    ("pairing", "labels", "expected"),
    [
        (pairs.AllPairs(), None, math.log(4)),
        (pairs.TwoViews(), None, math.log(7)),
        (pairs.SameLabel(), [0, 0, 0, 1, 1, 2], (6 * math.log(5 / 2) + 2 * math.log(5)) / 8),
        (pairs.SameLabel(), [0, 1, 2], math.log(2)),  # no joint pair: that of a row with one
        (pairs.EnumeratedLabels(3, [0.5, 0.3, 0.2]), [0, 0, 2], -(2 * math.log(0.5) + math.log(0.2)) / 3),
        (pairs.EnumeratedLabels(3), [0, 0, 2], -(2 * math.log(2 / 3) + math.log(1 / 3)) / 3),
        (pairs.EnumeratedLabels(3, "uniform"), [0, 0, 2], math.log(3)),
    ],
    ids=str,
)
def test_row_ceiling_of_each_pairing_is_that_of_its_rows(pairing, labels, expected: float) -> None:
    x = torch.randn(4 if labels is None else len(labels), 3, dtype=torch.float64)
    critic = critics.LabelCritic() if isinstance(pairing, pairs.EnumeratedLabels) else critics.InnerProductCritic()
    scores = pairing(critic, x, x if labels is None else torch.tensor(labels))
    assert scores.row_ceiling().item() == pytest.approx(expected, rel=1e-6)

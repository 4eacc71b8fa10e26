"""The ceiling of InfoNCE, against an optimizer that searches all scores."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from lightning_mi import Scores, bounds, critics, pairs


def best_row_value(weights: np.ndarray, joint: np.ndarray) -> float:
    """The highest InfoNCE value over all scores, by an optimizer; each row of weights sums to 1."""

    def negative(flat: np.ndarray) -> float:
        t = flat.reshape(joint.shape)
        rows = np.log((weights * np.exp(t)).sum(axis=1, keepdims=True))
        return -float((t - rows)[joint].mean())

    limits, exact = [(-30, 30)] * joint.size, {"ftol": 0.0, "gtol": 1e-12}
    return -minimize(negative, np.zeros(joint.size), method="L-BFGS-B", bounds=limits, options=exact).fun


@pytest.mark.parametrize("case", ["a row without a joint pair", "weights and several joint pairs"])
def test_no_critic_exceeds_the_row_ceiling(case: str) -> None:
    joint, is_weighted = np.eye(3, 5, dtype=bool), "weights" in case
    joint[0, [1, 4]] = joint[1, 3] = True
    if not is_weighted:
        joint[2] = False
    law = np.array([0.4, 0.05, 0.1, 0.2, 0.25]) if is_weighted else np.full(5, 0.2)
    given = {"log_weights": torch.tensor(law).log()} if is_weighted else {}
    scores = Scores.from_matrix(torch.randn(3, 5, dtype=torch.float64), joint=torch.tensor(joint), **given)
    assert scores.row_ceiling().item() == pytest.approx(best_row_value(np.tile(law, (3, 1)), joint), abs=1e-5)
    assert bounds.InfoNCE()(scores).value < scores.row_ceiling()


def test_ceiling_averages_over_rows_of_unequal_length() -> None:
    joint = torch.eye(2, 4, dtype=torch.bool)
    marginal = torch.tensor([[False, True, True, True], [True, False, False, False]])
    scores = Scores.from_matrix(torch.zeros(2, 4), joint=joint, marginal=marginal)
    assert scores.row_ceiling().item() == pytest.approx((math.log(4) + math.log(2)) / 2, rel=1e-6)


@pytest.mark.parametrize(
    ("pairing", "labels", "expected"),
    [
        (pairs.AllPairs(), None, math.log(4)),
        (pairs.TwoViews(), None, math.log(7)),
        (pairs.SameLabel(), [0, 0, 0, 1, 1, 2], (6 * math.log(5 / 2) + 2 * math.log(5)) / 8),
        (pairs.SameLabel(), [0, 1, 2], math.log(2)),  # without joint pairs, that of a row with one
        (pairs.EnumeratedLabels(3, [0.5, 0.3, 0.2]), [0, 0, 2], -(2 * math.log(0.5) + math.log(0.2)) / 3),
        (pairs.EnumeratedLabels(3), [0, 0, 2], -(2 * math.log(2 / 3) + math.log(1 / 3)) / 3),
        (pairs.EnumeratedLabels(3, "uniform"), [0, 0, 2], math.log(3)),
    ],
    ids=str,
)
def test_ceiling_of_each_pairing_is_that_of_its_rows(pairing, labels, expected: float) -> None:
    x = torch.randn(4 if labels is None else len(labels), 3, dtype=torch.float64)
    critic = critics.LabelCritic() if isinstance(pairing, pairs.EnumeratedLabels) else critics.InnerProductCritic()
    scores = pairing(critic, x, x if labels is None else torch.tensor(labels))
    assert scores.row_ceiling().item() == pytest.approx(expected, rel=1e-6)


def test_ceiling_without_joint_pairs_is_infinite_with_weights() -> None:
    none = torch.zeros(2, 2, dtype=torch.bool)
    log_weights = torch.tensor([0.7, 0.3]).log()
    scores = Scores.from_matrix(torch.zeros(2, 2), joint=none, log_weights=log_weights, allow_no_joint=True)
    assert scores.row_ceiling() == math.inf

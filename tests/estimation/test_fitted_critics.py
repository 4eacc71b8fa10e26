"""Scores of new pairs against float64 NumPy, and new values of the variables of a fit."""

import numpy as np
import pytest
import torch
from scipy.special import logsumexp

from lightning_mi.bounds import DV
from lightning_mi.critics import SeparableCritic
from lightning_mi.estimation import fitted_critics
from lightning_mi.estimation.fitted_critics import FittedCritics
from lightning_mi.estimation.inputs import read_new_values, read_variable
from lightning_mi.estimation.options import Options
from lightning_mi.estimation.run import run_and_keep
from lightning_mi.exceptions import EstimateInputError

RNG = np.random.default_rng(0)
X, NEW_X = RNG.normal(size=(80, 2)), RNG.normal(size=(30, 2))
Y, NEW_Y = X[:, 0] + RNG.normal(size=80), NEW_X[:, 0] + RNG.normal(size=30)
OPTIONS = Options(
    folds=2, members=2, budget="quick", permutations=19, confidence=0.95, critic=SeparableCritic, bound=DV(),
    regularizer=None, units="nats", seed=0, accelerator="cpu",
)  # fmt: skip


@pytest.fixture
def fit(short_training):
    variables = read_variable(X, "x"), read_variable(Y, "y")
    run = run_and_keep(*variables, OPTIONS, None)
    return run, FittedCritics(run, *variables)


@torch.no_grad()
def reference(run, x, y):
    """(N, N) mean over members of the capped scores."""
    matrices = []
    for member, split in zip(run.fit.fitted.members, run.fit.splits, strict=True):
        place = [coordinates(values) for coordinates, values in zip(run.coordinates, (X, Y[:, None]), strict=True)]
        cap = member.critic.pairwise(*(values[split.validation] for values in place)).max()
        scores = member.critic.pairwise(run.coordinates[0](x), run.coordinates[1](y[:, None]))
        matrices.append(np.minimum(scores.numpy(), cap.item()).astype(np.float64))
    assert len(matrices) == 4
    return np.mean(matrices, axis=0)


def marginal_log_mean_exp(scores):
    off = scores[~np.eye(len(scores), dtype=bool)]
    return logsumexp(off) - np.log(len(off))


def test_score_is_donsker_varadhan_of_the_mean_of_all_critics(fit):
    run, fitted = fit
    scores = reference(run, NEW_X, NEW_Y)
    assert fitted.score(NEW_X, NEW_Y) == pytest.approx(
        scores.diagonal().mean() - marginal_log_mean_exp(scores), abs=1e-5
    )


def test_pointwise_is_normalized_over_the_samples_of_the_fit(fit):
    run, fitted = fit
    expected = reference(run, NEW_X, NEW_Y).diagonal() - marginal_log_mean_exp(reference(run, X, Y))
    np.testing.assert_allclose(fitted.pointwise(NEW_X, NEW_Y), expected, atol=1e-5)
    np.testing.assert_allclose(fitted.pointwise(NEW_X[:1], NEW_Y[:1]), expected[:1], atol=1e-5)


def test_many_pairs_are_scored_in_blocks(fit, monkeypatch):
    _, fitted = fit
    monkeypatch.setattr(fitted_critics, "BLOCK", 12)
    x, y = np.tile(NEW_X, (3, 1)), np.tile(NEW_Y, 3)
    blocked = fitted.score(x, y)
    monkeypatch.undo()
    assert blocked == pytest.approx(fitted.score(x, y), abs=0.1)


def test_score_of_one_pair_raises(fit):
    with pytest.raises(EstimateInputError, match="Got 1 pairs: marginal pairs need at least 2"):
        fit[1].score(NEW_X[:1], NEW_Y[:1])


def test_new_pairs_of_different_lengths_raise(fit):
    with pytest.raises(EstimateInputError, match="Got 30 samples of x and 20 of y"):
        fit[1].pointwise(NEW_X, NEW_Y[:20])


# New values.

TEXT = np.array(["b", "a", "c"] * 20)
ROWS = np.array([[0, 0], [0, 1], [1, 0]] * 20)


@pytest.mark.parametrize(
    ("data", "new", "labels"),
    [
        (TEXT, ["c", "a"], [2, 0]),
        (TEXT.astype(object), np.array(["c", "b"], dtype=object), [2, 1]),
        (np.array([5, 3] * 30), [3.0, 5.0], [0, 1]),
        (np.array([True, False] * 30), [True, False], [1, 0]),
        (ROWS, [[1, 0], [0, 1]], [2, 1]),
    ],
    ids=["text", "objects", "integers", "Boolean", "rows"],
)
def test_new_labels_are_those_of_the_fit(data, new, labels):
    fitted = read_variable(data, "y", discrete=True)
    assert read_new_values(new, fitted).ravel().tolist() == labels


@pytest.mark.parametrize(
    ("data", "discrete", "new", "message"),
    [
        (TEXT, True, ["a", "d"], "Got y with the label 'd' in row 1, which is not among the 3 labels of the fit"),
        (ROWS, True, [[1, 1]], r"the label \[1, 1\] in row 0"),
        (ROWS, True, [1, 0], "Got y with 1 columns: the fit had 2"),
        (Y[:60], False, [[1.0, 2.0]], "Got y with 2 columns: the fit had 1"),
        (Y[:60], False, [1.0, np.nan], "1 values that are NaN or infinite, the first in row 1"),
        (Y[:60], False, ["a"], "Got y of dtype <U1: the fit had numbers"),
    ],
    ids=["label", "row of labels", "columns of labels", "columns", "NaN", "text"],
)
def test_unusable_new_values_raise(data, discrete, new, message):
    fitted = read_variable(data, "y", discrete=discrete)
    with pytest.raises(EstimateInputError, match=message):
        read_new_values(new, fitted)

"""MutualInformationEstimator: the conventions of scikit-learn, and agreement with `estimate`."""

import math

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.utils.estimator_checks import check_estimator

from lightning_mi import MutualInformationEstimator, bounds, estimate, regularizers
from lightning_mi.estimation import inputs, run
from lightning_mi.exceptions import EstimateInputError

TRUTH = -0.5 * math.log(1 - 0.8**2)
QUICK = {"budget": "quick", "folds": 2, "permutations": 19}


def gaussian(n, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 2))
    return x, 0.8 * x[:, 0] + 0.6 * rng.normal(size=n)


# The checks of scikit-learn.

OBJECTS_ARE_LABELS = "text and objects may be labels, so that they raise EstimateInputError and not TypeError"
FEW_SAMPLES = "fits fewer than 50 samples, the minimum of an estimate; passes if the minimum is lower"
NEED_FEW_SAMPLES = [
    "check_fit_score_takes_y",
    "check_estimators_overwrite_params",
    "check_dont_overwrite_parameters",
    "check_estimators_fit_returns_self",
    "check_readonly_memmap_input",
    "check_n_features_in_after_fitting",
    "check_estimators_dtypes",
    "check_pipeline_consistency",
    "check_estimators_nan_inf",
    "check_estimators_pickle",
    "check_f_contiguous_array_estimator",
    "check_methods_sample_order_invariance",
    "check_methods_subset_invariance",
    "check_fit2d_1feature",
    "check_dict_unchanged",
    "check_fit2d_predict1d",
]
EXPECTED_FAILURES = {
    8: {"check_dtype_object": OBJECTS_ARE_LABELS},
    inputs.MIN_SAMPLES: {"check_dtype_object": OBJECTS_ARE_LABELS} | dict.fromkeys(NEED_FEW_SAMPLES, FEW_SAMPLES),
}


@pytest.mark.parametrize("minimum", EXPECTED_FAILURES)
def test_scikit_learn_checks_pass(minimum, short_training, monkeypatch):
    for module in (inputs, run):
        monkeypatch.setattr(module, "MIN_SAMPLES", minimum)
    expected = EXPECTED_FAILURES[minimum]
    results = check_estimator(
        MutualInformationEstimator(**QUICK), expected_failed_checks=expected, on_fail=None, on_skip=None
    )
    status = {(result["check_name"], result["status"]) for result in results}
    assert {name for name, outcome in status if outcome == "failed"} == set()
    assert {name for name, outcome in status if outcome == "xfail"} == set(expected)  # none passes unexpectedly


def test_clone_and_parameters_keep_the_options(short_training):
    regularizer = regularizers.Squared(weight=0.5)
    estimator = MutualInformationEstimator(**QUICK, regularizer=regularizer, bound=bounds.NWJ())
    assert estimator.get_params()["regularizer"] is regularizer
    cloned = clone(estimator).set_params(units="bits")
    X, y = gaussian(80)
    assert cloned.fit(X, y).mi_ * math.log(2) == pytest.approx(estimator.fit(X, y).mi_)


def test_model_selection_scores_new_pairs(short_training):
    X, y = gaussian(120)
    estimator = MutualInformationEstimator(**QUICK)
    scores = cross_val_score(estimator, X, y, cv=2)
    fitted = [clone(estimator).fit(X[rows], y[rows]) for rows in (np.arange(60, 120), np.arange(60))]
    assert scores.tolist() == [fitted[0].score(X[:60], y[:60]), fitted[1].score(X[60:], y[60:])]
    search = GridSearchCV(estimator, {"regularizer": ["default", None], "bound": [bounds.DV(), bounds.NWJ()]}, cv=2)
    assert math.isfinite(search.fit(X, y).best_score_)
    assert search.best_estimator_.result_.num_samples == 120


# The estimate.


@pytest.fixture(scope="module")
def fitted():
    return MutualInformationEstimator(**QUICK).fit(*gaussian(500))


def test_fit_gives_the_result_of_estimate(short_training):
    fitted, result = MutualInformationEstimator(**QUICK).fit(*gaussian(80)), estimate(*gaussian(80), **QUICK)
    assert (fitted.mi_, fitted.result_.lower) == (result.mi, result.lower)
    assert fitted.n_features_in_ == 2
    assert len(fitted.critics_) == 2


def test_score_and_pointwise_of_new_pairs_are_near_the_truth(fitted):
    X, y = gaussian(1500, seed=1)
    score, pointwise = fitted.score(X, y), fitted.pointwise(X, y)
    assert score == pytest.approx(TRUTH, abs=0.08)
    assert pointwise.shape == (1500,)
    assert pointwise.mean() == pytest.approx(score, abs=0.05)
    truth = TRUTH + (y**2 - (y - 0.8 * X[:, 0]) ** 2 / 0.36) / 2  # log p(y | x) / p(y)
    assert np.corrcoef(pointwise, truth)[0, 1] > 0.95


def test_score_of_independent_new_pairs_is_not_positive(fitted):
    X, y = gaussian(1500, seed=1)
    assert fitted.score(X, y[::-1]) < 0


def test_bits_apply_to_score_and_pointwise(short_training):
    X, y = gaussian(80)
    nats, bits = (MutualInformationEstimator(**QUICK, units=units).fit(X, y) for units in ("nats", "bits"))
    assert bits.score(X, y) * math.log(2) == pytest.approx(nats.score(X, y))
    np.testing.assert_allclose(bits.pointwise(X, y) * math.log(2), nats.pointwise(X, y))


def test_random_state_seeds_the_fit(short_training):
    X, y = gaussian(80)

    def mi(random_state):
        return MutualInformationEstimator(**QUICK, random_state=random_state).fit(X, y).mi_

    assert mi(3) == mi(3) != mi(4)
    assert mi(np.random.RandomState(3)) == mi(np.random.RandomState(3))
    assert mi(None) != mi(None)


def test_groups_stay_in_one_fold(short_training):
    X, y = gaussian(80)
    estimator = MutualInformationEstimator(**QUICK)
    assert estimator.fit(X, y, groups=np.arange(80) // 8).mi_ == estimate(X, y, **QUICK, groups=np.arange(80) // 8).mi


def test_data_frame_gives_names_of_features(short_training):
    pandas = pytest.importorskip("pandas")
    X, y = gaussian(80)
    frame = pandas.DataFrame(X, columns=["a", "b"])
    estimator = MutualInformationEstimator(**QUICK).fit(frame, pandas.Series(y))
    assert estimator.feature_names_in_.tolist() == ["a", "b"]
    assert estimator.mi_ == MutualInformationEstimator(**QUICK).fit(X, y).mi_


def test_new_label_raises(short_training):
    X, _ = gaussian(80)
    y = np.array(["a", "b"] * 40)
    estimator = MutualInformationEstimator(**QUICK, discrete={"y": True}).fit(X, y)
    assert math.isfinite(estimator.score(X, y))
    with pytest.raises(EstimateInputError, match="Got y with the label 'c' in row 79"):
        estimator.score(X, [*y[:79], "c"])


WRONG: dict[str, tuple[dict, type[Exception], str]] = {
    "key": ({"discrete": {"Y": True}}, ValueError, "Got key of discrete='Y': it is one of 'x', 'y'"),
    "regularizer": ({"regularizer": "none"}, ValueError, "Got regularizer='none': it is one of 'default'"),
    "blocks": ({"blocks": 0}, ValueError, "Got blocks=0"),
    "bound": ({"bound": "DV"}, TypeError, "Got bound='DV'"),
    "random_state": ({"random_state": -1}, ValueError, "Got random_state=-1: it must be at least 0"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_options_raise_in_fit(wrong):
    options, error, message = WRONG[wrong]
    estimator = MutualInformationEstimator(**{**QUICK, **options})
    with pytest.raises(error, match=message):
        estimator.fit(*gaussian(80))


def test_score_without_fit_raises():
    with pytest.raises(NotFittedError):
        MutualInformationEstimator().pointwise(*gaussian(80))


def test_masked_samples_raise():
    x = np.ma.masked_less(np.linspace(-1, 1, 60), 0)[:, None]
    with pytest.raises(EstimateInputError, match="30 masked entries"):
        MutualInformationEstimator().fit(x, np.arange(60.0))

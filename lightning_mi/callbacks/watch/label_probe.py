"""Cross-validated accuracy of classifiers that predict labels from representations."""

import warnings
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_FOLDS = 5


class ProbeAccuracy(NamedTuple):
    """How well labels can be predicted.

    Attributes:
        accuracy: The fraction of samples that a classifier predicts, which did not see them: the better of logistic
            regression and a network with one hidden layer.
        chance: The frequency of the most frequent label.
    """

    accuracy: float
    chance: float


def cross_validated_accuracy(x: NDArray[np.float32], labels: NDArray[np.int64]) -> ProbeAccuracy:
    """The accuracy by stratified 5-fold cross-validation; NaN if a label occurs once.

    Args:
        x: (N, D).
        labels: (N,) integers.

    Example:
        >>> labels = np.arange(100) % 2
        >>> cross_validated_accuracy(labels[:, None].astype(np.float32), labels)
        ProbeAccuracy(accuracy=1.0, chance=0.5)
    """
    from sklearn.linear_model import LogisticRegression  # half a second
    from sklearn.model_selection import StratifiedKFold, cross_val_score
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    _, counts = np.unique(labels, return_counts=True)
    chance = float(counts.max() / counts.sum())
    if len(counts) < 2:
        return ProbeAccuracy(1.0, chance)
    if counts.min() < 2:
        return ProbeAccuracy(float("nan"), chance)
    folds = StratifiedKFold(min(_FOLDS, int(counts.min())), shuffle=True, random_state=0)
    classifiers = LogisticRegression(max_iter=1000), MLPClassifier((64,), alpha=0.01, max_iter=100, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a network that has not converged predicts what it can
        scores = [
            cross_val_score(make_pipeline(StandardScaler(), classifier), x, labels, cv=folds)
            for classifier in classifiers
        ]
    return ProbeAccuracy(max(float(score.mean()) for score in scores), chance)

"""LinearProbeAccuracy: the accuracy of logistic regression on frozen features."""

import logging
import warnings
from typing import Any, final

import torch
from torch import Tensor

from lightning_mi.metrics.feature_base import AbstractFeatureMetric, check_finite_features
from lightning_mi.utilities.checks import check_number, check_whole

_LOG = logging.getLogger(__name__)


@torch.no_grad()
def linear_probe_accuracy(
    features: Tensor,
    labels: Tensor,
    reference_features: Tensor,
    reference_labels: Tensor,
    *,
    C: float = 1.0,
    max_iter: int = 1000,
) -> Tensor:
    """Accuracy of a linear probe; see :class:`~lightning_mi.metrics.LinearProbeAccuracy`.

    Args:
        features: (N, D).
        labels: (N,) integers.
        reference_features: (M, D).
        reference_labels: (M,) integers.
        C: The inverse strength of the penalty, scikit-learn's C.
        max_iter: The solver's maximum number of iterations.

    Returns:
        A scalar in [0, 1], float32; NaN if a feature is not finite.

    Raises:
        TypeError: Labels are not integers.
        ValueError: An input is empty or of a wrong shape, or there is only one class.

    Warns:
        MINumericalWarning: A feature is infinite or NaN.

    Source: Chen et al. 2020 (linear evaluation).

    Example:
        >>> reference = torch.tensor([[-1.0], [-2.0], [1.0], [2.0]]), torch.tensor([0, 0, 1, 1])
        >>> linear_probe_accuracy(torch.tensor([[-3.0], [3.0]]), torch.tensor([0, 1]), *reference)
        tensor(1.)
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    _check_arguments(C, max_iter)
    if not check_finite_features(features, labels, reference_features, reference_labels, LinearProbeAccuracy.__name__):
        return features.new_full((), torch.nan, dtype=torch.float32)
    scaler = StandardScaler()
    solver = LogisticRegression(C=C, max_iter=max_iter)  # lbfgs and the L2 penalty are its defaults
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        solver.fit(scaler.fit_transform(reference_features.cpu().double().numpy()), reference_labels.cpu().numpy())
    if int(solver.n_iter_.max()) >= max_iter:
        _LOG.warning(
            "LinearProbeAccuracy: the solver stopped after max_iter=%d iterations without convergence. The accuracy is "
            "that of its last iterate. Raise max_iter, or lower C (now %g).",
            max_iter,
            C,
        )
    accuracy = float(solver.score(scaler.transform(features.cpu().double().numpy()), labels.cpu().numpy()))
    return features.new_tensor(accuracy, dtype=torch.float32)


@final
class LinearProbeAccuracy(AbstractFeatureMetric):
    """The accuracy of a linear classifier that is fitted on the reference features.

    Features are standardized by the mean and standard deviation of the reference features (a constant reference
    feature is only centered). The classifier is scikit-learn's ``LogisticRegression``: multinomial, L2 penalty, fitted
    by L-BFGS from zero, in float64 on the CPU, without random numbers. If the solver stops without convergence, a
    warning is logged by ``logging``, and the accuracy is that of its last iterate.

    Inputs of ``update``:
        - ``features`` ((N, D) float): a batch.
        - ``labels`` ((N,) int): of the batch.
        - ``reference`` (bool): True for training samples, on which the classifier is fitted.

    Args:
        C: The inverse strength of the penalty, scikit-learn's C; greater than 0.
        max_iter: The solver's maximum number of iterations, at least 1.
        kwargs: Keyword arguments of :class:`torchmetrics.Metric`.

    Returns:
        ``compute`` returns a scalar in [0, 1], float32; NaN, with a :class:`MINumericalWarning`, if a feature is
        infinite or NaN.

    Raises:
        ValueError: An argument is out of range.

    Source: Chen et al. 2020 (linear evaluation).

    Example:
        >>> metric = LinearProbeAccuracy()
        >>> metric.update(torch.tensor([[-1.0], [-2.0], [1.0], [2.0]]), torch.tensor([0, 0, 1, 1]), reference=True)
        >>> metric.update(torch.tensor([[-3.0], [3.0]]), torch.tensor([0, 1]))
        >>> metric.compute()
        tensor(1.)
    """

    def __init__(self, C: float = 1.0, max_iter: int = 1000, **kwargs: Any) -> None:
        _check_arguments(C, max_iter)
        super().__init__(**kwargs)
        self.C = C
        self.max_iter = max_iter

    def compute(self) -> Tensor:
        """The accuracy on all features of all ranks."""
        return linear_probe_accuracy(*self.gathered(), C=self.C, max_iter=self.max_iter)


def _check_arguments(C: float, max_iter: int) -> None:
    check_number("C", C, "the inverse strength of the penalty")
    if not C > 0:  # infinity is no penalty
        raise ValueError(f"Got C={C}: the inverse strength of the penalty is greater than 0.")
    check_whole("max_iter", max_iter, 1)

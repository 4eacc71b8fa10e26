"""Functions of the probes against scikit-learn and loops in NumPy."""

import logging

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, normalize

from lightning_mi import MINumericalWarning
from lightning_mi.metrics import LinearProbeAccuracy, NearestNeighborAccuracy, functional, nearest_neighbor
from tests.helpers.probes import FUNCTIONS, digits, noise

every_function = pytest.mark.parametrize("accuracy", FUNCTIONS.values(), ids=FUNCTIONS)
NAN_WARNING = "is NaN: 1 of 30 samples"


# Nearest neighbors.


@pytest.mark.parametrize(
    ("k", "similarity", "chunk"),
    [(1, "inner_product", 4000), (3, "cosine", 4000), (5, "inner_product", 2**22), (1, "cosine", 1)],
)
def test_nearest_neighbor_accuracy_equals_scikit_learn(k, similarity, chunk, monkeypatch):
    monkeypatch.setattr(nearest_neighbor, "_CHUNK", chunk)
    data = digits()
    x, y, reference_x, reference_y = (part.double().numpy() for part in data)
    if similarity == "cosine":
        x, reference_x = normalize(x), normalize(reference_x)
    # By label, as ties go to the smallest one; scikit-learn's choice among equals is not defined.
    order = np.argsort(reference_y, kind="stable")
    distances = 1e6 - x @ reference_x[order].T
    classifier = KNeighborsClassifier(k, metric="precomputed", algorithm="brute")
    classifier.fit(np.zeros((len(order), len(order))), reference_y[order])
    expected = classifier.score(distances, y)
    assert 0.5 < expected < 1
    actual = functional.nearest_neighbor_accuracy(*data, k=k, similarity=similarity)
    assert float(actual) == pytest.approx(expected, abs=1e-7)


def slow_accuracy(x, y, reference_x, reference_y, k):
    """Sorts by similarity and then by label, counts votes, and takes the smallest label among the most voted."""
    right = 0
    for row, truth in zip(x.numpy(), y.tolist(), strict=True):
        ranked = sorted(zip(-(reference_x.numpy() @ row), reference_y.tolist(), strict=True))
        votes = [label for _, label in ranked[:k]]
        right += min(set(votes), key=lambda label: (-votes.count(label), label)) == truth
    return right / len(x)


@pytest.mark.parametrize("k", [1, 2, 4, 20])
def test_ties_go_to_the_smallest_label_in_any_order(k):
    x, y, reference_x, reference_y = noise(num=200, num_reference=40)
    x, reference_x = x.round(), reference_x.round()  # many equal similarities
    expected = slow_accuracy(x, y, reference_x, reference_y, k)
    for seed in range(5):
        order = torch.randperm(len(reference_x), generator=torch.Generator().manual_seed(seed))
        shuffled = x, y, reference_x[order], reference_y[order]
        assert float(functional.nearest_neighbor_accuracy(*shuffled, k=k)) == pytest.approx(expected, abs=1e-7)


def test_collapsed_encoder_gets_the_frequency_of_the_smallest_label():
    _, y, _, reference_y = digits()
    accuracy = functional.nearest_neighbor_accuracy(torch.zeros(300, 8), y, torch.zeros(600, 8), reference_y)
    assert float(accuracy) == pytest.approx(float((y == 0).float().mean()))


def test_labels_need_not_start_at_zero():
    reference = torch.eye(2), torch.tensor([5, 10**12])
    x, y = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]), torch.tensor([5, 10**12, 3])
    assert float(functional.nearest_neighbor_accuracy(x, y, *reference)) == pytest.approx(2 / 3)


@pytest.mark.parametrize(("kwargs", "message"), [({"k": 0}, "Got k=0"), ({"similarity": "l2"}, "Got similarity='l2'")])
def test_invalid_argument_of_nearest_neighbors_is_an_error(kwargs, message):
    with pytest.raises(ValueError, match=message):
        NearestNeighborAccuracy(**kwargs)
    with pytest.raises(ValueError, match=message):
        functional.nearest_neighbor_accuracy(*noise(), **kwargs)


def test_more_neighbors_than_samples_are_an_error():
    with pytest.raises(ValueError, match=r"\(k=21\) got 20 reference samples"):
        functional.nearest_neighbor_accuracy(*noise(), k=21)


# The linear probe.


@pytest.mark.parametrize("strength", [0.01, 1.0])
def test_linear_probe_equals_scikit_learn(strength):
    data = digits()
    x, y, reference_x, reference_y = (part.numpy() for part in data)
    expected = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=1000, solver="lbfgs"))
    expected = expected.fit(reference_x.astype(np.float64), reference_y).score(x.astype(np.float64), y)
    assert 0.5 < expected < 1
    first, second = (functional.linear_probe_accuracy(*data, C=strength) for _ in range(2))
    assert float(first) == pytest.approx(expected, abs=1e-6)
    assert torch.equal(first, second)


def test_solver_without_convergence_warns_and_returns_its_last_iterate(caplog):
    with caplog.at_level(logging.WARNING):
        accuracy = functional.linear_probe_accuracy(*digits(), max_iter=2)
    assert 0.1 < float(accuracy) < 1
    [record] = caplog.records
    assert "stopped after max_iter=2" in record.getMessage()
    caplog.clear()
    functional.linear_probe_accuracy(*digits())
    assert caplog.records == []


def test_linear_probe_uses_no_random_numbers():
    before = torch.get_rng_state(), np.random.get_state(legacy=False)["state"]["key"].copy()
    functional.linear_probe_accuracy(*noise())
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state(legacy=False)["state"]["key"] == before[1]).all()


@pytest.mark.parametrize(("kwargs", "message"), [({"C": 0.0}, "C=0"), ({"max_iter": 0}, "max_iter=0")])
def test_invalid_argument_of_the_linear_probe_is_an_error(kwargs, message):
    with pytest.raises(ValueError, match=message):
        LinearProbeAccuracy(**kwargs)
    with pytest.raises(ValueError, match=message):
        functional.linear_probe_accuracy(*noise(), **kwargs)


# Both.


@every_function
@pytest.mark.parametrize(("part", "value"), [(0, torch.nan), (2, torch.inf)])
def test_non_finite_features_give_nan_and_a_warning(accuracy, part, value):
    data = noise()
    data[part][3, 1] = value
    with pytest.warns(MINumericalWarning, match=NAN_WARNING):
        assert accuracy(*data).isnan()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({2: torch.zeros(0, 4), 3: torch.zeros(0, dtype=torch.long)}, ValueError, "no reference features"),
        ({0: torch.zeros(0, 4), 1: torch.zeros(0, dtype=torch.long)}, ValueError, "no features to evaluate"),
        ({0: torch.zeros(10, 5)}, ValueError, "width 5 and reference features of width 4"),
        ({1: torch.zeros(10)}, TypeError, "labels of type float32"),
        ({3: torch.zeros(20, dtype=torch.bool)}, TypeError, "labels of type bool"),
        ({1: torch.zeros(9, dtype=torch.long)}, ValueError, r"shape \(9,\) for 10 samples"),
        ({0: torch.zeros(10, 2, 2)}, ValueError, r"shape \(10, 2, 2\)"),
        ({2: torch.zeros(20, 4, dtype=torch.long)}, ValueError, "type int64"),
        ({3: torch.full((20,), 7)}, ValueError, "single class, 7"),
        ({1: torch.arange(10) - 1}, ValueError, "got label -1 at position 0: class labels are at least 0"),
        ({3: torch.arange(20) - 2}, ValueError, "got label -2 at position 0: class labels are at least 0"),
        ({1: torch.arange(10) + 100}, ValueError, "without a common one"),
    ],
)
def test_invalid_features_or_labels_are_an_error(change, error, message):
    data = [change.get(i, part) for i, part in enumerate(noise())]
    for accuracy in FUNCTIONS.values():
        with pytest.raises(error, match=message):
            accuracy(*data)

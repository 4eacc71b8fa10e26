"""Probe metrics against scikit-learn and loops in NumPy."""

import copy
import datetime
import logging
import pickle
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, normalize
from torch import nn
from torchmetrics import MetricCollection

from lightning_mi import MINumericalWarning
from lightning_mi.metrics import LinearProbeAccuracy, NearestNeighborAccuracy, functional, nearest_neighbor

EVERY = {"nearest_neighbor": NearestNeighborAccuracy, "linear": LinearProbeAccuracy}
every_metric = pytest.mark.parametrize("make", EVERY.values(), ids=EVERY)
FUNCTIONS: dict[str, Callable[..., torch.Tensor]] = {
    "nearest_neighbor": functional.nearest_neighbor_accuracy,
    "linear": functional.linear_probe_accuracy,
}
every_function = pytest.mark.parametrize("accuracy", FUNCTIONS.values(), ids=FUNCTIONS)
NAN_WARNING = "is NaN: 1 of 30 samples"


def digits(num_reference=600, num=300):
    """Queries, their labels, references, their labels; whole numbers, so that inner products are exact."""
    x, y = load_digits(return_X_y=True)
    x, y = torch.tensor(x, dtype=torch.float32), torch.tensor(y)
    last = num_reference + num
    return x[num_reference:last], y[num_reference:last], x[:num_reference], y[:num_reference]


def noise(num=10, num_reference=20, classes=3, width=4):
    rng = np.random.default_rng(0)
    sizes = ((num, width), num), ((num_reference, width), num_reference)
    pairs = [(torch.tensor(rng.normal(size=s)).float(), torch.tensor(rng.integers(0, classes, n))) for s, n in sizes]
    return *pairs[0], *pairs[1]


def updated(make, data, batches=7, **kwargs):
    metric = make(**kwargs)
    x, y, reference_x, reference_y = data
    for batch in zip(reference_x.chunk(batches), reference_y.chunk(batches), strict=True):
        metric.update(*batch, reference=True)
    for batch in zip(x.chunk(batches), y.chunk(batches), strict=True):
        metric.update(*batch)
    return metric


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


@pytest.mark.parametrize("name", EVERY)
def test_metric_over_batches_equals_the_function(name):
    assert torch.equal(updated(EVERY[name], digits()).compute(), FUNCTIONS[name](*digits()))


@every_metric
def test_features_of_any_dtype_are_accepted(make):
    x, y, reference_x, reference_y = digits()  # whole numbers up to 16 are exact in all dtypes
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        metric = updated(make, (x.to(dtype), y.int(), reference_x.to(dtype), reference_y.short()))
        assert torch.equal(metric.compute(), updated(make, digits()).compute())


@every_metric
def test_copies_are_independent(make):
    x, y, *reference = digits()
    metric = updated(make, (x[:90], y[:90], *reference))
    before = metric.compute()
    for duplicate in (lambda m: m.clone(), copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))):
        other = duplicate(metric)
        other.update(x[90:], y[90:])
        assert torch.equal(other.compute(), updated(make, digits()).compute())
        assert torch.equal(metric.compute(), before)
        assert not torch.equal(other.compute(), before)


@every_metric
def test_reset_clears_features_and_references(make):
    metric = updated(make, digits())
    metric.reset()
    with pytest.warns(UserWarning, match="before the ``update``"), pytest.raises(ValueError, match="no reference"):
        metric.compute()
    for part, reference in ((digits()[2:], True), (digits()[:2], False)):
        metric.update(*part, reference=reference)
    assert torch.equal(metric.compute(), updated(make, digits()).compute())


@every_metric
def test_update_after_compute_adds_batches(make):
    x, y, *reference = digits()
    metric = updated(make, (x[:100], y[:100], reference[0][:300], reference[1][:300]))
    metric.compute()
    metric.update(x[100:], y[100:])
    metric.update(reference[0][300:], reference[1][300:], reference=True)
    assert torch.equal(metric.compute(), updated(make, digits()).compute())


@every_metric
def test_merged_parts_equal_the_whole(make):
    x, y, *reference = digits()
    whole, part, rest = updated(make, digits()), updated(make, (x[:90], y[:90], *reference)), make()
    rest.update(x[90:], y[90:])
    part.merge_state(rest)
    assert torch.equal(part.compute(), whole.compute())


def test_collection_stores_the_features_once():
    collection = updated(lambda: MetricCollection({name: make() for name, make in EVERY.items()}), digits())
    assert collection.compute() == {name: updated(make, digits()).compute() for name, make in EVERY.items()}
    assert list(collection.compute_groups.values()) == [sorted(EVERY)]


@every_metric
def test_forward_is_an_error(make):
    metric = updated(make, digits())
    with pytest.raises(TypeError, match="no value for a batch"):
        metric(*digits()[:2])
    assert torch.equal(metric.compute(), updated(make, digits()).compute())


@every_metric
def test_negative_label_is_an_error_at_its_update(make):
    with pytest.raises(ValueError, match="got label -1 at position 1"):
        make().update(torch.zeros(2, 3), torch.tensor([0, -1]))


@every_metric
def test_another_width_is_an_error_at_its_update(make):
    metric = make()
    metric.update(*noise()[:2])
    with pytest.raises(ValueError, match="width 5 after 4"):
        metric.update(torch.zeros(2, 5), torch.tensor([0, 1]))
    metric.update(*noise()[:2])


@every_metric
def test_conversions_keep_the_features(make):
    metric = updated(make, noise())
    before = metric.gathered()
    nn.ModuleList([metric]).to(torch.bfloat16)
    nn.ModuleList([metric]).half()
    assert all(torch.equal(*pair) for pair in zip(metric.gathered(), before, strict=True))
    assert {part.device.type for part in metric.to("meta").gathered()} == {"meta"}


@every_metric
def test_no_graph_is_stored_and_the_state_dict_is_empty(make):
    x, y, *_ = noise()
    metric = make()
    metric.update(x.requires_grad_(), y)
    assert not metric.features[0].requires_grad
    assert metric.state_dict() == {}


@every_metric
def test_class_attributes_declare_the_behaviour(make):
    assert (make.is_differentiable, make.higher_is_better, make.full_state_update) == (False, True, False)


# Two ranks.


SHARES = {"even": 0.5, "uneven": 0.7, "all to one": 1.0}


def part_of(data, share, rank):
    x, y, reference_x, reference_y = data
    cut, reference_cut = round(share * len(x)), round(share * len(reference_x))
    local = (
        (slice(None, cut), slice(None, reference_cut)) if rank == 0 else (slice(cut, None), slice(reference_cut, None))
    )
    return x[local[0]], y[local[0]], reference_x[local[1]], reference_y[local[1]]


def run(rank, folder):
    torch.set_num_threads(1)
    store, timeout = f"file://{folder}/store", datetime.timedelta(seconds=60)
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2, timeout=timeout)
    results = {}
    for name, make in EVERY.items():
        for share in SHARES.values():
            metric = make()
            x, y, reference_x, reference_y = part_of(digits(), share, rank)
            # Ranks have different numbers of batches; a rank without samples never updates.
            for first in range(0, len(x), 50):
                metric.update(x[first : first + 50], y[first : first + 50])
            for first in range(0, len(reference_x), 130):
                batch = slice(first, first + 130)
                metric.update(reference_x[batch], reference_y[batch], reference=True)
            local = metric.gathered()
            if metric.update_called:
                results[name, share] = metric.compute()
            else:
                with pytest.warns(UserWarning, match="before the ``update``"):
                    results[name, share] = metric.compute()
            # After compute each rank has its local features again.
            assert all(torch.equal(*pair) for pair in zip(metric.gathered(), local, strict=True))
    torch.save(results, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # Python 3.12 and later
def test_two_ranks_equal_one_process(tmp_path):
    mp.start_processes(run, (str(tmp_path),), nprocs=2, start_method="fork")
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert len(first) == len(EVERY) * len(SHARES)
    for (name, share), actual in first.items():
        assert torch.equal(actual, second[name, share])
        assert torch.equal(actual, updated(EVERY[name], digits()).compute())

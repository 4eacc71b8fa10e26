"""Probe metrics against scikit-learn and loops in NumPy."""

import copy
import datetime
import logging
import pickle

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
every_function = pytest.mark.parametrize(
    "accuracy", [functional.nearest_neighbor_accuracy, functional.linear_probe_accuracy]
)
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


@pytest.mark.parametrize("chunk", [1, 4000, 2**22])
@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("similarity", ["inner_product", "cosine"])
def test_nearest_neighbors_are_those_of_scikit_learn(k, similarity, chunk, monkeypatch):
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
def test_ties_go_to_the_smallest_label_in_whatever_order_the_samples_come(k):
    x, y, reference_x, reference_y = noise(num=200, num_reference=40)
    x, reference_x = x.round(), reference_x.round()  # many equal similarities
    expected = slow_accuracy(x, y, reference_x, reference_y, k)
    for seed in range(5):
        order = torch.randperm(len(reference_x), generator=torch.Generator().manual_seed(seed))
        shuffled = x, y, reference_x[order], reference_y[order]
        assert float(functional.nearest_neighbor_accuracy(*shuffled, k=k)) == pytest.approx(expected, abs=1e-7)


def test_a_collapsed_encoder_gets_the_share_of_the_smallest_label():
    _, y, _, reference_y = digits()
    accuracy = functional.nearest_neighbor_accuracy(torch.zeros(300, 8), y, torch.zeros(600, 8), reference_y)
    assert float(accuracy) == pytest.approx(float((y == 0).float().mean()))


def test_labels_need_not_count_from_zero_and_one_without_reference_is_never_right():
    reference = torch.eye(2), torch.tensor([5, 10**12])
    x, y = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]), torch.tensor([5, 10**12, 3])
    assert float(functional.nearest_neighbor_accuracy(x, y, *reference)) == pytest.approx(2 / 3)


@pytest.mark.parametrize(("kwargs", "message"), [({"k": 0}, "k=0"), ({"similarity": "l2"}, "similarity='l2'")])
def test_arguments_of_nearest_neighbors_out_of_range_are_explained(kwargs, message):
    with pytest.raises(ValueError, match=message):
        NearestNeighborAccuracy(**kwargs)
    with pytest.raises(ValueError, match=message):
        functional.nearest_neighbor_accuracy(*noise(), **kwargs)


def test_more_neighbors_than_samples_are_refused():
    with pytest.raises(ValueError, match=r"\(k=21\) got 20 reference samples"):
        functional.nearest_neighbor_accuracy(*noise(), k=21)


# The linear probe.


@pytest.mark.parametrize("strength", [0.01, 1.0])
def test_the_linear_probe_is_logistic_regression_on_standardized_features(strength):
    data = digits()
    x, y, reference_x, reference_y = (part.numpy() for part in data)
    expected = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=1000, solver="lbfgs"))
    expected = expected.fit(reference_x.astype(np.float64), reference_y).score(x.astype(np.float64), y)
    assert 0.5 < expected < 1
    first, second = (functional.linear_probe_accuracy(*data, C=strength) for _ in range(2))
    assert float(first) == pytest.approx(expected, abs=1e-6)
    assert torch.equal(first, second)


def test_a_solver_that_has_not_converged_says_so_and_gives_its_last_iterate(caplog):
    with caplog.at_level(logging.WARNING):
        accuracy = functional.linear_probe_accuracy(*digits(), max_iter=2)
    assert 0.1 < float(accuracy) < 1
    [record] = caplog.records
    assert "stopped after max_iter=2" in record.getMessage()
    caplog.clear()
    functional.linear_probe_accuracy(*digits())
    assert caplog.records == []


def test_the_linear_probe_leaves_the_random_stream_alone():
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    functional.linear_probe_accuracy(*noise())
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()


@pytest.mark.parametrize(("kwargs", "message"), [({"C": 0.0}, "C=0"), ({"max_iter": 0}, "max_iter=0")])
def test_arguments_of_the_linear_probe_out_of_range_are_explained(kwargs, message):
    with pytest.raises(ValueError, match=message):
        LinearProbeAccuracy(**kwargs)
    with pytest.raises(ValueError, match=message):
        functional.linear_probe_accuracy(*noise(), **kwargs)


# Both.


@every_function
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("part", [0, 2])
def test_features_that_are_not_finite_have_no_accuracy(accuracy, part, value):
    data = noise()
    data[part][3, 1] = value
    with pytest.warns(MINumericalWarning, match=NAN_WARNING):
        assert accuracy(*data).isnan()


@every_function
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({2: torch.zeros(0, 4), 3: torch.zeros(0, dtype=torch.long)}, ValueError, "no reference features"),
        ({0: torch.zeros(0, 4), 1: torch.zeros(0, dtype=torch.long)}, ValueError, "no features to judge"),
        ({0: torch.zeros(10, 5)}, ValueError, "width 5 and reference features of width 4"),
        ({1: torch.zeros(10)}, TypeError, "labels of type float32"),
        ({3: torch.zeros(20, dtype=torch.bool)}, TypeError, "labels of type bool"),
        ({1: torch.zeros(9, dtype=torch.long)}, ValueError, r"shape \(9,\) for 10 samples"),
        ({0: torch.zeros(10, 2, 2)}, ValueError, r"shape \(10, 2, 2\)"),
        ({2: torch.zeros(20, 4, dtype=torch.long)}, ValueError, "type int64"),
        ({3: torch.full((20,), 7)}, ValueError, "single class, 7"),
        ({1: torch.arange(10) - 1}, ValueError, "got label -1 at position 0: class labels are at least 0"),
        ({3: torch.arange(20) - 2}, ValueError, "got label -2 at position 0: class labels are at least 0"),
        ({1: torch.arange(10) + 100}, ValueError, "without one in common: no sample can be judged right"),
    ],
)
def test_what_does_not_fit_is_explained(accuracy, change, error, message):
    data = [change.get(i, part) for i, part in enumerate(noise())]
    with pytest.raises(error, match=message):
        accuracy(*data)


@every_metric
def test_batches_add_up_to_what_the_function_gives(make):
    function = {
        NearestNeighborAccuracy: functional.nearest_neighbor_accuracy,
        LinearProbeAccuracy: functional.linear_probe_accuracy,
    }[make]
    assert torch.equal(updated(make, digits()).compute(), function(*digits()))


@every_metric
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_features_of_any_width_of_number_are_taken(make, dtype):
    x, y, reference_x, reference_y = digits()  # whole numbers up to 16: exact in all of them
    narrow = updated(make, (x.to(dtype), y.int(), reference_x.to(dtype), reference_y.short()))
    assert torch.equal(narrow.compute(), updated(make, digits()).compute())


@every_metric
@pytest.mark.parametrize("duplicate", [lambda m: m.clone(), copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_copy_goes_its_own_way(make, duplicate):
    x, y, *reference = digits()
    metric = updated(make, (x[:90], y[:90], *reference))
    before = metric.compute()
    other = duplicate(metric)
    other.update(x[90:], y[90:])
    assert torch.equal(other.compute(), updated(make, digits()).compute())
    assert torch.equal(metric.compute(), before)
    assert not torch.equal(other.compute(), before)


@every_metric
def test_reset_forgets_features_and_references(make):
    metric = updated(make, digits())
    metric.reset()
    with pytest.warns(UserWarning, match="before the ``update``"), pytest.raises(ValueError, match="no reference"):
        metric.compute()
    for part, reference in ((digits()[2:], True), (digits()[:2], False)):
        metric.update(*part, reference=reference)
    assert torch.equal(metric.compute(), updated(make, digits()).compute())


@every_metric
def test_more_batches_are_taken_after_a_result(make):
    x, y, *reference = digits()
    metric = updated(make, (x[:100], y[:100], reference[0][:300], reference[1][:300]))
    metric.compute()
    metric.update(x[100:], y[100:])
    metric.update(reference[0][300:], reference[1][300:], reference=True)
    assert torch.equal(metric.compute(), updated(make, digits()).compute())


@every_metric
def test_parts_merge(make):
    x, y, *reference = digits()
    whole, part, rest = updated(make, digits()), updated(make, (x[:90], y[:90], *reference)), make()
    rest.update(x[90:], y[90:])
    part.merge_state(rest)
    assert torch.equal(part.compute(), whole.compute())


def test_a_collection_keeps_the_features_once_for_both():
    collection = updated(lambda: MetricCollection({name: make() for name, make in EVERY.items()}), digits())
    assert collection.compute() == {name: updated(make, digits()).compute() for name, make in EVERY.items()}
    assert list(collection.compute_groups.values()) == [sorted(EVERY)]


@every_metric
def test_a_single_batch_has_no_value(make):
    metric = updated(make, digits())
    with pytest.raises(TypeError, match="no value for a batch"):
        metric(*digits()[:2])
    assert torch.equal(metric.compute(), updated(make, digits()).compute())


@every_metric
def test_negative_label_is_refused_when_it_comes(make):
    with pytest.raises(ValueError, match="got label -1 at position 1"):
        make().update(torch.zeros(2, 3), torch.tensor([0, -1]))


@every_metric
def test_another_width_is_refused_when_it_comes(make):
    metric = make()
    metric.update(*noise()[:2])
    with pytest.raises(ValueError, match="width 5 after 4"):
        metric.update(torch.zeros(2, 5), torch.tensor([0, 1]))
    metric.update(*noise()[:2])


@every_metric
def test_a_change_of_type_leaves_the_features_alone(make):
    metric = updated(make, noise())
    before = metric.gathered()
    nn.ModuleList([metric]).to(torch.bfloat16)
    nn.ModuleList([metric]).half()
    assert all(torch.equal(*pair) for pair in zip(metric.gathered(), before, strict=True))
    assert {part.device.type for part in metric.to("meta").gathered()} == {"meta"}


@every_metric
def test_no_gradient_is_kept_and_nothing_is_in_the_state_dict(make):
    x, y, *_ = noise()
    metric = make()
    metric.update(x.requires_grad_(), y)
    assert not metric.features[0].requires_grad
    assert metric.state_dict() == {}


@every_metric
def test_classes_declare_what_they_are(make):
    assert (make.is_differentiable, make.higher_is_better, make.full_state_update) == (False, True, False)


# Two processes.


SHARES = {"even": 0.5, "uneven": 0.7, "all to one": 1.0}


def part_of(data, share, rank):
    x, y, reference_x, reference_y = data
    cut, reference_cut = round(share * len(x)), round(share * len(reference_x))
    own = (
        (slice(None, cut), slice(None, reference_cut)) if rank == 0 else (slice(cut, None), slice(reference_cut, None))
    )
    return x[own[0]], y[own[0]], reference_x[own[1]], reference_y[own[1]]


def run(rank, folder):
    torch.set_num_threads(1)
    store, timeout = f"file://{folder}/store", datetime.timedelta(seconds=60)
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2, timeout=timeout)
    results = {}
    for name, make in EVERY.items():
        for share in SHARES.values():
            metric = make()
            x, y, reference_x, reference_y = part_of(digits(), share, rank)
            # Another number of batches on each process; a process without samples never updates.
            for first in range(0, len(x), 50):
                metric.update(x[first : first + 50], y[first : first + 50])
            for first in range(0, len(reference_x), 130):
                batch = slice(first, first + 130)
                metric.update(reference_x[batch], reference_y[batch], reference=True)
            own = metric.gathered()
            if metric.update_called:
                results[name, share] = metric.compute()
            else:
                with pytest.warns(UserWarning, match="before the ``update``"):
                    results[name, share] = metric.compute()
            # A process goes on with its own features.
            assert all(torch.equal(*pair) for pair in zip(metric.gathered(), own, strict=True))
    torch.save(results, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # Python 3.12 and later
def test_two_processes_read_what_one_would_have(tmp_path):
    mp.start_processes(run, (str(tmp_path),), nprocs=2, start_method="fork")
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert len(first) == len(EVERY) * len(SHARES)
    for (name, share), actual in first.items():
        assert torch.equal(actual, second[name, share])
        assert torch.equal(actual, updated(EVERY[name], digits()).compute())

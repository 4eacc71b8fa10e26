"""Probe metrics over batches: equal to the functions, with independent copies, resets and checks."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torchmetrics import MetricCollection

from tests.helpers.probes import EVERY, FUNCTIONS, digits, noise, updated

every_metric = pytest.mark.parametrize("make", EVERY.values(), ids=EVERY)


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

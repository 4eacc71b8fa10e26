"""The contract of torchmetrics, for every metric of terms and scores."""

import copy
import pickle
from collections.abc import Callable
from functools import partial

import matplotlib
import pytest
import torch
from torch import nn
from torchmetrics import Metric, MetricCollection

from lightning_mi import Scores, bounds
from lightning_mi.metrics import EffectiveSampleFraction, LogNormalizer, MutualInformation, StandardError
from lightning_mi.metrics.moments import merge_moments
from tests.helpers.cuts import cut_rows

matplotlib.use("Agg")

METRICS = {
    "micro": partial(MutualInformation, bounds.DV()),
    "macro": partial(MutualInformation, bounds.DV(), "macro"),
    "rows": partial(MutualInformation, bounds.InfoNCE()),
    "standard_error": partial(StandardError, bounds.DV()),
    "log_normalizer": partial(LogNormalizer, bounds.DV()),
    "effective_sample_fraction": EffectiveSampleFraction,
}
every_metric = pytest.mark.parametrize("make", METRICS.values(), ids=METRICS)
BATCHES = cut_rows(5).batches


def arguments(metric, scores):
    if isinstance(metric, EffectiveSampleFraction):
        return (scores,)
    return bounds.DV()(scores), scores


def update(metric, batches):
    for scores in batches:
        metric.update(*arguments(metric, scores))
    return metric


def result(make, batches=BATCHES):
    return update(make(), batches).compute()


@every_metric
def test_forward_returns_the_batch_and_accumulates(make):
    metric = make()
    for scores in BATCHES:
        value = metric(*arguments(metric, scores))
        torch.testing.assert_close(value, result(make, [scores]), rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(metric.compute(), result(make), rtol=1e-12, atol=1e-12)


@every_metric
def test_reset_clears_the_state(make):
    metric = update(make(), BATCHES[3:])
    metric.reset()
    assert update(metric, BATCHES[:2]).compute() == result(make, BATCHES[:2])


@every_metric
def test_copies_are_independent(make):
    metric = update(make(), BATCHES[:2])
    before = metric.compute()
    for duplicate in (lambda m: m.clone(), copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))):
        other = duplicate(metric)
        assert other.compute() == before
        assert update(other, BATCHES[2:]).compute() == result(make) != before
        assert metric.compute() == before


@every_metric
def test_persistent_moments_are_in_the_state_dict(make):
    metric, other = update(make(), BATCHES), make()
    assert metric.state_dict() == {}
    metric.persistent(True)
    other.persistent(True)
    assert len(metric.state_dict()) == 1
    other.load_state_dict(metric.state_dict())
    assert update(other, BATCHES[:1]).compute() == update(metric, BATCHES[:1]).compute()


@every_metric
def test_merged_parts_equal_the_whole(make):
    # The third part has no batch.
    parts, whole = [update(make(), BATCHES[:3]), update(make(), BATCHES[3:]), make()], update(make(), BATCHES)
    merged = merge_moments(torch.stack([part.moments for part in parts]))
    torch.testing.assert_close(merged, whole.moments, rtol=1e-12, atol=1e-12)
    parts[0].merge_state(parts[1])
    torch.testing.assert_close(parts[0].compute(), whole.compute(), rtol=1e-12, atol=1e-12)


def test_empty_moments_merge_to_empty_moments():
    empty = MutualInformation(bounds.DV()).moments
    assert torch.equal(merge_moments(torch.stack([empty, empty])), empty)


def test_infinite_log_normalizer_stays_infinite():
    metric = LogNormalizer(bounds.DV())
    for log_normalizer in (0.0, torch.inf, 5.0):
        terms = bounds.BoundTerms(*torch.tensor([0.0, 0.0, 0.0, 0.0, log_normalizer]))
        metric.update(terms, BATCHES[0])
    assert metric.compute() == torch.inf


@every_metric
def test_compute_before_update_warns_and_gives_nan(make):
    metric = make()
    with pytest.warns(UserWarning, match="before the ``update`` method"):
        assert metric.compute().isnan()


@every_metric
def test_no_graph_is_stored(make):
    scores = Scores.from_matrix(torch.randn(5, 5, requires_grad=True))
    metric = make()
    assert not metric(*arguments(metric, scores)).requires_grad
    assert not metric.moments.requires_grad


@every_metric
def test_conversions_keep_moments_in_float64(make):
    metric = update(make(), BATCHES)
    before = metric.moments
    nn.ModuleList([metric]).to(torch.bfloat16)
    nn.ModuleList([metric]).half()
    assert torch.equal(metric.moments, before)
    metric.reset()
    assert torch.equal(update(metric, BATCHES).moments, before)


@every_metric
def test_moments_follow_the_device(make):
    metric = update(make(), BATCHES).to("meta")
    assert metric.moments.device.type == "meta"
    metric.reset()
    assert metric.moments.device.type == "meta"


@every_metric
def test_metric_works_after_inference_mode(make):
    metric = make()
    with torch.inference_mode():
        update(metric, BATCHES[:1])
        metric.reset()
        update(metric, BATCHES[:1])
    assert update(metric, BATCHES[1:]).compute() == result(make)


def test_collection_shares_only_states_of_equal_readouts():
    # In the first batch all scores are zero, and so are all terms of InfoNCE.
    bound = bounds.InfoNCE()
    make: dict[str, Callable[[], Metric]] = {
        "micro": partial(MutualInformation, bound),
        "micro_error": partial(StandardError, bound),
        "macro": partial(MutualInformation, bound, "macro"),
        "plug_in": partial(MutualInformation, bound, "plug-in"),
        "plug_in_1": partial(MutualInformation, bound, "plug-in", target=1.0),
        "log_normalizer": partial(LogNormalizer, bound),
        "effective_sample_fraction": EffectiveSampleFraction,
    }
    collection = MetricCollection({name: metric() for name, metric in make.items()})
    single = {name: metric() for name, metric in make.items()}
    for scores in [Scores.from_matrix(torch.zeros(3, 3)), *BATCHES]:
        terms = bound(scores)
        collection.update(terms=terms, scores=scores)
        for name, metric in single.items():
            metric.update(*((scores,) if name == "effective_sample_fraction" else (terms, scores)))
    assert collection.compute() == {name: metric.compute() for name, metric in single.items()}
    groups = list(collection.compute_groups.values())
    assert ["plug_in", "plug_in_1"] in groups
    assert ["micro", "micro_error"] in groups
    assert len(groups) == 5


@pytest.mark.parametrize(
    ("metric", "higher_is_better"),
    [(MutualInformation, True), (StandardError, False), (LogNormalizer, None), (EffectiveSampleFraction, True)],
)
def test_class_attributes_declare_the_behaviour(metric, higher_is_better):
    assert metric.is_differentiable is False
    assert metric.higher_is_better is higher_is_better
    assert metric.full_state_update is False


def test_plot_shows_one_result_or_several():
    metric = MutualInformation(bounds.DV())
    results = [metric(*arguments(metric, scores)) for scores in BATCHES]
    figure, axes = metric.plot(results)
    assert axes.lines[0].get_ydata().tolist() == [float(value) for value in results]
    matplotlib.pyplot.close(figure)
    figure, axes = metric.plot()
    assert axes.lines[0].get_ydata() == [metric.compute()]
    matplotlib.pyplot.close(figure)

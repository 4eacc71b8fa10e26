"""What torchmetrics promises of every metric."""

import copy
import pickle
from functools import partial

import matplotlib
import pytest
import torch
from torch import nn
from torchmetrics import MetricCollection

from lightning_mi import Scores, bounds
from lightning_mi.metrics import EffectiveSampleFraction, Estimate, LogNormalizer, MutualInformation
from lightning_mi.metrics.moments import merge_moments
from tests.helpers.cuts import cut_rows

matplotlib.use("Agg")

METRICS = {
    "micro": partial(MutualInformation, bounds.DV()),
    "micro-mean": partial(MutualInformation, bounds.NWJ()),
    "micro-rows": partial(MutualInformation, bounds.InfoNCE()),
    "macro": partial(MutualInformation, bounds.DV(), "macro"),
    "plug-in": partial(MutualInformation, bounds.DV(), "plug-in"),
    "log_normalizer": partial(LogNormalizer, bounds.DV()),
    "effective_sample_fraction": EffectiveSampleFraction,
}
every_metric = pytest.mark.parametrize("make", METRICS.values(), ids=METRICS)


def arguments(metric, bound=None, pieces=5):
    """Keyword arguments of an update with each of several batches."""
    with torch.no_grad():
        batches = [{"terms": (bound or bounds.DV())(scores), "scores": scores} for scores in cut_rows(pieces).batches]
    return [metric._filter_kwargs(**batch) for batch in batches]


def updated(make, batches=slice(None)):
    metric = make()
    for kwargs in arguments(metric)[batches]:
        metric.update(**kwargs)
    return metric


@every_metric
def test_forward_gives_the_batch_and_keeps_all(make):
    metric = make()
    for i, kwargs in enumerate(arguments(metric)):
        assert metric(**kwargs) == updated(make, slice(i, i + 1)).compute()
    torch.testing.assert_close(metric.compute(), updated(make).compute(), rtol=1e-12, atol=1e-12)


@every_metric
def test_reset_forgets(make):
    metric = updated(make, slice(3, 5))
    metric.reset()
    for kwargs in arguments(metric)[:2]:
        metric.update(**kwargs)
    assert metric.compute() == updated(make, slice(0, 2)).compute()


@every_metric
@pytest.mark.parametrize("duplicate", [lambda m: m.clone(), copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_copy_goes_its_own_way(make, duplicate):
    metric = updated(make, slice(0, 2))
    before = metric.compute()
    other = duplicate(metric)
    assert other.compute() == before
    for kwargs in arguments(other)[2:]:
        other.update(**kwargs)
    assert other.compute() == updated(make).compute() != before
    assert metric.compute() == before


@every_metric
def test_moments_are_in_the_state_dict_when_asked(make):
    metric, other = updated(make), make()
    assert metric.state_dict() == {}
    metric.persistent(True)
    state = metric.state_dict()
    assert len(state) == 1
    other.persistent(True)
    other.load_state_dict(state)
    other.update(**arguments(other)[0])
    metric.update(**arguments(metric)[0])
    assert other.compute() == metric.compute()


@every_metric
def test_processes_merge_to_what_one_would_have_seen(make):
    # The third process has seen nothing.
    parts = [updated(make, slice(0, 3)), updated(make, slice(3, 5)), make()]
    merged, whole = merge_moments(torch.stack([part.moments for part in parts])), updated(make)
    torch.testing.assert_close(merged, whole.moments, rtol=1e-12, atol=1e-12)
    (reduction,) = whole._reductions.values()
    assert reduction is merge_moments
    parts[0].merge_state(parts[1])
    torch.testing.assert_close(parts[0].compute(), whole.compute(), rtol=1e-12, atol=1e-12)


def test_nothing_merged_with_nothing_is_nothing():
    nothing = MutualInformation(bounds.DV()).moments
    assert torch.equal(merge_moments(torch.stack([nothing, nothing])), nothing)


def test_an_infinite_log_normalizer_stays_infinite():
    metric = LogNormalizer(bounds.DV())
    for log_normalizer in (0.0, torch.inf, 5.0):
        terms = bounds.BoundTerms(*torch.tensor([0.0, 0.0, 0.0, 0.0, log_normalizer]))
        metric.update(terms, cut_rows(1).batches[0])
    assert metric.compute() == torch.inf


@every_metric
def test_computing_before_the_first_batch_warns_and_gives_nan(make):
    metric = make()
    with pytest.warns(UserWarning, match="before the ``update`` method"):
        assert metric.compute().isnan()


@pytest.mark.parametrize("average", ["micro", "macro", "plug-in"])
def test_the_standard_error_comes_beside_the_value_when_asked(average):
    plain = updated(partial(MutualInformation, bounds.DV(), average))
    both = updated(partial(MutualInformation, bounds.DV(), average, return_standard_error=True))
    estimate = both.compute()
    assert isinstance(estimate, Estimate)
    assert estimate.value == plain.compute()
    assert estimate.standard_error > 0
    assert both(**arguments(both)[0]).standard_error.isnan()  # of one batch


@every_metric
def test_no_gradient_is_kept(make):
    matrix = torch.randn(5, 5, requires_grad=True)
    scores = Scores.from_matrix(matrix)
    metric = make()
    kwargs = metric._filter_kwargs(terms=bounds.DV()(scores), scores=scores)
    assert not metric(**kwargs).requires_grad
    assert not metric.moments.requires_grad


@every_metric
def test_a_change_of_type_leaves_the_moments_in_float64(make):
    metric = updated(make)
    before = metric.moments
    nn.ModuleList([metric]).to(torch.bfloat16)
    nn.ModuleList([metric]).half()
    assert torch.equal(metric.moments, before)
    metric.reset()
    for kwargs in arguments(metric):
        metric.update(**kwargs)
    assert torch.equal(metric.moments, before)


@every_metric
def test_moments_follow_the_device(make):
    metric = updated(make).to("meta")
    assert metric.moments.device.type == "meta"
    metric.reset()
    assert metric.moments.device.type == "meta"


@every_metric
def test_inference_mode_leaves_a_metric_that_works(make):
    metric = make()
    batches = arguments(metric)
    with torch.inference_mode():
        metric.update(**batches[0])
        metric.reset()
        metric.update(**batches[0])
    for kwargs in batches[1:]:
        metric.update(**kwargs)
    assert metric.compute() == updated(make).compute()


def test_a_collection_lets_only_equal_readings_share_a_state():
    # At the first batch all scores are zero, and so is all that InfoNCE reads of it.
    bound = bounds.InfoNCE()
    make = {
        "micro": partial(MutualInformation, bound),
        "macro": partial(MutualInformation, bound, "macro"),
        "plug_in": partial(MutualInformation, bound, "plug-in"),
        "plug_in_1": partial(MutualInformation, bound, "plug-in", target=1.0),
        "log_normalizer": partial(LogNormalizer, bound),
        "effective_sample_fraction": EffectiveSampleFraction,
    }
    collection = MetricCollection({name: m() for name, m in make.items()})
    alone = {name: m() for name, m in make.items()}
    for scores in [Scores.from_matrix(torch.zeros(3, 3)), *cut_rows(5).batches]:
        kwargs = {"terms": bound(scores), "scores": scores}
        collection.update(**kwargs)
        for metric in alone.values():
            metric.update(**metric._filter_kwargs(**kwargs))
    assert collection.compute() == {name: metric.compute() for name, metric in alone.items()}
    assert ["plug_in", "plug_in_1"] in collection.compute_groups.values()
    assert len(collection.compute_groups) == 5


@pytest.mark.parametrize(
    ("metric", "higher_is_better"), [(MutualInformation, True), (LogNormalizer, None), (EffectiveSampleFraction, True)]
)
def test_classes_declare_what_they_are(metric, higher_is_better):
    assert metric.is_differentiable is False
    assert metric.higher_is_better is higher_is_better
    assert metric.full_state_update is False


@pytest.mark.parametrize("return_standard_error", [False, True])
def test_a_plot_shows_the_values(return_standard_error):
    metric = MutualInformation(bounds.DV(), return_standard_error=return_standard_error)
    results = [metric(**kwargs) for kwargs in arguments(metric)]
    values = [float(r.value if return_standard_error else r) for r in results]
    figure, axes = metric.plot(results)
    assert axes.lines[0].get_ydata().tolist() == values
    matplotlib.pyplot.close(figure)
    figure, axes = metric.plot()
    total = metric.compute()
    assert axes.lines[0].get_ydata() == [total.value if return_standard_error else total]
    matplotlib.pyplot.close(figure)

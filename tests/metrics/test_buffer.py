"""Metrics that add many batches at once equal metrics that add them one by one."""

import copy

import pytest
import torch
from torchmetrics import MeanMetric, MetricCollection

from lightning_mi import Scores, bounds
from lightning_mi.metrics import EffectiveSampleFraction, LogNormalizer, MutualInformation
from lightning_mi.metrics._buffer import BufferedMetrics, digest
from tests.helpers.cuts import cut_rows
from tests.helpers.specs import BOUND_KINDS, by_name


def parts(bound):
    return {
        "micro": MutualInformation(bound),
        "macro": MutualInformation(bound, "macro"),
        "plug_in": MutualInformation(bound, "plug-in"),
        "log_normalizer": LogNormalizer(bound),
        "effective_sample_fraction": EffectiveSampleFraction(),
    }


def append(metrics, batches, bound=None):
    with torch.no_grad():
        for scores in batches:
            metrics.append(digest((bound or bounds.DV())(scores), scores))
    return metrics


def buffered(batches, bound=None, size=64):
    return append(BufferedMetrics(parts(bound or bounds.DV()), prefix="train/", size=size), batches, bound)


def without_joint_pairs():
    t, y = torch.randn(4, 4).double(), torch.randn(4, 2).double()
    return Scores.from_matrix(t, joint=torch.zeros(4, 4).bool(), allow_no_joint=True, y=y)


@pytest.mark.parametrize("size", [1, 2, 3, 64])
@pytest.mark.parametrize("spec", BOUND_KINDS, ids=by_name)
def test_buffered_metrics_equal_metrics_of_single_batches(spec, size):
    batches, bound = [*cut_rows(5).batches, without_joint_pairs()], spec.make().eval()
    collection = MetricCollection(parts(bound), prefix="train/")
    for scores in batches:
        collection.update(terms=bound(scores), scores=scores)
    expected, observed = collection.compute(), buffered(batches, bound, size).compute()
    assert observed.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(observed[name], value, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "read", [lambda m: m.compute()["train/macro"], lambda m: dict(m.items())["train/macro"].compute()]
)
def test_every_read_covers_all_batches(read):
    batches = cut_rows(5).batches
    metrics = buffered(batches[:3])
    read(metrics)
    append(metrics, batches[3:])
    torch.testing.assert_close(read(metrics), buffered(batches).compute()["train/macro"], rtol=1e-12, atol=1e-12)


def test_batches_on_an_earlier_device_follow_the_module():
    metrics = buffered(cut_rows(2).batches).to("meta")
    assert {metric.moments.device.type for _, metric in metrics.items()} == {"meta"}


def test_scores_are_not_stored():
    (scores,) = cut_rows(1).batches
    snapshot = buffered([scores]).snapshot()
    assert snapshot["rows"].numel() < 10 < scores.num_marginal


def test_reset_clears_buffered_batches():
    batches = cut_rows(5).batches
    metrics = buffered(batches[:2])
    assert metrics.has_batches
    metrics.reset()
    assert not metrics.has_batches
    assert append(metrics, batches[2:]).compute() == buffered(batches[2:]).compute()


@pytest.mark.parametrize("before", [0, 1, 2, 3])
@pytest.mark.parametrize("size", [2, 64])
def test_snapshot_restores_the_state_bitwise(tmp_path, before, size):
    batches = cut_rows(5).batches
    metrics = buffered(batches[:before], size=size)
    torch.save(metrics.snapshot(), tmp_path / "snapshot")
    saved = copy.deepcopy(metrics.snapshot())
    append(metrics, batches[before:])
    other = buffered(batches[:1], size=size)
    other.restore(torch.load(tmp_path / "snapshot", weights_only=True))
    restored = other.snapshot()
    assert all(torch.equal(restored["moments"][name], moments) for name, moments in saved["moments"].items())
    assert restored["counts"] == saved["counts"]
    assert append(other, batches[before:]).compute() == metrics.compute()


def test_all_batches_undone_give_nan_without_a_warning():
    metrics = buffered([])
    before = metrics.snapshot()
    append(metrics, cut_rows(1).batches)
    metrics.restore(before)
    assert all(value.isnan() for value in metrics.compute().values())


def test_metric_of_another_kind_is_an_error():
    with pytest.raises(TypeError, match="Got a MeanMetric as 'mean': it cannot add several batches at once"):
        BufferedMetrics({"mean": MeanMetric()})

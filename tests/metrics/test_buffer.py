"""Metrics that take in batches many at a time read the same as those that take them in one by one."""

import copy

import numpy as np
import pytest
import torch
from torchmetrics import MeanMetric, MetricCollection

from lightning_mi import Scores, bounds
from lightning_mi.metrics import BufferedMetrics, EffectiveSampleFraction, LogNormalizer, MutualInformation
from tests.helpers.cuts import cut_rows
from tests.helpers.specs import BOUNDS, by_name

NAMES = ("effective_sample_fraction", "log_normalizer", "macro", "micro", "plug_in")


def parts(bound):
    return {
        "micro": MutualInformation(bound),
        "macro": MutualInformation(bound, "macro"),
        "plug_in": MutualInformation(bound, "plug-in"),
        "log_normalizer": LogNormalizer(bound),
        "effective_sample_fraction": EffectiveSampleFraction(),
    }


def take_in(metrics, bound, batches):
    with torch.no_grad():
        for scores in batches:
            metrics.update(terms=bound(scores), scores=scores)
    return metrics


def buffered(batches, bound=None, size=64):
    bound = bound or bounds.DV()
    return take_in(BufferedMetrics(parts(bound), prefix="train/", size=size), bound, batches)


def without_joint_pairs():
    t, y = torch.randn(4, 4).double(), torch.randn(4, 2).double()
    return Scores.from_matrix(t, joint=torch.zeros(4, 4).bool(), allow_no_joint=True, y=y)


@pytest.mark.parametrize("size", [1, 2, 3, 64])
@pytest.mark.parametrize("spec", BOUNDS, ids=by_name)
def test_reads_what_metrics_read_one_batch_at_a_time(spec, size):
    batches, bound = [*cut_rows(5).batches, without_joint_pairs()], spec.make().eval()
    together = buffered(batches, bound, size).compute()
    alone = take_in(MetricCollection(parts(bound), prefix="train/"), bound, batches).compute()
    assert sorted(together) == sorted(alone) == [f"train/{name}" for name in NAMES]
    for name, value in alone.items():
        torch.testing.assert_close(together[name], value, rtol=1e-12, atol=1e-12)


def test_macro_is_the_mean_over_batches():
    batches = cut_rows(5).batches
    values = [bounds.DV()(scores).value.item() for scores in batches]
    assert buffered(batches).compute()["train/macro"].item() == pytest.approx(np.mean(values), rel=1e-12)


@pytest.mark.parametrize(
    "look",
    [
        lambda metrics: metrics["macro"].compute(),
        lambda metrics: metrics["train/macro"].compute(),
        lambda metrics: dict(metrics.items())["train/macro"].compute(),
        lambda metrics: next(m for m, name in zip(metrics.values(), metrics, strict=True) if "macro" in name).compute(),
        lambda metrics: metrics.compute()["train/macro"],
        lambda metrics: metrics.double()["macro"].compute(),
    ],
)
def test_whoever_looks_sees_all_batches(look):
    batches = cut_rows(5).batches
    metrics = buffered(batches[:3])
    look(metrics)
    take_in(metrics, bounds.DV(), batches[3:])
    torch.testing.assert_close(look(metrics), buffered(batches).compute()["train/macro"], rtol=1e-12, atol=1e-12)


def test_scores_are_not_kept():
    (scores,) = cut_rows(1).batches
    metrics = buffered([scores])
    kept = sum(t.numel() for t in metrics._rows)
    assert kept < 10 < scores.num_marginal


def test_reset_forgets_what_waits():
    batches = cut_rows(5).batches
    metrics = buffered(batches[:2])
    metrics.reset()
    take_in(metrics, bounds.DV(), batches[2:])
    assert metrics.compute() == buffered(batches[2:]).compute()


@pytest.mark.parametrize("before", [0, 1, 2, 3])
@pytest.mark.parametrize("size", [2, 64])
def test_a_snapshot_brings_back_bit_by_bit_what_was_taken_in(tmp_path, before, size):
    batches = cut_rows(5).batches
    metrics = buffered(batches[:before], size=size)
    torch.save(metrics.snapshot(), tmp_path / "snapshot")
    taken = copy.deepcopy(metrics.snapshot())
    take_in(metrics, bounds.DV(), batches[before:])
    other = buffered(batches[:1], size=size)
    other.restore(torch.load(tmp_path / "snapshot", weights_only=True))
    for (name, state), expected in zip(other.snapshot()["metrics"].items(), taken["metrics"].values(), strict=True):
        assert all(torch.equal(state[key], expected[key]) for key in expected if key != "updates"), name
    assert other.snapshot()["counts"] == taken["counts"]
    assert take_in(other, bounds.DV(), batches[before:]).compute() == metrics.compute()


def test_all_batches_taken_back_are_nan_without_a_warning():
    metrics = buffered([])
    before = metrics.snapshot()
    take_in(metrics, bounds.DV(), cut_rows(1).batches)
    metrics.restore(before)
    assert all(value.isnan() for value in metrics.compute().values())


def test_a_metric_of_another_kind_is_refused():
    with pytest.raises(TypeError, match="Got a MeanMetric as 'mean': it cannot take in several batches at once"):
        BufferedMetrics({"mean": MeanMetric()})

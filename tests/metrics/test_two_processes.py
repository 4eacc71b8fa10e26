from contextlib import nullcontext

import pytest
import torch
from torchmetrics import MetricCollection

from lightning_mi import bounds
from lightning_mi.metrics import EffectiveSampleFraction, LogNormalizer, MutualInformation, StandardError
from tests.helpers.cuts import cut_rows
from tests.helpers.processes import on_processes

BOUNDS = {"DV": bounds.DV(), "InfoNCE": bounds.InfoNCE(), "NWJ": bounds.NWJ()}
# The batches of each rank: uneven numbers, or all on rank 0.
SHARES = {"uneven": ([0, 1, 2], [3, 4]), "all to one": ([0, 1, 2, 3, 4], [])}


def updated(bound, indices):
    parts = {"log_normalizer": LogNormalizer(bound), "effective_sample_fraction": EffectiveSampleFraction()}
    for average in ("micro", "macro", "plug-in"):
        parts |= {average: MutualInformation(bound, average), f"{average}_error": StandardError(bound, average)}
    metrics = MetricCollection(parts)
    batches = cut_rows(5).batches
    for i in indices:
        metrics.update(terms=bound(batches[i]), scores=batches[i])
    return metrics


def compute(metrics):
    """All results in one vector."""
    return torch.stack(list(metrics.compute().values()))


def run(rank):
    results = {}
    for share, indices in SHARES.items():
        for name, bound in BOUNDS.items():
            metrics = updated(bound, indices[rank])
            local = {key: metric.moments for key, metric in metrics.items()}
            expectation = (
                pytest.warns(UserWarning, match="before the ``update``") if not indices[rank] else nullcontext()
            )
            with expectation:
                results[share, name] = compute(metrics)
            # After compute each rank has its local moments again.
            assert all(torch.equal(metric.moments, local[key]) for key, metric in metrics.items())
    return results


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # Python 3.12 and later
def test_two_ranks_equal_one_process(tmp_path):
    first, second = on_processes(run, 2, tmp_path)
    for (share, name), actual in first.items():
        assert torch.equal(actual, second[share, name])
        expected = compute(updated(BOUNDS[name], range(5)))
        torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)

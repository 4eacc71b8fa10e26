"""Probe metrics on two ranks equal those of one process."""

import pytest
import torch

from tests.helpers.probes import EVERY, digits, updated
from tests.helpers.processes import on_processes

SHARES = {"even": 0.5, "uneven": 0.7, "all to one": 1.0}


def part_of(data, share, rank):
    x, y, reference_x, reference_y = data
    cut, reference_cut = round(share * len(x)), round(share * len(reference_x))
    local = (
        (slice(None, cut), slice(None, reference_cut)) if rank == 0 else (slice(cut, None), slice(reference_cut, None))
    )
    return x[local[0]], y[local[0]], reference_x[local[1]], reference_y[local[1]]


def run(rank):
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
    return results


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # Python 3.12 and later
def test_two_ranks_equal_one_process(tmp_path):
    first, second = on_processes(run, 2, tmp_path)
    assert len(first) == len(EVERY) * len(SHARES)
    for (name, share), actual in first.items():
        assert torch.equal(actual, second[name, share])
        assert torch.equal(actual, updated(EVERY[name], digits()).compute())

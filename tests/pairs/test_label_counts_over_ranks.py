"""Labels counted over ranks, and InfoNCE's ceiling over the rows of all ranks."""

import numpy as np
import pytest
import torch

from lightning_mi import critics, pairs
from tests.helpers.processes import on_processes

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

LABELS, LENGTHS = [0, 0, 2, 1, 0, 0, 0, 2], (3, 0, 5)


def _counted(rank):
    start = sum(LENGTHS[:rank])
    local = slice(start, start + LENGTHS[rank])
    x, labels = torch.randn(8, 3, generator=torch.Generator().manual_seed(0)).double(), torch.tensor(LABELS)
    pairing = pairs.EnumeratedLabels(3)
    for _ in range(2):
        scores = pairing(critics.LabelCritic(), x[local], labels[local])
    return pairing.label_counts.tolist(), scores.row_ceiling().item(), scores.log_mean_exp().item()


def _ceilings(rank):
    x, labels = torch.randn(8, 3, generator=torch.Generator().manual_seed(0)).double(), torch.tensor(LABELS)
    local, whole = slice(5 * rank, 5 + 3 * rank), slice(0, 8)
    found = []
    for make, critic in (
        (lambda: pairs.EnumeratedLabels(3), critics.LabelCritic()),
        (lambda: pairs.EnumeratedLabels(3, [0.5, 0.2, 0.3]), critics.LabelCritic()),
        (pairs.SameLabel, critics.InnerProductCritic()),
        (lambda: pairs.SameLabel(exclude_same_label=True), critics.InnerProductCritic()),
        (pairs.AllPairs, critics.InnerProductCritic()),
        (pairs.TwoViews, critics.InnerProductCritic()),
    ):
        ceilings = []
        for rows, pairing in ((local, make()), (whole, make().eval())):
            if (
                not pairing.training
                and isinstance(pairing, pairs.EnumeratedLabels)
                and pairing.label_counts is not None
            ):
                pairing.label_counts += labels.bincount()
            rest = labels[rows] if pairing.takes_labels else x[rows]
            ceilings.append(pairing(critic, x[rows], rest).row_ceiling().item())
        found.append(ceilings)
    return found


def test_ceiling_over_ranks_is_that_of_the_whole_batch(tmp_path):
    for found in on_processes(_ceilings, 2, tmp_path):
        assert len(found) == 6
        for pooled, whole in found:
            assert pooled == pytest.approx(whole, rel=1e-12)


def test_labels_are_counted_over_all_ranks(tmp_path):
    counts = np.bincount(LABELS)
    law = counts / 8
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(0)).double().numpy()
    for found in on_processes(_counted, 3, tmp_path):
        assert found[0] == (2 * counts).tolist()
        assert found[1:] == pytest.approx((-(law * np.log(law)).sum(), np.log((np.exp(x) @ law).mean())), rel=1e-12)


def _local_counts(rank):
    pairing = pairs.EnumeratedLabels(3, gather=False)
    pairing(critics.LabelCritic(), torch.zeros(2, 3), torch.tensor([0, 1 + rank]))
    return pairing.label_counts.tolist()


def test_labels_of_local_pairs_are_counted_over_all_ranks(tmp_path):
    assert on_processes(_local_counts, 2, tmp_path) == [[2, 1, 1]] * 2

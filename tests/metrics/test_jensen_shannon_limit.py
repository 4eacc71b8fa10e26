"""JensenShannonLimit: pooling over batches and ranks, and its standard error."""

import numpy as np
import pytest
import torch

from lightning_mi import Scores, bounds
from lightning_mi.metrics import JensenShannonLimit, functional
from tests.helpers.cuts import cut_lists, cut_rows
from tests.helpers.law import LOG_RATIO, MI, scores_of
from tests.helpers.processes import on_processes


def limit_of(joint: np.ndarray, marginal: np.ndarray) -> float:
    objective = -np.logaddexp(0, -joint).mean() - np.logaddexp(0, marginal).mean()
    return bounds.jensen_shannon_limit(torch.tensor(objective)).value.item()


def read(batches: list[Scores]) -> float:
    metric = JensenShannonLimit()
    for scores in batches:
        metric.update(scores)
    return metric.compute().item()


@pytest.mark.parametrize("cut", [cut_rows, cut_lists])
def test_limit_of_uneven_batches_is_that_of_all_pairs(cut) -> None:
    cut = cut(5)
    expected = limit_of(cut.whole.t[cut.whole.joint], cut.whole.t[cut.whole.marginal])
    assert read(cut.batches) == pytest.approx(expected, rel=1e-10)
    assert functional.jensen_shannon_limit(cut.batches).value.item() == read(cut.batches)


def test_limit_is_below_the_mutual_information_of_a_law() -> None:
    rng = np.random.default_rng(0)
    best = read([scores_of(LOG_RATIO)])
    assert 0.5 * MI < best < MI
    for size in (0.1, 1.0, 3.0):
        assert read([scores_of(LOG_RATIO + size * rng.normal(size=(3, 3)))]) < best


def test_standard_error_equals_the_spread_of_repetitions() -> None:
    rng = np.random.default_rng(0)
    estimates = [
        functional.jensen_shannon_limit(
            [
                Scores.from_samples(torch.tensor(rng.normal(1.5, 2, 40)), torch.tensor(rng.normal(-1.5, 2, 90)))
                for _ in range(20)
            ]
        )
        for _ in range(200)
    ]
    spread = np.std([float(estimate.value) for estimate in estimates], ddof=1)
    mean = np.mean([float(estimate.standard_error) for estimate in estimates])
    assert mean == pytest.approx(spread, rel=0.15)


def _pooled(rank: int) -> float:
    cut = cut_rows(2)
    metric = JensenShannonLimit()
    metric.update(cut.batches[rank])
    return metric.compute().item()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_two_ranks_give_the_limit_of_all_pairs(tmp_path) -> None:
    assert on_processes(_pooled, 2, tmp_path) == [pytest.approx(read(cut_rows(2).batches), rel=1e-12)] * 2


def test_huge_scores_give_a_finite_limit() -> None:
    for size in (1e4, -1e4):
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            assert np.isfinite(read([Scores.from_matrix((size * torch.eye(4)).to(dtype))]))


def test_no_batch_is_nan_or_an_error() -> None:
    with pytest.warns(UserWarning, match="before"):
        assert JensenShannonLimit().compute().isnan()
    with pytest.raises(ValueError, match="Got no batch of scores"):
        functional.jensen_shannon_limit([])

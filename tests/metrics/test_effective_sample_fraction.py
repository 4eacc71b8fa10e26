import numpy as np
import pytest
import torch

from lightning_mi import Scores
from lightning_mi.metrics import EffectiveSampleFraction, functional
from tests.helpers.cuts import cut_lists, cut_rows


def fraction(t):
    """(sum w)^2 / sum w^2 / K in float64 NumPy, the largest weight being 1."""
    w = np.exp(t - t.max())
    return w.sum() ** 2 / (w**2).sum() / len(w)


def read(batches):
    metric = EffectiveSampleFraction()
    for scores in batches:
        metric.update(scores)
    return metric.compute().item()


@pytest.mark.parametrize("cut", [cut_rows, cut_lists])
def test_fraction_of_uneven_batches_is_that_of_all_pairs(cut):
    cut = cut(5)
    assert read(cut.batches) == pytest.approx(fraction(cut.whole.t[cut.whole.marginal]), rel=1e-10)


def test_function_equals_the_class_on_one_batch():
    scores = cut_rows(1).batches[0]
    assert functional.effective_sample_fraction(scores).item() == read([scores])


def test_equal_scores_give_one():
    assert read([Scores.from_samples(torch.zeros(1), torch.full((k,), 3.0)) for k in (5, 2)]) == pytest.approx(
        1, rel=1e-6
    )


def test_one_dominant_pair_gives_one_over_k():
    batches = [
        Scores.from_samples(torch.zeros(1), torch.zeros(6, dtype=torch.float64)),
        Scores.from_samples(torch.zeros(1), torch.tensor([1e4, 0.0], dtype=torch.float64)),
    ]
    assert read(batches) == pytest.approx(1 / 8, rel=1e-10)
    assert read(batches[::-1]) == pytest.approx(1 / 8, rel=1e-10)


@pytest.mark.parametrize("offset", [1e4, -1e4])
@pytest.mark.parametrize(("dtype", "rel"), [(torch.float64, 1e-10), (torch.float32, 1e-2)])
def test_constant_added_to_all_scores_changes_nothing(offset, dtype, rel):
    t = np.random.default_rng(0).normal(size=50).round(2)
    parts = torch.tensor(t + offset, dtype=dtype).split([30, 15, 5])
    assert read([Scores.from_samples(torch.zeros(1), part) for part in parts]) == pytest.approx(fraction(t), rel=rel)


def test_half_precision_scores_are_reduced_in_full_precision():
    t = torch.randn(50).bfloat16()
    expected = fraction(t.double().numpy())
    assert read([Scores.from_samples(t[:1], part) for part in t.split([30, 20])]) == pytest.approx(expected, rel=1e-5)

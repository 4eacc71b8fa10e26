"""What is read beside the reductions: the lowest and highest score, thinned scores, a single candidate."""

import math

import numpy as np
import pytest
import torch

from lightning_mi import Scores
from lightning_mi.scores.dense import DenseMarginals, stride
from lightning_mi.scores.joint_columns import JointColumns
from lightning_mi.scores.tiles import ProductTiles


@pytest.mark.parametrize("num_joint", [0, 1, 2])
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_extremes_are_those_of_joint_and_marginal_pairs(num_joint: int, sign: float) -> None:
    t = torch.randn(3, 4, requires_grad=True)
    joint = torch.zeros(3, 4, dtype=torch.bool)
    joint[0, :num_joint] = True
    with torch.no_grad():
        t[joint] += 100 * sign
    low, high = Scores.from_matrix(t, joint=joint, marginal=~joint, allow_no_joint=True).extremes()
    assert (low, high) == (t.min(), t.max())
    assert not low.requires_grad
    assert not high.requires_grad


def test_a_score_that_is_no_pair_is_no_extreme() -> None:
    t, neither = torch.randn(3, 3), torch.tensor([[False, False, True]] * 3)
    eye = torch.eye(3, dtype=torch.bool)
    used = t[(~neither) | eye]
    t[neither & ~eye] = 100.0
    low, high = Scores.from_matrix(t, joint=eye, marginal=~eye & ~neither).extremes()
    assert (low, high) == (used.min(), used.max())


def test_extremes_of_no_pair_are_infinity_and_its_negative() -> None:
    low, high = DenseMarginals(torch.zeros(0, 3, dtype=torch.float64)).extremes()
    assert (low.item(), high.item(), low.dtype) == (math.inf, -math.inf, torch.float64)


def test_one_marginal_pair_is_its_own_mean() -> None:
    assert Scores.from_samples(torch.zeros(2), torch.tensor([3.0])).log_mean_exp() == 3


@pytest.mark.parametrize("at_most", [1, 2, 5, 11, 12, 100])
def test_values_are_thinned_evenly_to_at_most_so_many(at_most: int) -> None:
    t = torch.randn(4, 4)
    values = Scores.from_matrix(t).marginal_values(at_most)
    everything = t[~torch.eye(4, dtype=torch.bool)]
    assert torch.equal(values, everything[:: math.ceil(12 / at_most)])
    assert len(values) <= at_most


def test_every_one_of_few_is_taken() -> None:
    assert [stride(length, 3) for length in (0, 1, 3, 4, 6, 7)] == [1, 1, 1, 2, 2, 3]


def test_the_only_candidate_has_all_the_weight() -> None:
    t = np.random.default_rng(0).normal(size=(3, 1))
    joint = torch.ones(3, 1, dtype=torch.bool)
    scores = Scores.from_matrix(torch.tensor(t), joint=joint, log_weights=torch.zeros(1, dtype=torch.float64))
    assert scores.log_mean_exp().item() == pytest.approx(math.log(np.exp(t).mean()), abs=1e-14)


def test_what_is_made_beside_the_scores_lies_on_their_device() -> None:
    t = torch.zeros(4, 4, device="meta")
    for scores in (Scores.from_matrix(t), Scores.from_samples(t[0], t[1], y=torch.cat([t, t]))):
        made = [scores.joint, scores.joint_columns, scores.log_mean_exp(), scores.mean_softplus()]
        assert {tensor.device.type for tensor in made} == {"meta"}
    rows = Scores.from_matrix(t)
    assert rows.joint_rows.device.type == rows.row_log_mean_exp().device.type == "meta"


def test_tiles_of_integers_are_refused_as_a_matrix_of_them_is() -> None:
    x = torch.ones(3, 2, dtype=torch.long)
    with pytest.raises(ValueError, match=r"Got `matrix` of shape \(3, 3\) and type torch.int64"):
        Scores.from_columns(ProductTiles(x, x), JointColumns.of_diagonal(x), tile_bytes=math.inf)


def test_what_was_asked_before_does_not_change_what_is_read() -> None:
    t = torch.randn(4, 4, dtype=torch.float64, requires_grad=True)
    asked = [{}, {"power": 2.0}, {"clip": 0.5}, {"offset": torch.arange(4.0)}, {"power": 2.0, "clip": 0.5}]
    with torch.no_grad():
        expected = [Scores.from_matrix(t).log_mean_exp(**given).item() for given in asked]
        for order in (range(5), reversed(range(5))):
            scores = Scores.from_matrix(t)
            for i in order:
                assert scores.log_mean_exp(**asked[i]).item() == expected[i]
                assert scores.local().log_mean_exp().item() == expected[0]


def test_a_reading_is_reused_where_no_gradient_is_asked_for_and_has_one_where_it_is() -> None:
    scores = Scores.from_matrix(torch.randn(4, 4, requires_grad=True))
    with torch.no_grad():
        read = scores.log_mean_exp()
        assert scores.log_mean_exp().data_ptr() == read.data_ptr(), "which saves a reduction over all pairs"
    assert not read.requires_grad
    assert scores.log_mean_exp().requires_grad

"""Scores without their graph: the same numbers, and nothing that autograd holds."""

import copy
import math
import pickle

import pytest
import torch

from lightning_mi import Scores, critics, pairs

N, D = 12, 5
CRITICS = {
    "joint": lambda: critics.JointCritic(D, D, hidden=(8, 8)),
    "separable": lambda: critics.SeparableCritic(D, D, hidden=(8,)),
    "calibrated": lambda: critics.CalibratedCritic(critics.JointCritic(D, D, hidden=(8,)), scale=True),
    "cosine": lambda: critics.CalibratedCritic(critics.InnerProductCritic(normalize=True)),
}


def scored(name: str, tile_bytes: float) -> Scores:
    torch.manual_seed(0)
    x, y = torch.randn(2, N, D, requires_grad=True).unbind()
    return pairs.AllPairs(tile_bytes=tile_bytes)(CRITICS[name](), x, y)


@pytest.mark.parametrize("tile_bytes", [200, math.inf])
@pytest.mark.parametrize("read_before", [True, False])
@pytest.mark.parametrize("name", CRITICS)
def test_detached_scores_read_the_same_without_a_graph(name: str, read_before: bool, tile_bytes: float) -> None:
    scores = scored(name, tile_bytes)
    assert scores.joint.requires_grad
    if read_before:
        scores.log_mean_exp()
        scores.mean_softplus()
    detached = scores.detach()
    for read in (
        Scores.log_mean_exp,
        Scores.mean_softplus,
        Scores.joint_mean,
        Scores.row_log_mean_exp,
        Scores.marginal_values,
        lambda one: one.log_mean_exp(power=2.0),
        lambda one: one.log_mean_exp(clip=0.1),
        lambda one: torch.stack(one.extremes()),
    ):
        assert torch.equal(read(detached), read(scores.detach()))
        torch.testing.assert_close(read(detached), read(scores).detach())
        assert not read(detached).requires_grad
    assert detached.num_joint, detached.num_marginal == (scores.num_joint, scores.num_marginal)


@pytest.mark.parametrize("tile_bytes", [200, math.inf])
@pytest.mark.parametrize("name", CRITICS)
def test_detached_scores_can_be_copied_and_pickled(name: str, tile_bytes: float) -> None:
    scores = scored(name, tile_bytes)
    scores.log_mean_exp()
    for again in (copy.deepcopy(scores.detach()), pickle.loads(pickle.dumps(scores.detach()))):
        assert torch.equal(again.log_mean_exp(), scores.detach().log_mean_exp())


def test_detaching_leaves_the_scores_themselves_differentiable() -> None:
    for size in (200, math.inf):
        scores = scored("separable", size)
        scores.detach()
        assert scores.log_mean_exp().requires_grad

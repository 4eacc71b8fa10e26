"""Detached scores: the same numbers, and no autograd graph."""

import copy
import math
import pickle

import pytest
import torch

from lightning_mi import Scores, pairs
from tests.helpers.critic_specs import CRITICS, CriticSpec
from tests.helpers.specs import by_name

N, D = 12, 5
TILED = [spec for spec in CRITICS if spec.has_tiles]


def scored(spec: CriticSpec, tile_bytes: float) -> Scores:
    torch.manual_seed(0)
    x, y = torch.randn(2, N, D, requires_grad=True).unbind()
    return pairs.AllPairs(tile_bytes=tile_bytes)(spec.make(D), x, y)


@pytest.mark.parametrize("tile_bytes", [200, math.inf])
@pytest.mark.parametrize("spec", TILED, ids=by_name)
def test_detached_scores_are_the_same_without_a_graph(spec: CriticSpec, tile_bytes: float) -> None:
    scores = scored(spec, tile_bytes)
    assert scores.joint.requires_grad
    before = scores.detach()
    scores.log_mean_exp()
    scores.mean_softplus()
    for detached in (before, scores.detach()):  # before and after the reductions of the scores themselves
        for read in (
            Scores.log_mean_exp,
            Scores.mean_softplus,
            Scores.joint_mean,
            Scores.row_log_mean_exp,
            Scores.marginal_values,
            lambda scores: scores.log_mean_exp(power=2.0),
            lambda scores: scores.log_mean_exp(clip=0.1),
            lambda scores: torch.stack(scores.extremes()),
        ):
            torch.testing.assert_close(read(detached), read(scores).detach())
            assert not read(detached).requires_grad
        assert (detached.num_joint, detached.num_marginal) == (scores.num_joint, scores.num_marginal)
        for twin in (copy.deepcopy(detached), pickle.loads(pickle.dumps(detached))):
            assert torch.equal(twin.log_mean_exp(), detached.log_mean_exp())


def test_detaching_does_not_change_the_scores() -> None:
    for tile_bytes in (200, math.inf):
        scores = scored(TILED[0], tile_bytes)
        scores.detach()
        assert scores.log_mean_exp().requires_grad

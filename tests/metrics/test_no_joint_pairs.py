"""Batches without a joint pair contribute their marginal pairs to pooled averages, and nothing else."""

import dataclasses

import numpy as np
import pytest
import torch

from lightning_mi import MINumericalWarning, Scores, bounds
from lightning_mi.metrics import EffectiveSampleFraction, LogNormalizer, MutualInformation, StandardError
from tests.helpers.reference import Sheet
from tests.helpers.specs import BOUND_KINDS, BoundSpec, by_name

ORDERS = [(0, 1, 2), (2, 0, 1), (2, 1, 0)]
Y = np.random.default_rng(3).normal(size=(5, 2))


def sheet(seed: int, num_joint: int) -> Sheet:
    joint = np.zeros((4, 5), bool)
    joint[np.arange(num_joint), np.arange(num_joint)] = True
    t = np.random.default_rng(seed).normal(0.5, 1.5, (4, 5))
    return Sheet(t, joint, ~joint, np.broadcast_to(Y, (4, 5, 2)))


SHEETS = [sheet(1, 4), sheet(2, 2), sheet(3, 0)]


def scores_of(sheet: Sheet) -> Scores:
    return Scores.from_matrix(
        torch.tensor(sheet.t),
        joint=torch.tensor(sheet.joint),
        marginal=torch.tensor(sheet.marginal),
        allow_no_joint=True,
        y=torch.tensor(Y),
    )


def read(metric, bound: bounds.AbstractBound, order: tuple[int, ...]):
    for i in order:
        scores = scores_of(SHEETS[i])
        metric.update(bound(scores), scores)
    return metric.compute()


@pytest.mark.parametrize("spec", BOUND_KINDS, ids=by_name)
def test_micro_and_log_normalizer_pool_all_pairs(spec: BoundSpec) -> None:
    whole = Sheet(*(np.concatenate([getattr(s, name) for s in SHEETS]) for name in ("t", "joint", "marginal", "y")))
    expected, bound = spec.reference(whole), spec.make().eval()
    for order in ORDERS:
        assert read(MutualInformation(bound), bound, order).item() == pytest.approx(expected.value, rel=1e-10)
        assert read(LogNormalizer(bound), bound, order).item() == pytest.approx(expected.log_normalizer, rel=1e-10)


@pytest.mark.parametrize("average", ["macro", "plug-in"])
@pytest.mark.parametrize("spec", BOUND_KINDS, ids=by_name)
def test_macro_and_plug_in_skip_them(spec: BoundSpec, average: str) -> None:
    bound = spec.make().eval()
    for kind in (MutualInformation, StandardError):
        expected = read(kind(bound, average), bound, (0, 1))
        for order in ORDERS:
            torch.testing.assert_close(read(kind(bound, average), bound, order), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("spec", BOUND_KINDS, ids=by_name)
def test_they_alone_give_nan(spec: BoundSpec) -> None:
    bound = spec.make().eval()
    for average in ("micro", "macro", "plug-in"):
        assert read(MutualInformation(bound, average), bound, (2, 2)).isnan()


def test_effective_sample_fraction_counts_their_marginal_pairs() -> None:
    metric = EffectiveSampleFraction()
    for sheet in SHEETS:
        metric.update(scores_of(sheet))
    weights = np.exp(np.concatenate([s.t[s.marginal] for s in SHEETS]))
    assert metric.compute().item() == pytest.approx(weights.sum() ** 2 / (weights**2).sum() / len(weights), rel=1e-10)


def test_overflow_in_one_does_not_reach_macro() -> None:
    bound, metric = bounds.NWJ(cap=None), MutualInformation(bounds.NWJ(cap=None), "macro")
    empty = scores_of(dataclasses.replace(SHEETS[2], t=SHEETS[2].t + 1e6))
    with pytest.warns(MINumericalWarning, match="marginal_term = inf"):
        metric.update(bound(empty), empty)
    usual = scores_of(SHEETS[0])
    metric.update(bound(usual), usual)
    assert metric.compute().item() == pytest.approx(bound(usual).value.item())

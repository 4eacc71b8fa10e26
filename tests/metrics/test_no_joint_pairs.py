"""Batches without a joint pair: they bring their marginal pairs where these are pooled, and nothing else."""

import dataclasses

import numpy as np
import pytest
import torch

from lightning_mi import MINumericalWarning, Scores, bounds
from lightning_mi.metrics import EffectiveSampleFraction, LogNormalizer, MutualInformation, functional
from tests.helpers.reference import Sheet
from tests.helpers.specs import BOUNDS, BoundSpec, by_name

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


@pytest.mark.parametrize("order", ORDERS, ids=str)
@pytest.mark.parametrize("spec", BOUNDS, ids=by_name)
def test_micro_and_log_normalizer_are_those_of_all_pairs(spec: BoundSpec, order: tuple[int, ...]) -> None:
    whole = Sheet(*(np.concatenate([getattr(s, name) for s in SHEETS]) for name in ("t", "joint", "marginal", "y")))
    expected, bound = spec.reference(whole), spec.make().eval()
    assert read(MutualInformation(bound), bound, order).item() == pytest.approx(expected.value, rel=1e-10)
    assert read(LogNormalizer(bound), bound, order).item() == pytest.approx(expected.log_normalizer, rel=1e-10)


@pytest.mark.parametrize("order", ORDERS, ids=str)
@pytest.mark.parametrize("average", ["macro", "plug-in"])
@pytest.mark.parametrize("spec", BOUNDS, ids=by_name)
def test_macro_and_plug_in_pass_over_them(spec: BoundSpec, average: str, order: tuple[int, ...]) -> None:
    bound = spec.make().eval()
    observed = read(MutualInformation(bound, average, return_standard_error=True), bound, order)
    without = [i for i in order if i != 2]
    expected = read(MutualInformation(bound, average, return_standard_error=True), bound, without)
    torch.testing.assert_close(observed, expected, rtol=1e-12, atol=1e-12)
    assert functional.mutual_information(bound, map(scores_of, SHEETS), average).value.isfinite()


@pytest.mark.parametrize("spec", BOUNDS, ids=by_name)
def test_they_alone_are_no_estimate(spec: BoundSpec) -> None:
    bound = spec.make().eval()
    for average in ("micro", "macro", "plug-in"):
        assert read(MutualInformation(bound, average), bound, (2, 2)).isnan()


def test_effective_sample_fraction_takes_their_marginal_pairs() -> None:
    metric = EffectiveSampleFraction()
    for sheet in SHEETS:
        metric.update(scores_of(sheet))
    weights = np.exp(np.concatenate([s.t[s.marginal] for s in SHEETS]))
    assert metric.compute().item() == pytest.approx(weights.sum() ** 2 / (weights**2).sum() / len(weights), rel=1e-10)


def test_one_that_overflows_does_not_reach_macro() -> None:
    bound, metric = bounds.NWJ(cap=None), MutualInformation(bounds.NWJ(cap=None), "macro")
    empty = scores_of(dataclasses.replace(SHEETS[2], t=SHEETS[2].t + 1e6))
    with pytest.warns(MINumericalWarning, match="marginal_term = inf"):
        metric.update(bound(empty), empty)
    usual = scores_of(SHEETS[0])
    metric.update(bound(usual), usual)
    assert metric.compute().item() == pytest.approx(bound(usual).value.item())

"""Readings of held-out scores against float64 NumPy, and the permutation test against brute force."""

import numpy as np
import pytest
import torch
from scipy.special import logsumexp

from lightning_mi.critics import InnerProductCritic
from lightning_mi.estimation.folds import MemberSplit
from lightning_mi.estimation.held_out import (
    HeldOutBlock,
    held_out_scores,
    permutation_p_value,
    plug_in,
    read,
    score_range,
)


def blocks_of(sizes, seed=0, joint=1.0):
    rng, start, blocks = np.random.default_rng(seed), 0, []
    for fold, size in sizes:
        scores = rng.normal(size=(size, size)) + joint * np.eye(size)
        blocks.append(HeldOutBlock(fold, np.arange(start, start + size), torch.from_numpy(scores).float()))
        start += size
    return blocks


def dv(matrices):
    """Donsker-Varadhan over the pairs of all blocks."""
    matrices = [matrix.numpy().astype(np.float64) for matrix in matrices]
    off = np.concatenate([m[~np.eye(len(m), dtype=bool)] for m in matrices])
    return np.concatenate([m.diagonal() for m in matrices]).mean() - (logsumexp(off) - np.log(len(off)))


SIZES = [(0, 7), (0, 7), (1, 9)]


def test_value_is_the_mean_over_folds():
    blocks = blocks_of(SIZES)
    reading = read(blocks)
    expected = [dv([blocks[0].scores, blocks[1].scores]), dv([blocks[2].scores])]
    np.testing.assert_allclose(reading.folds, expected, rtol=1e-12)
    assert reading.value == pytest.approx(np.mean(expected), rel=1e-12)


def test_influence_is_the_derivative_by_the_weight_of_a_sample():
    [block] = blocks_of([(0, 40)])
    scores = block.scores.double().numpy()
    numerical = []
    for i in range(40):
        weights = np.ones(40)
        weights[i] += 1e-5
        pairs = np.outer(weights, weights) * ~np.eye(40, dtype=bool)
        log_normalizer = logsumexp(scores, b=pairs) - np.log(pairs.sum())
        value = (weights * scores.diagonal()).sum() / weights.sum() - log_normalizer
        numerical.append((value - dv([block.scores])) / 1e-5 * 40)
    influence = read([block]).influence
    np.testing.assert_allclose(influence, numerical, rtol=1e-3, atol=1e-3)
    assert abs(influence.mean()) < 1e-12


def test_standard_error_covers_the_sampling_of_a_fixed_critic():
    rng, values, errors = np.random.default_rng(0), [], []
    for _ in range(200):
        x = rng.normal(size=(2, 100))
        y = 0.6 * x + 0.8 * rng.normal(size=x.shape)
        scores = [torch.from_numpy(0.5 * np.outer(a, b)).float() for a, b in zip(x, y, strict=True)]
        reading = read([HeldOutBlock(k, np.arange(100 * k, 100 * k + 100), s) for k, s in enumerate(scores)])
        values.append(reading.value)
        errors.append(reading.sampling_error)
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.15)


def test_critics_are_clamped_centered_and_averaged():
    torch.manual_seed(0)
    x, y = 2 * torch.randn(12, 2), 2 * torch.randn(12, 2)
    critics = [InnerProductCritic(), InnerProductCritic(temperature=2.0)]
    fold, validation = np.arange(6), np.array([8, 9])
    splits = [MemberSplit(0, np.array([6, 7]), validation), MemberSplit(0, np.array([10, 11]), validation)]
    [block] = held_out_scores(critics, x, y, [fold], splits)
    expected, raw = np.zeros((6, 6)), 0.0
    for temperature in (1.0, 2.0):
        scores = (x[:6] @ y[:6].T / temperature).double().numpy()
        own = (x[8:10] @ y[8:10].T / temperature).double().numpy()
        center, reach = logsumexp(own[~np.eye(2, dtype=bool)]) - np.log(2), 2 * np.log(2)
        highest = min(own.max(), center + reach)
        assert (scores < center - reach).any()
        assert (scores > highest).any()
        scores = np.clip(scores, center - reach, highest)
        raw += scores.diagonal().mean() / 2
        off = scores[~np.eye(6, dtype=bool)]
        expected += (scores - logsumexp(off) + np.log(len(off))) / 2
    np.testing.assert_allclose(block.scores, expected, rtol=1e-4, atol=1e-5)
    assert plug_in([block]) == pytest.approx(raw, rel=1e-4)


def test_joint_pairs_far_above_marginal_pairs_are_clamped():
    x, y = torch.tensor([[100.0, 0.0], [0.0, 100.0]]), torch.eye(2)
    split = MemberSplit(0, np.arange(2), np.arange(2))
    lowest, highest = score_range(InnerProductCritic(), x, y, split)  # joint pairs 100, marginal pairs 0
    assert (float(lowest), float(highest)) == pytest.approx((-2 * np.log(2), 2 * np.log(2)))


def test_large_folds_are_scored_in_blocks():
    x = torch.randn(25, 2)
    split = MemberSplit(0, np.arange(5), np.arange(5, 10))
    blocks = held_out_scores([InnerProductCritic()], x, x, [np.arange(25)], [split], block=10)
    assert [len(block.indices) for block in blocks] == [9, 8, 8]


def test_p_value_of_one_fold_is_uniform_under_independence():
    rng = np.random.default_rng(1)
    p_values = [permutation_p_value(blocks_of([(0, 20)], seed, joint=0.0), 99, rng) for seed in range(300)]
    for level in (0.05, 0.2, 0.5):
        assert np.mean(np.array(p_values) <= level) == pytest.approx(level, abs=4 * np.sqrt(level * (1 - level) / 300))


def cross_fitted(rng, n=200, dim=6, folds=4):
    """Scores of independent samples; the critic of a fold is the covariance of the others."""
    x, y = rng.normal(size=(n, dim)), rng.normal(size=(n, dim))
    parts = np.array_split(np.arange(n), folds)
    for fold, part in enumerate(parts):
        others = np.setdiff1d(np.arange(n), part)
        scores = 0.1 * x[part] @ (x[others].T @ y[others] / n**0.5) @ y[part].T
        yield HeldOutBlock(fold, part, torch.from_numpy(scores))


@pytest.mark.parametrize("folds", [2, 4])
def test_p_value_of_cross_fitted_critics_has_its_level(folds):
    rng = np.random.default_rng(2)
    p_values = np.array([permutation_p_value(list(cross_fitted(rng, folds=folds)), 99, rng) for _ in range(300)])
    for level in (0.05, 0.2, 0.5):
        assert np.mean(p_values <= level) == pytest.approx(level, abs=4 * np.sqrt(level * (1 - level) / 300))
    assert np.mean(p_values >= 0.8) == pytest.approx(0.2, abs=0.1)


def test_p_value_of_dependence_is_the_smallest_possible():
    assert permutation_p_value(blocks_of([(0, 50)], joint=3.0), 99, np.random.default_rng(0)) == 0.01


def test_one_pair_does_not_decide_the_p_value():
    blocks = blocks_of([(0, 50)], joint=3.0)
    blocks[0].scores[0, 1:] = -1e4  # the marginal pairs of one sample
    blocks[0].scores[1, 1] = -1e4
    assert permutation_p_value(blocks, 99, np.random.default_rng(0)) == 0.01

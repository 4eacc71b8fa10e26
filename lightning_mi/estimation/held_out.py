"""Scores of samples by critics that were not fitted to them, and what they say about MI."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_mi.critics import AbstractCritic
from lightning_mi.estimation.folds import Indices, MemberSplit
from lightning_mi.estimation.scoring import pairwise
from lightning_mi.scores.scores import Scores
from lightning_mi.utilities.numerics import shifted_exp

Array = NDArray[np.float64]
BLOCK = 2048  # samples whose pairs are scored together: memory grows with its square, not with that of n
_MAX_PAIRS = 2**24  # scored in all
_MIN_BLOCK = 256


@dataclass(frozen=True)
class HeldOutBlock:
    """The scores of a block of samples of one fold.

    Attributes:
        fold: The fold.
        indices: (b,) the samples.
        scores: (b, b) float32, T(x_i, y_j): the mean over the members of the fold, each with log-normalizer 0.
        shift: The mean log-normalizer of the fold's members, which was subtracted from their scores, nats.
    """

    fold: int
    indices: Indices
    scores: Tensor
    shift: float = 0.0


@torch.no_grad()
def held_out_scores(
    critics: Sequence[AbstractCritic],
    x: Tensor,
    y: Tensor,
    folds: Sequence[Indices],
    splits: Sequence[MemberSplit],
    block: int | None = None,
) -> list[HeldOutBlock]:
    """Score each fold by the mean of its members' critics.

    The scores of each critic are clamped to its :func:`score_range`, and shifted to log-normalizer 0. Both are critics
    again, so that the value remains a lower bound. The value is concave in the scores, so that it is at least the mean
    of the members' values.

    Args:
        critics: By member.
        x: (n, Dx).
        y: (n, Dy).
        folds: Samples of each fold.
        splits: By member.
        block: Largest number of samples whose pairs are scored together; by default from the number of samples, so
            that the memory for scores is bounded up to 65,536 samples and grows with n beyond.
    """
    block = block or _block_size(len(x))
    blocks = []
    for fold, samples in enumerate(folds):
        parts = np.array_split(samples, -(-len(samples) // block))
        members = [index for index, split in enumerate(splits) if split.fold == fold]
        totals = [torch.zeros(len(part), len(part)) for part in parts]
        mean_shift = 0.0
        for index in members:
            critic = critics[index].cpu().eval()
            allowed = score_range(critic, x, y, splits[index])
            scores = [pairwise(critic, x[part], y[part]).clamp(*allowed) for part in parts]
            shift = log_normalizer(scores)
            mean_shift += float(shift) / len(members)
            for total, matrix in zip(totals, scores, strict=True):
                total += (matrix - shift) / len(members)
        blocks += [HeldOutBlock(fold, part, total, mean_shift) for part, total in zip(parts, totals, strict=True)]
    return blocks


@torch.no_grad()
def score_range(critic: AbstractCritic, x: Tensor, y: Tensor, split: MemberSplit) -> tuple[Tensor, Tensor]:
    """The range of the scores of a member's validation pairs, in which its scores of other pairs are trusted.

    Beyond it lie single pairs, far outside of the training samples, that would carry a whole mean: that of exp(T) by
    high scores, that of T by low ones. The ends are 2 log V above and below the log-normalizer, for V validation
    samples; the upper end is at most the highest score. One pair with a score 2 log V above the log-normalizer alone
    carries the mean of exp(T) over V^2 pairs, and scores that are raised to the lower end add at most 1 / V^2 to it.
    """
    rows = split.validation[:BLOCK]
    scores = pairwise(critic, x[rows], y[rows])
    center, reach = log_normalizer([scores]).float(), 2 * math.log(len(rows))
    return center - reach, torch.minimum(center + reach, scores.max())


@dataclass(frozen=True)
class Reading:
    """The Donsker-Varadhan value of held-out scores.

    Attributes:
        value: The mean over folds, nats.
        folds: (K,) the value of each fold, nats.
        influence: (n,) the influence of each sample on the value, nats; its mean is 0.
        pointwise: (n,) log p(x, y) / (p(x) p(y)) of each sample by the critics, nats.
        effective_pairs: (K,) the number of marginal pairs that carry the log-normalizer of each fold.
    """

    value: float
    folds: Array
    influence: Array
    pointwise: Array
    effective_pairs: Array

    @property
    def sampling_error(self) -> float:
        """The standard error by the influence of samples, for these critics, nats."""
        return float(self.influence.std() / np.sqrt(len(self.influence)))

    @property
    def fold_error(self) -> float:
        """The standard error by the variation over folds, nats."""
        return float(self.folds.std(ddof=1) / np.sqrt(len(self.folds)))

    @property
    def standard_error(self) -> float:
        """The larger of the two, nats."""
        return max(self.sampling_error, self.fold_error)


def read(blocks: Sequence[HeldOutBlock]) -> Reading:
    """Read the Donsker-Varadhan bound off held-out scores.

    The influence of sample i is that of its joint pair and of its row and column of marginal pairs:

    .. math:: psi_i = T_{ii} - mean(T) - (mean_j w_{ij} + mean_j w_{ji} - 2), w = exp(T - ell)

    Source: Donsker and Varadhan 1983.
    """
    num_folds = 1 + max(block.fold for block in blocks)
    n = sum(len(block.indices) for block in blocks)
    values, effective = np.empty(num_folds), np.empty(num_folds)
    influence, pointwise = np.empty(n), np.empty(n)
    for fold in range(num_folds):
        own = [block for block in blocks if block.fold == fold]
        joint = torch.cat([block.scores.diagonal() for block in own]).double()
        normalizer = log_normalizer([block.scores for block in own])
        values[fold] = joint.mean() - normalizer
        sum_weights = sum_squares = 0.0
        for block in own:
            matrix = block.scores.double()
            weights = shifted_exp(matrix, normalizer).fill_diagonal_(0)
            sums = weights.sum(0) + weights.sum(1)
            diagonal = matrix.diagonal()
            centered = diagonal - joint.mean() - (sums / max(len(matrix) - 1, 1) - 2)
            influence[block.indices] = centered.numpy()
            pointwise[block.indices] = (diagonal - normalizer).numpy()
            sum_weights += float(weights.sum())
            sum_squares += float(weights.square().sum())
        effective[fold] = sum_weights**2 / sum_squares
    return Reading(float(values.mean()), values, influence, pointwise, effective)


def plug_in(blocks: Sequence[HeldOutBlock]) -> float:
    """The mean joint score of the critics before the shift to log-normalizer 0, the mean over folds; nats.

    It is an estimate of MI if a regularizer held the critics' log-normalizer at 0 in training.

    Source: Choi and Lee 2022 (plug-in estimate).
    """
    folds = sorted({block.fold for block in blocks})
    joint = [torch.cat([b.scores.diagonal().double() + b.shift for b in blocks if b.fold == fold]) for fold in folds]
    return float(np.mean([scores.mean() for scores in joint]))


def permutation_p_value(
    blocks: Sequence[HeldOutBlock], permutations: int, rng: np.random.Generator, strata: Indices | None = None
) -> float:
    """The p-value of independence: the fraction of permutations of y within folds whose statistic is as high.

    The statistic is the mean of tanh(T / 2) over joint pairs: the probability by T that a pair is joint, minus that it
    is marginal. It is bounded, so that no single pair decides, and proportional to T where dependence is weak.

    The critics of a fold did not see its samples. Under independence, its pairs are exchangeable, so that the test of
    one fold is exact without refitting the critics. With strata, it is a test of conditional independence given the
    stratum: under it, the pairs of one stratum are exchangeable.

    Folds are not independent of each other. A chance agreement of two folds counts twice: each is scored by critics
    that learned from the other. Permutations within folds break it apart, so that the variance of their sum is half of
    that of the statistic: exactly half if scores are linear in the samples that critics learn from. So the deviations
    of permuted statistics from their mean are multiplied by the square root of 2, if there are several folds.

    Args:
        blocks: The result of :func:`held_out_scores`.
        permutations: The number of random permutations.
        rng: Draws them.
        strata: (n,) the stratum of each sample, if y is permuted within strata only.

    Source: Phipson and Smyth 2010 (the p-value of random permutations is never 0).
    """
    num_folds = 1 + max(block.fold for block in blocks)
    observed, permuted = 0.0, np.zeros(permutations)
    for fold in range(num_folds):
        own = [block for block in blocks if block.fold == fold]
        total = sum(len(block.indices) for block in own)
        for block in own:
            scores, size = (block.scores.double() / 2).tanh().numpy(), len(block.indices)
            rows = np.arange(size)
            observed += scores.diagonal().sum() / total
            labels = None if strata is None else strata[block.indices]
            permuted += [scores[rows, _permutation(size, labels, rng)].sum() / total for _ in range(permutations)]
    if num_folds > 1:
        permuted = permuted.mean() + math.sqrt(2) * (permuted - permuted.mean())
    return float((1 + (permuted >= observed - 1e-12).sum()) / (1 + permutations))


def _permutation(size: int, strata: Indices | None, rng: np.random.Generator) -> Indices:
    """(size,) a random permutation, within strata if there are any."""
    if strata is None:
        return rng.permutation(size)
    permutation = np.empty(size, dtype=np.int64)
    permutation[strata.argsort(kind="stable")] = np.lexsort((rng.random(size), strata))
    return permutation


def log_normalizer(matrices: Sequence[Tensor]) -> Tensor:
    """Log-mean-exp over the marginal pairs of all blocks, float64, nats."""
    counts = torch.tensor([float(len(matrix) * (len(matrix) - 1)) for matrix in matrices], dtype=torch.float64)
    means = torch.stack([Scores.from_matrix(matrix.double()).log_mean_exp() for matrix in matrices])
    return (means + counts.log()).logsumexp(0) - counts.sum().log()


def _block_size(n: int) -> int:
    """The largest block, up to 2048, with which n samples have no more pairs than are scored; at least 256."""
    return max(_MIN_BLOCK, min(BLOCK, _MAX_PAIRS // n))

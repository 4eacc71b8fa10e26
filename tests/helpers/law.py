"""A discrete law with known mutual information, and scores whose means are exact expectations."""

import numpy as np
import torch
from scipy.special import log_softmax

from lightning_mi import BoundTerms, Scores
from tests.helpers import specs
from tests.helpers.specs import LEARNED_BIAS, LEARNED_WEIGHT, BoundSpec

COUNTS = specs.COUNTS  # of 20 equally likely pairs
JOINT = COUNTS / COUNTS.sum()
PRODUCT = JOINT.sum(axis=1, keepdims=True) * JOINT.sum(axis=0)
LOG_DENSITY = np.log(JOINT / JOINT.sum(axis=0))  # of x given y
LOG_RATIO = np.log(JOINT / PRODUCT)
MI = (JOINT * LOG_RATIO).sum()
Y = np.array([[0.5, -1.0], [1.5, 0.3], [-0.7, 0.2]])  # the inputs of a learned baseline
PAIRS = np.repeat(np.argwhere(COUNTS), COUNTS[COUNTS > 0], axis=0)


def scores_of(critic: np.ndarray) -> Scores:
    """Each of the 20 x against each of the 20 y: means over joint and marginal pairs are expectations."""
    matrix = torch.tensor(critic[PAIRS[:, :1], PAIRS[:, 1]])
    return Scores.from_matrix(
        matrix,
        joint=torch.eye(20, dtype=torch.bool),
        marginal=torch.ones(20, 20, dtype=torch.bool),
        y=torch.tensor(Y[PAIRS[:, 1]]),
    )


def read(spec: BoundSpec, critic: np.ndarray) -> BoundTerms:
    return spec.make()(scores_of(critic))


def optimum(spec: BoundSpec) -> np.ndarray:
    if spec.needs_log_density:
        return LOG_DENSITY
    return LOG_RATIO + (Y @ LEARNED_WEIGHT + LEARNED_BIAS if spec.optimum is None else spec.optimum)


def critics(spec: BoundSpec, count: int = 50) -> list[np.ndarray]:
    """The optimal critic with noise of increasing size, with shifts, and random critics; or such log-densities."""
    rng = np.random.default_rng(0)
    near = [optimum(spec) + size * rng.normal(size=(3, 3)) for size in np.geomspace(1e-3, 3, count)]
    made = [*near, *(optimum(spec) + shift for shift in (-3, -0.1, 0.1, 3)), *rng.normal(0, 2, (count, 3, 3))]
    return [log_softmax(critic, axis=0) for critic in made] if spec.needs_log_density else made

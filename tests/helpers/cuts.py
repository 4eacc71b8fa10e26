"""Pairs divided into batches of uneven size, and the independent reference of each batch."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from lightning_mi import Scores, bounds
from tests.helpers.reference import Reading, Sheet
from tests.helpers.specs import BOUNDS, LEARNED_BIAS, LEARNED_WEIGHT, BoundSpec

PIECES = {1: [1.0], 2: [0.7, 0.3], 5: [0.3, 0.25, 0.25, 0.15, 0.05]}  # fractions of the pairs in each batch


@dataclass(frozen=True)
class Cut:
    """All pairs as one sheet of the reference, and the same pairs as batches."""

    whole: Sheet
    sheets: list[Sheet]
    batches: list[Scores]

    def terms(self, bound: bounds.AbstractBound) -> list[tuple[bounds.BoundTerms, Scores]]:
        with torch.no_grad():
            return [(bound(scores), scores) for scores in self.batches]

    def readings(self, reference: Callable[[Sheet], Reading]) -> list[Reading]:
        return [reference(sheet) for sheet in self.sheets]


def _edges(total: int, pieces: int, shift: int = 0) -> list[int]:
    edges = np.round(np.cumsum([0, *PIECES[pieces]]) * total).astype(int)
    edges[1:-1] += shift
    return edges.tolist()


def cut_rows(pieces: int, seed: int = 0) -> Cut:
    """A matrix with masks, divided between rows: rows keep their candidates, so InfoNCE does not change either."""
    rng = np.random.default_rng(seed)
    rows, columns = 40, 7
    t, y = rng.normal(0.5, 1.5, (rows, columns)), rng.normal(size=(columns, 2))
    joint, marginal = rng.random((rows, columns)) < 0.15, rng.random((rows, columns)) < rng.random((rows, 1))
    joint[np.arange(rows), rng.integers(0, columns, rows)] = True
    marginal[np.arange(rows), rng.integers(0, columns, rows)] = True
    candidates = np.broadcast_to(y, (rows, columns, 2))
    whole = Sheet(t, joint, marginal, candidates)
    edges = _edges(rows, pieces)
    slices = [slice(a, b) for a, b in pairwise(edges)]
    sheets = [Sheet(t[s], joint[s], marginal[s], candidates[s]) for s in slices]
    batches = [
        Scores.from_matrix(
            torch.tensor(sheet.t),
            joint=torch.tensor(sheet.joint),
            marginal=torch.tensor(sheet.marginal),
            y=torch.tensor(y),
        )
        for sheet in sheets
    ]
    return Cut(whole, sheets, batches)


def cut_lists(pieces: int, seed: int = 0) -> Cut:
    """A list of joint and a list of marginal pairs, divided at different places."""
    rng = np.random.default_rng(seed)
    joint, marginal = rng.normal(1.0, 1.5, 60), rng.normal(-0.5, 1.5, 140)
    y_joint, y_marginal = rng.normal(size=(60, 2)), rng.normal(size=(140, 2))
    sheets, batches = [], []
    cuts = zip(pairwise(_edges(60, pieces)), pairwise(_edges(140, pieces, shift=5)), strict=True)
    for (a, b), (c, d) in cuts:
        sheets.append(_lists(joint[a:b], marginal[c:d], y_joint[a:b], y_marginal[c:d]))
        batches.append(
            Scores.from_samples(torch.tensor(joint[a:b]), torch.tensor(marginal[c:d]), y=torch.tensor(sheets[-1].y))
        )
    return Cut(_lists(joint, marginal, y_joint, y_marginal), sheets, batches)


def _lists(joint: np.ndarray, marginal: np.ndarray, y_joint: np.ndarray, y_marginal: np.ndarray) -> Sheet:
    is_joint = np.arange(len(joint) + len(marginal)) < len(joint)
    return Sheet(np.append(joint, marginal), is_joint, ~is_joint, np.concatenate([y_joint, y_marginal]))


CASES = [(spec, cut) for spec in BOUNDS for cut in (cut_rows, cut_lists) if cut is cut_rows or not spec.needs_rows]
CASE_IDS = [f"{spec.name}-{cut.__name__}" for spec, cut in CASES]


def marginal_at_zero(spec: BoundSpec) -> float:
    """The marginal term at log-normalizer 0, by the reference: the optimal critic of independent x and y, shifted."""
    if spec.needs_log_density:
        return 0.0  # the marginal term takes the place of the log-normalizer
    y = np.ones((1, 1, 2))
    optimum = LEARNED_WEIGHT.sum() + LEARNED_BIAS if spec.optimum is None else spec.optimum
    t, every = np.full((1, 1), optimum - (spec.log_normalizer or 0.0)), np.ones((1, 1), dtype=bool)
    return spec.reference(Sheet(t, every, every, y)).marginal_term

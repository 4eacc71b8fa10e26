"""Errors of one rank's shard are raised on every rank, so that no rank blocks in a later collective."""

import re
import time
from collections.abc import Callable

import pytest
import torch

from lightning_mi import MIEstimationModule, bounds, critics, pairs
from lightning_mi.training.online_probe import OnlineLinearProbe
from lightning_mi.utilities.distributed import all_gather_ints
from tests.helpers.processes import on_processes

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

OTHER_RANK = "Rank 1 rejected its shard of the batch"


def pairs_of(*lengths, width=3):
    return lambda rank: (torch.ones(lengths[rank], width), torch.ones(lengths[rank], width))


def labels_of(*labels):
    """Samples and labels that are valid on the first rank alone."""
    return lambda rank: (torch.ones(3, 5), torch.tensor(labels[rank]))


UNLABELLED, OUT_OF_RANGE = labels_of([0, 1, 0], [1, 1, -1]), labels_of([0, 1, 4], [0, 5, 1])
FLOATING, SHORT = labels_of([0, 1, 4], [0.0, 1.0, 4.0]), labels_of([0, 1, 4], [0])
# A pairing, the views of a rank, words of the error.
Rejected = dict[str, tuple[Callable[[], pairs.AbstractPairing], Callable[[int], tuple[torch.Tensor, ...]], str]]
# fmt: off
BATCHES: Rejected = {  # rejected for the sake of all ranks: each raises the same error
    "too few in all": (pairs.AllPairs, pairs_of(1, 0), "batch of 1"),
    "none at all": (pairs.TwoViews, pairs_of(0, 0), "Got an empty batch"),
    "a shuffle of one": (pairs.Derangement, pairs_of(8, 1), "Got shards of 8, 1"),
    "views of different lengths": (pairs.AllPairs, lambda rank: (torch.ones(8, 3), torch.ones(8 - 3 * rank, 3)),
                                   "Got 8 x and 5 y"),
    "marginal views of different lengths": (
        pairs.IndependentMarginal, lambda rank: (*pairs_of(4, 4)(rank), torch.ones(5, 3), torch.ones(5 + rank, 3)),
        "Got 5 marginal x and 6 marginal y"),
    "different widths": (pairs.AllPairs, lambda rank: pairs_of(4, 4, width=3 + rank)(rank), r"\[4, 4\].*\[3, 3\]"),
    "no marginal pair": (lambda: pairs.SameLabel(exclude_same_label=True),
                         lambda rank: (torch.ones(3, 2), torch.tensor([1, 1, 1])), "batch of 6"),
    "no pair in two lists": (pairs.IndependentMarginal, lambda rank: (*pairs_of(2, 3)(rank), *pairs_of(0, 0)(rank)),
                             "Got 5 joint and 0 marginal pairs over all ranks"),
}
LABELS: Rejected = {  # rejected by the second rank
    "out of range": (lambda: pairs.EnumeratedLabels(5), OUT_OF_RANGE, "label 5"),
    "local and out of range": (lambda: pairs.EnumeratedLabels(5, gather=False), OUT_OF_RANGE, "label 5"),
    "impossible": (lambda: pairs.EnumeratedLabels(5, prior=[0.2, 0.2, 0.2, 0, 0.4]), labels_of([0, 1, 4], [0, 3, 1]),
                   "label 3"),
    "floating": (lambda: pairs.EnumeratedLabels(5), FLOATING, "float32"),
    "unlabelled": (pairs.SameLabel, UNLABELLED, "label -1"),
    "local and unlabelled": (lambda: pairs.SameLabel(gather=False), UNLABELLED, "label -1"),
    "floating, same label": (pairs.SameLabel, FLOATING, "float32"),
    "too few": (pairs.SameLabel, SHORT, r"\(1,\)"),
}
# fmt: on


def _message(step):
    """The error of a step, the seconds until it, and the ranks that take part in the next collective."""
    start = time.monotonic()
    try:
        step()
        message = ""
    except (TypeError, ValueError) as error:
        message = str(error)
    ranks = all_gather_ints([torch.distributed.get_rank()], torch.device("cpu"))
    return message, time.monotonic() - start, [rank for (rank,) in ranks]


def _pairing_errors(rank):
    found = {}
    for name, (make, views_of, _) in (BATCHES | LABELS).items():
        pairing = make()
        critic = critics.LabelCritic() if isinstance(pairing, pairs.EnumeratedLabels) else critics.InnerProductCritic()
        found[name] = _message(lambda: pairing(critic, *views_of(rank)))  # noqa: B023  # called at once
    return found


def test_pairing_errors_are_raised_on_every_rank(tmp_path):
    for rank, found in enumerate(on_processes(_pairing_errors, 2, tmp_path)):
        assert len(found) == len(BATCHES) + len(LABELS)
        for name, (message, seconds, ranks) in found.items():
            expected = BATCHES[name][2] if name in BATCHES else LABELS[name][2] if rank else OTHER_RANK
            assert re.search(expected, message), (name, message)
            assert seconds < 5, name
            assert ranks == [0, 1], name


# Whether there is a probe, the labels of each rank, the second rank's error.
MODULES: list[tuple[bool, list[list[float]], str]] = [
    (False, [[0, 1, 0], [0.0, 1.0, 0.0]], "needs labels"),
    (True, [[0, 1, 0], [0.0, 1.0, 0.0]], "needs labels"),
    (True, [[0, 1, 0], [0, 5, 0]], "label 5"),
]


def _module_errors(rank):
    found = []
    for probe, labels, _ in MODULES:
        pairing = pairs.AllPairs() if probe else pairs.SameLabel()
        given = {"probe": OnlineLinearProbe(5, 5)} if probe else {}
        module = MIEstimationModule(critics.BilinearCritic(5, 5), bounds.DV(), pairs=pairing, **given)
        batch = (*[torch.eye(5)[:3]] * (2 if probe else 1), torch.tensor(labels[rank]))
        found.append(_message(lambda: module.step(batch)))  # noqa: B023  # called at once
    return found


def test_module_errors_are_raised_on_every_rank(tmp_path):
    for rank, found in enumerate(on_processes(_module_errors, 2, tmp_path)):
        for (message, seconds, ranks), (*_, expected) in zip(found, MODULES, strict=True):
            assert re.search(expected if rank else OTHER_RANK, message), message
            assert seconds < 5
            assert ranks == [0, 1]

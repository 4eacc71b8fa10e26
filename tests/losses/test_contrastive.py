"""Losses by name, and pairings by id and by overlap, against published formulas: in one process and over ranks."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_mi import MILoss, bounds, critics, losses, pairs
from lightning_mi.utilities.distributed import all_reduce_mean_
from tests.helpers import contrastive
from tests.helpers.contrastive import Published
from tests.helpers.processes import on_processes

# Python 3.12 and later warn of every fork of a process with threads; gloo on one thread forks well.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

N, DIM = 9, 3
GENERATOR = np.random.default_rng(0)
X, Y, Z = GENERATOR.normal(size=(3, N, DIM))
LABELS = np.array([0, 1, 2, 0, 1, 0, 0, 2, 4])
IGNORED = np.where(np.arange(N) % 4 == 1, -1, LABELS)
IDS = np.array([3, -7, 3, 9, 3, 9, 8, 8, 2])
MULTI_HOT = np.array(
    [[1, 0, 1], [1, 1, 0], [0, 0, 0], [0, 1, 0], [0, 1, 0], [1, 1, 1], [0, 0, 1], [1, 0, 0], [1, 1, 1]]
)


@dataclass(frozen=True)
class Case:
    """A loss, its batch, and the published loss of the batch with the constant that it exceeds the loss by."""

    name: str
    make: Callable[[], MILoss]
    batch: tuple[np.ndarray, ...]
    published: Callable[[], Published]
    constant: float


def learnable(bound: bounds.AbstractBound, pairing: pairs.AbstractPairing) -> MILoss:
    return MILoss(critics.InnerProductCritic(normalize=True, temperature=0.3, learnable=True), bound, pairing)


def of_labelled() -> Published:
    """SupCon of the samples that are not ignored; the others have a gradient of 0."""
    kept = IGNORED >= 0
    found = contrastive.supcon(X[kept], IGNORED[kept].tolist(), 0.1)
    gradient = np.zeros_like(X)
    gradient[kept] = found.grad_x
    return found._replace(grad_x=gradient)


def of_two_views() -> Published:
    found = contrastive.supcon(np.concatenate([X, Y]), [*LABELS, *LABELS], 0.1)
    return found._replace(grad_x=found.grad_x[:N], grad_y=found.grad_x[N:])


BY_ID, LOG_COUNT = contrastive.same_id(X, Y, IDS.tolist(), IDS.tolist(), 0.3)
# fmt: off
CASES = [
    Case("ntxent", losses.ntxent, (X, Y), partial(contrastive.ntxent, X, Y, 0.5), math.log(2 * N - 1)),
    Case("supcon", losses.supcon, (X, LABELS), partial(contrastive.supcon, X, LABELS.tolist(), 0.1), math.log(N - 1)),
    Case("supcon, two views", partial(losses.supcon, num_views=2), (X, Y, LABELS), of_two_views, math.log(2 * N - 1)),
    Case("supcon, ignored labels", partial(losses.supcon, ignore_index=-1), (X, IGNORED), of_labelled,
         math.log((IGNORED >= 0).sum() - 1)),
    Case("clip", losses.clip, (X, Y), partial(contrastive.clip, X, Y, 0.07), math.log(N)),
    Case("clip, tiles", partial(losses.clip, tile_bytes=300), (X, Y), partial(contrastive.clip, X, Y, 0.07),
         math.log(N)),
    Case("same id", lambda: learnable(bounds.InfoNCE(), pairs.SameId()), (X, Y, IDS), lambda: BY_ID, LOG_COUNT),
    Case("overlap", lambda: learnable(bounds.InfoNCE(), pairs.OverlappingLabels()), (X, MULTI_HOT),
         partial(contrastive.overlapping, X, MULTI_HOT, "equal", 0.3), math.log(N - 1)),
    Case("jaccard", lambda: learnable(bounds.InfoNCE(), pairs.OverlappingLabels("jaccard")), (X, MULTI_HOT),
         partial(contrastive.overlapping, X, MULTI_HOT, "jaccard", 0.3), math.log(N - 1)),
]
# fmt: on


def computed(case: Case, rows: slice, world: int = 1) -> tuple[Tensor, list[Tensor], Tensor | None]:
    """Loss and gradients of some rows of the batch: of the views, and of the temperature, averaged over ranks.

    The gradient of a view is W times its share of the global one, as the mean over W ranks needs.
    """
    loss = case.make().double()
    with torch.no_grad():  # the logarithm in float64, as in the formula
        if isinstance(loss.critic, critics.InnerProductCritic) and loss.critic.log_temperature is not None:
            loss.critic.log_temperature.fill_(math.log(0.07 if case.name.startswith("clip") else 0.3))
    batch = [torch.tensor(part[rows]) for part in case.batch]
    views = [part.requires_grad_() for part in batch if part.is_floating_point()]
    value = loss(*batch)
    value.backward()
    temperature = next(iter(loss.parameters()), None)
    slope = None if temperature is None or temperature.grad is None else temperature.grad
    if slope is not None and world > 1:
        slope = all_reduce_mean_(slope.clone())
    return value.detach(), [view.grad / world for view in views if view.grad is not None], slope


def check(case: Case, value: Tensor, views: list[Tensor], slope: Tensor | None, rows: slice = slice(None)) -> None:
    expected = case.published()
    assert len(views) == sum(part.dtype.kind == "f" for part in case.batch)
    assert value.item() + case.constant == pytest.approx(expected.loss, abs=1e-10)
    for gradient, by_hand in zip(views, (expected.grad_x, expected.grad_y), strict=False):
        np.testing.assert_allclose(gradient.numpy(), by_hand[rows], atol=1e-10, rtol=0)
    if slope is not None:
        assert slope.item() == pytest.approx(expected.grad_log_temperature, abs=1e-10)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_loss_and_gradient_equal_the_published_formula(case: Case) -> None:
    check(case, *computed(case, slice(N)))


@pytest.mark.parametrize("shards", [(5, 4), (2, 4, 3)], ids=str)
def test_ranks_equal_the_published_formula(shards: tuple[int, ...], tmp_path) -> None:
    bounds_of = np.cumsum([0, *shards])

    def on_rank(rank):
        rows = slice(int(bounds_of[rank]), int(bounds_of[rank + 1]))
        return [computed(case, rows, len(shards)) for case in CASES]

    for rank, results in enumerate(on_processes(on_rank, len(shards), tmp_path)):
        rows = slice(int(bounds_of[rank]), int(bounds_of[rank + 1]))
        for case, (value, views, slope) in zip(CASES, results, strict=True):
            check(case, value, views, slope, rows)


def test_pairs_within_ranks_differ_from_the_published_formula() -> None:
    """The tolerances above can fail."""
    for case in CASES[:5]:
        value, _, _ = computed(case, slice(0, 5))
        assert abs(value.item() + case.constant - case.published().loss) > 1e-3, case.name


def test_images_and_captions_may_differ_in_number() -> None:
    ids = IDS[[0, 1, 3, 6]]
    expected, log_count = contrastive.same_id(X[:4], Y, ids.tolist(), IDS.tolist(), 0.3)
    case = Case("id", lambda: learnable(bounds.InfoNCE(), pairs.SameId()), (X[:4], Y), lambda: expected, log_count)
    loss = case.make().double()
    with torch.no_grad():
        next(loss.parameters()).fill_(math.log(0.3))
    x, y = torch.tensor(X[:4], requires_grad=True), torch.tensor(Y, requires_grad=True)
    value = loss(x, y, torch.tensor([*ids, *IDS]))
    value.backward()
    assert x.grad is not None
    assert y.grad is not None
    check(case, value.detach(), [x.grad, y.grad], next(loss.parameters()).grad)

"""The logged true value: of the current split and pairing, or nothing."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from lightning_mi import MIEstimationModule, bounds, critics, pairs
from lightning_mi.data import GaussianDataModule, ImageDataModule
from lightning_mi.training.step import max_value
from tests.helpers.small_module import RecordingLogger, trainer

pytestmark = pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers")


def dataset(*counts: int) -> TensorDataset:
    """Images with these numbers of samples per class."""
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    generator = torch.Generator().manual_seed(0)
    return TensorDataset(torch.randint(256, (len(labels), 1, 4, 4), generator=generator, dtype=torch.uint8), labels)


TRAIN, VAL, TEST = np.array([0.7, 0.2, 0.1]), np.array([0.7, 0.2, 0.1]), np.array([0.25, 0.25, 0.5])


def images(**kwargs) -> ImageDataModule:
    given = {"batch_size": 10, "val_fraction": 0.5, "test_dataset": dataset(10, 10, 20)} | kwargs
    return ImageDataModule(dataset(140, 40, 20), **given)


def module(pairing, bound=None, num_encoders=1) -> MIEstimationModule:
    torch.manual_seed(0)
    enumerated = isinstance(pairing, pairs.EnumeratedLabels)
    encoders = [nn.Sequential(nn.Flatten(), nn.LazyLinear(3)) for _ in range(num_encoders)]
    for encoder in encoders:
        encoder(torch.zeros(1, 1, 4, 4))
    critic = critics.LabelCritic() if enumerated else critics.BilinearCritic(3, 3)
    return MIEstimationModule(critic, bound or bounds.DV(), pairs=pairing, encoder=encoders)


def logged(made: MIEstimationModule, data, **kwargs) -> dict[str, list[float]]:
    """Logged true values by stage."""
    logger = RecordingLogger()
    fitted = trainer(logger=logger, **kwargs)
    fitted.fit(made, datamodule=data)
    if isinstance(data, ImageDataModule):
        fitted.test(made, datamodule=data, verbose=False)
    return {stage: logger.curve(f"{stage}/true_mi") for stage in ("train", "val", "test")}


def cross_entropy(p, q) -> float:
    return -float((p * np.log(q)).sum())


@pytest.mark.parametrize("prior", [None, "uniform", [0.2, 0.3, 0.5]], ids=str)
def test_truth_of_enumerated_labels_follows_split_and_prior(prior) -> None:
    q = {"None": TRAIN, "uniform": np.full(3, 1 / 3)}.get(str(prior), prior)
    found = logged(module(pairs.EnumeratedLabels(3, prior)), images())
    assert found["train"] == pytest.approx([cross_entropy(TRAIN, q)] * 10)
    assert found["val"] == pytest.approx([cross_entropy(VAL, q)])
    assert found["test"] == pytest.approx([cross_entropy(TEST, q)])


@pytest.mark.parametrize("bound", [bounds.DV(), bounds.InfoNCE()], ids=["DV", "InfoNCE"])
def test_truth_of_same_label_pairs_is_that_of_their_shares(bound) -> None:
    found = logged(module(pairs.SameLabel(), bound), images())
    for stage, law in (("train", TRAIN), ("val", VAL), ("test", TEST)):
        weights = law**2 / (law**2).sum()
        rows = isinstance(bound, bounds.InfoNCE)
        expected = cross_entropy(weights, law) if rows else -math.log((law**2).sum())
        assert found[stage] == pytest.approx([expected] * len(found[stage]))
        assert found[stage]


def test_prior_of_a_data_module_is_its_training_frequencies() -> None:
    made = module(pairs.EnumeratedLabels(3))
    logged(made, images())
    assert made.pairs.get_buffer("label_counts").tolist() == [70, 20, 10]


NOTHING: dict[str, list[float]] = {"train": [], "val": [], "test": []}


@pytest.mark.parametrize(
    ("pairing", "given"),
    [
        (pairs.TwoViews(), {"two_views": True, "transform": nn.Identity()}),
        (pairs.AllPairs(), {"two_views": True, "transform": nn.Identity()}),
        (pairs.SameLabel(exclude_same_label=True), {}),
        (pairs.SameLabel(), {"noisy_labels": True}),
        (pairs.EnumeratedLabels(3), {"noisy_labels": True}),
    ],
    ids=str,
)
def test_an_unknown_true_value_is_not_logged(pairing, given: dict) -> None:
    assert logged(module(pairing), images(**given)) == NOTHING


def test_random_transform_leaves_the_truth_to_evaluation() -> None:
    found = logged(module(pairs.EnumeratedLabels(3)), images(transform=nn.Identity()))
    assert found["train"] == []
    assert found["val"] == pytest.approx([cross_entropy(VAL, TRAIN)])


def test_batches_that_are_repeated_have_no_truth() -> None:
    assert logged(module(pairs.EnumeratedLabels(3)), images(), overfit_batches=2)["train"] == []


@pytest.mark.parametrize(
    ("pairing", "transform", "encoders", "truth"),
    [
        (pairs.TwoViews(), "identity", 1, [2.0, 2.0]),
        (pairs.TwoViews(), "identity", 2, []),
        (pairs.TwoViews(), "cubic", 1, []),
        (pairs.AllPairs(), "cubic", 2, [2.0, 2.0]),
    ],
    ids=str,
)
def test_two_views_have_a_truth_if_they_are_exchangeable(pairing, transform, encoders, truth) -> None:
    data = GaussianDataModule(dim=16, steps_per_mi=2, batch_size=8, transform=transform, val_batches=1)
    assert logged(module(pairing, num_encoders=encoders), data)["train"] == truth


@pytest.mark.parametrize(
    ("pairing", "given", "limit"),
    [
        (pairs.EnumeratedLabels(3, "uniform"), {"noisy_labels": True}, math.log(3)),
        (pairs.SameLabel(), {"noisy_labels": True}, -math.log((70 * 69 + 20 * 19 + 10 * 9) / (100 * 99))),
        (pairs.SameLabel(exclude_same_label=True), {}, math.inf),
        (pairs.TwoViews(), {"two_views": True, "transform": nn.Identity()}, math.inf),
    ],
    ids=str,
)
def test_limit_of_labels_holds_without_a_truth(pairing, given: dict, limit: float) -> None:
    made, fitted = module(pairing), trainer()
    fitted.fit(made, datamodule=images(**given))
    assert max_value(fitted, made, bounds.DV()) == pytest.approx(limit)
    assert max_value(fitted, made, bounds.SMILE()) == math.inf  # not a lower bound

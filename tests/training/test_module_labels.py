"""Labels in the module: pairings, predictions, and batches without joint pairs."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from lightning_mi import Scores, bounds, critics, pairs
from tests.helpers.labelled import NUM_FEATURES, Digits, features_of
from tests.helpers.labelled import make as make_for_digits
from tests.helpers.small_module import DIM, Batches, RecordingLogger, draw, fit, make, trainer

pytestmark = [
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`"),
    pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers"),
]


class LabelOne(pairs.AbstractPairing):
    """Joint pairs are samples of label 1: a batch may hold none."""

    num_views = 1
    takes_labels = True

    def forward(self, critic, *views):
        x, labels = views
        self.labels = labels
        scores = critic.pairwise(x, x)
        joint = torch.diag(labels == 1)
        return Scores.from_matrix(scores, joint=joint, marginal=torch.ones_like(joint), allow_no_joint=True)


class NeverNaN(bounds.AbstractBound):
    """A bound whose joint term is 0 without joint pairs."""

    self_normalized, marginal_pooling, is_lower_bound = False, "log_mean_exp", False

    def terms(self, scores):
        joint, marginal = scores.joint.sum() / max(scores.num_joint, 1), scores.log_mean_exp()
        return bounds.BoundTerms(joint - marginal, joint - marginal, joint, marginal, marginal)

    def marginal_at(self, target):
        return target


def labelled(*labels):
    return Batches((x, torch.tensor(values)) for (x, _), values in zip(draw(*map(len, labels)), labels, strict=True))


SOME, NONE = [1, 0, 1, 0], [0, 2, 0, 2]


# To the pairing.


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8])
def test_the_pairing_gets_labels_and_encoded_views(dtype):
    encoder, pairing = nn.Linear(DIM, DIM), LabelOne()
    [(x, labels)] = labelled(SOME)
    output = make(NeverNaN(), encoder=encoder, pairs=pairing).step((x, labels.to(dtype)))
    assert torch.equal(pairing.labels, labels.to(dtype))
    assert torch.equal(output.features, encoder(x))
    assert not output.features.requires_grad
    assert torch.equal(output.labels, labels)


def test_a_pairing_that_takes_no_labels_gets_none():
    x, y = draw(4).batches[0]
    module = make(encoder=nn.Linear(DIM, DIM))
    output = module.step((x, y, torch.arange(4)))
    assert torch.equal(output.scores.joint, module.step((x, y)).scores.joint)
    assert torch.equal(output.labels, torch.arange(4))
    assert module.step((x, y)).labels is None


def test_integer_views_are_no_labels():
    module = make(encoder=nn.Embedding(4, DIM))
    output = module.step((torch.arange(4), torch.arange(4)))
    assert output.scores.num_joint == 4
    assert output.labels is None


@pytest.mark.parametrize(
    ("batch", "contents"),
    [
        ((torch.ones(4, DIM),), r"float32 \(4, 3\):"),
        ((torch.ones(4, DIM), torch.ones(4, dtype=torch.bool)), r"bool \(4,\)"),
        ((torch.ones(4, DIM), torch.arange(4), torch.arange(4)), r"int64 \(4,\), int64 \(4,\)"),
        ((torch.ones(4, DIM), "cat"), "str"),
    ],
)
def test_missing_labels_are_an_error_that_lists_the_batch(batch, contents):
    module = make(NeverNaN(), pairs=LabelOne())
    for call in (module.step, module.predict_step):
        with pytest.raises(
            TypeError, match=f"LabelOne needs labels, but the batch holds .*{contents}.* after the first"
        ):
            call(batch)


def test_a_pairing_without_num_views_is_an_error():
    class Undeclared(LabelOne):
        num_views = None  # type: ignore[assignment]  # the error under test

    [batch] = labelled(SOME)
    with pytest.raises(TypeError, match="declare its `num_views`"):
        make(NeverNaN(), pairs=Undeclared()).step(batch)


def test_labels_reach_the_calibration():
    critic = critics.CalibratedCritic(critics.BilinearCritic(DIM, DIM))
    fit(make(NeverNaN(), critic=critic, pairs=LabelOne()), labelled(SOME))
    assert critic.calibrated


def test_pointwise_information_uses_the_labels():
    module, batches = make(NeverNaN(), pairs=LabelOne()), labelled(SOME, NONE)
    assert [len(predicted["pmi"]) for predicted in trainer().predict(module, batches)] == [2, 0]


# Without joint pairs.


def test_a_training_step_without_joint_pairs_logs_nan():
    logger, alone = RecordingLogger(), RecordingLogger()
    fit(make(NeverNaN(), pairs=LabelOne()), labelled(SOME, NONE), logger=logger)
    fit(make(NeverNaN(), pairs=LabelOne()), labelled(SOME), logger=alone)
    assert logger.curve("train/joint_pairs") == [2.0, 0.0]
    assert np.isfinite(logger.curve("train/loss") + logger.curve("train/marginal_term")).tolist() == [True] * 4
    for name in ("train/mi", "train/joint_term"):
        assert np.isnan(logger.curve(name)).tolist() == [False, True]
    assert logger.curve("train/mi_macro") == alone.curve("train/mi_macro")
    # Its marginal pairs are pooled with the others.
    assert logger.curve("train/mi_micro") != alone.curve("train/mi_micro")


@pytest.mark.parametrize("stage", ["validate", "test"])
def test_an_evaluation_batch_without_joint_pairs_adds_marginal_pairs(stage):
    module = make(NeverNaN(), pairs=LabelOne())
    [both] = getattr(trainer(), stage)(module, labelled(SOME, NONE), verbose=False)
    [alone] = getattr(trainer(), stage)(module, labelled(SOME), verbose=False)
    name = {"validate": "val"}.get(stage, stage)
    for reading in ("loss", "mi_macro"):
        assert both[f"{name}/{reading}"] == alone[f"{name}/{reading}"]
    assert both[f"{name}/mi"] != alone[f"{name}/mi"]
    # A single estimate has no spread.
    assert all(math.isfinite(value) for key, value in both.items() if not key.endswith("_standard_error"))


def test_joint_pairs_are_logged_for_labels_only():
    logger = RecordingLogger()
    fit(make(), draw(8), logger=logger)
    assert logger.curve("train/joint_pairs") == []


# Predictions.


class Guess(LabelOne):
    """Predicts the index of the largest feature."""

    def __init__(self, num_classes=10):
        super().__init__()
        self.num_classes = num_classes

    def predict(self, critic, x):
        assert not self.training
        return x.argmax(dim=1)


class Single(Digits):
    def loader(self, part, reference=False, **kwargs):
        return super().loader(part, reference=True, **kwargs)


def guessing(num_classes=10):
    return make_for_digits(bound=NeverNaN(), pairs=Guess(num_classes))


@pytest.mark.parametrize(("stage", "name"), [("validate", "val"), ("test", "test")])
def test_accuracy_is_that_of_the_whole_set(stage, name):
    module, data = guessing(), Single()
    [read] = getattr(trainer(), stage)(module, datamodule=data, verbose=False)
    part = slice(1000, 1301) if stage == "validate" else slice(1301, 1600)
    guesses = features_of(module, data.x[part]).argmax(dim=1).numpy()
    assert read[f"{name}/accuracy"] == pytest.approx(np.mean(guesses == data.y[part].numpy()), abs=1e-6)
    assert 0 < read[f"{name}/accuracy"] < 1


def test_without_predictions_no_accuracy_is_logged():
    module = make_for_digits(bound=NeverNaN(), pairs=LabelOne())
    [read] = trainer().test(module, datamodule=Single(), verbose=False)
    assert [name for name in read if "accuracy" in name] == []


def test_another_number_of_classes_is_an_error():
    with pytest.raises(ValueError, match="Got Guess with num_classes=12 for Single with num_classes=10"):
        fit(guessing(12), datamodule=Single())
    fit(guessing(10), datamodule=Single(), limit_train_batches=1, limit_val_batches=0)


def test_features_have_the_width_of_the_encoder():
    module = make_for_digits()
    output = module.step(next(iter(Digits().train_dataloader())))
    assert output.features.shape == (64, NUM_FEATURES)

"""Labels on their way through the module: to the pairing, to predictions, and batches that lack joint pairs."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from lightning_mi import Scores, bounds, critics, pairs
from lightning_mi.scores.layout import lay_out_samples
from tests.helpers.labelled import NUM_FEATURES, Digits, features_of
from tests.helpers.labelled import make as make_for_digits
from tests.helpers.small_module import DIM, Batches, Kept, draw, fit, make, trainer

pytestmark = [
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`"),
    pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers"),
]


class OfALabel(pairs.AbstractPairing):
    """Joint pairs are those of label 1: a batch may hold none."""

    num_views = 1
    takes_labels = True

    def forward(self, critic, *views):
        x, labels = views
        self.seen = labels
        scores = critic.pairwise(x, x)
        joint = scores.diagonal()[labels == 1]
        of_joint, of_marginal = torch.arange(joint.numel()), torch.arange(len(x)).repeat(len(x))
        return Scores(lay_out_samples(joint, scores.flatten(), of_joint, of_marginal))


class NeverNaN(bounds.AbstractBound):
    """A bound that reads no joint pairs as a joint term of 0, as every bound should."""

    self_normalized, marginal_pooling, is_lower_bound = False, "log_mean_exp", False

    def terms(self, scores):
        joint, marginal = scores.joint.sum() / max(scores.num_joint, 1), scores.log_mean_exp()
        return bounds.BoundTerms(joint - marginal, joint - marginal, joint, marginal, marginal)

    def marginal_at(self, target):
        return target


def labelled(*labels):
    return Batches((x, torch.tensor(own)) for (x, _), own in zip(draw(*map(len, labels)), labels, strict=True))


SOME, NONE = [1, 0, 1, 0], [0, 2, 0, 2]


# To the pairing.


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8])
def test_a_pairing_gets_the_labels_as_they_are_and_only_the_views_are_encoded(dtype):
    encoder, pairing = nn.Linear(DIM, DIM), OfALabel()
    [(x, labels)] = labelled(SOME)
    output = make(NeverNaN(), encoder=encoder, pairs=pairing).step((x, labels.to(dtype)))
    assert torch.equal(pairing.seen, labels.to(dtype))
    assert torch.equal(output.features, encoder(x))
    assert not output.features.requires_grad
    assert torch.equal(output.labels, labels)


def test_a_pairing_without_use_for_labels_does_not_get_them():
    x, y = draw(4).batches[0]
    module = make(encoder=nn.Linear(DIM, DIM))
    output = module.step((x, y, torch.arange(4)))
    assert torch.equal(output.scores.joint, module.step((x, y)).scores.joint)
    assert torch.equal(output.labels, torch.arange(4))
    assert module.step((x, y)).labels is None


def test_integers_are_views_where_the_pairing_counts_them_as_such():
    module = make(encoder=nn.Embedding(4, DIM))
    output = module.step((torch.arange(4), torch.arange(4)))
    assert output.scores.num_joint == 4
    assert output.labels is None


@pytest.mark.parametrize(
    ("batch", "held"),
    [
        ((torch.ones(4, DIM),), r"float32 \(4, 3\):"),
        ((torch.ones(4, DIM), torch.ones(4)), r"float32 \(4, 3\), float32 \(4,\)"),
        ((torch.ones(4, DIM), torch.ones(4, dtype=torch.bool)), r"bool \(4,\)"),
        ((torch.ones(4, DIM), torch.arange(4), torch.arange(4)), r"int64 \(4,\), int64 \(4,\)"),
        ((torch.ones(4, DIM), "cat"), "str"),
    ],
)
def test_labels_that_the_pairing_misses_are_asked_for_with_what_the_batch_holds(batch, held):
    module = make(NeverNaN(), pairs=OfALabel())
    for call in (module.step, module.predict_step):
        with pytest.raises(TypeError, match=f"OfALabel needs labels, but the batch holds .*{held}.* after the first"):
            call(batch)


def test_a_pairing_that_declares_no_views_is_asked_to():
    class Undeclared(OfALabel):
        num_views = None

    [batch] = labelled(SOME)
    with pytest.raises(TypeError, match="declare its `num_views`"):
        make(NeverNaN(), pairs=Undeclared()).step(batch)


def test_a_calibrated_critic_is_calibrated_on_pairs_made_with_labels():
    critic = critics.CalibratedCritic(critics.BilinearCritic(DIM, DIM))
    fit(make(NeverNaN(), critic=critic, pairs=OfALabel()), labelled(SOME))
    assert critic.calibrated


def test_predictions_know_the_labels():
    module, batches = make(NeverNaN(), pairs=OfALabel()), labelled(SOME, NONE)
    assert [len(ratios) for ratios in trainer().predict(module, batches)] == [2, 0]


# Without joint pairs.


def test_a_training_step_without_joint_pairs_is_counted_and_has_no_value():
    kept, alone = Kept(), Kept()
    fit(make(NeverNaN(), pairs=OfALabel()), labelled(SOME, NONE), logger=kept)
    fit(make(NeverNaN(), pairs=OfALabel()), labelled(SOME), logger=alone)
    assert kept.curve("train/joint_pairs") == [2.0, 0.0]
    assert len(kept.curve("train/loss")) == len(kept.curve("train/marginal_term")) == 2
    assert len(kept.curve("train/mi")) == len(kept.curve("train/joint_term")) == 1
    assert kept.curve("train/mi_macro") == alone.curve("train/mi_macro")
    # Its marginal pairs are as good as any other's, and pooled with them.
    assert kept.curve("train/mi_micro") != alone.curve("train/mi_micro")


@pytest.mark.parametrize("stage", ["validate", "test"])
def test_a_held_out_batch_without_joint_pairs_adds_marginal_pairs_only(stage):
    module = make(NeverNaN(), pairs=OfALabel())
    [both] = getattr(trainer(), stage)(module, labelled(SOME, NONE), verbose=False)
    [alone] = getattr(trainer(), stage)(module, labelled(SOME), verbose=False)
    name = {"validate": "val"}.get(stage, stage)
    for reading in ("loss", "mi_macro"):
        assert both[f"{name}/{reading}"] == alone[f"{name}/{reading}"]
    assert both[f"{name}/mi"] != alone[f"{name}/mi"]
    # A single estimate has no spread.
    assert all(math.isfinite(value) for key, value in both.items() if not key.endswith("_standard_error"))


def test_pairs_are_counted_only_where_labels_make_them():
    kept = Kept()
    fit(make(), draw(8), logger=kept)
    assert kept.curve("train/joint_pairs") == []


# Predictions.


class Guess(OfALabel):
    """Predicts where the features are greatest."""

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
def test_the_accuracy_of_a_pairing_that_predicts_is_that_of_the_whole_set_in_evaluation_mode(stage, name):
    module, data = guessing(), Single()
    [read] = getattr(trainer(), stage)(module, datamodule=data, verbose=False)
    part = slice(1000, 1301) if stage == "validate" else slice(1301, 1600)
    guesses = features_of(module, data.x[part]).argmax(dim=1).numpy()
    assert read[f"{name}/accuracy"] == pytest.approx(np.mean(guesses == data.y[part].numpy()), abs=1e-6)
    assert 0 < read[f"{name}/accuracy"] < 1


def test_no_accuracy_is_logged_where_nothing_predicts():
    module = make_for_digits(bound=NeverNaN(), pairs=OfALabel())
    [read] = trainer().test(module, datamodule=Single(), verbose=False)
    assert [name for name in read if "accuracy" in name] == []


def test_another_number_of_classes_than_the_data_has_is_refused_before_training():
    with pytest.raises(ValueError, match="Got Guess with num_classes=12 for Single with num_classes=10"):
        fit(guessing(12), datamodule=Single())
    fit(guessing(10), datamodule=Single(), limit_train_batches=1, limit_val_batches=0)


def test_the_features_are_the_encoders_width():
    module = make_for_digits()
    output = module.step(next(iter(Digits().train_dataloader())))
    assert output.features.shape == (64, NUM_FEATURES)

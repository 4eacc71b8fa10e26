"""Values that the module logs in trainings of a few steps."""

import math
import re
from functools import partial

import lightning.pytorch as L
import numpy as np
import pytest
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout

from lightning_mi import bounds, regularizers
from lightning_mi.data import GaussianDataModule
from tests.helpers.reference import Sheet
from tests.helpers.small_module import DIM, STEP_NAMES, RecordingLogger, draw, fit, make, sheet_of, trainer
from tests.helpers.specs import BOUNDS, by_name

pytestmark = pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`")

EPOCH_NAMES = {"mi", "mi_macro", "log_normalizer", "effective_sample_fraction"}


def epoch_names(stage, *more):
    names = EPOCH_NAMES | set(more)
    if stage == "train":  # steps log the other two
        names = names - {"mi", "log_normalizer"} | {"mi_micro", "log_normalizer_micro"}
    else:
        names = names | {f"{name}_standard_error" for name in names if name.startswith("mi")}
    return {f"{stage}/{name}" for name in names}


@pytest.mark.parametrize(
    ("bound", "regularizer", "knows_the_truth", "steps", "everywhere", "epochs"),
    [
        (bounds.DV, None, True, set(), set(), set()),
        (bounds.NWJ, None, False, set(), set(), {"mi_plug_in"}),
        (bounds.InfoNCE, regularizers.Huber, True, {"train/penalty"}, {"log_n"}, {"mi_plug_in"}),
    ],
)
def test_each_stage_logs_exactly_the_documented_names(bound, regularizer, knows_the_truth, steps, everywhere, epochs):
    module = make(bound(), regularizer=None if regularizer is None else regularizer())
    data = None
    if knows_the_truth:
        data = GaussianDataModule(dim=DIM, mi=1.0, steps_per_mi=3, batch_size=8, val_batches=2, test_batches=2)
        fitted = fit(module, datamodule=data)
        everywhere = everywhere | {"true_mi"}
    else:
        fitted = fit(module, draw(8, 8), draw(8, 8))
    expected = STEP_NAMES | steps | epoch_names("train", *epochs) | {f"train/{name}" for name in everywhere}
    expected |= epoch_names("val", "loss", *epochs, *everywhere)
    assert set(fitted.callback_metrics) == expected
    fitted.test(module, None if knows_the_truth else draw(8), datamodule=data, verbose=False)
    assert set(fitted.callback_metrics) == epoch_names("test", "loss", *epochs, *everywhere)


def test_every_nth_step_is_logged():
    every, fifth = RecordingLogger(), RecordingLogger()
    fit(make(), draw(*[8] * 11), logger=every)
    fit(make(), draw(*[8] * 11), logger=fifth, log_every_n_steps=5)
    assert [step for step, row in fifth.rows if "train/mi" in row] == [4, 9]
    for name in STEP_NAMES:
        assert fifth.curve(name) == [every.curve(name)[4], every.curve(name)[9]]
    assert len(fifth.curve("train/mi_micro")) == 1


def test_the_loss_contains_the_penalty_and_the_value_does_not():
    logger, objectives = RecordingLogger(), Objectives()
    fit(make(bounds.JS(), regularizer=regularizers.Squared(weight=3.0)), logger=logger, callbacks=objectives)
    mi, loss, penalty, joint, marginal, ell = (
        np.array(logger.curve(f"train/{name}"))
        for name in ("mi", "loss", "penalty", "joint_term", "marginal_term", "log_normalizer")
    )
    np.testing.assert_allclose(penalty, 3 * ell**2, rtol=1e-5)
    assert (penalty > 1e-6).all()
    np.testing.assert_allclose(mi, joint - marginal, atol=1e-6)
    np.testing.assert_allclose(loss, penalty - objectives.recorded, atol=1e-6)


class Objectives(L.Callback):
    def __init__(self):
        self.recorded = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.recorded.append(outputs["terms"].objective.item())


def test_truth_and_ceiling_are_logged_per_step():
    logger = RecordingLogger()
    data = GaussianDataModule(dim=DIM, mi=[1.0, 2.0], steps_per_mi=2, batch_size=8, val_batches=1)
    fit(make(bounds.InfoNCE()), datamodule=data, logger=logger)
    assert logger.curve("train/true_mi") == [1.0, 1.0, 2.0, 2.0]
    assert logger.curve("val/true_mi") == [2.0]
    np.testing.assert_allclose(logger.curve("train/log_n"), [math.log(8)] * 4, rtol=1e-6)


SPECS = [spec for spec in BOUNDS if spec.name in ("DV", "JS", "InfoNCE")]  # one for each way to pool batches


@pytest.mark.parametrize("spec", SPECS, ids=by_name)
def test_evaluation_pools_all_pairs_as_float64_numpy_does(spec):
    module, batches = make(spec.make(), regularizer=regularizers.Squared()), draw(8, 5, 2)
    [read] = trainer().validate(module, batches, verbose=False)
    sheets = [sheet_of(module, batch) for batch in batches]
    readings, sizes = [spec.reference(sheet) for sheet in sheets], [len(sheet.t) for sheet in sheets]
    if spec.needs_rows:  # rows are whole within a batch, and each counts once
        value, log_normalizer = (
            np.average([getattr(reading, name) for reading in readings], weights=sizes)
            for name in ("value", "log_normalizer")
        )
    else:
        joint = np.concatenate([sheet.t[sheet.joint] for sheet in sheets])
        marginal = np.concatenate([sheet.t[sheet.marginal] for sheet in sheets])
        is_joint = np.arange(joint.size + marginal.size) < joint.size
        pooled = spec.reference(Sheet(np.concatenate([joint, marginal]), is_joint, ~is_joint))
        value, log_normalizer = pooled.value, pooled.log_normalizer
    near = partial(pytest.approx, rel=1e-5, abs=1e-6)
    assert read["val/mi"] == near(value)
    assert read["val/log_normalizer"] == near(log_normalizer)
    assert read["val/mi_macro"] == near(np.mean([reading.value for reading in readings]))
    losses = [reading.log_normalizer**2 - reading.objective for reading in readings]
    assert read["val/loss"] == near(np.average(losses, weights=sizes))
    w = np.exp(np.concatenate([sheet.t[sheet.marginal] for sheet in sheets]))
    assert read["val/effective_sample_fraction"] == near(w.sum() ** 2 / (w**2).sum() / w.size)


def test_the_plug_in_estimate_uses_the_target():
    x, y = next(iter(batches := draw(8)))
    for bound, target, marginal in ((bounds.DV(), 0.5, 0.5), (bounds.NWJ(), 0.0, 1.0)):
        module = make(bound, regularizer=regularizers.Squared(target=target))
        [read] = trainer().validate(module, batches, verbose=False)
        joint = module.critic.paired(x, y).detach().numpy().astype(np.float64).mean()
        assert read["val/mi_plug_in"] == pytest.approx(joint - marginal, rel=1e-5)


# TensorBoard.


@pytest.fixture(scope="module")
def events(tmp_path_factory):
    folder = tmp_path_factory.mktemp("board")
    logger = TensorBoardLogger(folder)
    data = GaussianDataModule(dim=DIM, mi=1.0, steps_per_mi=3, batch_size=8, val_batches=1)
    fit(make(bounds.InfoNCE(), regularizer=regularizers.Squared()), datamodule=data, logger=logger)
    logger.finalize("success")
    accumulator = EventAccumulator(logger.log_dir)
    accumulator.Reload()
    return accumulator


def test_tensorboard_gets_every_scalar_at_its_step(events):
    tags = set(events.Tags()["scalars"])
    assert STEP_NAMES | {"train/true_mi", "train/log_n", "train/penalty", "val/mi", "val/mi_plug_in"} <= tags
    assert [(event.step, event.value) for event in events.Scalars("train/true_mi")] == [(0, 1.0), (1, 1.0), (2, 1.0)]


def test_tensorboard_charts_group_the_curves(events):
    [stored] = events.Tensors("custom_scalars__config__")
    layout = Layout.FromString(stored.tensor_proto.string_val[0])
    logged = events.Tags()["scalars"]
    charts = [
        {tag for tag in logged for pattern in chart.multiline.tag if re.search(pattern, tag)}
        for category in layout.category
        for chart in category.chart
    ]
    assert {"train/mi", "train/true_mi", "train/log_n"} in charts
    assert {"train/joint_term", "train/marginal_term"} in charts
    assert {"val/mi", "val/mi_plug_in", "val/true_mi", "val/log_n"} in charts
    assert all(charts)

"""HeldOutCheckpoint and HeldOutEarlyStopping on given values, against NumPy; and bad use."""

import math

import lightning.pytorch as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lightning_mi import bounds
from lightning_mi.callbacks import HeldOutCheckpoint, HeldOutEarlyStopping
from lightning_mi.exceptions import MIWarning
from tests.helpers.scripted import Script, gaussian, play, step_of
from tests.helpers.small_module import Batches, draw, make, trainer

pytestmark = [
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
]


def chosen(readings, errors, z, ceiling=math.inf):
    """The index that the rule chooses, and how often it replaced another, in NumPy."""
    errors = np.broadcast_to(errors, np.shape(readings))
    best, replaced = None, 0
    for i, (value, error) in enumerate(zip(readings, errors, strict=True)):
        if not (np.isfinite(value) and np.isfinite(error)) or value - z * error > ceiling:
            continue
        if best is None or value - readings[best] > z * np.sqrt(error**2 + errors[best] ** 2):
            replaced += best is not None
            best = i
    return best, replaced


# Noise.


@pytest.mark.parametrize(("share", "z"), [(0.2, 1.0), (1.0, 3.0)], ids=["the same samples", "new samples"])
def test_held_out_choice_is_unbiased_for_noisy_constants(share, z, tmp_path):
    truth, error, runs, epochs = 2.0, 0.1, 8, 50
    # Noise that is common to all values of a run only shifts the constant.
    noise = share * np.random.default_rng(0).normal(size=(epochs, runs))
    readings = truth + error * noise
    names = [f"val/run{i}" for i in range(runs)]
    highest = [ModelCheckpoint(tmp_path, f"max{i}-{{step}}", name, mode="max") for i, name in enumerate(names)]
    held_out = [HeldOutCheckpoint(n, z, dirpath=tmp_path, filename=f"{i}-{{step}}") for i, n in enumerate(names)]
    play(readings, *highest, *held_out, errors=error, names=names)

    expected = [chosen(column, error, z) for column in readings.T]
    assert [step_of(callback.best_model_path) for callback in held_out] == [index + 1 for index, _ in expected]
    best_scores = np.array([float(callback.best_model_score) for callback in held_out])
    np.testing.assert_array_equal(best_scores, [readings[k, i] for i, (k, _) in enumerate(expected)])
    highest_values = np.array([float(callback.best_model_score) for callback in highest])
    np.testing.assert_array_equal(highest_values, readings.max(axis=0))

    spread = 4 * share * error / np.sqrt(runs)
    assert (
        highest_values.mean() - truth > 2 * share * error
    )  # the expected maximum of 50 normal draws is 2.25 deviations
    assert best_scores.mean() - truth < spread
    records = np.maximum.accumulate(readings, axis=0)
    assert (np.diff(records, axis=0) > 0).sum(axis=0).mean() > 3  # how often the highest replaces
    assert np.mean([replaced for _, replaced in expected]) < 0.3


def test_the_numbers_in_the_docstring_are_those_of_a_simulation():
    draws = np.random.default_rng(0).normal(size=(50, 20_000))
    for share, z, bias in ((0.2, 0, 0.45), (0.2, 1, 0), (1, 0, 2.25), (1, 1, 1.77), (1, 2, 0.97), (1, 3, 0.16)):
        readings = share * draws  # in standard errors
        best = readings[0].copy()
        for row in readings[1:]:
            best = np.where(row - best > z * np.sqrt(2), row, best)
        assert best.mean() == pytest.approx(bias, abs=0.03)
        assert f"{bias:g}" in (HeldOutCheckpoint.__doc__ or "")


# The rule, one value at a time.

CASES = {
    "a significant gain replaces": ([1.0, 1.29], 0.1, 2, 1),
    "an insignificant one does not": ([1.0, 1.28], 0.1, 2, 0),
    "small gains add up": ([1.0, 1.1, 1.2, 1.3], 0.1, 2, 3),
    "at z = 0 the highest wins": ([1.0, 1.001], 0.1, 0, 1),
    "both errors count": ([1.0, 1.44, 1.46], [0.2, 0.1, 0.1], 2, 2),
    "a value that is not finite is never chosen": ([math.inf, 1.0, math.nan, math.inf], 0.1, 2, 1),
    "a value without a standard error is never chosen": ([2.0, 1.0, 3.0], [math.nan, 0.1, math.nan], 2, 1),
}


@pytest.mark.parametrize(("readings", "errors", "z", "best_epoch"), CASES.values(), ids=CASES)
def test_chosen_checkpoint(readings, errors, z, best_epoch, tmp_path):
    callback = HeldOutCheckpoint(z=z, dirpath=tmp_path)
    play(readings, callback, errors=errors)
    assert chosen(readings, errors, z)[0] == best_epoch
    assert step_of(callback.best_model_path) == best_epoch + 1
    assert [path.name for path in tmp_path.iterdir()] == [f"held_out-epoch={best_epoch}-step={best_epoch + 1}.ckpt"]


@pytest.mark.parametrize(("ceiling", "best_epoch"), [(None, 2), (math.log(10), 1)])
def test_value_above_the_ceiling_is_never_chosen(ceiling, best_epoch, tmp_path):
    readings = [1.9, 2.4, 3.1]  # 2.4 is above log 10 = 2.30, but not by 2 standard errors
    callback = HeldOutCheckpoint(z=2, ceiling=ceiling, dirpath=tmp_path)
    stopping = HeldOutEarlyStopping(z=2, ceiling=ceiling)
    play(readings, stopping, callback)
    assert step_of(callback.best_model_path) == best_epoch + 1
    assert float(stopping.best_score) == readings[best_epoch]
    assert stopping.wait_count == 2 - best_epoch


def test_early_stopping_waits_for_a_significant_gain():
    readings = [1.0, 1.2, 1.1, 1.5, 1.6, 1.7, 1.75, 1.4, 9.0]  # 1.5 beats 1.0 by more than 0.28, and nothing 1.5
    stopping = HeldOutEarlyStopping(z=2, patience=4)
    fitted = play(readings, stopping, enable_progress_bar=False)
    assert (fitted.global_step, stopping.stopped_epoch) == (8, 7)
    assert float(stopping.best_score) == 1.5
    plain = HeldOutEarlyStopping(z=0, patience=4)
    assert play(readings, plain).global_step == len(readings)


def test_early_stopping_stops_at_non_finite_values():
    assert play([1.0, math.nan, 2.0], HeldOutEarlyStopping()).global_step == 2
    assert play([1.0, math.nan, 2.0], HeldOutEarlyStopping(check_finite=False)).global_step == 3


def test_the_sanity_check_does_not_count(tmp_path):
    callback, stopping = HeldOutCheckpoint(dirpath=tmp_path), HeldOutEarlyStopping()
    play([1.0, 1.1], stopping, callback, sanity=1)  # where 99 is logged
    assert float(callback.best_model_score) == float(stopping.best_score) == 1.0


def test_validating_alone_changes_nothing(tmp_path):
    callback, stopping = HeldOutCheckpoint(dirpath=tmp_path), HeldOutEarlyStopping()
    fitted = play([1.0, 1.0], stopping, callback, epochs=1)
    state = callback.state_dict(), stopping.state_dict()
    fitted.lightning_module.readings = np.full((2, 1), 7.0)
    fitted.validate(fitted.lightning_module, Batches([torch.zeros(1)] * 2), verbose=False)
    assert (callback.state_dict(), stopping.state_dict()) == state


# Bad use.

CALLBACKS = pytest.mark.parametrize("callback", [HeldOutCheckpoint, HeldOutEarlyStopping])


@CALLBACKS
def test_bound_that_is_no_lower_bound_raises(callback):
    for monitor in ("val/mi", "val/mi_plug_in"):
        with pytest.raises(MisconfigurationException, match=f"'{monitor}' with SMILE: it is not a lower bound"):
            trainer(callbacks=callback(monitor), enable_checkpointing=True).fit(make(bounds.SMILE()), gaussian())


def test_accuracy_may_be_monitored_with_any_bound(tmp_path):
    class WithAccuracy(Script):
        bound = bounds.SMILE()

    callback = HeldOutCheckpoint("val/accuracy", dirpath=tmp_path)
    loader = Batches([torch.zeros(1)] * 2)
    fitted = trainer(callbacks=callback, enable_checkpointing=True, num_sanity_val_steps=0)
    fitted.fit(WithAccuracy([0.5], [0.1], ["val/accuracy"]), loader, loader)
    assert float(callback.best_model_score) == 0.5


@pytest.mark.parametrize(("callback", "batches"), [(HeldOutCheckpoint, 0), (HeldOutEarlyStopping, 1)])
@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`")
def test_too_few_validation_batches_raise_before_training(callback, batches, tmp_path):
    data, module = gaussian(), make()
    fitted = trainer(callbacks=callback(), enable_checkpointing=True, limit_val_batches=batches)
    with pytest.raises(MisconfigurationException, match=f"Got {batches} validation batches"):
        fitted.fit(module, data)
    assert fitted.global_step == 0


@CALLBACKS
def test_missing_standard_error_raises_in_the_sanity_check(callback):
    fitted = trainer(callbacks=callback("val/mi_plug_in"), enable_checkpointing=True)
    with pytest.raises(MisconfigurationException, match="Got no val/mi_plug_in, val/mi_plug_in_standard_error"):
        fitted.fit(make(bounds.DV()), gaussian())  # nothing holds its log-normalizer
    assert fitted.global_step == 0


@CALLBACKS
def test_invalid_margins_raise(callback):
    with pytest.raises(ValueError, match="Got z=-1"):
        callback(z=-1)
    with pytest.raises(ValueError, match="ceiling=nan"):
        callback(ceiling=math.nan)


def test_data_without_a_test_split_warn(tmp_path):
    class NoTest(L.LightningDataModule):
        def train_dataloader(self):
            return draw(8)

        def val_dataloader(self):
            return draw(8, 8)

    with pytest.warns(MIWarning, match="NoTest has no test_dataloader: the value of the chosen checkpoint"):
        trainer(callbacks=HeldOutCheckpoint(dirpath=tmp_path), enable_checkpointing=True).fit(make(), NoTest())


@CALLBACKS
def test_fast_dev_run_needs_no_standard_error(callback):
    trainer(callbacks=callback(), enable_checkpointing=True, fast_dev_run=True).fit(make(), gaussian())

"""Choice of the checkpoint and early stopping on readings that are given, against NumPy, and on real ones."""

import datetime
import math
from pathlib import Path

import lightning.pytorch as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lightning_mi import bounds, regularizers
from lightning_mi.callbacks import HeldOutCheckpoint, HeldOutEarlyStopping
from lightning_mi.checkpoint_files import find_checkpoint
from lightning_mi.data import GaussianDataModule
from tests.small_module import Batches, draw, make, trainer

pytestmark = [
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),  # Python 3.12 and later
]


class Script(L.LightningModule):
    """One weight, which counts the steps; each validation of the training logs the next row of given readings.

    Args:
        readings: (V, R) a value for each validation and name.
        errors: Their standard errors, of a shape that broadcasts.
        names: R of them.
    """

    def __init__(self, readings, errors, names=("val/mi",)):
        super().__init__()
        self.readings = np.reshape(readings, (len(readings), -1))
        self.errors = np.broadcast_to(np.reshape(errors, (-1, 1)), self.readings.shape)
        self.names = names
        self.count = torch.nn.Parameter(torch.zeros(()))

    def training_step(self, batch, batch_idx):
        return -self.count

    def validation_step(self, batch, batch_idx):
        pass

    def on_validation_epoch_end(self):
        row = 0 if self.trainer.sanity_checking else self.trainer.current_epoch
        for name, value, error in zip(self.names, self.readings[row], self.errors[row], strict=True):
            shown = 99.0 if self.trainer.sanity_checking else value
            self.log(name, torch.tensor(shown, dtype=torch.float64))
            self.log(f"{name}_standard_error", torch.tensor(error, dtype=torch.float64))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1.0)


def play(readings, *callbacks, errors=0.1, names=("val/mi",), sanity=0, ckpt_path=None, epochs=None, **kwargs):
    """A training of one step for each reading."""
    module, loader = Script(readings, errors, names), Batches([torch.zeros(1)])
    fitted = trainer(
        callbacks=list(callbacks),
        enable_checkpointing=True,
        max_epochs=len(readings) if epochs is None else epochs,
        num_sanity_val_steps=sanity,
        **kwargs,
    )
    fitted.fit(module, loader, Batches(loader.batches * 2), ckpt_path=ckpt_path, weights_only=True)
    return fitted


def chosen(readings, errors, z, ceiling=math.inf):
    """The index that the rule keeps, and how often it replaced another: NumPy's."""
    errors = np.broadcast_to(errors, np.shape(readings))
    kept, replaced = None, 0
    for i, (value, error) in enumerate(zip(readings, errors, strict=True)):
        if not (np.isfinite(value) and np.isfinite(error)) or value - z * error > ceiling:
            continue
        if kept is None or value - readings[kept] > z * np.sqrt(error**2 + errors[kept] ** 2):
            replaced += kept is not None
            kept = i
    return kept, replaced


def step_of(checkpoint):
    """How many steps the weights in a checkpoint have taken."""
    return int(torch.load(checkpoint, weights_only=True)["state_dict"]["count"])


# What noise does.


@pytest.mark.parametrize(("share", "z"), [(0.2, 1.0), (1.0, 3.0)], ids=["the same samples", "new samples"])
def test_of_a_noisy_constant_the_highest_value_reads_high_and_the_held_out_choice_does_not(share, z, tmp_path):
    truth, error, runs, epochs = 2.0, 0.1, 8, 50
    # What is common to all readings of a run moves the constant; a choice among them cannot avoid it.
    noise = share * np.random.default_rng(0).normal(size=(epochs, runs))
    readings = truth + error * noise
    names = [f"val/run{i}" for i in range(runs)]
    highest = [ModelCheckpoint(tmp_path, f"max{i}-{{step}}", name, mode="max") for i, name in enumerate(names)]
    held_out = [HeldOutCheckpoint(n, z, dirpath=tmp_path, filename=f"{i}-{{step}}") for i, n in enumerate(names)]
    play(readings, *highest, *held_out, errors=error, names=names)

    expected = [chosen(column, error, z) for column in readings.T]
    assert [step_of(callback.best_model_path) for callback in held_out] == [kept + 1 for kept, _ in expected]
    kept = np.array([float(callback.best_model_score) for callback in held_out])
    np.testing.assert_array_equal(kept, [readings[k, i] for i, (k, _) in enumerate(expected)])
    luckiest = np.array([float(callback.best_model_score) for callback in highest])
    np.testing.assert_array_equal(luckiest, readings.max(axis=0))

    spread = 4 * share * error / np.sqrt(runs)
    assert luckiest.mean() - truth > 2 * share * error  # the expected maximum of 50 normal draws is 2.25 deviations
    assert kept.mean() - truth < spread
    records = np.maximum.accumulate(readings, axis=0)
    assert (np.diff(records, axis=0) > 0).sum(axis=0).mean() > 3  # how often the highest replaces
    assert np.mean([replaced for _, replaced in expected]) < 0.3


def test_the_numbers_in_the_docstring_are_those_of_a_simulation():
    draws = np.random.default_rng(0).normal(size=(50, 20_000))
    for share, z, bias in ((0.2, 0, 0.45), (0.2, 1, 0), (1, 0, 2.25), (1, 1, 1.77), (1, 2, 0.97), (1, 3, 0.16)):
        readings = share * draws  # in standard errors
        kept = readings[0].copy()
        for row in readings[1:]:
            kept = np.where(row - kept > z * np.sqrt(2), row, kept)
        assert kept.mean() == pytest.approx(bias, abs=0.03)
        assert f"{bias:g}" in HeldOutCheckpoint.__doc__


# The rule, one reading at a time.

CASES = {
    "a significant gain replaces": ([1.0, 1.29], 0.1, 2, 1),
    "an insignificant one does not": ([1.0, 1.28], 0.1, 2, 0),
    "small gains add up": ([1.0, 1.1, 1.2, 1.3], 0.1, 2, 3),
    "at z = 0 the highest wins": ([1.0, 1.001], 0.1, 0, 1),
    "both errors count": ([1.0, 1.44, 1.46], [0.2, 0.1, 0.1], 2, 2),
    "a value that is not finite is never chosen": ([math.inf, 1.0, math.nan, math.inf], 0.1, 2, 1),
    "a value without a standard error is never chosen": ([2.0, 1.0, 3.0], [math.nan, 0.1, math.nan], 2, 1),
}


@pytest.mark.parametrize(("readings", "errors", "z", "kept"), CASES.values(), ids=CASES)
def test_what_is_kept(readings, errors, z, kept, tmp_path):
    callback = HeldOutCheckpoint(z=z, dirpath=tmp_path)
    play(readings, callback, errors=errors)
    assert chosen(readings, errors, z)[0] == kept
    assert step_of(callback.best_model_path) == kept + 1
    assert [path.name for path in tmp_path.iterdir()] == [f"held_out-epoch={kept}-step={kept + 1}.ckpt"]


@pytest.mark.parametrize(("ceiling", "kept"), [(None, 2), (math.log(10), 1)])
def test_a_value_above_the_ceiling_by_more_than_noise_is_not_better(ceiling, kept, tmp_path):
    readings = [1.9, 2.4, 3.1]  # 2.4 is above log 10 = 2.30, but not by 2 standard errors
    callback = HeldOutCheckpoint(z=2, ceiling=ceiling, dirpath=tmp_path)
    stopping = HeldOutEarlyStopping(z=2, ceiling=ceiling)
    play(readings, stopping, callback)
    assert step_of(callback.best_model_path) == kept + 1
    assert float(stopping.best_score) == readings[kept]
    assert stopping.wait_count == 2 - kept


def test_early_stopping_waits_for_a_significant_gain():
    readings = [1.0, 1.2, 1.1, 1.5, 1.6, 1.7, 1.75, 1.4, 9.0]  # 1.5 beats 1.0 by more than 0.28, and nothing 1.5
    stopping = HeldOutEarlyStopping(z=2, patience=4)
    fitted = play(readings, stopping, enable_progress_bar=False)
    assert (fitted.global_step, stopping.stopped_epoch) == (8, 7)
    assert float(stopping.best_score) == 1.5
    plain = HeldOutEarlyStopping(z=0, patience=4)
    assert play(readings, plain).global_step == len(readings)


def test_early_stopping_stops_at_once_where_the_value_is_not_finite():
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


# In a checkpoint.

LONG = [1.0, 2.0, 1.9, 2.1, 2.2, 1.0, 2.3, 1.2]  # 2.3 beats 2.0 by more than 0.28


@pytest.mark.filterwarnings("ignore:The dirpath has changed")  # true of the plain one
@pytest.mark.parametrize("folder", ["a", "b"], ids=["the same folder", "another folder"])
@pytest.mark.parametrize("interrupted", range(1, len(LONG)))
def test_a_resumed_run_goes_on_comparing_with_what_was_kept(interrupted, folder, tmp_path):
    first = HeldOutCheckpoint(z=2, dirpath=tmp_path / "a"), HeldOutEarlyStopping(z=2, patience=5)
    # The plain one comes first: it must know what was chosen all the same.
    newest = ModelCheckpoint(tmp_path / "a"), ModelCheckpoint(tmp_path / folder)
    play(LONG, newest[0], *first, epochs=interrupted)
    again = HeldOutCheckpoint(z=2, dirpath=tmp_path / folder), HeldOutEarlyStopping(z=2, patience=5)
    fitted = play(LONG, newest[1], *again, ckpt_path=newest[0].best_model_path)
    assert fitted.global_step == len(LONG)
    assert step_of(again[0].best_model_path) == 7
    assert float(again[0].best_model_score) == float(again[1].best_score) == 2.3
    assert again[1].wait_count == 1
    assert find_checkpoint("best", [tmp_path]) == Path(again[0].best_model_path)


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_without_a_gain_after_resuming_the_best_is_still_the_old_one(tmp_path):
    readings = [1.0, 2.0, 1.9, 1.8, 1.7]
    newest = ModelCheckpoint(tmp_path / "a")
    play(readings, HeldOutCheckpoint(dirpath=tmp_path / "a"), newest, epochs=3)
    resumed = HeldOutCheckpoint(dirpath=tmp_path / "b")
    play(readings, resumed, ModelCheckpoint(tmp_path / "b"), ckpt_path=newest.best_model_path)
    assert list((tmp_path / "b").glob("held_out*")) == []
    best = find_checkpoint("best", [tmp_path])
    assert (best.parent.name, step_of(best)) == ("a", 2)
    assert Path(resumed.best_model_path) == best


def test_best_is_the_held_out_choice_among_checkpoints(tmp_path):
    others = ModelCheckpoint(tmp_path, "max-{step}", "val/mi", mode="max"), ModelCheckpoint(tmp_path)
    held_out = HeldOutCheckpoint(z=2, dirpath=tmp_path)
    play([1.0, 1.1, 1.2, 1.1], others[0], held_out, others[1])
    assert step_of(others[0].best_model_path) == 3
    assert find_checkpoint("best", [tmp_path]) == Path(held_out.best_model_path)
    assert step_of(held_out.best_model_path) == 1


def test_state_can_be_asked_for_before_a_fit():
    assert HeldOutCheckpoint().state_dict()["standard_error"] == 0
    assert HeldOutEarlyStopping().state_dict()["standard_error"] == 0
    assert HeldOutEarlyStopping().state_key != HeldOutEarlyStopping("val/mi_plug_in").state_key


# Of real estimates.


def gaussian(batch_size=8):
    return GaussianDataModule(dim=3, mi=1.0, steps_per_mi=4, batch_size=batch_size, val_batches=5, test_batches=4)


@pytest.mark.parametrize("monitor", ["val/mi", "val/mi_macro", "val/mi_plug_in"])
def test_the_choice_is_made_on_what_the_module_reads_and_the_test_split_is_reported(monitor, tmp_path):
    callback = HeldOutCheckpoint(monitor, z=0.0, dirpath=tmp_path)
    module = make(bounds.NWJ(), optimizer=lambda parameters: torch.optim.Adam(parameters, lr=0.05))
    fitted = trainer(callbacks=[callback, Readings()], enable_checkpointing=True, max_epochs=4)
    fitted.fit(module, gaussian())
    values = [row[monitor] for row in Readings.rows]
    best = int(np.argmax(values))
    assert float(callback.best_model_score) == values[best]
    assert callback.state_dict()["standard_error"] == Readings.rows[best][f"{monitor}_standard_error"]
    [read] = fitted.test(datamodule=gaussian(), ckpt_path="best", weights_only=True, verbose=False)
    kept = torch.load(callback.best_model_path, weights_only=True)["state_dict"]
    assert all(torch.equal(module.state_dict()[name], weight) for name, weight in kept.items())
    assert {"test/mi", "test/mi_standard_error", "test/mi_plug_in_standard_error"} <= read.keys()


class Readings(L.Callback):
    """What each validation logged."""

    rows = ()

    def on_fit_start(self, trainer, pl_module):
        Readings.rows = []

    def on_validation_end(self, trainer, pl_module):
        if not trainer.sanity_checking:
            Readings.rows.append({name: float(value) for name, value in trainer.callback_metrics.items()})


class Kept(L.Callback):
    """Writes what each process ends with."""

    def __init__(self, folder, *callbacks):
        self.folder, self.callbacks = folder, callbacks

    def on_fit_end(self, trainer, pl_module):
        states = [callback.state_dict() for callback in self.callbacks]
        torch.save([trainer.global_step, *states], f"{self.folder}/{trainer.world_size}-{trainer.global_rank}.pt")


def test_two_processes_choose_and_stop_as_one_does_over_the_same_samples(tmp_path, monkeypatch):
    for name in ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.setenv(name, "")  # so that what the launcher sets is undone
        monkeypatch.delenv(name)
    timeout = datetime.timedelta(seconds=60)
    strategy = DDPStrategy(start_method="fork", process_group_backend="gloo", timeout=timeout)
    held_out, stopping = HeldOutCheckpoint(dirpath=tmp_path), HeldOutEarlyStopping(patience=3)
    callbacks = [stopping, Kept(tmp_path, held_out, stopping), held_out]
    fitted = trainer(callbacks=callbacks, enable_checkpointing=True, max_epochs=12, devices=2, strategy=strategy)
    module = make(bounds.NWJ(), optimizer=lambda parameters: torch.optim.Adam(parameters, lr=0.02))
    fitted.fit(module, gaussian())
    first, second = (torch.load(tmp_path / f"2-{rank}.pt", weights_only=True) for rank in range(2))
    assert first == second
    steps, chosen_state, stopped_state = first
    assert chosen_state["standard_error"] == stopped_state["standard_error"] > 0
    assert steps < 12 * 4
    kept = torch.load(chosen_state["best_model_path"], weights_only=True)
    # The value and its error are those of the samples of both processes, in batches of 8 as each process made them.
    module = make(bounds.NWJ())
    module.load_state_dict(kept["state_dict"])
    [read] = trainer().validate(module, halves(list(gaussian(batch_size=16).val_dataloader())), verbose=False)
    assert float(chosen_state["best_model_score"]) == pytest.approx(read["val/mi"], rel=1e-6)
    assert chosen_state["standard_error"] == pytest.approx(read["val/mi_standard_error"], rel=1e-6)


def halves(batches):
    """Each batch as two processes see it."""
    return Batches(tuple(part[half] for part in batch) for batch in batches for half in (slice(8), slice(8, 16)))


def test_logged_standard_errors_are_the_delta_methods():
    module, batches = make(bounds.DV(), regularizer=regularizers.Squared()), draw(8, 5, 6, 9)
    [read] = trainer().validate(module, batches, verbose=False)
    sheets = [module.critic.pairwise(*batch).detach().double().numpy() for batch in batches]
    sizes = np.array([len(t) for t in sheets])
    joint = np.array([t.diagonal().mean() for t in sheets])
    z = np.array([np.exp(t[~np.eye(len(t), dtype=bool)]).mean() for t in sheets])
    pairs = sizes * (sizes - 1)
    of_joint = sizes / sizes.sum() * (joint - np.average(joint, weights=sizes))
    of_log = pairs / pairs.sum() * (z / np.average(z, weights=pairs) - 1)
    expected = {
        "mi": np.sqrt(4 / 3 * ((of_joint - of_log) ** 2).sum()),
        "mi_plug_in": np.sqrt(4 / 3 * (of_joint**2).sum()),
        "mi_macro": np.std(joint - np.log(z), ddof=1) / 2,
    }
    for name, error in expected.items():
        assert read[f"val/{name}_standard_error"] == pytest.approx(error, rel=1e-4)


# Bad use.

CALLBACKS = pytest.mark.parametrize("callback", [HeldOutCheckpoint, HeldOutEarlyStopping])


@CALLBACKS
def test_a_bound_that_is_no_lower_bound_is_refused(callback):
    for monitor in ("val/mi", "val/mi_plug_in"):
        with pytest.raises(MisconfigurationException, match=f"'{monitor}' of SMILE is not a lower bound"):
            trainer(callbacks=callback(monitor), enable_checkpointing=True).fit(make(bounds.SMILE()), gaussian())


def test_an_accuracy_may_be_monitored_whatever_the_bound(tmp_path):
    class WithAccuracy(Script):
        bound = bounds.SMILE()

    callback = HeldOutCheckpoint("val/accuracy", dirpath=tmp_path)
    loader = Batches([torch.zeros(1)] * 2)
    fitted = trainer(callbacks=callback, enable_checkpointing=True, num_sanity_val_steps=0)
    fitted.fit(WithAccuracy([0.5], [0.1], ["val/accuracy"]), loader, loader)
    assert float(callback.best_model_score) == 0.5


@CALLBACKS
@pytest.mark.parametrize("batches", [0, 1])
@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`")
def test_too_few_validation_batches_are_refused_before_the_first_step(callback, batches, tmp_path):
    data, module = gaussian(), make()
    fitted = trainer(callbacks=callback(), enable_checkpointing=True, limit_val_batches=batches)
    with pytest.raises(MisconfigurationException, match=f"Got {batches} validation batches"):
        fitted.fit(module, data)
    assert fitted.global_step == 0


@CALLBACKS
def test_a_reading_without_a_standard_error_is_refused_in_the_sanity_check(callback):
    fitted = trainer(callbacks=callback("val/mi_plug_in"), enable_checkpointing=True)
    with pytest.raises(MisconfigurationException, match="val/mi_plug_in, val/mi_plug_in_standard_error was not logged"):
        fitted.fit(make(bounds.DV()), gaussian())  # nothing holds its log-normalizer
    assert fitted.global_step == 0


@CALLBACKS
def test_a_margin_below_zero_is_refused(callback):
    with pytest.raises(ValueError, match="Got z=-1"):
        callback(z=-1)
    with pytest.raises(ValueError, match="ceiling=nan"):
        callback(ceiling=math.nan)


def test_data_without_a_test_split_are_warned_of(tmp_path):
    class NoTest(L.LightningDataModule):
        def train_dataloader(self):
            return draw(8)

        def val_dataloader(self):
            return draw(8, 8)

    with pytest.warns(UserWarning, match="NoTest has no test_dataloader: the value of the chosen checkpoint"):
        trainer(callbacks=HeldOutCheckpoint(dirpath=tmp_path), enable_checkpointing=True).fit(make(), NoTest())


@CALLBACKS
def test_a_fast_run_for_developers_needs_no_standard_error(callback):
    trainer(callbacks=callback(), enable_checkpointing=True, fast_dev_run=True).fit(make(), gaussian())

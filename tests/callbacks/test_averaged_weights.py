"""AveragedWeights: the average against NumPy, what it reads, and that training does not change."""

import lightning.pytorch as L
import numpy as np
import pytest
import torch
from lightning.pytorch.demos.boring_classes import BoringModel
from torch import nn

from lightning_mi import MIEstimationModule, bounds, pairs
from lightning_mi.callbacks import AveragedWeights
from tests.helpers.small_module import RecordingLogger, draw, equal, fit, make, trainer, weights

pytestmark = pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`")


class Snapshots(L.Callback):
    """The weights after each step."""

    def __init__(self):
        self.after = []

    def on_train_batch_end(self, trainer, pl_module, *_):
        self.after.append({name: value.double().numpy() for name, value in weights(pl_module).items()})


def average_by_definition(after, decay):
    averages = [after[0]]  # the first average is the weights
    for t, current in enumerate(after[1:], start=1):
        d = min(decay, (1 + t) / (10 + t))
        averages.append({name: d * averages[-1][name] + (1 - d) * value for name, value in current.items()})
    return averages


@pytest.mark.parametrize("decay", [0.3, 0.995], ids=["reached", "warming up"])
def test_average_follows_its_definition_and_ends_in_the_module(decay):
    module, snapshots = make(), Snapshots()
    fit(module, draw(*[8] * 6), callbacks=[snapshots, AveragedWeights(decay)])
    expected = average_by_definition(snapshots.after, decay)[-1]
    for name, value in weights(module).items():
        np.testing.assert_allclose(value.numpy(), expected[name], rtol=1e-5, atol=1e-7)


def test_batches_are_read_before_their_update():
    module, snapshots, logger = make(), Snapshots(), RecordingLogger()
    batches = draw(*[8] * 5)
    fit(module, batches, callbacks=[snapshots, AveragedWeights(0.3)], logger=logger)
    averages = average_by_definition(snapshots.after, 0.3)
    curves = {name: logger.curve(f"train/averaged_{name}") for name in ("mi", "mi_plug_in", "log_normalizer")}
    for step in range(1, 5):
        module.load_state_dict(
            {name: torch.from_numpy(value) for name, value in averages[step - 1].items()}, strict=False
        )
        terms = module.step(batches.batches[step]).terms
        expected = {"mi": terms.value, "mi_plug_in": terms.joint_term, "log_normalizer": terms.log_normalizer}
        for name, value in expected.items():
            assert curves[name][step] == pytest.approx(value.item(), abs=1e-5)


def normalized_by_definition(joint, log_normalizers, decay):
    mean, readings = None, []
    for t, (term, level) in enumerate(zip(joint, log_normalizers, strict=True)):
        d = min(decay, (1 + t) / (10 + t))
        mean = np.exp(level) if mean is None else d * mean + (1 - d) * np.exp(level)
        readings.append(term - np.log(mean))
    return readings


@pytest.mark.parametrize("bound", [bounds.DV(), bounds.NWJ(), bounds.NCE()], ids=["DV", "NWJ", "NCE"])
def test_normalized_estimate_subtracts_the_mean_over_batches(bound):
    logger = RecordingLogger()
    fit(make(bound=bound), draw(*[8] * 5), callbacks=[AveragedWeights(0.3)], logger=logger)
    plug_in, level, normalized = (
        logger.curve(f"train/averaged_{name}") for name in ("mi_plug_in", "log_normalizer", "mi_normalized")
    )
    np.testing.assert_allclose(normalized, normalized_by_definition(plug_in, level, 0.3), atol=1e-5)


def test_bound_by_rows_has_no_normalized_estimate():
    logger, averaged = RecordingLogger(), AveragedWeights()
    fit(make(bound=bounds.InfoNCE()), draw(8, 8), callbacks=[averaged], logger=logger)
    assert "train/averaged_mi_normalized" not in {name for _, row in logger.rows for name in row}
    assert averaged.normalized.isnan()


def noisy(pairing):
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Dropout(0.5))
    return make(encoder=encoder, pairs=pairing)


@pytest.mark.parametrize("pairing", [pairs.AllPairs, pairs.Derangement], ids=["all pairs", "derangement"])
def test_training_does_not_change(pairing):
    def run(*callbacks):
        module, snapshots = noisy(pairing()), Snapshots()
        torch.manual_seed(1)
        fit(module, draw(*[8] * 4), callbacks=[snapshots, *callbacks])
        return snapshots.after[-1]

    plain, averaged = run(), run(AveragedWeights())
    for name, value in plain.items():
        np.testing.assert_array_equal(value, averaged[name])


def test_resumed_fit_continues_weights_and_average(tmp_path):
    def run(max_epochs, path=None):
        module, snapshots, averaged = make(), Snapshots(), AveragedWeights(0.5)
        fitted = trainer(max_epochs=max_epochs, callbacks=[snapshots, averaged])
        fitted.fit(module, draw(8, 8, 8), ckpt_path=path, weights_only=path is not None or None)
        fitted.save_checkpoint(tmp_path / "end.ckpt")
        return snapshots.after[-1], weights(module), averaged.normalized

    whole = run(4)
    saved = trainer(max_epochs=2, callbacks=[AveragedWeights(0.5), SaveAtEnd(tmp_path / "half.ckpt")])
    saved.fit(make(), draw(8, 8, 8))
    resumed = run(4, tmp_path / "half.ckpt")
    for first, second in zip(whole[0].items(), resumed[0].items(), strict=True):
        np.testing.assert_array_equal(first[1], second[1])
    assert equal(whole[1], resumed[1])
    assert whole[2] == resumed[2]


class SaveAtEnd(L.Callback):
    """Saves a checkpoint at the end of the last epoch, while the average exists."""

    def __init__(self, path):
        self.path = path

    def on_train_epoch_end(self, trainer, pl_module):
        if trainer.current_epoch == trainer.max_epochs - 1:
            trainer.save_checkpoint(self.path)


def test_checkpoint_contains_the_average_for_other_uses(tmp_path):
    module = make()
    fit(module, draw(8, 8, 8), callbacks=[AveragedWeights(0.5), SaveAtEnd(tmp_path / "last.ckpt")])
    loaded = MIEstimationModule.load_from_checkpoint(
        tmp_path / "last.ckpt", critic=make().critic, bound=bounds.DV(), weights_only=True
    )
    assert equal(weights(loaded), weights(module))


@pytest.mark.filterwarnings("ignore::lightning_mi.exceptions.MINumericalWarning")
def test_skipped_batch_reads_nan():
    batches = draw(8, 8, 8)
    batches.batches[1][0][0] = torch.nan
    logger = RecordingLogger()
    fit(make(on_non_finite="skip"), batches, callbacks=[AveragedWeights()], logger=logger)
    for name in ("mi", "mi_normalized"):
        assert np.isfinite(logger.curve(f"train/averaged_{name}")).tolist() == [True, False, True]


@pytest.mark.parametrize("decay", [-0.1, 1.0, float("nan")])
def test_decay_out_of_range_raises(decay):
    with pytest.raises(ValueError, match="decay"):
        AveragedWeights(decay)


def test_other_modules_are_refused():
    with pytest.raises(TypeError, match="EMAWeightAveraging"):
        trainer(callbacks=[AveragedWeights()]).fit(BoringModel())

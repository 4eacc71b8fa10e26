"""Evaluation with several data loaders: a value for each, under Lightning's names."""

import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.utils.data import DataLoader, TensorDataset

from lightning_mi import MIEnsemble, MIEstimationModule, bounds, critics, pairs
from lightning_mi.callbacks import HeldOutCheckpoint, Probes, TensorBoardLayout
from lightning_mi.metrics import functional
from tests.helpers import labelled
from tests.helpers.labelled import Digits
from tests.helpers.small_module import draw, fit, make, trainer

FIRST, SECOND = draw(16, 16, 16, seed=1), draw(8, 8, seed=2)
NAMES = ("val/mi", "val/mi_standard_error", "val/mi_macro", "val/effective_sample_fraction", "val/loss")


def expected(module, batches):
    with torch.no_grad():
        return functional.mutual_information(module.bound, [module.eval().step(b).scores for b in batches.batches])


def test_validation_has_values_for_each_loader():
    module = make()
    found = fit(module, val=[FIRST, SECOND]).callback_metrics
    for i, batches in enumerate((FIRST, SECOND)):
        assert found[f"val/mi/dataloader_idx_{i}"] == pytest.approx(expected(module, batches).value.item())
        error = found[f"val/mi_standard_error/dataloader_idx_{i}"]
        assert error == pytest.approx(expected(module, batches).standard_error.item())
    for name in NAMES:
        assert name not in found
        assert f"{name}/dataloader_idx_1" in found


def test_one_loader_has_no_suffix():
    module = make()
    fitted = trainer()
    several = fitted.validate(module, [FIRST, SECOND], verbose=False)
    (alone,) = fitted.validate(module, SECOND, verbose=False)
    assert alone["val/mi"] == several[1]["val/mi/dataloader_idx_1"]


def test_test_takes_several_loaders():
    module = make()
    results = trainer().test(module, [FIRST, SECOND], verbose=False)
    assert results[0]["test/mi/dataloader_idx_0"] == pytest.approx(expected(module, FIRST).value.item())
    assert results[1]["test/mi/dataloader_idx_1"] == pytest.approx(expected(module, SECOND).value.item())


def test_an_ensemble_has_values_for_each_loader_and_member():
    ensemble = MIEnsemble({"a": make(), "b": make(bounds.NWJ())})
    found = fit(ensemble, val=[FIRST, SECOND]).callback_metrics
    for name, member in ensemble.members.items():
        assert found[f"{name}/val/mi/dataloader_idx_1"] == pytest.approx(expected(member, SECOND).value.item())


def test_checkpoint_and_early_stopping_monitor_one_loader(tmp_path):
    name = "val/mi/dataloader_idx_1"
    checkpoint = HeldOutCheckpoint(name, dirpath=tmp_path)
    callbacks = [checkpoint, EarlyStopping(name, mode="max")]
    fitted = fit(make(), val=[FIRST, SECOND], callbacks=callbacks, enable_checkpointing=True)
    assert checkpoint.best_model_score == fitted.callback_metrics[name]


def test_a_monitor_without_a_loader_is_an_error(tmp_path):
    with pytest.raises(MisconfigurationException, match=r"2 validation data loaders.*val/mi/dataloader_idx_0"):
        fit(make(), val=[FIRST, SECOND], callbacks=HeldOutCheckpoint(dirpath=tmp_path), enable_checkpointing=True)


class ValidationSets(Digits):
    """Digits to validate on in some of two loaders, of which the second has labels shifted by a class."""

    def __init__(self, *chosen):
        super().__init__()
        self.chosen = chosen

    def val_dataloader(self):
        part = slice(1000, 1301)
        shifted = TensorDataset(self.x[part], self.noisy[part], (self.y[part] + 1) % 10)
        loaders = [self.loader(part), DataLoader(shifted, batch_size=64)]
        return [loaders[i] for i in self.chosen]


def test_probes_judge_each_loader_by_itself(tmp_path):
    module = labelled.make()

    def validate(*chosen):
        callbacks = [Probes(linear_every_n_epochs=1), TensorBoardLayout(figures_every_n_steps=1)]
        options = {"callbacks": callbacks, "default_root_dir": tmp_path, "logger": True}
        return trainer(**options).validate(module, ValidationSets(*chosen), verbose=False)

    both = validate(0, 1)
    for i in (0, 1):
        (alone,) = validate(i)
        for name in ("probe/nearest_neighbor", "probe/accuracy"):
            assert both[i][f"{name}/dataloader_idx_{i}"] == alone[name]
    assert both[0]["probe/accuracy/dataloader_idx_0"] > both[1]["probe/accuracy/dataloader_idx_1"] + 0.2


def test_label_accuracy_is_that_of_each_loader():
    torch.manual_seed(0)
    logits = 5 * torch.eye(4)[torch.arange(32) % 4]
    right = DataLoader(TensorDataset(logits, torch.arange(32) % 4), 16)
    wrong = DataLoader(TensorDataset(logits, (torch.arange(32) + 1) % 4), 16)
    pairing = pairs.EnumeratedLabels(4, prior=[0.25] * 4)
    module = MIEstimationModule(critics.LabelCritic(), bounds.DV(), pairs=pairing)
    results = trainer().test(module, [right, wrong], verbose=False)
    assert (results[0]["test/accuracy/dataloader_idx_0"], results[1]["test/accuracy/dataloader_idx_1"]) == (1.0, 0.0)

"""Statements of error messages are true in every situation."""

import lightning.pytorch as L
import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lightning_mi import CheckpointError, MIEstimationModule, NonFiniteBatchError, Scores, bounds, regularizers
from lightning_mi.callbacks import HeldOutCheckpoint, HeldOutEarlyStopping, StabilityMonitor
from lightning_mi.data import GaussianDataModule
from tests.helpers.small_module import DIM, Batches, draw, fit, make, trainer, weights

pytestmark = [
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`"),
    pytest.mark.filterwarnings("ignore:.* gave .* = (nan|-?inf):lightning_mi.MINumericalWarning"),
]
BAD = torch.full((8, DIM), torch.nan)


def lbfgs(parameters):
    return torch.optim.LBFGS(parameters, lr=10.0)


class Before(L.Callback):
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.weights = weights(pl_module)


def test_lbfgs_may_have_changed_parameters():
    torch.manual_seed(0)
    x = torch.randn(8, DIM)
    module, before = make(optimizer=lbfgs), Before()
    with pytest.raises(ValueError, match="LBFGS may evaluate the loss several times within a step") as raised:
        fit(module, Batches([(x, x)] * 8), callbacks=[before], max_epochs=20)
    assert "No parameter has changed" not in str(raised.value)
    assert any(not torch.equal(before.weights[name], value) for name, value in weights(module).items())


def test_adam_has_changed_no_parameter():
    module, before = make(), Before()
    with pytest.raises(
        NonFiniteBatchError, match=r"at training step 1 on rank 0\. No parameter has changed in this step"
    ):
        fit(module, Batches([next(iter(draw(8))), (BAD, BAD)]), callbacks=[before])
    assert all(torch.equal(before.weights[name], value) for name, value in weights(module).items())


def test_evaluation_claims_nothing_about_parameters():
    with pytest.raises(
        NonFiniteBatchError, match="at the sanity check before training after training step 0"
    ) as raised:
        fit(make(), draw(8), Batches([(BAD, BAD)]))
    assert "No parameter" not in str(raised.value)
    with pytest.raises(NonFiniteBatchError, match="at prediction after training step 0") as raised:
        trainer().predict(make(), Batches([(BAD, BAD)]))
    assert "No parameter" not in str(raised.value)


def test_a_step_outside_a_trainer_names_no_training_step():
    with pytest.raises(NonFiniteBatchError, match=r"at a step outside a Trainer\. Check the data"):
        make().step((BAD, BAD))


def held_out(callback, every, sanity, **data):
    options = {"num_sanity_val_steps": sanity, "check_val_every_n_epoch": every, "max_epochs": 2}
    options["enable_checkpointing"] = isinstance(callback, HeldOutCheckpoint)
    given = GaussianDataModule(dim=DIM, steps_per_mi=4, **data)
    return fit(make(), datamodule=given, callbacks=[callback], **options)


@pytest.mark.parametrize(("sanity", "every"), [(0, 2), (2, 1)])
def test_validation_in_a_later_epoch_is_held_out(sanity, every, tmp_path):
    callback = HeldOutCheckpoint(dirpath=tmp_path)
    held_out(callback, every, sanity, val_batches=4)
    assert callback.best_model_path
    stopping = HeldOutEarlyStopping()
    held_out(stopping, every, sanity, val_batches=4)
    assert torch.isfinite(stopping.best_score)


@pytest.mark.parametrize(("sanity", "every"), [(0, 1), (2, 2)])
def test_a_single_validation_batch_is_an_error(sanity, every, tmp_path):
    with pytest.raises(MisconfigurationException, match="Got 1 validation batches"):
        held_out(HeldOutCheckpoint(dirpath=tmp_path), every, sanity, val_batches=1)


def test_the_remedy_for_huber_is_not_huber():
    terms = bounds.DV()(Scores.from_matrix(3e38 * torch.ones(4, 4)))
    for make_regularizer in (regularizers.Huber, regularizers.Absolute):
        with pytest.warns(RuntimeWarning, match="Lower its weight"):
            make_regularizer(weight=10.0)(terms)


def test_a_bound_of_another_kind_is_not_called_missing():
    module = L.LightningModule()
    module.bound = torch.nn.Identity()
    with pytest.raises(TypeError, match="of type Identity as attribute `bound`"):
        StabilityMonitor().setup(None, module, "fit")
    with pytest.raises(TypeError, match="None as attribute `bound`"):
        StabilityMonitor().setup(None, L.LightningModule(), "fit")


def test_a_missing_checkpoint_is_a_typed_error(tmp_path):
    with pytest.raises(CheckpointError, match="Name an existing file; on the command line"):
        MIEstimationModule.load_from_checkpoint(tmp_path / "none.ckpt")

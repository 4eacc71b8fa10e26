"""Validation and test: a last batch of one sample, non-finite batches, and monitored names."""

import math

import lightning.pytorch as L
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from lightning_mi import MINumericalWarning, NonFiniteBatchError, bounds, regularizers
from lightning_mi.metrics import functional
from tests.helpers.small_module import STEP_NAMES, Batches, draw, fit, make, trainer
from tests.helpers.specs import BOUNDS

pytestmark = pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`")


def split(*sizes):
    """The same samples, cut into batches of these sizes."""
    (x, y), *_ = draw(sum(sizes)).batches
    return Batches(zip(x.split(sizes), y.split(sizes), strict=True))


SPECS = [spec for spec in BOUNDS if spec.name in ("DV", "NWJ", "InfoNCE")]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_a_last_batch_of_one_sample_is_validated(spec):
    module = make(spec.make().float(), regularizer=regularizers.Squared(0.1))
    batches = split(8, 8, 1)
    (found,) = trainer().validate(module, batches, verbose=False)
    assert all(math.isfinite(value) for value in found.values())
    with torch.no_grad():
        scores = [module.eval().step(batch).scores for batch in batches]
    whole = functional.mutual_information(module.bound, scores[:2], average="macro")
    assert found["val/mi_macro"] == pytest.approx(whole.value.item(), rel=1e-5)
    plug_in = torch.cat([batch_scores.joint for batch_scores in scores]).double().mean() - module.bound.marginal_at(0.0)
    if not spec.needs_rows:
        assert found["val/mi_plug_in"] == pytest.approx(plug_in.item(), rel=1e-4, abs=1e-5)


def test_joint_pairs_without_marginal_pairs_count_in_joint_means():
    module, batches = make().eval(), split(8, 8, 1)
    (found,) = trainer().validate(module, batches, verbose=False)
    with torch.no_grad():
        scores = [module.step(batch).scores for batch in batches]
    joint = torch.cat([batch_scores.joint for batch_scores in scores]).double().mean()
    marginal = torch.cat([batch_scores.marginal_values() for batch_scores in scores]).double()
    assert found["val/mi"] == pytest.approx((joint - torch.log(marginal.exp().mean())).item(), abs=1e-6)


def test_validation_without_any_marginal_pair_is_a_warning():
    with pytest.warns(MINumericalWarning, match=r"Got 3 batches without marginal pairs.*batch size"):
        trainer().validate(make(), split(1, 1, 1), verbose=False)


def test_training_still_needs_two_samples():
    with pytest.raises(ValueError, match="Got a batch of 1"):
        fit(make(), split(8, 1))


def with_nan():
    batches = split(8, 8)
    batches.batches[1][0][2, 1] = float("nan")
    return batches


@pytest.mark.parametrize(("stage", "policy"), [("validate", "raise"), ("test", "skip"), ("predict", "skip")])
def test_a_non_finite_batch_ends_evaluation(stage, policy):
    with pytest.raises(NonFiniteBatchError) as caught:
        getattr(trainer(), stage)(make(on_non_finite=policy), with_nan())
    assert "No parameter" not in str(caught.value)
    words = {"validate": "validation", "test": "test", "predict": "prediction"}
    assert f"at {words[stage]} after training step 0" in str(caught.value)


@pytest.mark.filterwarnings("ignore::lightning_mi.MINumericalWarning")
def test_with_the_policy_off_evaluation_reads_nan():
    module = make(on_non_finite="off")
    for stage, prefix in (("validate", "val"), ("test", "test")):
        (found,) = getattr(trainer(), stage)(module, with_nan(), verbose=False)
        assert math.isnan(found[f"{prefix}/mi"])
    first, second = trainer().predict(module, with_nan())
    assert bool(first["pmi"].isfinite().all())
    assert bool(second["pmi"].isnan().any())


def test_every_logged_training_value_can_be_monitored(tmp_path):
    recorded = []

    class Record(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            recorded.append(({name: float(trainer.callback_metrics[name]) for name in STEP_NAMES}, outputs))

    stops = [EarlyStopping(name) for name in STEP_NAMES]
    best = [ModelCheckpoint(tmp_path, monitor=name, every_n_train_steps=2) for name in STEP_NAMES]
    options = {"log_every_n_steps": 50, "max_epochs": 2, "enable_checkpointing": True}
    fit(make(), draw(8, 8, 8), callbacks=[*stops, Record(), *best], **options)
    assert len(recorded) == 6
    for values, outputs in recorded:
        terms = outputs["terms"]._asdict() | {"mi": outputs["terms"].value, "loss": outputs["loss"]}
        for name, value in values.items():
            assert value == pytest.approx(float(terms[name.removeprefix("train/")]))
    assert all(checkpoint.best_model_score is not None for checkpoint in best)


def test_bounds_without_marginal_pairs_have_no_value():
    module = make(bounds.DV()).eval()
    assert math.isnan(module.step(split(1).batches[0]).terms.value)

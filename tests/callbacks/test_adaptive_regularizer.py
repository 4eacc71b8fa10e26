"""AdaptiveRegularizer: the weight over time, after a resume, and bad arguments."""

from typing import Any

import lightning.pytorch as L
import pytest
import torch

from lightning_mi import bounds, regularizers
from lightning_mi.callbacks import AdaptiveRegularizer
from lightning_mi.data import GaussianDataModule
from tests.helpers.scripted_terms import Scripted, steps
from tests.helpers.small_module import DIM, RecordingLogger, make, trainer, weights

pytestmark = pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`")

EVERY = 5


def weights_over_time(normalizers, regularizer=None, count=None, **kwargs):
    """The weight after each change, for given means of the log-normalizer over five steps."""
    regularizer = regularizers.Squared(weight=1.0) if regularizer is None else regularizer
    scripted = Scripted(lambda step: (1.0, normalizers[step // EVERY] + step % EVERY - 2, 1.0), regularizer=regularizer)
    logger, adaptive = RecordingLogger(), AdaptiveRegularizer(every_n_steps=EVERY, **kwargs)
    trainer(callbacks=adaptive, logger=logger).fit(scripted, steps(EVERY * len(normalizers)))
    found = {step: row["regularizer/weight"] for step, row in logger.rows if "regularizer/weight" in row}
    assert adaptive.factor == regularizer.factor
    return [found[i] for i in range(EVERY - 1, EVERY * len(normalizers), EVERY)]


def test_weight_rises_outside_the_band_and_falls_inside():
    found = weights_over_time([0.0, 3.0, -3.0, 0.5], band=(-1.0, 1.0), raise_by=4.0, relax_by=0.5)
    assert found == pytest.approx([0.5, 2.0, 8.0, 4.0])


def test_log_normalizer_of_nan_raises_the_weight():
    assert weights_over_time([float("nan")], raise_by=4.0) == pytest.approx([4.0])


def test_the_weight_stays_between_its_limits():
    found = weights_over_time([9.0, 9.0, 0.0, 0.0], raise_by=4.0, relax_by=0.1, min_weight=0.5, max_weight=2.0)
    assert found == pytest.approx([2.0, 2.0, 0.5, 0.5])


def test_scheduled_weight_is_multiplied():
    scheduled = regularizers.Squared(weight=lambda step: 0.0 if step < 5 else 1.0)
    module = Scripted(lambda step: (1.0, 9.0, 1.0), regularizer=scheduled)
    recorded = []

    class Step(L.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            scheduled.step = batch_idx

        def on_train_batch_end(self, *_):
            recorded.append(scheduled.current_weight())

    trainer(callbacks=[AdaptiveRegularizer(every_n_steps=EVERY), Step()]).fit(module, steps(15))
    # A weight of 0, where the schedule starts, is not changed.
    assert recorded == pytest.approx([0.0] * 5 + [1.0] * 4 + [2.0] * 5 + [4.0])


def train(path=None, ckpt_path=None, **kwargs):
    fitted = make(regularizer=regularizers.Squared(weight=0.1))
    adaptive = AdaptiveRegularizer(band=(-0.01, 0.01), every_n_steps=EVERY)
    t = trainer(callbacks=[adaptive, Save(path)], **kwargs)
    data = GaussianDataModule(dim=DIM, mi=1.0, steps_per_mi=24, batch_size=8)
    t.fit(fitted, datamodule=data, ckpt_path=ckpt_path, weights_only=True)
    return fitted, adaptive


class Save(L.Callback):
    def __init__(self, path):
        self.path = path

    def on_train_batch_end(self, trainer, pl_module, *_):
        if trainer.global_step == 13 and self.path is not None:
            trainer.save_checkpoint(self.path)


def test_resume_restores_weight_and_block(tmp_path):
    path = tmp_path / "x.ckpt"
    whole, adaptive = train(path)
    resumed, continued = train(ckpt_path=path)
    assert whole.regularizer.factor == resumed.regularizer.factor != 1.0
    assert continued.state_dict() == adaptive.state_dict()
    assert all(torch.equal(a, b) for a, b in zip(weights(whole).values(), weights(resumed).values(), strict=True))


def test_state_dict_before_fit():
    fresh = AdaptiveRegularizer()
    fresh.load_state_dict(AdaptiveRegularizer().state_dict())
    assert fresh.state_dict() == {"factor": 1.0, "steps_in_block": 0, "rows": []}


# Bad use.


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"band": (1.0, -1.0)}, "the lowest and the highest"),
        ({"every_n_steps": 0}, "every_n_steps=0"),
        ({"raise_by": 1.0}, "a factor above 1"),
        ({"relax_by": 0.0}, "above 0"),
        ({"min_weight": 0.0}, "A weight of 0 could not be raised"),
        ({"max_weight": 1e-9}, "min_weight=0.001 and max_weight=1e-09"),
    ],
)
def test_arguments_out_of_range_raise(kwargs, message):
    with pytest.raises(ValueError, match=message):
        AdaptiveRegularizer(**kwargs)


def fit_with(module, **kwargs):
    trainer(callbacks=AdaptiveRegularizer(**kwargs)).fit(module, steps(1))


def test_band_without_the_target_raises():
    module = make(regularizer=regularizers.Squared(target=-5.0))
    with pytest.raises(ValueError, match=r"band=\(-1, 1\) for a regularizer whose target is -5 nats"):
        fit_with(module)


def test_module_without_regularizer_or_bound_raises():
    with pytest.raises(TypeError, match="Scripted without a regularizer in its attribute"):
        fit_with(Scripted(None))
    module = Scripted(lambda step: (1.0, 0.0, 1.0), regularizer=regularizers.Squared())
    module.bound = None
    with pytest.raises(TypeError, match=r"AdaptiveRegularizer\(bound=\.\.\.\)"):
        fit_with(module)
    fit_with(module, bound=bounds.DV())


def test_validate_needs_no_regularizer():
    module: Any = Scripted(None)
    module.validation_step = lambda batch, batch_idx: None
    trainer(callbacks=AdaptiveRegularizer()).validate(module, steps(1), verbose=False)

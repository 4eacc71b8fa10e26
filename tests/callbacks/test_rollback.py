"""Stop and rollback on trainings of a few dozen steps."""

import warnings
from functools import partial

import lightning.pytorch as L
import pytest
import torch
from lightning.pytorch.strategies import FSDPStrategy

from lightning_mi import MIEstimationModule, bounds, critics, regularizers
from lightning_mi.callbacks import StabilityMonitor, StabilityWarning
from lightning_mi.callbacks.stability.rollback import Snapshots, check_can_roll_back
from lightning_mi.data import GaussianDataModule
from tests.helpers.scripted_terms import Scripted, steps
from tests.helpers.small_module import DIM, draw, make, trainer, weights

pytestmark = pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`")

WATCH = {"window": 20, "every_n_steps": 1, "max_mi": 50.0}


class Break(L.Callback):
    """Sets every parameter to NaN, or to another value, before given steps."""

    def __init__(self, *at, value=float("nan")):
        self.at, self.value = at, value

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx in self.at:
            with torch.no_grad():
                for parameter in pl_module.parameters():
                    parameter.fill_(self.value)


class Trace(L.Callback):
    """Records the weights, the optimizer's state and the learning rate before each step."""

    def __init__(self):
        self.weights, self.optimizer, self.rate = [], [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.weights.append(weights(pl_module))
        self.optimizer.append([s["exp_avg"].clone() for s in trainer.optimizers[0].state.values()])
        self.rate.append(trainer.optimizers[0].param_groups[0]["lr"])


def module(bound=None, **kwargs):
    return make(
        bound,
        optimizer=partial(torch.optim.Adam, lr=0.01),
        scheduler=partial(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=0.9),
        scheduler_interval="step",
        **kwargs,
    )


@pytest.fixture(autouse=True)
def ignore_non_finite_terms():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*gave value.*|.*gave .* = nan.*", category=RuntimeWarning)
        yield


def train(fitted, count=40, broken=(), action="roll_back", callbacks=(), **kwargs):
    monitor, trace = StabilityMonitor(action=action, **(WATCH | kwargs)), Trace()
    t = trainer(callbacks=[Break(*broken), trace, monitor, *callbacks])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        t.fit(fitted, draw(*[8] * count))
    return monitor, trace, t, [str(w.message) for w in caught if w.category is StabilityWarning]


def same(first, second):
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_rollback_restores_the_older_snapshot():
    fitted = module()
    monitor, trace, t, [words] = train(fitted, broken=[25])
    # Snapshots are taken every fifth step; that of step 25 may already contain the fault.
    assert monitor.rolled_back == [(26, 20)]
    assert monitor.exploded_at == 26
    assert same(trace.weights[26].values(), trace.weights[20].values())
    assert same(trace.optimizer[26], trace.optimizer[20])
    assert trace.rate[26] == trace.rate[20] < trace.rate[19]
    assert t.global_step == 40
    assert all(value.isfinite().all() for value in weights(fitted).values())
    assert torch.isfinite(t.callback_metrics["train/mi_micro"])
    assert isinstance(fitted.regularizer, regularizers.Squared)
    assert fitted.regularizer.current_weight() == 0.1
    assert words.startswith("Step 26: DV explodes: a term or the loss is infinite or NaN. Rolled back to the ")
    assert "state of step 20 (time 1 of at most 3): Squared(weight=0.1) holds the log-normalizer now." in words


def test_each_rollback_raises_the_weight_until_it_stops():
    fitted = module(regularizer=regularizers.Huber(weight=regularizers.LinearWarmup(0.5, steps=1)))
    monitor, _, t, messages = train(fitted, broken=[12, 15, 18], max_roll_backs=2, raise_by=4.0)
    assert monitor.rolled_back == [(13, 5), (16, 5)]
    assert fitted.regularizer.current_weight() == 8.0
    assert "the weight of Huber is 2 now, 0.5 before" in messages[0]
    assert "the weight of Huber is 8 now, 2 before" in messages[1]
    assert messages[2].endswith("Training stops here: it has been rolled back max_roll_backs=2 times already.")
    assert t.global_step == 19


def test_snapshot_after_a_rollback_replaces_the_older_one():
    assert train(module(), broken=[12, 20])[0].rolled_back == [(13, 5), (21, 18)]
    assert train(module(), broken=[12, 25])[0].rolled_back == [(13, 5), (26, 18)]


def test_rollback_sets_a_weight_of_zero():
    fitted = module(regularizer=regularizers.Squared(weight=0.0))
    train(fitted, broken=[12], weight=0.2)
    assert fitted.regularizer.current_weight() == 0.2


def test_rollback_caps_a_literal_exponential():
    fitted = module(bounds.NWJ(cap=None))
    *_, messages = train(fitted, broken=[12])
    assert fitted.bound.cap == 1.0
    assert "NWJ has the robust exponential (cap=1)" in messages[0]


def test_rollback_drops_accumulated_gradients():
    fitted = module()
    monitor = StabilityMonitor(action="roll_back", **WATCH)
    t = trainer(callbacks=[Break(12), monitor], accumulate_grad_batches=4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        t.fit(fitted, draw(*[8] * 40))
    assert len(monitor.rolled_back) == 1
    assert all(value.isfinite().all() for value in weights(fitted).values())


def test_stop_ends_the_training_with_a_remedy():
    monitor, _, t, [words] = train(module(bounds.NWJ(cap=None)), broken=[12], action="stop")
    assert t.global_step == monitor.exploded_at == 13
    assert "Training stops here. To fix it, add `regularizers.Squared(weight=0.1)` and use the robust exp" in words


def test_stop_waits_for_min_steps():
    monitor = StabilityMonitor(action="stop", **WATCH)
    t = trainer(callbacks=[Break(12), monitor], min_steps=40)
    with pytest.warns(StabilityWarning, match="Training stops here") as caught:
        t.fit(module(), draw(*[8] * 40))
    assert (t.global_step, monitor.exploded_at) == (40, 13)
    assert sum(w.category is StabilityWarning for w in caught) == 1


def test_warn_changes_nothing():
    monitor, _, t, messages = train(module(on_non_finite="off"), broken=[12], action="warn")
    assert (t.global_step, monitor.exploded_at, len(messages)) == (40, 13, 1)


def test_monitored_training_is_bitwise_equal():
    for action in ("warn", "roll_back"):
        alone, watched = module(), module()
        trainer().fit(alone, draw(*[8] * 25))
        train(watched, count=25, action=action)
        assert same(weights(alone).values(), weights(watched).values())


# Checkpoints.


class Save(L.Callback):
    def __init__(self, at, path):
        self.at, self.path = at, path

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == self.at:
            trainer.save_checkpoint(self.path)


def test_resume_restores_window_detections_and_weight(tmp_path):
    kwargs, path = WATCH | {"every_n_steps": 4, "window": 80, "action": "roll_back"}, tmp_path / "x.ckpt"
    runs = []
    for ckpt_path, extra in ((None, [Break(8), Save(22, path)]), (path, [])):
        fitted, monitor = module(bounds.NWJ(cap=None)), StabilityMonitor(**kwargs)
        data = GaussianDataModule(dim=DIM, mi=1.0, steps_per_mi=40, batch_size=8)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trainer(callbacks=[monitor, *extra]).fit(fitted, datamodule=data, ckpt_path=ckpt_path, weights_only=True)
        runs.append((fitted, monitor))
    (whole, reference_monitor), (resumed, monitor) = runs
    assert monitor.rolled_back == [(12, 0)]
    assert (resumed.bound.cap, resumed.regularizer.current_weight()) == (1.0, 0.1)
    assert same(weights(resumed).values(), weights(whole).values())
    assert monitor.state_dict() == reference_monitor.state_dict()


def test_state_dict_before_fit():
    fresh = StabilityMonitor()
    fresh.load_state_dict(StabilityMonitor().state_dict())
    assert fresh.state_dict() == StabilityMonitor().state_dict()


# Bad use.


def test_manual_optimization_raises():
    manual = Scripted(lambda step: (1.0, 0.0, 1.0), regularizer=regularizers.Squared())
    manual.automatic_optimization = False
    with pytest.raises(ValueError, match="action='roll_back' for Scripted with manual optimization"):
        trainer(callbacks=StabilityMonitor(action="roll_back")).fit(manual, steps(1))


def test_rollback_without_a_regularizer_raises():
    with pytest.raises(TypeError, match="for Scripted without a regularizer"):
        trainer(callbacks=StabilityMonitor(action="roll_back")).fit(Scripted(None), steps(1))


def test_rollback_of_log_densities_raises():
    density = module(bounds.L1Out(), critic=critics.GaussianConditional(torch.nn.Linear(DIM, 2 * DIM)))
    with pytest.raises(ValueError, match="action='roll_back' for L1Out: log-densities are normalized"):
        trainer(callbacks=StabilityMonitor(action="roll_back")).fit(density, draw(8))


def test_sharded_strategy_raises():
    sharded = trainer()
    sharded.strategy.__class__ = FSDPStrategy
    with pytest.raises(ValueError, match="under FSDPStrategy: snapshots need the whole state"):
        check_can_roll_back(sharded, module())


def test_any_module_with_a_regularizer_is_rolled_back():
    own = Scripted(lambda step: (1.0 if step != 12 else float("nan"), 0.0, 1.0), regularizer=regularizers.Squared())
    monitor = StabilityMonitor(action="roll_back", **WATCH)
    with pytest.warns(StabilityWarning, match="the weight of Squared is 10 now, 1 before"):
        trainer(callbacks=monitor).fit(own, steps(20))
    assert monitor.rolled_back == [(13, 5)]


def test_snapshots_are_copies():
    fitted = module()
    t = trainer()
    t.fit(fitted, draw(8))
    snapshots, before = Snapshots(), weights(fitted)
    snapshots.append(t, fitted)
    Break(0, value=3.0).on_train_batch_start(t, fitted, None, 0)
    assert snapshots.restore(t, fitted) == 1
    assert same(weights(fitted).values(), before.values())
    assert isinstance(fitted, MIEstimationModule)

"""Private names of Lightning and torch: touched in `_compat` only, and canaries for each of its facts."""

import ast
import logging
import sys
from pathlib import Path

import lightning.pytorch as L
import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from torch import nn
from torchmetrics import Metric

from lightning_mi import regularizers
from lightning_mi._compat import lightning_logs, lightning_loops, ray_names, torch_names
from lightning_mi.exceptions import MIWarning
from tests.helpers.paths import ROOT
from tests.helpers.small_module import RecordingLogger, draw, fit, make, trainer

pytestmark = pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`")

PACKAGE = ROOT / "lightning_mi"
# Documented although they begin with an underscore.
DOCUMENTED = {"_asdict", "_exit", "_fields", "_make", "_replace"}  # of NamedTuple, and os._exit
# Names that a LightningModule, a Trainer, a module, a metric or an optimizer has, on top of those that we define.
FOREIGN = {
    name
    for known in (L.LightningModule(), L.Trainer(barebones=True), nn.Module(), Metric, torch.optim.Optimizer)
    for name in dir(known)
}


def is_private(name):
    return name.startswith("_") and not name.startswith("__")


def defined_names(trees):
    """Private names that classes of the package define."""
    names = set()
    for tree in trees:
        for node in ast.walk(tree):
            match node:
                case ast.FunctionDef(name=name) | ast.AnnAssign(target=ast.Name(id=name)):
                    names.add(name)
                case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name, ctx=ast.Store()):
                    names.add(name)
    return names


def private_names(tree):
    """Private attributes of anything but `self`, `cls` and `super()`, private imports, and `getattr` of such names."""
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id="self" | "cls") | ast.Call(func=ast.Name(id="super"))):
                pass
            case ast.Attribute(attr=name):
                yield name
            case ast.Call(func=ast.Name(id="getattr" | "hasattr" | "setattr"), args=[_, ast.Constant(str(name)), *_]):
                yield name
            case ast.ImportFrom(module=str(module), names=names) if not module.startswith(("lightning_mi", "__")):
                yield from [*module.split("."), *(alias.name for alias in names)]


def test_only_compat_touches_private_names():
    trees = {str(path.relative_to(PACKAGE)): ast.parse(path.read_text()) for path in PACKAGE.rglob("*.py")}
    allowed = (defined_names(trees.values()) - FOREIGN) | DOCUMENTED
    for path, tree in trees.items():
        if path.startswith("_compat"):
            continue
        # A file may read the names of its classes on other instances of them, `made._results` for example.
        found = set(filter(is_private, private_names(tree))) - allowed - defined_names([tree])
        assert not found, f"{path}: move {sorted(found)} to _compat"


# Logging.


class StepRecorder(L.Callback):
    """Records callback metrics and facts about the logging after each batch."""

    def __init__(self):
        self.rows, self.steps, self.logged, self.accumulating = [], [], [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.rows.append({name: value.item() for name, value in trainer.callback_metrics.items()})
        self.steps.append(lightning_logs.logged_step(trainer))
        self.logged.append(lightning_logs.is_logged(trainer))
        self.accumulating.append(lightning_loops.is_accumulating(trainer))


@pytest.mark.parametrize("options", [{}, {"accumulate_grad_batches": 2}, {"enable_progress_bar": True}])
def test_fast_logs_equal_those_of_lightning(monkeypatch, options):
    log, found = L.LightningModule.log, []
    for fast in (True, False):
        monkeypatch.setattr(lightning_logs, "FAST_LOGS", fast)
        calls: list[str] = []

        def counted(self, name, *args, calls=calls, **kwargs):
            calls.append(name)
            log(self, name, *args, **kwargs)

        monkeypatch.setattr(L.LightningModule, "log", counted)
        callback, logger = StepRecorder(), RecordingLogger()
        given = {"max_epochs": 2, "logger": logger, "log_every_n_steps": 2, "callbacks": callback} | options
        fit(make(regularizer=regularizers.Squared(0.1)), draw(*[8] * 6), draw(8, 8), **given)
        found.append((callback.rows, logger.rows, calls.count("train/mi")))
    assert found[0][:2] == found[1][:2]
    assert (found[0][2], found[1][2]) == (2, 12)  # the first step of an epoch, and every step
    assert len({row["train/mi"] for row in found[0][0]}) == 12


def test_the_logged_step_counts_batches_that_update():
    callback = StepRecorder()
    fit(make(), draw(*[8] * 6), log_every_n_steps=2, accumulate_grad_batches=2, callbacks=callback)
    assert callback.steps == [0, 0, 1, 1, 2, 2]
    assert callback.accumulating == [True, False] * 3
    updates = [logged for logged, waits in zip(callback.logged, callback.accumulating, strict=True) if not waits]
    assert updates == [False, True, False]


def test_ray_names_exist():
    ray = pytest.importorskip("ray")
    ray_names.preload_ray_shutdown()
    assert "ray.dag" in sys.modules
    error = ray.exceptions.RayTaskError("task", "traceback", ValueError("inner"))
    assert str(ray_names.ray_task_cause(error)) == "inner"


def test_cloud_advertisement_is_dropped():
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    before = list(logger.filters)
    lightning_loops.silence_cloud_advertisement()
    records = [
        logger.makeRecord(logger.name, logging.INFO, "", 0, text, (), None) for text in ("Tip: For seamless cloud", "x")
    ]
    assert [bool(logger.filter(record)) for record in records] == [False, True]
    logger.filters[:] = before
    source = Path(L.__file__).parent.rglob("*.py")
    assert any("Tip: For seamless cloud" in path.read_text() for path in source)


def test_python_numbers_are_logged():
    class Constant(L.LightningModule):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(()))

        def training_step(self, batch, batch_idx):
            lightning_logs.log_step(self, "train/count", float(batch_idx), prog_bar=False)
            return self.weight * 1.0

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    assert fit(Constant(), draw(8, 8, 8)).callback_metrics["train/count"] == 2.0


class Rows(L.Callback):
    """Records the pending row in the hooks that run just before Lightning logs it."""

    def __init__(self):
        self.steps, self.epochs = [], []

    def on_train_batch_end(self, trainer, *_):
        self.steps.append(lightning_logs.pending_log_row(trainer))

    def on_train_epoch_end(self, trainer, *_):
        self.epochs.append(lightning_logs.pending_log_row(trainer))


def test_pending_row_is_the_one_that_lightning_logs_next():
    rows, logger = Rows(), RecordingLogger()
    fit(make(), draw(*[8] * 4), logger=logger, log_every_n_steps=2, callbacks=rows, max_epochs=2)
    pending = [row for row in rows.steps if row is not None]
    assert [step for _, step in pending] == [1, 3, 5, 7]
    assert [(step, row) for row, step in pending] == [(step, row) for step, row in logger.rows if "train/mi" in row]
    assert [step for _, step in rows.epochs] == [3, 7]


# Progress. tests/checkpoints/test_exact_resume.py covers the facts about restarts.


def test_batches_done_counts_every_batch():
    assert lightning_loops.batches_done(None) == 0
    fitted = fit(make(), draw(*[8] * 6), accumulate_grad_batches=3, max_epochs=2)
    assert lightning_loops.batches_done(fitted) == 12
    assert lightning_loops.current_batch_index(fitted) == 11


def test_pending_work_after_a_batch():
    class Pending(L.Callback):
        found: tuple[str | None, ...] = ()
        stops = False

        def on_train_batch_end(self, trainer, *_):
            trainer.should_stop = self.stops
            self.found = (*self.found, lightning_loops.pending_after_batch(trainer))

    found = []
    for options in ({}, {"limit_val_batches": 0}, {"val_check_interval": 1}):
        callback = Pending()
        fit(make(), draw(8, 8), draw(8), callbacks=callback, **options)
        found.append(callback.found)
    assert found == [(None, "validation"), (None, "epoch end"), ("validation", "validation")]
    stopping = Pending()
    stopping.stops = True
    fit(make(), draw(8, 8), draw(8), callbacks=stopping, val_check_interval=1)
    assert stopping.found == (None,)


# Data and torch.


def test_transferred_batches_pass_all_hooks():
    module, order = make(), []

    def hook(name):
        def record(batch, loader):
            order.append(name)
            return batch

        return record

    module.on_before_batch_transfer, module.on_after_batch_transfer = hook("before"), hook("after")
    batches = draw(8)
    fitted = fit(module, batches)
    order.clear()
    views = lightning_loops.transfer_batch(fitted, module, batches.batches[0])
    assert order == ["before", "after"]
    assert all(torch.equal(view, given) for view, given in zip(views, batches.batches[0], strict=True))


def test_settings_have_no_tensors_and_no_submodules():
    settings = torch_names.module_settings(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)))
    assert not any(isinstance(value, torch.Tensor | nn.Module) for value in settings.values())
    assert {"training", "_forward_hooks"} <= settings.keys()


# Releases without a name.


class Missing:
    """An object without attributes, in place of a part of Lightning."""


def test_missing_names_warn_and_fall_back(monkeypatch):
    given = trainer(accumulate_grad_batches=2)
    loop = given.fit_loop
    monkeypatch.delattr(type(loop), "_should_accumulate")
    monkeypatch.delattr(type(loop.epoch_loop), "_should_check_val_fx")
    monkeypatch.delattr(given, "_logger_connector")
    monkeypatch.delattr(loop.epoch_loop, "_batches_that_stepped")
    # As at the end of a batch.
    monkeypatch.setattr(given, "_val_check_time_interval", None, raising=False)
    loop._data_fetcher, given.training, loop.epoch_loop.batch_progress.total.processed = object(), True, 1
    expected = {
        lightning_logs.logged_step: ("_batches_that_stepped", 0),
        lightning_loops.is_accumulating: ("_should_accumulate", True),
        lightning_loops.pending_after_batch: ("_should_check_val_fx", None),
        lightning_logs.pending_log_row: ("_logger_connector", None),
    }
    for function, (name, fallback) in expected.items():
        with pytest.warns(MIWarning, match=name):
            assert function(given) == fallback


def test_missing_transfer_hook_warns_and_skips_it(monkeypatch):
    module = make()
    fitted = fit(module, draw(8))
    monkeypatch.delattr(L.LightningModule, "_on_before_batch_transfer")
    with pytest.warns(MIWarning, match="_on_before_batch_transfer"):
        assert len(lightning_loops.transfer_batch(fitted, module, draw(4).batches[0])) == 2


def test_missing_file_writer_warns(tmp_path):
    with pytest.warns(MIWarning, match="HPARAMS table"):
        torch_names.add_summaries(Missing(), [])
    writer = TensorBoardLogger(tmp_path).experiment
    torch_names.add_summaries(writer, [])  # the name exists
    writer.close()


class Averages(torch_names.KeepsPrecision):
    def __init__(self):
        super().__init__()
        self.register_buffer("average", torch.tensor(1 / 3))
        self.register_buffer("count", torch.tensor(7))


@pytest.mark.parametrize("convert", [lambda m: m.to(torch.bfloat16), lambda m: m.half(), lambda m: m.bfloat16()])
def test_conversions_never_narrow_buffers_of_a_child(convert):
    module = convert(nn.Sequential(Averages(), nn.Linear(2, 2)))[0]
    assert torch.equal(module.average, torch.tensor(1 / 3))
    assert torch.equal(module.count, torch.tensor(7))


def test_conversions_widen_and_move_buffers():
    assert Averages().double().average.dtype == torch.float64
    assert Averages().to("meta", torch.bfloat16).average.device.type == "meta"


def test_the_attached_trainer_is_that_of_the_fit():
    module = make()
    assert lightning_loops.attached_trainer(module) is None
    fitted = fit(module)
    assert lightning_loops.attached_trainer(module) is fitted


def test_both_dictionaries_of_hyper_parameters_are_found():
    saved = lightning_loops.hyper_parameters(make())
    assert len(saved) == 2
    assert all(values["on_non_finite"] == "raise" for values in saved)


def test_fused_optimizers_skip_by_the_flag_of_a_scaler():
    found = [
        torch_names.supports_amp_scaling(torch.optim.Adam([torch.zeros(1)], fused=fused)) for fused in (True, False)
    ]
    assert found == [True, False]


def test_torch_still_has_the_private_names():
    assert callable(torch._C._are_functorch_transforms_active)
    assert torch.autograd.forward_ad._current_level == -1
    assert torch.zeros(1)._version == 0


def test_torch_states_that_need_plain_autograd_are_detected():
    states = []

    def record(x):
        states.append(
            (torch_names.is_functorch_active(), torch_names.is_forward_mode_active(), torch_names.is_tracing())
        )
        return x

    x = torch.ones(2)
    record(x)
    torch.func.vmap(record)(x)
    with torch.autograd.forward_ad.dual_level():
        record(x)
    with pytest.warns(FutureWarning, match="torch.jit.trace"):
        torch.jit.trace(record, x, check_trace=False)
    assert states == [(False, False, False), (True, False, False), (False, True, False), (False, False, True)]


def test_missing_private_names_warn_and_mean_inactive(monkeypatch):
    monkeypatch.delattr(torch._C, "_are_functorch_transforms_active")
    monkeypatch.delattr(torch.autograd.forward_ad, "_current_level")
    for check, name in (
        (torch_names.is_functorch_active, "functorch"),
        (torch_names.is_forward_mode_active, "_current_level"),
    ):
        with pytest.warns(MIWarning, match=name):
            assert not check()
    assert torch_names.tensor_version(object()) is None


def test_a_compiled_module_gives_the_original():
    linear = torch.nn.Linear(2, 2)
    assert torch_names.unwrap_compiled(torch.compile(linear, backend="eager")) is linear
    assert torch_names.unwrap_compiled(linear) is linear

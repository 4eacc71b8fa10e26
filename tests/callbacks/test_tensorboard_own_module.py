"""TensorBoardLayout on any LightningModule, and with other loggers."""

import numpy as np
import pytest
from lightning.pytorch.loggers import CSVLogger, Logger
from lightning.pytorch.loggers.logger import DummyLogger

from lightning_mi import bounds
from lightning_mi.callbacks import TensorBoardLayout
from lightning_mi.data import GaussianDataModule
from tests.helpers.board import OwnModule, logged
from tests.helpers.small_module import DIM, STEP_NAMES, RecordingLogger, draw, fit, make

pytestmark = [
    pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),  # Python 3.12 and later
]


# Any LightningModule.


@pytest.mark.filterwarnings("ignore:You passed in a `val_dataloader` but have no `validation_step`")
def test_any_lightning_module_is_supported(tmp_path):
    from lightning_mi.callbacks import TensorBoardLayout  # 1

    layout = TensorBoardLayout(histograms_every_n_steps=2, figures_every_n_steps=2)  # 2
    module = OwnModule()  # whose step returns {"loss": ..., "terms": ..., "scores": ...}  # 3
    data = GaussianDataModule(dim=DIM, mi=1.0, steps_per_mi=3, batch_size=8, val_batches=1)
    board, _ = logged(tmp_path, module, datamodule=data, callbacks=layout)  # 4
    assert set(board.tags["scalars"]) >= STEP_NAMES
    for position, name in enumerate(("train/mi", "train/log_normalizer")):
        read = [step[position] for step in module.recorded]
        assert board.scalar(name) == pytest.approx(dict(enumerate(read)))
    assert board.scalar("train/log_n")[0] == pytest.approx(np.log(8))
    assert board.charts()["mutual information (nats)", "training"] == {"train/mi", "train/true_mi", "train/log_n"}
    histogram = board.events.Histograms("scores/joint")[1].histogram_value
    assert histogram.sum == pytest.approx(sum(module.recorded[2][2]), rel=1e-5)
    row, _ = board.hparams()
    assert (row["bound"], row["critic"], row["optimizer"], row["rate"]) == ("InfoNCE", "SeparableCritic", "SGD", 0.01)
    assert row["regularizer"] == "none"
    assert "log_normalizer/target" not in board.tags["scalars"]  # nothing holds that of InfoNCE


def test_self_normalized_bound_has_a_target_line(tmp_path):
    board, _ = logged(tmp_path, OwnModule(bound=bounds.NWJ()), callbacks=TensorBoardLayout())
    assert set(board.scalar("log_normalizer/target").values()) == {0.0}


def test_names_that_the_module_logs_are_not_overwritten():
    class Logging(OwnModule):
        def training_step(self, batch, batch_idx):
            self.log("train/mi", 123.0)
            return super().training_step(batch, batch_idx)

    logger = RecordingLogger()
    fit(Logging(), callbacks=TensorBoardLayout(), logger=logger)
    assert logger.curve("train/mi") == [123.0] * 3
    assert len(logger.curve("train/joint_term")) == 3


def test_terms_are_logged_once_a_logged_step():
    module, logger = OwnModule(), RecordingLogger()
    fit(module, draw(*[8] * 12), callbacks=TensorBoardLayout(), logger=logger, log_every_n_steps=2)
    assert logger.curve("train/mi") == pytest.approx([module.recorded[i][0] for i in (1, 3, 5, 7, 9, 11)])
    logger = RecordingLogger()
    fit(OwnModule(), draw(*[8] * 12), callbacks=TensorBoardLayout(), logger=logger, accumulate_grad_batches=3)
    assert len(logger.curve("train/mi")) == 4


@pytest.mark.filterwarnings("ignore:`training_step` returned `None`")
def test_skipped_batch_is_ignored():
    class Skipping(OwnModule):
        def training_step(self, batch, batch_idx):
            return None if batch_idx == 1 else super().training_step(batch, batch_idx)

    module, logger = Skipping(), RecordingLogger()
    fit(module, callbacks=TensorBoardLayout(histograms_every_n_steps=1), logger=logger)
    assert len(module.recorded) == 2
    assert logger.curve("train/mi")[-1] == pytest.approx(module.recorded[-1][0])


@pytest.mark.parametrize("gives", [("loss", "terms"), ("loss", "scores")])
def test_module_without_terms_raises_at_the_first_step(gives):
    module = OwnModule(gives=gives)
    with pytest.raises(TypeError, match=r"a step of OwnModule: TensorBoardLayout reads the terms and the scores"):
        fit(module, callbacks=TensorBoardLayout(histograms_every_n_steps=None, figures_every_n_steps=None))
    assert len(module.recorded) == 1


# Loggers.


class Pictures(DummyLogger):
    """As WandbLogger: images by ``log_image``."""

    def __init__(self):
        super().__init__()
        self.pictures, self.hparams = [], {}

    def log_image(self, key, images, step=None):
        self.pictures.append((key, images[0].shape, step))

    def log_hyperparams(self, params):
        self.hparams |= params


class Client:
    def __init__(self):
        self.figures = []

    def log_figure(self, run_id, figure, artifact_file):
        self.figures.append((run_id, artifact_file, len(figure.axes)))


class Tracking(Logger):
    """As MLFlowLogger: a client with ``log_figure``."""

    name, version, run_id = "tracking", 0, "run7"

    def __init__(self):
        super().__init__()
        self.experiment = Client()
        self.metrics = []

    def log_metrics(self, metrics, step=None):
        self.metrics.append(metrics)

    def log_hyperparams(self, params):
        assert "rate" not in params or len(params) == 1  # Lightning logs it: not repeated


def test_other_loggers_receive_curves_and_figures(tmp_path):
    pictures, tracking, csv = Pictures(), Tracking(), CSVLogger(tmp_path)
    fit(OwnModule(), callbacks=TensorBoardLayout(figures_every_n_steps=2), logger=[pictures, tracking, csv])
    assert pictures.pictures == [("scores/joint_and_marginal", (320, 500, 3), step) for step in (1, 2)]
    assert pictures.hparams["bound"] == "InfoNCE"
    assert tracking.experiment.figures == [("run7", f"scores/joint_and_marginal-step{step}.png", 1) for step in (1, 2)]
    assert any("train/mi" in metrics for metrics in tracking.metrics)
    csv.finalize("success")
    assert "train/mi" in (tmp_path / "lightning_logs/version_0/metrics.csv").read_text().splitlines()[0]


@pytest.mark.parametrize("module", [make, OwnModule])
def test_layout_works_without_a_logger(module, capsys):
    fitted = fit(module(), callbacks=TensorBoardLayout(histograms_every_n_steps=1, figures_every_n_steps=1))
    assert "train/mi" in fitted.callback_metrics
    assert capsys.readouterr().out == ""

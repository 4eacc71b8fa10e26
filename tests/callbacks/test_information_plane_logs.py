"""InformationPlane: charts, figure and table."""

import logging

import pytest
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.loggers.logger import DummyLogger

from lightning_mi.callbacks import InformationPlane
from tests.helpers.board import Board
from tests.helpers.small_module import RecordingLogger
from tests.helpers.watched import Classifier, mlp, watch

pytestmark = pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers")


def test_values_are_on_one_chart_with_figure_and_table(tmp_path, caplog):
    plane, logger = InformationPlane(["net.1", "net.2"], noise=0.3), TensorBoardLogger(tmp_path)
    with caplog.at_level(logging.INFO, logger="lightning.pytorch.utilities.rank_zero"):
        watch(Classifier(mlp(64, 32, 10)), plane, logger=logger, max_epochs=2)
    board = Board(logger)
    names = {f"plane/{path}/label" for path in ("net.1", "net.2")}
    charts = board.charts()
    category = "watched layers (nats)"
    assert charts[category, "I(layer; label), held out"] == names | {f"{name}_limit" for name in names}
    assert charts[category, "I(layer + noise; input or layer), held out"] == {"plane/net.1/input", "plane/net.2/input"}
    values = [record.readings["plane/net.1/label"].value for record in plane.history]
    assert list(board.scalar("plane/net.1/label").values()) == pytest.approx(values)
    assert {f"plane/net.1/label{end}" for end in ("_standard_error", "_train_gap")} <= set(board.tags["scalars"])
    assert board.tags["images"] == ["information_plane"]
    assert plane.table() in caplog.text
    assert f"{values[-1]:.2f}" in plane.table()


def test_figures_are_drawn_at_intervals_and_the_end():
    class Images(DummyLogger):
        def __init__(self):
            super().__init__()
            self.steps = []

        def log_image(self, key, images, step):
            assert (key, images[0].ndim) == ("information_plane", 3)
            self.steps.append(step)

    logger = Images()
    watch(Classifier(mlp(64, 10)), InformationPlane(["net.0"], figure_every=2), logger=logger, max_epochs=3)
    assert logger.steps == [7, 11]


def test_other_loggers_receive_the_values():
    logger = RecordingLogger()
    watch(Classifier(mlp(64, 10)), InformationPlane(["net.0"]), logger=logger)
    assert len(logger.curve("plane/net.0/label_limit")) == 1

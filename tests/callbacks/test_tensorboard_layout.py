"""TensorBoardLayout: what is logged at which step, and that training does not change."""

import math

import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger

from lightning_mi import MIEstimationModule, bounds, critics, pairs, regularizers
from lightning_mi.callbacks import Probes, TensorBoardLayout
from lightning_mi.data import GaussianDataModule
from lightning_mi.training import online_probe as probes
from lightning_mi.training.charts import ALL_CHARTS, CHARTS
from tests.helpers.board import Board, OwnModule, logged
from tests.helpers.labelled import Digits, ddp
from tests.helpers.labelled import make as make_labelled
from tests.helpers.small_module import DIM, draw, equal, fit, make, trainer, weights

pytestmark = [
    pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),  # Python 3.12 and later
]


# A module of the package.


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    torch.manual_seed(0)
    module = make(bounds.InfoNCE(), regularizer=regularizers.Squared(weight=0.3, target=0.25))
    data = GaussianDataModule(dim=DIM, mi=1.0, steps_per_mi=6, batch_size=8, val_batches=1)
    layout = TensorBoardLayout(histograms_every_n_steps=2, figures_every_n_steps=4, band=0.1, hparams={"trial": 7})
    return logged(tmp_path_factory.mktemp("board"), module, datamodule=data, callbacks=layout)[0]


def test_charts_of_estimate_and_terms(board):
    charts = board.charts()
    assert charts["mutual information (nats)", "training"] == {"train/mi", "train/true_mi", "train/log_n"}
    assert charts["mutual information (nats)", "held out"] == {
        "val/mi",
        "val/mi_plug_in",
        "val/true_mi",
        "val/log_n",
    }
    assert charts["terms (nats)", "joint and marginal term"] == {"train/joint_term", "train/marginal_term"}
    assert all(charts.values())


def test_log_normalizer_has_band_lines(board):
    lines = {f"log_normalizer/{name}" for name in ("target", "low", "high")}
    assert board.charts()["terms (nats)", "log-normalizer, its target and band"] == {"train/log_normalizer", *lines}
    for name, value in (("target", 0.25), ("low", 0.15), ("high", 0.35)):
        assert board.scalar(f"log_normalizer/{name}") == pytest.approx(dict.fromkeys((0, 2, 4, 5), value))


def test_large_layout_contains_the_small_one():
    for category, charts in CHARTS.items():
        assert ALL_CHARTS[category] == charts


def test_histograms_and_figures_follow_their_intervals(board):
    assert board.steps("Histograms", "scores/joint") == [0, 2, 4, 5]
    assert board.steps("Histograms", "scores/marginal") == [0, 2, 4, 5]
    assert board.steps("Images", "scores/joint_and_marginal") == [3, 5]
    assert board.events.Histograms("scores/joint")[0].histogram_value.num == 8
    assert board.events.Histograms("scores/marginal")[0].histogram_value.num == 56


def test_hparams_row_and_metric_columns(board):
    row, metrics = board.hparams()
    assert row.pop("lr") == pytest.approx(1e-3)
    row.pop("seed", None)  # of seed_everything in another test
    assert row == {
        "trial": 7,
        "bound": "InfoNCE",
        "regularizer": "Squared",
        "weight": 0.3,
        "target": 0.25,
        "critic": "SeparableCritic",
        "pairs": "AllPairs",
        "batch_size": 8,
        "optimizer": "Adam",
    }
    assert metrics == ["train/mi", "train/log_normalizer", "val/mi", "test/mi"]
    assert "test/mi" not in board.tags["scalars"]  # a column, yet no point of a curve


def test_hparams_row_of_wrapped_and_scheduled_parts(tmp_path, monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", "12")
    critic = critics.CalibratedCritic(critics.SeparableCritic(DIM, DIM, hidden=(8,), embed_dim=4))
    regularizer = regularizers.Squared(weight=regularizers.LinearWarmup(weight=0.5, steps=10))
    board, _ = logged(
        tmp_path,
        make(critic=critic, regularizer=regularizer),
        callbacks=TensorBoardLayout(hparams={"lr": 5, "new": True}, metrics=["val/own"]),
    )
    row, metrics = board.hparams()
    assert row["critic"] == "CalibratedCritic(SeparableCritic)"
    assert (row["weight"], row["seed"], row["lr"], row["new"]) == (0.5, 12, 5, True)
    assert metrics == ["val/own"]


def test_infinite_and_huge_scores_are_drawn(tmp_path):
    class Spoiled(critics.AbstractCritic):
        def __init__(self, value):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(()))
            self.value = value

        def paired(self, x, y):
            return self.pairwise(x, y).diagonal()

        def pairwise(self, x, y):
            return self.scale * torch.full((len(x), len(y)), self.value)

    layout = {"histograms_every_n_steps": 1, "figures_every_n_steps": 1}
    for value, expected in ((3e38, [0, 1, 2]), (math.nan, [])):
        module = make(bounds.JS(), critic=Spoiled(value), on_non_finite="off")
        with pytest.warns(Warning, match="JS gave"):
            board, _ = logged(tmp_path / str(value), module, callbacks=TensorBoardLayout(**layout))
        tags = board.tags["histograms"]
        assert (board.steps("Histograms", "scores/joint") if tags else []) == expected


# Labels: probes, accuracies and feature projections.


def test_probes_have_a_chart_and_features_are_projected(tmp_path):
    layout = TensorBoardLayout(figures_every_n_steps=15)
    logger = TensorBoardLogger(tmp_path, default_hp_metric=False)
    fitted = fit(
        make_labelled(), datamodule=Digits(), callbacks=[layout, Probes()], logger=logger, max_epochs=4
    )  # 10 steps an epoch
    fitted.test(fitted.lightning_module, datamodule=Digits(), verbose=False)
    board = Board(logger)
    assert board.charts()["probes", "accuracy"] == {"probe/nearest_neighbor", "probe/accuracy"}
    assert board.charts().keys() >= {(category, title) for category, charts in CHARTS.items() for title in charts}
    assert board.steps("Images", "features/validation") == [9, 29]
    assert board.steps("Images", "features/test") == [40]
    assert "features/training" not in board.tags["images"]
    assert board.hparams()[1][-2:] == ["probe/nearest_neighbor", "probe/accuracy"]


def test_training_features_are_projected_without_validation(tmp_path):
    layout = TensorBoardLayout(histograms_every_n_steps=None, figures_every_n_steps=4)
    board, _ = logged(
        tmp_path, make_labelled(), datamodule=Digits(), callbacks=layout, limit_val_batches=0, num_sanity_val_steps=0
    )
    assert board.steps("Images", "features/training") == [3, 7, 9]
    assert board.tags["histograms"] == []


def test_validate_projects_features(tmp_path):
    for every, images in ((3, ["features/validation"]), (None, [])):
        logger = TensorBoardLogger(tmp_path, version=str(every))
        callback = TensorBoardLayout(figures_every_n_steps=every)
        trainer(logger=logger, callbacks=callback).validate(make_labelled(), datamodule=Digits(), verbose=False)
        board = Board(logger)
        assert board.tags["images"] == images
        assert "custom_scalars__config__" not in board.tags["tensors"]  # it would replace the layout of a training


def test_modules_that_predict_labels_have_accuracy_columns(tmp_path):
    torch.manual_seed(0)
    module = MIEstimationModule(
        critics.LabelCritic(),
        bounds.DV(),
        pairs=pairs.EnumeratedLabels(10),
        encoder=torch.nn.Linear(64, 10),
        probe=probes.OnlineLinearProbe(10, 10),
    )

    class Images(Digits):
        def train_dataloader(self):
            return self.loader(slice(0, 640), reference=True)

        def val_dataloader(self):
            return self.loader(slice(1000, 1301), reference=True)

    board, _ = logged(tmp_path, module, datamodule=Images(), callbacks=TensorBoardLayout())
    assert board.hparams()[1][-3:] == ["val/accuracy", "test/accuracy", "probe/online_accuracy"]
    assert board.charts()["probes", "accuracy"] == {"probe/online_accuracy"}


def test_features_of_nan_are_not_projected(tmp_path):
    module = make_labelled()
    torch.nn.init.constant_(module.encoders[0][-1].bias, math.nan)
    logger = TensorBoardLogger(tmp_path)
    with pytest.warns(Warning, match="InfoNCE gave"):
        trainer(logger=logger, callbacks=TensorBoardLayout()).validate(module, datamodule=Digits(), verbose=False)
    assert Board(logger).tags["images"] == []


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"histograms_every_n_steps": 0}, ValueError, "histograms_every_n_steps=0"),
        ({"figures_every_n_steps": -3}, ValueError, "figures_every_n_steps=-3"),
        ({"band": 0.0}, ValueError, "band=0"),
        ({"band": math.nan}, ValueError, "band=nan"),
        ({"hparams": {"layers": [8, 8]}}, TypeError, r"layers=\[8, 8\]"),
    ],
)
def test_arguments_out_of_range_raise(kwargs, error, message):
    with pytest.raises(error, match=message):
        TensorBoardLayout(**kwargs)


# Training does not change.


def test_training_is_bit_equal_with_the_layout_and_without(tmp_path):
    trained = []
    for callbacks in ([], [TensorBoardLayout(histograms_every_n_steps=1, figures_every_n_steps=1)]):
        module = make_labelled()
        torch.manual_seed(1)
        fit(module, datamodule=Digits(), callbacks=callbacks, logger=TensorBoardLogger(tmp_path), max_epochs=2)
        trained.append((weights(module), torch.rand(1).item()))
    assert equal(trained[0][0], trained[1][0])
    assert trained[0][1] == trained[1][1]


@pytest.mark.parametrize("own", [False, True])
def test_rank_0_draws_its_samples(tmp_path, own):
    layout = TensorBoardLayout(histograms_every_n_steps=2, figures_every_n_steps=3)
    logger = TensorBoardLogger(tmp_path, version="two")
    module, data = (OwnModule(), draw(*[8] * 6)) if own else (make_labelled(), None)
    fit(module, data, datamodule=None if own else Digits(), callbacks=layout, logger=logger, **ddp())
    assert len(list((tmp_path / "lightning_logs/two").glob("events*"))) == 1
    board = Board(logger)
    assert board.steps("Histograms", "scores/joint")[:3] == [0, 2, 4]
    assert board.events.Histograms("scores/joint")[0].histogram_value.num == (8 if own else 32)
    assert board.steps("Images", "scores/joint_and_marginal")[:2] == [2, 5]
    assert "train/mi" in board.tags["scalars"]
    assert board.hparams()[0]["bound"] == "InfoNCE"

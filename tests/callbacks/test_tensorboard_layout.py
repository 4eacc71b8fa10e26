"""What TensorBoard and other loggers get, on which step, of whose module; and that training is not disturbed."""

import math
import re

import lightning.pytorch as L
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.loggers.logger import DummyLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from tensorboard.plugins.hparams.metadata import (
    EXPERIMENT_TAG,
    SESSION_START_INFO_TAG,
    parse_experiment_plugin_data,
    parse_session_start_info_plugin_data,
)

from lightning_mi import MIEstimationModule, bounds, critics, pairs, probes, regularizers
from lightning_mi.callbacks import Probes, TensorBoardLayout
from lightning_mi.charts import ALL_CHARTS, CHARTS
from lightning_mi.data import GaussianDataModule
from tests.labelled import Digits, ddp
from tests.labelled import make as make_labelled
from tests.small_module import DIM, STEP_NAMES, Kept, draw, equal, fit, make, trainer, weights

pytestmark = [
    pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),  # Python 3.12 and later
]


class Board:
    """What a folder of events holds."""

    def __init__(self, logger):
        logger.finalize("success")
        self.events = EventAccumulator(logger.log_dir, size_guidance={"tensors": 0, "histograms": 0, "images": 0})
        self.events.Reload()
        self.tags = self.events.Tags()

    def steps(self, kind, tag):
        return [event.step for event in getattr(self.events, kind)(tag)]

    def scalar(self, tag):
        return {event.step: event.value for event in self.events.Scalars(tag)}

    def charts(self):
        """By title, the scalars on each chart of the last layout, which is the one that TensorBoard shows."""
        stored = self.events.Tensors("custom_scalars__config__")[-1]
        layout = Layout.FromString(stored.tensor_proto.string_val[0])
        return {
            (category.title, chart.title): {
                tag for tag in self.tags["scalars"] for pattern in chart.multiline.tag if re.match(pattern, tag)
            }
            for category in layout.category
            for chart in category.chart
        }

    def hparams(self):
        """The row, and the metrics that are columns; of the first entry, which is the one that TensorBoard keeps."""
        contents = self.events.summary_metadata
        started = parse_session_start_info_plugin_data(contents[SESSION_START_INFO_TAG].plugin_data.content)
        row = {
            name: getattr(value, value.WhichOneof("kind") or "null_value") for name, value in started.hparams.items()
        }
        experiment = parse_experiment_plugin_data(contents[EXPERIMENT_TAG].plugin_data.content)
        return row, [info.name.tag for info in experiment.metric_infos]


def logged(tmp_path, module, *args, default_hp_metric=True, **kwargs):
    """Train into TensorBoard's files and read them; Lightning's default of ``default_hp_metric`` unless told."""
    logger = TensorBoardLogger(tmp_path, default_hp_metric=default_hp_metric)
    fitted = fit(module, *args, logger=logger, **kwargs)
    return Board(logger), fitted


class OwnModule(L.LightningModule):
    """A user's module: nothing of it is a subclass of this package."""

    def __init__(self, rate=0.01, gives=("loss", "terms", "scores"), bound=None):
        super().__init__()
        self.save_hyperparameters("rate")
        torch.manual_seed(0)
        self.rater = critics.SeparableCritic(DIM, DIM, hidden=(8,), embed_dim=4)
        self.my_bound = bounds.InfoNCE() if bound is None else bound
        self.rate, self.gives = rate, gives
        self.kept = []

    def training_step(self, batch, batch_idx):
        from lightning_mi import Scores

        scores = Scores.from_matrix(self.rater.pairwise(*batch))
        terms = self.my_bound(scores)
        self.kept.append((terms.value.item(), terms.log_normalizer.item(), scores.joint.tolist()))
        given = {"loss": -terms.objective, "terms": terms, "scores": scores}
        return {name: given[name] for name in self.gives}

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.rate)


# A module of the package.


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    torch.manual_seed(0)
    module = make(bounds.InfoNCE(), regularizer=regularizers.Squared(weight=0.3, target=0.25))
    data = GaussianDataModule(dim=DIM, mi=1.0, steps_per_mi=6, batch_size=8, val_batches=1)
    layout = TensorBoardLayout(histograms_every_n_steps=2, figures_every_n_steps=4, band=0.1, hparams={"trial": 7})
    return logged(tmp_path_factory.mktemp("board"), module, datamodule=data, callbacks=layout)[0]


def test_estimate_truth_and_ceiling_are_on_one_chart_and_the_terms_on_another(board):
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


def test_the_log_normalizer_is_drawn_between_the_lines_of_its_band(board):
    lines = {f"log_normalizer/{name}" for name in ("target", "low", "high")}
    assert board.charts()["terms (nats)", "log-normalizer, its target and band"] == {"train/log_normalizer", *lines}
    for name, value in (("target", 0.25), ("low", 0.15), ("high", 0.35)):
        assert board.scalar(f"log_normalizer/{name}") == pytest.approx(dict.fromkeys((0, 2, 4, 5), value))


def test_a_chart_is_the_same_whoever_writes_the_layout():
    for category, charts in CHARTS.items():
        assert ALL_CHARTS[category] == charts


def test_histograms_and_figures_come_at_their_intervals_and_at_the_last_step(board):
    assert board.steps("Histograms", "scores/joint") == [0, 2, 4, 5]
    assert board.steps("Histograms", "scores/marginal") == [0, 2, 4, 5]
    assert board.steps("Images", "scores/joint_and_marginal") == [3, 5]
    assert board.events.Histograms("scores/joint")[0].histogram_value.num == 8
    assert board.events.Histograms("scores/marginal")[0].histogram_value.num == 56


def test_the_table_of_runs_has_a_row_in_plain_words_and_its_metrics_from_the_start(board):
    row, metrics = board.hparams()
    assert row.pop("lr") == pytest.approx(1e-3)
    row.pop("seed", None)  # of another test's seed_everything
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


def test_the_row_names_what_a_critic_wraps_the_final_weight_and_the_seed(tmp_path, monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", "12")
    critic = critics.Calibrated(critics.SeparableCritic(DIM, DIM, hidden=(8,), embed_dim=4))
    regularizer = regularizers.Squared(weight=regularizers.LinearWarmup(weight=0.5, steps=10))
    board, _ = logged(
        tmp_path,
        make(critic=critic, regularizer=regularizer),
        callbacks=TensorBoardLayout(hparams={"lr": 5, "new": True}, metrics=["val/own"]),
    )
    row, metrics = board.hparams()
    assert row["critic"] == "Calibrated(SeparableCritic)"
    assert (row["weight"], row["seed"], row["lr"], row["new"]) == (0.5, 12, 5, True)
    assert metrics == ["val/own"]


def test_scores_that_are_infinite_or_huge_do_not_end_a_run(tmp_path):
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
        module = make(bounds.JS(), critic=Spoiled(value))
        with pytest.warns(Warning, match="JS read"):
            board, _ = logged(tmp_path / str(value), module, callbacks=TensorBoardLayout(**layout))
        tags = board.tags["histograms"]
        assert (board.steps("Histograms", "scores/joint") if tags else []) == expected


# Labels: probes, accuracies and maps.


def test_probes_have_a_chart_and_columns_and_features_are_mapped(tmp_path):
    layout = TensorBoardLayout(figures_every_n_steps=15)
    logger = TensorBoardLogger(tmp_path, default_hp_metric=False)
    fitted = fit(
        make_labelled(), datamodule=Digits(), callbacks=[layout, Probes()], logger=logger, max_epochs=4
    )  # 10 steps an epoch
    fitted.test(fitted.lightning_module, datamodule=Digits(), verbose=False)
    board = Board(logger)
    assert board.charts()["probes", "accuracy"] == {"probe/nearest_neighbor", "probe/accuracy"}
    assert board.charts().keys() >= {(category, title) for category, charts in CHARTS.items() for title in charts}
    assert board.steps("Images", "features/validation") == [10, 30]
    assert board.steps("Images", "features/test") == [40]
    assert "features/training" not in board.tags["images"]
    assert board.hparams()[1][-2:] == ["probe/nearest_neighbor", "probe/accuracy"]


def test_without_validation_the_training_batch_is_mapped(tmp_path):
    layout = TensorBoardLayout(histograms_every_n_steps=None, figures_every_n_steps=4)
    board, _ = logged(
        tmp_path, make_labelled(), datamodule=Digits(), callbacks=layout, limit_val_batches=0, num_sanity_val_steps=0
    )
    assert board.steps("Images", "features/training") == [3, 7, 9]
    assert board.tags["histograms"] == []


def test_a_validation_alone_is_mapped_and_no_figures_means_none(tmp_path):
    for every, images in ((3, ["features/validation"]), (None, [])):
        logger = TensorBoardLogger(tmp_path, version=str(every))
        callback = TensorBoardLayout(figures_every_n_steps=every)
        trainer(logger=logger, callbacks=callback).validate(make_labelled(), datamodule=Digits(), verbose=False)
        board = Board(logger)
        assert board.tags["images"] == images
        assert "custom_scalars__config__" not in board.tags["tensors"]  # it would replace a training's


def test_modules_that_predict_labels_have_columns_for_it(tmp_path):
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


def test_features_that_are_not_numbers_are_not_mapped(tmp_path):
    module = make_labelled()
    torch.nn.init.constant_(module.encoders[0][-1].bias, math.nan)
    logger = TensorBoardLogger(tmp_path)
    with pytest.warns(Warning, match="InfoNCE read"):
        trainer(logger=logger, callbacks=TensorBoardLayout()).validate(module, datamodule=Digits(), verbose=False)
    assert Board(logger).tags["images"] == []


# A user's own module.


@pytest.mark.filterwarnings("ignore:You passed in a `val_dataloader` but have no `validation_step`")
def test_a_module_that_is_no_subclass_gets_it_in_five_lines(tmp_path):
    from lightning_mi.callbacks import TensorBoardLayout  # 1

    layout = TensorBoardLayout(histograms_every_n_steps=2, figures_every_n_steps=2)  # 2
    module = OwnModule()  # whose step returns {"loss": ..., "terms": ..., "scores": ...}  # 3
    data = GaussianDataModule(dim=DIM, mi=1.0, steps_per_mi=3, batch_size=8, val_batches=1)
    board, _ = logged(tmp_path, module, datamodule=data, callbacks=layout)  # 4
    assert set(board.tags["scalars"]) >= STEP_NAMES
    for position, name in enumerate(("train/mi", "train/log_normalizer")):
        read = [step[position] for step in module.kept]
        assert board.scalar(name) == pytest.approx(dict(enumerate(read)))
    assert board.scalar("train/log_n")[0] == pytest.approx(np.log(8))
    assert board.charts()["mutual information (nats)", "training"] == {"train/mi", "train/true_mi", "train/log_n"}
    histogram = board.events.Histograms("scores/joint")[1].histogram_value
    assert histogram.sum == pytest.approx(sum(module.kept[2][2]), rel=1e-5)
    row, _ = board.hparams()
    assert (row["bound"], row["critic"], row["optimizer"], row["rate"]) == ("InfoNCE", "SeparableCritic", "SGD", 0.01)
    assert row["regularizer"] == "none"
    assert "log_normalizer/target" not in board.tags["scalars"]  # InfoNCE's may be anywhere


def test_a_self_normalized_bound_has_its_target_drawn_without_a_regularizer(tmp_path):
    board, _ = logged(tmp_path, OwnModule(bound=bounds.NWJ()), callbacks=TensorBoardLayout())
    assert set(board.scalar("log_normalizer/target").values()) == {bounds.NWJ.natural_target}


def test_what_a_module_logs_itself_is_left_to_it():
    class Logging(OwnModule):
        def training_step(self, batch, batch_idx):
            self.log("train/mi", 123.0)
            return super().training_step(batch, batch_idx)

    kept = Kept()
    fit(Logging(), callbacks=TensorBoardLayout(), logger=kept)
    assert kept.curve("train/mi") == [123.0] * 3
    assert len(kept.curve("train/joint_term")) == 3


def test_terms_are_logged_every_nth_step_and_once_when_batches_accumulate():
    module, kept = OwnModule(), Kept()
    fit(module, draw(*[8] * 12), callbacks=TensorBoardLayout(), logger=kept, log_every_n_steps=2)
    assert kept.curve("train/mi") == pytest.approx([module.kept[i][0] for i in (1, 3, 5, 7, 9, 11)])
    kept = Kept()
    fit(OwnModule(), draw(*[8] * 12), callbacks=TensorBoardLayout(), logger=kept, accumulate_grad_batches=3)
    assert len(kept.curve("train/mi")) == 4


@pytest.mark.filterwarnings("ignore:`training_step` returned `None`")
def test_a_batch_that_is_skipped_is_no_error():
    class Skipping(OwnModule):
        def training_step(self, batch, batch_idx):
            return None if batch_idx == 1 else super().training_step(batch, batch_idx)

    module, kept = Skipping(), Kept()
    fit(module, callbacks=TensorBoardLayout(histograms_every_n_steps=1), logger=kept)
    assert len(module.kept) == 2
    assert kept.curve("train/mi")[-1] == pytest.approx(module.kept[-1][0])


@pytest.mark.parametrize("gives", [("loss",), ("loss", "terms"), ("loss", "scores")])
def test_a_module_without_terms_is_refused_at_the_first_step(gives):
    module = OwnModule(gives=gives)
    with pytest.raises(TypeError, match=r"TensorBoardLayout reads the terms and the scores .* OwnModule"):
        fit(module, callbacks=TensorBoardLayout(histograms_every_n_steps=None, figures_every_n_steps=None))
    assert len(module.kept) == 1


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
def test_arguments_out_of_range_are_explained(kwargs, error, message):
    with pytest.raises(error, match=message):
        TensorBoardLayout(**kwargs)


# Loggers.


class Pictures(DummyLogger):
    """As WandbLogger: pictures by ``log_image``."""

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
        assert "rate" not in params or len(params) == 1  # Lightning's own entry: not repeated


def test_other_loggers_get_the_curves_and_those_that_can_show_them_the_figures(tmp_path):
    pictures, tracking, csv = Pictures(), Tracking(), CSVLogger(tmp_path)
    fit(OwnModule(), callbacks=TensorBoardLayout(figures_every_n_steps=2), logger=[pictures, tracking, csv])
    assert pictures.pictures == [("scores/joint_and_marginal", (320, 500, 3), step) for step in (1, 2)]
    assert pictures.hparams["bound"] == "InfoNCE"
    assert tracking.experiment.figures == [("run7", f"scores/joint_and_marginal-step{step}.png", 1) for step in (1, 2)]
    assert any("train/mi" in metrics for metrics in tracking.metrics)
    csv.finalize("success")
    assert "train/mi" in (tmp_path / "lightning_logs/version_0/metrics.csv").read_text().splitlines()[0]


@pytest.mark.parametrize("module", [make, OwnModule])
def test_without_a_logger_it_works_silently(module, capsys):
    fitted = fit(module(), callbacks=TensorBoardLayout(histograms_every_n_steps=1, figures_every_n_steps=1))
    assert "train/mi" in fitted.callback_metrics
    assert capsys.readouterr().out == ""


# It only observes.


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
def test_of_two_processes_the_first_draws_what_it_sees(tmp_path, own):
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

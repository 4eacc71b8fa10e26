"""Read TensorBoard's event files; a LightningModule that returns terms and scores."""

import re

import lightning.pytorch as L
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from tensorboard.plugins.hparams.metadata import (
    EXPERIMENT_TAG,
    SESSION_START_INFO_TAG,
    parse_experiment_plugin_data,
    parse_session_start_info_plugin_data,
)

from lightning_mi import bounds, critics
from tests.helpers.small_module import DIM, fit


class Board:
    """The event files of a logger."""

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
        """The scalars on each chart of the last layout, which TensorBoard shows, by category and title."""
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
        """The row and the metric columns of the first entry, which TensorBoard shows."""
        contents = self.events.summary_metadata
        started = parse_session_start_info_plugin_data(contents[SESSION_START_INFO_TAG].plugin_data.content)
        row = {
            name: getattr(value, value.WhichOneof("kind") or "null_value") for name, value in started.hparams.items()
        }
        experiment = parse_experiment_plugin_data(contents[EXPERIMENT_TAG].plugin_data.content)
        return row, [info.name.tag for info in experiment.metric_infos]


def logged(tmp_path, module, *args, default_hp_metric=True, **kwargs):
    """Train with a TensorBoard logger; return its event files and the trainer."""
    logger = TensorBoardLogger(tmp_path, default_hp_metric=default_hp_metric)
    fitted = fit(module, *args, logger=logger, **kwargs)
    return Board(logger), fitted


class OwnModule(L.LightningModule):
    """A LightningModule that is not an MIEstimationModule."""

    def __init__(self, rate=0.01, gives=("loss", "terms", "scores"), bound=None):
        super().__init__()
        self.save_hyperparameters("rate")
        torch.manual_seed(0)
        self.rater = critics.SeparableCritic(DIM, DIM, hidden=(8,), embed_dim=4)
        self.my_bound = bounds.InfoNCE() if bound is None else bound
        self.rate, self.gives = rate, gives
        self.recorded = []

    def training_step(self, batch, batch_idx):
        from lightning_mi import Scores

        scores = Scores.from_matrix(self.rater.pairwise(*batch))
        terms = self.my_bound(scores)
        self.recorded.append((terms.value.item(), terms.log_normalizer.item(), scores.joint.tolist()))
        outputs = {"loss": -terms.objective, "terms": terms, "scores": scores}
        return {name: outputs[name] for name in self.gives}

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.rate)

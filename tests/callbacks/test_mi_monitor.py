"""MIMonitor: known mutual information between layers, batch entries and outputs."""

import lightning.pytorch as L
import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_mi.callbacks import InformationPlane, MIMonitor
from lightning_mi.callbacks.watch.sources import Step, parse_source
from lightning_mi.exceptions import WatchError
from tests.helpers.small_module import trainer
from tests.helpers.watched import Classifier, digits, mlp, watch

pytestmark = pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers")
DIM, RHO = 3, 0.8
TRUTH = -DIM / 2 * np.log(1 - RHO**2)  # 1.53 nats


class Captions(L.LightningModule):
    """Encodes x; its steps return the code and its sign."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Linear(DIM, DIM)

    def forward(self, x):
        return self.encoder(x)

    def training_step(self, batch, batch_idx):
        code = self(batch["x"])
        return {"loss": (code - batch["caption"]).square().mean(), "code": code, "sign": (code[:, 0] > 0).long()}

    def validation_step(self, batch, batch_idx):
        return self.training_step(batch, batch_idx)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


class Named:
    """Batches of correlated Gaussian vectors, and the sign of the first x."""

    def __init__(self, num_samples, seed):
        generator = torch.Generator().manual_seed(seed)
        x, noise = (torch.randn(num_samples, DIM, generator=generator) for _ in range(2))
        self.loader = DataLoader(TensorDataset(x, RHO * x + (1 - RHO**2) ** 0.5 * noise, (x[:, 0] > 0).long()), 64)

    def __len__(self):
        return len(self.loader)

    def __iter__(self):
        return ({"x": x, "caption": caption, "sign": sign} for x, caption, sign in self.loader)


@pytest.fixture(scope="module")
def read():
    """The readings of one validation, by pair."""
    torch.manual_seed(0)
    pairs = [
        ("batch.x", "batch.caption"),
        ("encoder", "batch.caption"),
        ("batch.sign", "encoder"),
        ("batch.sign", "batch.sign"),
        ("outputs.code", "batch.caption"),
        ("outputs.sign", "outputs.code"),
    ]
    monitor = MIMonitor(pairs)
    watch(Captions(), monitor, [Named(2048, 0), Named(1024, 1)])
    return {name.removeprefix("mi_monitor/"): reading for name, reading in monitor.history[0].readings.items()}


@pytest.mark.parametrize("pair", ["batch.x/batch.caption", "encoder/batch.caption", "outputs.code/batch.caption"])
def test_gaussian_pairs_read_their_information(pair, read):
    assert read[pair].value == pytest.approx(TRUTH, abs=0.3 if "outputs" in pair else 0.2)  # fewer samples to fit to
    assert 0 < read[pair].standard_error < 0.2
    assert read[pair].limit == pytest.approx(np.log(1024))


@pytest.mark.parametrize("pair", ["batch.sign/encoder", "batch.sign/batch.sign", "outputs.sign/outputs.code"])
def test_labels_of_either_side_read_their_entropy(pair, read):
    assert read[pair].value == pytest.approx(np.log(2), abs=0.08)
    assert read[pair].limit == pytest.approx(np.log(2), abs=0.05)


def test_pairs_with_outputs_are_cross_fitted(read):
    assert read["outputs.code/batch.caption"].num_fitted == 768
    assert read["encoder/batch.caption"].num_fitted == 2048


def test_independent_entries_read_zero():
    class Noise(Named):
        def __iter__(self):
            return ({**batch, "caption": torch.randn_like(batch["caption"])} for batch in super().__iter__())

    monitor = MIMonitor([("encoder", "batch.caption")])
    watch(Captions(), monitor, [Noise(512, 0), Noise(512, 1)])
    reading = monitor.history[0].readings["mi_monitor/encoder/batch.caption"]
    assert abs(reading.value) < 0.1


def test_noise_lowers_the_reading_of_a_deterministic_pair():
    read = []
    for noise in (0.3, 3.0):
        monitor = MIMonitor([("net.1", "batch.0")], noise=noise)
        watch(Classifier(mlp(64, 8, 10)), monitor, digits(train=512, val=256))
        read.append(monitor.history[0].readings["mi_monitor/net.1/batch.0"].value)
    assert read[0] > read[1] + 0.2


def test_entries_are_found_along_paths():
    step = Step({}, {"meta": [torch.zeros(4), torch.ones(4, 2)]}, None)
    assert parse_source("batch.meta.1").rows(step).shape == (4, 2)
    assert parse_source("batch.meta.0").rows(step).shape == (4, 1)


def test_a_function_picks_from_a_tuple_of_outputs():
    class Pairs(nn.Linear):
        def forward(self, x):
            return super().forward(x), x

    class First(nn.Module):
        def forward(self, outputs):
            return outputs[0]

    class Unlabelled(Classifier):
        def training_step(self, batch, batch_idx):
            return self(batch).square().mean()

        def validation_step(self, batch, batch_idx):
            self(batch)

    module = Unlabelled(nn.Sequential(Pairs(64, 8), First()))
    loaders = [DataLoader(loader.dataset.tensors[0], 50) for loader in digits(256, 100)]  # a batch is a tensor
    monitors = [
        MIMonitor([(layer, "batch")], noise=1.0, reduction=reduction, held_out=91)
        for layer, reduction in (("net.0", lambda output: output[0]), ("net.1", "mean"))
    ]
    watch(module, monitors[0], loaders, callbacks=monitors[1:])
    first, second = (record.readings for monitor in monitors for record in monitor.history)
    assert first["mi_monitor/net.0/batch"] == second["mi_monitor/net.1/batch"]
    assert first["mi_monitor/net.0/batch"].num_held_out == 91


def test_plane_and_monitor_read_the_same_layers_together():
    plane, monitor = InformationPlane(["net.1", "net.2"]), MIMonitor([("net.1", "batch.1"), ("net.2", "batch.1")])
    alone = MIMonitor([("net.1", "batch.1")])
    for first, *others in ([plane, monitor], [alone]):
        watch(Classifier(mlp(64, 8, 10)), first, digits(256, 64, shuffle=False), callbacks=others, max_epochs=1)
    name = "mi_monitor/net.1/batch.1"
    assert monitor.history[-1].readings[name].value == alone.history[-1].readings[name].value
    assert {"plane/net.1/label", "plane/net.2/label"} <= plane.history[-1].readings.keys()


@pytest.mark.parametrize("name", ["net.*", "net.?", "net.[12]"])
def test_a_pattern_is_no_variable(name):
    with pytest.raises(ValueError, match="a variable is one layer"):
        MIMonitor([(name, "batch.1")])


def test_negative_labels_raise_at_the_first_step():
    loaders = digits(128, 64)
    loaders[0].dataset.tensors[1][::2] = -100  # which the cross entropy ignores
    with pytest.raises(WatchError, match=r"Got label -100 in batch\.1"):
        watch(Classifier(mlp(64, 8, 10)), MIMonitor([("net.1", "batch.1")]), loaders, max_epochs=1)


def test_validation_alone_reads_by_cross_fitting():
    monitor = MIMonitor([("net.0", "batch.1")])
    fitted = trainer(callbacks=[monitor])
    (logs,) = fitted.validate(Classifier(mlp(64, 10)), digits()[1], verbose=False)
    (record,) = monitor.history
    reading = record.readings["mi_monitor/net.0/batch.1"]
    assert logs["mi_monitor/net.0/batch.1"] == pytest.approx(reading.value)
    assert reading.value > 1
    assert reading.num_fitted == reading.num_held_out - reading.num_held_out // 4

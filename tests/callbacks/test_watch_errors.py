"""InformationPlane and MIMonitor: errors and warnings at the start of a fit."""

import numpy as np
import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_mi.callbacks import InformationPlane, MIMonitor
from lightning_mi.exceptions import MIWarning, WatchError
from tests.helpers.small_module import trainer
from tests.helpers.watched import Classifier, digits, mlp, watch

pytestmark = pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers")


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.shared, self.last = nn.Linear(64, 64), nn.Linear(64, 10)

    def forward(self, x):
        return self.last(self.shared(self.shared(x)))


class Unused(nn.Module):
    def __init__(self):
        super().__init__()
        self.used, self.unused = nn.Linear(64, 10), nn.Linear(64, 10)

    def forward(self, x):
        return self.used(x)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention, self.last = nn.MultiheadAttention(64, 2), nn.Linear(64, 10)

    def forward(self, x):
        return self.last(self.attention(x, x, x)[0])


@pytest.mark.parametrize("sanity", [0, 2])
@pytest.mark.parametrize(
    ("net", "layer", "message"),
    [
        (Twice, "net.shared", r"Got two outputs of layer 'net.shared' \(Linear\) in one step"),
        (Unused, "net.unused", r"Got no output of layer 'net.unused' \(Linear\): its forward did not run"),
        (Attention, "net.attention", r"Layer 'net.attention' \(MultiheadAttention\): Got a tuple of 2 entries: a "),
        (Twice, "net.shard", r"Got layer 'net.shard': Classifier has no submodule of this name. Did you mean 'net.sh"),
        (Twice, "zebra", r"Got layer 'zebra': .* It has: net, net.shared, net.last\. An entry"),
        (Twice, "net.conv*", r"Got the pattern 'net.conv\*': it matches no submodule of Classifier"),
    ],
)
def test_unsuitable_layers_raise_before_the_second_step(net, layer, message, sanity):
    module = Classifier(net())
    with pytest.raises(WatchError, match=message):
        watch(module, InformationPlane([layer]), num_sanity_val_steps=sanity)
    assert module.trainer.global_step <= 1


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (None, "Got a list of 1 entries as batch: the label is entry 1 of a tuple, or the key 'label', 'labels', 'y'"),
        (3, "Got no 3 for label: a list of 1 entries"),
        ("target", "Got no 'target' for label: a list of 1 entries"),
    ],
)
def test_missing_label_raises(label, message):
    class Bare(Classifier):
        def training_step(self, batch, batch_idx):
            return self(batch[0]).square().mean()

        def validation_step(self, batch, batch_idx):
            self.training_step(batch, batch_idx)

    loader = DataLoader(TensorDataset(torch.randn(32, 64)), 16)
    with pytest.raises(WatchError, match=message):
        watch(Bare(mlp(64, 10)), InformationPlane(["net.0"], label=label), (loader, loader))


def test_rows_of_another_length_raise():
    class Pooled(nn.Module):
        def forward(self, x):
            return x.mean(dim=0, keepdim=True)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.pooled, self.last = Pooled(), nn.Linear(64, 10)

        def forward(self, x):
            return self.last(x + self.pooled(x))

    with pytest.raises(WatchError, match=r"Got 1 rows of net.pooled, 64 rows of label in one step"):
        watch(Classifier(Net()), InformationPlane(["net.pooled"]))


def test_tokens_are_no_variable():
    entries = torch.randn(32, 64), torch.zeros(32, dtype=torch.long), torch.ones(32, 5, dtype=torch.long)
    tokens = DataLoader(TensorDataset(*entries), 16)
    with pytest.raises(WatchError, match=r"Got a tensor int64 \(16, 5\) for batch.2: .*Watch the layer that embeds"):
        watch(Classifier(mlp(64, 10)), MIMonitor([("net.0", "batch.2")]), (tokens, tokens))


def test_two_callbacks_with_one_log_name_raise():
    planes = [InformationPlane(["net.0"], noise=noise) for noise in (0.3, 1.0)]
    with pytest.raises(MisconfigurationException, match=r"Got two callbacks that log 'plane/net.0/label'"):
        watch(Classifier(mlp(64, 10)), planes[0], callbacks=planes[1:])


def test_column_of_labels_raises():
    entries = torch.randn(32, 64), torch.zeros(32, dtype=torch.long), torch.zeros(32, 1, dtype=torch.long)
    data = DataLoader(TensorDataset(*entries), 16)
    with pytest.raises(WatchError, match=r"int64 \(16, 1\) for label: labels have one dimension"):
        watch(Classifier(mlp(64, 10)), InformationPlane(["net.0"], label=2), (data, data))


def test_labels_as_floating_point_warn():
    entries = torch.randn(512, 64), torch.arange(512) % 10, (torch.arange(512) % 10).float()
    data = DataLoader(TensorDataset(*entries), 64)
    with pytest.warns(MIWarning, match=r"Got whole numbers as floating-point for batch.2"):
        watch(Classifier(mlp(64, 10)), MIMonitor([("net.0", "batch.2")]), (data, data))


def test_forward_of_a_whole_batch_raises():
    class Whole(Classifier):
        def forward(self, batch):
            return self.net(batch["x"])

        def training_step(self, batch, batch_idx):
            return self.net(batch[0]).square().mean()

        def validation_step(self, batch, batch_idx):
            self.training_step(batch, batch_idx)

    with pytest.raises(WatchError, match=r"The forward of Whole failed on the batch's input alone: TypeError"):
        watch(Whole(mlp(64, 10)), InformationPlane(["net.0"]))


@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`")
def test_no_validation_raises():
    fitting = trainer(callbacks=[InformationPlane(["net.0"])])
    with pytest.raises(MisconfigurationException, match="Got no validation: InformationPlane reads on held-out"):
        fitting.fit(Classifier(mlp(64, 10)), digits()[0])


def test_forward_that_differs_from_validation_warns():
    class Scaled(Classifier):
        def validation_step(self, batch, batch_idx):
            super().validation_step((3 * batch[0], batch[1]), batch_idx)

    with pytest.warns(MIWarning, match=r"Layer 'net.0' differs between validation_step and the forward of Scaled"):
        watch(Scaled(mlp(64, 10)), InformationPlane(["net.0"]))


def test_few_training_samples_warn():
    with pytest.warns(MIWarning, match="Got 64 training samples since the last reading"):
        watch(Classifier(mlp(64, 10)), InformationPlane(["net.0"]), limit_train_batches=1)


def test_fit_without_a_reading_warns():
    with pytest.warns(MIWarning, match="InformationPlane took no reading: no validation ran"):
        watch(Classifier(mlp(64, 10)), InformationPlane(["net.0"]), check_val_every_n_epoch=2)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_activations_that_are_not_finite_read_nan(value):
    class Broken(nn.Module):
        def forward(self, x):
            return x + value

    plane = InformationPlane(["net.1"])
    net = nn.Sequential(nn.Linear(64, 10), Broken())
    with pytest.warns(MIWarning, match="held-out samples") as held_out, pytest.warns(MIWarning, match="training sam"):
        watch(Classifier(net), plane)
    assert any("Got 128 of 128 held-out samples of net.1" in str(warning.message) for warning in held_out)
    assert np.isnan(plane.history[0].readings["plane/net.1/label"].value)


@pytest.mark.parametrize(
    ("cls", "args", "kwargs", "error", "message"),
    [
        (InformationPlane, "net.0", {}, ValueError, "layers='net.0': give a list"),
        (InformationPlane, [], {}, ValueError, r"layers=\[\]"),
        (InformationPlane, ["a"], {"noise": 0.0}, ValueError, "noise=0.0: it must be positive"),
        (InformationPlane, ["a"], {"layer_pairs": [("a", "b")]}, ValueError, "without noise: .* infinite information"),
        (InformationPlane, ["a"], {"reduction": "max"}, ValueError, "reduction='max'"),
        (InformationPlane, ["a"], {"forward": "net"}, TypeError, "forward='net'"),
        (InformationPlane, ["a"], {"buffer": 2}, ValueError, "buffer=2"),
        (InformationPlane, ["a"], {"held_out": 2}, ValueError, "held_out=2"),
        (InformationPlane, ["a"], {"hidden": -1}, ValueError, "hidden=-1"),
        (InformationPlane, ["a"], {"every_n_epochs": 0}, ValueError, "every_n_epochs=0"),
        (InformationPlane, ["a"], {"figure_every": 0}, ValueError, "figure_every=0"),
        (MIMonitor, [], {}, ValueError, r"pairs=\[\]"),
        (MIMonitor, ["ab"], {}, ValueError, r"pairs=\['ab'\]"),
        (MIMonitor, [("a", "b")], {"noise": -1.0}, ValueError, "noise=-1.0"),
    ],
)
def test_arguments_out_of_range_raise(cls, args, kwargs, error, message):
    with pytest.raises(error, match=message):
        cls(args, **kwargs)

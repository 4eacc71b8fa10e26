"""InformationPlane: readings without lag, any module, an unchanged training, resume."""

import lightning.pytorch as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.nn import functional as F

from lightning_mi.bench.plane.converged import read_converged
from lightning_mi.callbacks import InformationPlane
from lightning_mi.data import ImageDataModule
from lightning_mi.encoders import GaussianNoise
from lightning_mi.exceptions import MIWarning
from tests.helpers.small_module import equal, trainer, weights
from tests.helpers.watched import Classifier, Copies, digits, mlp, noisy, watch

pytestmark = [
    pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
]
LAYERS = ["net.1", "net.3", "net.5", "net.6"]


# Readings.


def converged(layers, loaders):
    """Readings of scikit-learn's converged classifiers of each layer, float64."""
    (train_x, train_y), (val_x, val_y) = (loader.dataset.tensors for loader in loaders)
    with torch.no_grad():
        rows = [(layer(train_x).double().numpy(), layer(val_x).double().numpy()) for layer in layers]
    return np.array([read_converged((x, train_y.numpy()), (held, val_y.numpy())).value for x, held in rows])


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_readings_reach_converged_probes_from_the_first_epoch():
    plane, copies, loaders = InformationPlane(LAYERS), Copies(), digits()
    watch(Classifier(mlp(64, 128, 64, 16, 10)), plane, loaders, callbacks=[copies], max_epochs=1)
    (net,) = copies.modules
    read = [plane.history[0].readings[f"plane/{path}/label"] for path in LAYERS]
    values = np.array([reading.value for reading in read])
    assert (values[[0, 3]] > converged([net[:2], net], loaders) - 0.1).all()  # the others: lightning-mi bench plane
    assert (values < np.log(10)).all()
    assert {(reading.num_fitted, reading.num_held_out) for reading in read} == {(1437, 360)}


def test_a_layer_without_information_reads_zero():
    class Zero(nn.Module):
        def forward(self, x):
            return 0 * x

    plane = InformationPlane(["net.0"])
    watch(Classifier(nn.Sequential(Zero(), nn.Linear(64, 10))), plane)
    reading = plane.history[0].readings["plane/net.0/label"]
    assert abs(reading.value) < 3 * max(reading.standard_error, 0.02)


def test_noise_reads_input_and_pairs_of_layers():
    plane = InformationPlane(["net.1", "net.2"], noise=0.5, layer_pairs=[("net.1", "net.2")])
    watch(Classifier(mlp(64, 16, 10)), plane, digits(train=512, val=256))
    read = plane.history[0].readings
    assert list(read) == [f"plane/{name}" for name in ("net.1/label", "net.2/label", "net.1/input", "net.2/input")] + [
        "plane/net.1/net.2"
    ]
    assert read["plane/net.1/input"].limit == pytest.approx(np.log(256))
    assert read["plane/net.1/net.2"].value > 0.3


def test_newest_training_samples_are_fitted_and_held_out_is_capped():
    plane = InformationPlane(["net.0"], buffer=100, held_out=60)
    watch(Classifier(mlp(64, 10)), plane, digits(train=256, val=120, batch_size=40), max_epochs=2)
    sizes = {(r.num_fitted, r.num_held_out) for record in plane.history for r in record.readings.values()}
    assert sizes == {(100, 60)}


def test_schedule_skips_epochs():
    plane = InformationPlane(["net.0"], every_n_epochs=2)
    watch(Classifier(mlp(64, 10)), plane, max_epochs=4)
    assert [record.epoch for record in plane.history] == [1, 3]


# Any module.


def test_a_residual_network_is_watched():
    from torchvision.models import resnet18

    first = nn.Sequential(nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 3, 1))
    plane = InformationPlane(["net.2.layer?", "net.2.avgpool"], buffer=64)
    module = Classifier(nn.Sequential(*first, resnet18(num_classes=10)))
    watch(module, plane, digits(train=128, val=64, batch_size=32), limit_train_batches=2)
    read = {name.split("/")[1]: reading.value for name, reading in plane.history[0].readings.items()}
    assert list(read) == [*(f"net.2.layer{i}" for i in range(1, 5)), "net.2.avgpool"]
    assert np.isfinite(list(read.values())).all()


class Rows(nn.Module):
    """An image as a sequence of eight rows, encoded by a transformer."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(8, nhead=2, dim_feedforward=16, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, num_layers=2, enable_nested_tensor=False)
        self.head = nn.Linear(8, 10)

    def forward(self, x):
        return self.head(self.encoder(x.unflatten(1, (8, 8))).mean(dim=1))


@pytest.mark.parametrize("reduction", ["mean", "flatten", lambda tokens: tokens[:, 0]])
def test_a_transformer_is_watched(reduction):
    plane = InformationPlane(["net.encoder.layers.*", "net.head"], reduction=reduction)
    watch(Classifier(Rows()), plane)
    names = [name.split("/")[1] for name in plane.history[0].readings]
    assert names == ["net.encoder.layers.0", "net.encoder.layers.1", "net.head"]


class Dict(Classifier):
    """Batches are dicts."""

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.net(batch["image"]), batch["meta"]["digit"])

    def validation_step(self, batch, batch_idx):
        self.training_step(batch, batch_idx)


class Dicts:
    def __init__(self, loader):
        self.loader = loader

    def __len__(self):
        return len(self.loader)

    def __iter__(self):
        return ({"image": x, "meta": {"digit": y}} for x, y in self.loader)


@pytest.mark.parametrize("label", ["meta.digit", lambda batch: batch["meta"]["digit"]])
def test_label_and_input_are_named(label):
    plane = InformationPlane(["net.1"], label=label, input="image")
    watch(Dict(mlp(64, 32, 10)), plane, [Dicts(loader) for loader in digits(train=256, val=128)])
    assert plane.history[0].readings["plane/net.1/label"].value > 0.5


@pytest.mark.parametrize("kwargs", [{"precision": "bf16-mixed"}, {"accumulate_grad_batches": 3}, {"precision": "64"}])
def test_precision_and_accumulation_leave_readings_alike(kwargs):
    plane = InformationPlane(["net.1"])
    watch(Classifier(mlp(64, 64, 10)), plane, **kwargs)
    assert plane.history[0].readings["plane/net.1/label"].value == pytest.approx(1.97, abs=0.1)


@pytest.mark.parametrize("whole", [True, False])
def test_compiled_networks_are_watched(whole):
    net = mlp(64, 16, 10)
    plane = InformationPlane(["net.1"])
    if whole:
        net = torch.compile(net, backend="eager")
    else:
        net.compile(backend="eager")
    watch(Classifier(net), plane)
    assert plane.history[0].readings["plane/net.1/label"].value > 0.5


def test_module_without_forward_is_cross_fitted():
    class Plain(Dict):
        forward = L.LightningModule.forward

    plane = InformationPlane(["net.1"], label="meta.digit")
    loaders = [Dicts(loader) for loader in digits(train=256, val=128)]
    with pytest.warns(MIWarning, match=r"Plain has no forward.*forward=lambda"):
        watch(Plain(mlp(64, 32, 10)), plane, loaders)
    reading = plane.history[0].readings["plane/net.1/label"]
    assert (reading.num_fitted, reading.num_held_out) == (96, 128)
    assert reading.value > 0.3


# The training does not change.


def trained(*callbacks, **kwargs):
    module = noisy()
    torch.manual_seed(1)
    trainer(callbacks=list(callbacks), max_epochs=2, **kwargs).fit(module, *digits(train=256, val=128))
    return weights(module), torch.rand(3)


@pytest.mark.parametrize("kwargs", [{}, {"accumulate_grad_batches": 3}, {"gradient_clip_val": 0.1}])
def test_training_is_bitwise_equal_with_and_without(kwargs):
    plain, plain_draw = trained(**kwargs)
    watched, draw = trained(InformationPlane(["net.*"], noise=0.3), **kwargs)
    assert equal(plain, watched)
    assert torch.equal(plain_draw, draw)


def test_no_hook_is_left_after_fit_or_error():
    class Failing(Classifier):
        def validation_step(self, batch, batch_idx):
            super().validation_step(batch, batch_idx)
            if self.trainer.global_step:
                raise RuntimeError("in validation")

    for cls in (Classifier, Failing):
        module = cls(mlp(64, 16, 10))
        try:
            watch(module, InformationPlane(["net.*"]))
        except RuntimeError:
            assert cls is Failing
        assert not any(part._forward_hooks for part in module.modules())


def test_in_place_layers_do_not_change_readings_before_them():
    read = []
    for inplace in (False, True):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(64, 32), nn.ReLU(inplace=inplace), nn.Linear(32, 10))
        plane = InformationPlane(["net.0"])
        watch(Classifier(net), plane, digits(train=256, val=128, shuffle=False))
        read.append(plane.history)
    assert read[0] == read[1]


# Resume.


@pytest.mark.parametrize(("saving", "step"), [({"every_n_epochs": 1}, 8), ({"every_n_train_steps": 6}, 6)])
def test_resumed_fit_reads_what_the_uninterrupted_one_does(saving, step, tmp_path):
    def run(epochs, ckpt_path=None):
        plane, saver = InformationPlane(["net.2"], noise=0.3), ModelCheckpoint(tmp_path, **saving)
        fitting = trainer(callbacks=[plane, saver], max_epochs=epochs, enable_checkpointing=True)
        data = ImageDataModule("digits", batch_size=64, limit_train=256, val_fraction=0.2)  # its loader resumes
        module = Classifier(nn.Sequential(nn.Flatten(), *mlp(64, 32, 10)))
        fitting.fit(module, data, ckpt_path=ckpt_path)
        return plane, saver.best_model_path

    whole, _ = run(3)
    _, path = run(2)
    saved = torch.load(path, weights_only=True)
    assert saved["global_step"] == step
    assert len(saved["callbacks"][whole.state_key]["recent"][0]) == step % 4  # since the reading of step 4 or 8
    resumed, _ = run(3, path)
    assert len(whole.history) == 3
    assert resumed.history == whole.history


def test_state_dict_before_fit():
    plane = InformationPlane(["net.1"])
    plane.load_state_dict(plane.state_dict())
    assert plane.history == []
    assert plane.state_key != InformationPlane(["net.2"]).state_key


def test_a_random_layer_is_no_difference_between_step_and_forward():
    torch.manual_seed(0)
    plane = InformationPlane(["net.1"])
    watch(Classifier(nn.Sequential(nn.Linear(64, 16), GaussianNoise(0.1), nn.Linear(16, 10))), plane)
    assert plane.history[0].readings["plane/net.1/label"].value > 0.5

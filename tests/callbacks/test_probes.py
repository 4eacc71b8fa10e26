"""Probes: accuracies, schedule, reference features, and that training does not change."""

from typing import Any

import lightning.pytorch as L
import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.utils.data import DataLoader

from lightning_mi import MINumericalWarning
from lightning_mi.callbacks import Probes
from tests.helpers.labelled import NUM_FEATURES, Digits, ddp, features_of, make
from tests.helpers.small_module import Batches, RecordingLogger, equal, fit, trainer, weights

pytestmark = [
    pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),  # Python 3.12 and later
]

VAL, TEST, REFERENCE = slice(1000, 1301), slice(1301, 1600), slice(0, 701)
NEIGHBOR, LINEAR = "probe/nearest_neighbor", "probe/accuracy"


def noisy_encoder():
    """With batch normalization and dropout: in training mode, features differ at each call."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 32), nn.BatchNorm1d(32), nn.Dropout(0.5), nn.ReLU(), nn.Linear(32, NUM_FEATURES))


def expected(module, data, part, reference=REFERENCE):
    """Accuracies of the nearest neighbor and of logistic regression in NumPy and scikit-learn, float64."""
    x, reference_x = (features_of(module, data.x[s]).double().numpy() for s in (part, reference))
    y, reference_y = data.y[part].numpy(), data.y[reference].numpy()
    nearest = reference_y[(x @ reference_x.T).argmax(axis=1)]
    linear = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(reference_x, reference_y)
    return {NEIGHBOR: np.mean(nearest == y), LINEAR: linear.score(x, y)}


def near(values):
    """Within one sample in 300: float32 may swap neighbors. The requirement is half a point."""
    return pytest.approx(values, abs=0.0034)


def probed(read):
    return {name: value for name, value in read.items() if name in (NEIGHBOR, LINEAR)}


# Accuracies.


@pytest.mark.parametrize(("stage", "part"), [("validate", VAL), ("test", TEST)])
def test_accuracies_are_those_of_numpy_and_scikit_learn(stage, part):
    module, data = make(noisy_encoder()), Digits()
    fit(module, datamodule=data)
    [read] = getattr(trainer(callbacks=Probes(linear_every_n_epochs=1)), stage)(module, datamodule=data, verbose=False)
    right = expected(module, data, part)
    assert probed(read) == near(right)
    assert min(right.values()) > 0.2


@pytest.mark.parametrize("stage", ["validate", "test"])
def test_two_ranks_probe_as_one_does(stage):
    module, read = make(noisy_encoder()), []
    kwargs: dict[str, Any]
    for kwargs in ({}, ddp()):
        probing = trainer(callbacks=Probes(k=3, linear_every_n_epochs=1), **kwargs)
        [values] = getattr(probing, stage)(module, datamodule=Digits(), verbose=False)
        read.append(probed(values))
    assert read[0].keys() == {NEIGHBOR, LINEAR}
    assert read[1] == near(read[0])


def test_two_ranks_are_probed_during_training():
    fitted = fit(make(), datamodule=Digits(), callbacks=Probes(linear_every_n_epochs=1), **ddp())
    assert probed(fitted.callback_metrics).keys() == {NEIGHBOR, LINEAR}
    assert min(probed(fitted.callback_metrics).values()) > 0.2


def test_options_reach_the_metrics():
    options = {"k": 5, "similarity": "cosine", "C": 1e-4, "max_iter": 50}
    plain, other = (
        trainer(callbacks=Probes(**kwargs)).test(make(), datamodule=Digits(), verbose=False)[0]
        for kwargs in ({}, options)
    )
    assert plain[NEIGHBOR] != other[NEIGHBOR]
    assert plain[LINEAR] != other[LINEAR]


def test_features_of_nan_log_nan():
    module = make()
    with torch.no_grad():
        module.encoders[0][-1].bias.fill_(torch.nan)
    with pytest.warns(MINumericalWarning) as caught:
        [read] = trainer(callbacks=Probes()).test(module, datamodule=Digits(), verbose=False)
    assert np.isnan(read[NEIGHBOR])
    assert np.isnan(read[LINEAR])
    assert {str(w.message).split(" is NaN")[0] for w in caught} >= {"NearestNeighborAccuracy", "LinearProbeAccuracy"}


# Schedule.


@pytest.mark.parametrize(
    ("kwargs", "neighbors", "linear"),
    [
        ({}, [0, 1, 2, 3], []),
        ({"every_n_epochs": 2, "linear_every_n_epochs": 3}, [1, 3], [2]),
        ({"every_n_epochs": 0, "linear_every_n_epochs": 1}, [], [0, 1, 2, 3]),
        ({"nearest_neighbor": False, "linear_every_n_epochs": 4}, [], [3]),
    ],
)
def test_probes_follow_their_schedule(kwargs, neighbors, linear):
    logger = RecordingLogger()
    fit(make(), datamodule=Digits(batch_size=320), callbacks=Probes(**kwargs), logger=logger, max_epochs=4)
    for name, epochs in ((NEIGHBOR, neighbors), (LINEAR, linear)):
        assert [(step + 1) // 2 - 1 for step, row in logger.rows if name in row] == epochs


def test_test_stage_is_always_probed():
    module, probes = make(), Probes(every_n_epochs=7)
    [read] = trainer(callbacks=probes).validate(module, datamodule=Digits(), verbose=False)
    assert probed(read).keys() == {NEIGHBOR}
    [read] = trainer(callbacks=Probes(every_n_epochs=0)).validate(module, datamodule=Digits(), verbose=False)
    assert probed(read) == {}
    [read] = trainer(callbacks=Probes(every_n_epochs=0)).test(module, datamodule=Digits(), verbose=False)
    assert probed(read).keys() == {NEIGHBOR, LINEAR}


# Training does not change.


class Shuffled(Digits):
    """Training and reference samples in an order from the global RNG."""

    def loader(self, part, reference=False, **kwargs):
        return super().loader(part, reference, shuffle=reference or part == slice(0, 640))


class Modes(L.Callback):
    def __init__(self):
        self.recorded = set()

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.recorded.add(tuple(part.training for part in pl_module.encoders.modules()))


@pytest.mark.filterwarnings("ignore:Found 1 module")  # in evaluation mode, on purpose
def test_training_is_bit_equal_with_probes_and_without():
    trained = []
    for callbacks in ([], [Probes(linear_every_n_epochs=1)]):
        module, modes = make(noisy_encoder()), Modes()
        module.encoders[0][0].eval()
        torch.manual_seed(1)
        fit(module, datamodule=Shuffled(), callbacks=[*callbacks, modes], max_epochs=3)
        trained.append((weights(module), modes.recorded))
    assert equal(trained[0][0], trained[1][0])
    assert trained[0][1] == trained[1][1]


# Training samples.


class WithoutReference(Digits):
    reference_dataloader = None  # type: ignore[assignment]  # as if absent


def test_training_dataloader_replaces_reference_samples():
    module, data = make(), WithoutReference()
    fitted = fit(module, datamodule=data, callbacks=Probes())
    right = expected(module, data, VAL, slice(0, 640))
    assert float(fitted.callback_metrics[NEIGHBOR]) == near(right[NEIGHBOR])
    [read] = fitted.test(module, datamodule=data, verbose=False)
    assert probed(read) == near(expected(module, data, TEST, slice(0, 640)))


def test_fast_dev_run_reads_as_many_reference_batches():
    class Counted(Digits):
        batches = 0

        def reference_dataloader(self):
            for batch in super().reference_dataloader():
                self.batches += 1
                yield batch

    data = Counted()
    probing = L.Trainer(fast_dev_run=2, accelerator="cpu", callbacks=Probes(), enable_progress_bar=False)
    probing.validate(make(), datamodule=data, verbose=False)
    assert data.batches == 2


def test_the_reference_samples_pass_through_the_transfer_hooks():
    class Scaled(Digits):
        def on_before_batch_transfer(self, batch, dataloader_idx):
            return [2 * batch[0], *batch[1:]]

        def on_after_batch_transfer(self, batch, dataloader_idx):
            return [batch[0] + 1, *batch[1:]]

    module, data = make(), Scaled()
    [read] = trainer(callbacks=Probes()).test(module, datamodule=data, verbose=False)
    data.x = 2 * data.x + 1
    assert probed(read) == near(expected(module, data, TEST))


def several(loader):
    return [loader, loader]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (several, TypeError, "several training dataloaders"),
        (
            lambda loader: DataLoader(loader.dataset, 64, num_workers=1, persistent_workers=True),
            ValueError,
            "persistent workers",
        ),
    ],
)
def test_unsuitable_training_dataloader_raises(change, error, message):
    class Changed(WithoutReference):
        def train_dataloader(self):
            return change(super().train_dataloader())

    module = make()
    module.unpack_batch = lambda batch: batch[0] if isinstance(batch[0], list) else batch
    with pytest.raises(error, match=f"{message}.*reference_dataloader"):
        fit(module, datamodule=Changed(), callbacks=Probes())


def test_no_training_samples_raise():
    with pytest.raises(ValueError, match=r"no training samples.*reference_dataloader\(\)"):
        trainer(callbacks=Probes()).test(make(), Digits().test_dataloader(), verbose=False)


# Bad use.


def test_missing_labels_raise_at_the_first_batch():
    steps = []

    class Steps(L.Callback):
        def on_train_batch_start(self, *_):
            steps.append(1)

    data = Digits(with_labels=False)
    with pytest.raises(TypeError, match=r"Probes needs labels, but the batch holds float32 .*, float32 .* after the 2"):
        fit(make(), data.train_dataloader(), callbacks=[Steps(), Probes()])
    assert len(steps) == 1
    with pytest.raises(TypeError, match="Probes needs labels"):
        trainer(callbacks=Probes()).test(make(), data.test_dataloader(), verbose=False)


def test_reference_samples_without_labels_raise():
    class Bare(Digits):
        def reference_dataloader(self):
            return Batches([(self.x[:50],)])

    with pytest.raises(TypeError, match=r"of the training samples, needs labels.* float32 \(50, 64\)"):
        trainer(callbacks=Probes()).test(make(), datamodule=Bare(), verbose=False)


def test_other_modules_raise():
    with pytest.raises(TypeError, match="module of type BoringModel"):
        trainer(callbacks=Probes()).fit(BoringModel(), Batches([torch.ones(2, 2)]))


class BoringModel(L.LightningModule):
    def training_step(self, batch):
        raise AssertionError

    def configure_optimizers(self):
        return None


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"nearest_neighbor": False, "linear": False}, "at least one probe"),
        ({"every_n_epochs": -1}, "every_n_epochs=-1"),
        ({"k": 0}, "k=0"),
        ({"C": -1.0}, "C=-1"),
    ],
)
def test_arguments_out_of_range_raise(kwargs, message):
    with pytest.raises(ValueError, match=message):
        Probes(**kwargs)

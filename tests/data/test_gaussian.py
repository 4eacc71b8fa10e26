"""GaussianDataModule: its samples, its true MI and its levels during a training."""

import math
from typing import Any

import lightning.pytorch as L
import numpy as np
import pytest
import torch
from lightning.pytorch.cli import LightningCLI

from lightning_mi.data import GaussianDataModule, gaussian_rho
from tests.helpers.recording import quiet_trainer


def many(data, batches=40):
    stream = iter(data.train_dataloader())
    return (torch.cat(part) for part in zip(*(next(stream) for _ in range(batches)), strict=True))


def test_samples_have_the_moments_of_the_law():
    dim, mi = 3, 1.5
    x, y = many(GaussianDataModule(dim=dim, mi=mi, batch_size=5000))
    pairs = torch.cat([x, y], 1).double().numpy()
    rho = math.sqrt(1 - math.exp(-2 * mi / dim))
    expected = np.block([[np.eye(dim), rho * np.eye(dim)], [rho * np.eye(dim), np.eye(dim)]])
    # A sample covariance of standard normals has a standard error of at most sqrt(2 / n); a mean, sqrt(1 / n).
    assert np.abs(np.cov(pairs.T) - expected).max() < 4.5 * math.sqrt(2 / len(pairs))
    assert np.abs(pairs.mean(0)).max() < 4.5 * math.sqrt(1 / len(pairs))


@pytest.mark.parametrize(
    ("transform", "dim", "mi"),
    [
        ("identity", 20, 10.0),
        ("cubic", 20, 2.0),
        ("asinh", 20, 10.0),
        ("half_cube", 2, 3.0),
        ("normal_cdf", 20, 2.0),
    ],
)
def test_mean_log_ratio_is_the_true_mi(transform, dim, mi):
    data = GaussianDataModule(dim=dim, mi=mi, batch_size=1000, transform=transform, seed=1)
    ratio = data.log_ratio(*many(data)).double()
    standard_error = ratio.std() / math.sqrt(len(ratio))
    assert abs(ratio.mean() - mi) < 4 * standard_error
    # The exponential of a log-ratio has mean 1 over independent pairs.
    x, y = many(GaussianDataModule(dim=1, mi=0.2, batch_size=1000, transform=transform))
    weights = GaussianDataModule(dim=1, mi=0.2, transform=transform).log_ratio(x, y.roll(1, 0)).double().exp()
    assert abs(weights.mean() - 1) < 4 * weights.std() / math.sqrt(len(weights))


@pytest.mark.parametrize("transform", ["identity", "cubic"])
def test_diagonal_of_the_log_ratio_matrix_is_the_log_ratio(transform):
    data = GaussianDataModule(dim=4, mi=[1.0, 3.0], steps_per_mi=5, transform=transform)
    x, y = (part[:6] for part in next(iter(data.train_dataloader())))
    for dtype, tolerance in ((torch.float32, 1e-4), (torch.float64, 1e-10)):
        pairs = data.log_ratio(x.to(dtype), y.to(dtype), step=7)
        matrix = data.log_ratio_matrix(x.to(dtype), y.to(dtype), step=7)
        assert pairs.dtype == matrix.dtype == dtype
        torch.testing.assert_close(matrix.diagonal(), pairs, rtol=tolerance, atol=tolerance)
    assert not torch.allclose(data.log_ratio(x, y, step=0), data.log_ratio(x, y, step=7))


def test_batches_are_pairs_of_float32_matrices():
    batch = next(iter(GaussianDataModule(dim=5, batch_size=7).train_dataloader()))
    assert isinstance(batch, tuple)
    assert [(part.shape, part.dtype) for part in batch] == [((7, 5), torch.float32)] * 2


def test_staircase_draws_each_level_for_its_steps():
    data = GaussianDataModule(dim=2, mi=[0.0, 1.0, 3.0], steps_per_mi=2, batch_size=50_000)
    assert len(data.train_dataloader()) == 6
    for step, (x, y) in enumerate(data.train_dataloader()):
        level = [0.0, 0.0, 1.0, 1.0, 3.0, 3.0][step]
        assert data.true_mi(step) == level
        # E[xy] = rho with a standard error of at most sqrt(2 / n), over 2 x 50,000 products.
        assert (x * y).mean().item() == pytest.approx(gaussian_rho(level, 2), abs=4 * math.sqrt(2 / 100_000))


def test_steps_after_the_staircase_are_on_the_last_level():
    data = GaussianDataModule(mi=[2, 4], steps_per_mi=10)
    assert [data.true_mi(step) for step in (0, 9, 10, 19, 20, 10**6)] == [2, 2, 4, 4, 4, 4]
    with pytest.raises(ValueError, match="step=-1"):
        data.true_mi(-1)


def test_batches_depend_on_seed_and_split_only():
    def first(split, **kwargs):
        return next(iter(getattr(GaussianDataModule(**kwargs), f"{split}_dataloader")()))[0]

    different = [first("train"), first("val"), first("test"), first("train", seed=1)]
    assert len({x[0, 0].item() for x in different}) == 4
    torch.manual_seed(123)
    assert torch.equal(first("train", mi=5.0, transform="cubic"), different[0])


def test_evaluation_without_trainer_is_on_the_last_level():
    data = GaussianDataModule(dim=1, mi=[0.1, 3.0], steps_per_mi=5, batch_size=10_000, val_batches=3, test_batches=2)
    for loader, batches in ((data.val_dataloader(), 3), (data.test_dataloader(), 2)):
        once, again = list(loader), list(loader)
        assert len(once) == len(loader) == batches
        assert all(torch.equal(a[1], b[1]) for a, b in zip(once, again, strict=True))
        assert (once[0][0] * once[0][1]).mean().item() == pytest.approx(gaussian_rho(3.0, 1), abs=0.06)
    assert data.true_mi() == 3.0


class TruthRecorder(L.LightningModule):
    """Records the true MI of the data module and the correlation of the batch at every step."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.truths, self.correlations = [], []

    def _record(self, stage, batch):
        trainer: Any = self.trainer  # Lightning declares no type of `datamodule`
        self.truths.append((stage, trainer.datamodule.true_mi()))
        self.correlations.append((batch[0] * batch[1]).mean().item())

    def training_step(self, batch, batch_idx):
        self._record("train", batch)
        return self.weight.square()

    def validation_step(self, batch, batch_idx):
        self._record("sanity" if self.trainer.sanity_checking else "val", batch)

    def test_step(self, batch, batch_idx):
        self._record("test", batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_validation_is_on_the_level_of_the_last_training_batch(accumulate):
    module = TruthRecorder()
    data = GaussianDataModule(
        dim=2, mi=[0.5, 2.0, 8.0], steps_per_mi=2, batch_size=20_000, val_batches=1, test_batches=1
    )
    trainer = quiet_trainer(max_epochs=1, val_check_interval=2, accumulate_grad_batches=accumulate)
    trainer.fit(module, data)
    trainer.test(module, data, verbose=False)
    expected = [(stage, mi) for mi in (0.5, 2.0, 8.0) for stage in ("train", "train", "val")]
    assert module.truths == [("sanity", 0.5), *expected, ("test", 8.0)]
    # The batches have the correlation of that MI.
    for (_, mi), correlation in zip(module.truths, module.correlations, strict=True):
        assert correlation == pytest.approx(gaussian_rho(mi, 2), abs=4 * math.sqrt(2 / 40_000))


def test_new_trainer_tests_on_the_last_level():
    data = GaussianDataModule(mi=[1.0, 2.0, 3.0], steps_per_mi=2, val_batches=1, test_batches=1)
    module, stopped = TruthRecorder(), quiet_trainer(max_steps=3, num_sanity_val_steps=0, limit_val_batches=0)
    stopped.fit(module, data)
    stopped.test(module, data, verbose=False)
    assert module.truths[-1] == ("test", 2.0)
    quiet_trainer().test(module, data, verbose=False)
    assert module.truths[-1] == ("test", 3.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mi": [2.0, -1.0]}, "Got mi=-1.0"),
        ({"mi": []}, r"Got mi=\[\]"),
        ({"mi": 1e3}, "lower mi or raise dim"),
        ({"dim": 0}, "dim=0"),
        ({"batch_size": 1}, "batch_size=1: it must be at least 2"),
        ({"steps_per_mi": 0}, "steps_per_mi=0"),
        ({"seed": -1}, "seed=-1"),
        ({"val_batches": -1}, "val_batches=-1"),
        ({"test_batches": -1}, "test_batches=-1"),
        ({"num_workers": -1}, "num_workers=-1"),
        ({"transform": "cube"}, "transform='cube': it is one of .*cubic"),
    ],
)
def test_invalid_arguments_raise(arguments, message):
    with pytest.raises(ValueError, match=message):
        GaussianDataModule(**arguments)


@pytest.mark.parametrize("mi", ["2.5", "[2, 4.5]"])
def test_configuration_file_gives_one_or_several_levels(mi, tmp_path, monkeypatch):
    config = tmp_path / "config.yaml"
    config.write_text(
        f"data:\n  class_path: lightning_mi.data.GaussianDataModule\n"
        f"  init_args:\n    mi: {mi}\n    transform: cubic\n    steps_per_mi: 3\n"
    )
    monkeypatch.setattr("sys.argv", ["program", f"--config={config}"])
    settings = {"trainer_defaults": {"barebones": True}, "save_config_callback": None, "seed_everything_default": False}
    data = LightningCLI(TruthRecorder, subclass_mode_data=True, run=False, **settings).datamodule
    assert isinstance(data, GaussianDataModule)
    assert [data.true_mi(step) for step in (0, 3)] == ([2.5, 2.5] if mi == "2.5" else [2.0, 4.5])

"""LawDataModule: batches of laws, from Python and YAML, for every bound and for labels."""

import pickle

import pytest
import torch
from lightning.pytorch.cli import LightningCLI
from torch import nn

from lightning_mi import MIEstimationModule, bounds, critics, pairs
from lightning_mi.data import LawDataModule, laws
from tests.helpers.small_module import RecordingLogger, fit, trainer
from tests.helpers.specs import BOUNDS

LAW = laws.Mapped(laws.GaussianPairs(2, 0.8), y_map=laws.Elementwise("half_cube"))


def first(data, split="train"):
    return next(iter(getattr(data, f"{split}_dataloader")()))


def test_batches_are_float32_samples_of_the_law():
    data = LawDataModule(LAW, batch_size=5000, seed=1)
    x, y = first(data)
    assert [(side.dtype, side.shape) for side in (x, y)] == [(torch.float32, (5000, 2))] * 2
    ratio = LAW.log_ratio(x, y)
    assert abs(ratio.mean() - LAW.true_mi) < 4 * ratio.std() / 5000**0.5
    assert data.true_mi() == data.true_mi(7) == LAW.true_mi
    assert not data.exchangeable
    assert LawDataModule(laws.GaussianPairs()).exchangeable


def test_batches_are_pure_functions_of_seed_and_step():
    def batches(**kwargs):
        return list(LawDataModule(LAW, steps_per_epoch=3, batch_size=4, **kwargs).train_dataloader())

    once, again, other = batches(), batches(), batches(seed=1)
    torch.manual_seed(123)
    assert len(once) == 3
    assert all(torch.equal(a, b) for one, two in zip(once, again, strict=True) for a, b in zip(one, two, strict=True))
    assert len({batch[0][0, 0].item() for batch in [*once, *other]}) == 6


def test_splits_have_different_batches_and_their_numbers():
    data = LawDataModule(LAW, steps_per_epoch=4, batch_size=3, val_batches=2, test_batches=1)
    assert [len(getattr(data, f"{split}_dataloader")()) for split in ("train", "val", "test")] == [4, 2, 1]
    assert len({first(data, split)[0][0, 0].item() for split in ("train", "val", "test")}) == 3


@pytest.mark.parametrize(
    "law", [LAW, laws.DigitChannel(), laws.VectorAutoregression(), laws.StudentT(laws.GaussianPairs())]
)
def test_draw_is_picklable_for_workers(law):
    draw = LawDataModule(law)._draw
    copy = pickle.loads(pickle.dumps(draw))
    batches = [part(0, 6, torch.Generator().manual_seed(0)) for part in (draw, copy)]
    assert all(torch.equal(a, b) for a, b in zip(*batches, strict=True))


def test_independent_marginal_pairs_have_no_dependence():
    batch = first(LawDataModule(laws.SymmetricChannel(4, 0.0), batch_size=4000, independent_marginal=True))
    x, y, x_marginal, y_marginal = batch
    assert torch.equal(x, y)
    for a, b in ((x, x_marginal), (y, y_marginal), (x_marginal, y_marginal)):
        assert abs((a == b).double().mean() - 0.25) < 4 * (0.1875 / 4000) ** 0.5


@pytest.mark.parametrize("spec", BOUNDS, ids=lambda spec: spec.name)
def test_every_bound_trains_on_a_law(spec):
    bound = spec.with_baseline(nn.Linear(2, 1)) if spec.with_baseline else spec.make()
    critic: critics.AbstractCritic = critics.SeparableCritic(2, 2, hidden=(8,), embed_dim=4)
    if spec.needs_log_density:
        critic = critics.GaussianConditional(nn.Linear(2, 4))
    module = MIEstimationModule(critic, bound)
    logger = RecordingLogger()
    fit(module, datamodule=LawDataModule(LAW, steps_per_epoch=3, batch_size=8, val_batches=1), logger=logger)
    assert all(torch.isfinite(torch.tensor(logger.curve("train/loss"))))
    assert logger.curve("train/true_mi")[-1] == pytest.approx(LAW.true_mi)


@pytest.mark.parametrize(
    ("law", "encoder", "at_least"),
    [
        (laws.DigitChannel(0.1, y_is_label=True), nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), 0.8),
        (laws.Swapped(laws.DiscreteContinuous(4)), nn.Sequential(nn.Linear(1, 32), nn.ReLU(), nn.Linear(32, 4)), 0.3),
    ],
    ids=["digits", "mixed"],
)
def test_enumerated_labels_train_on_labels_of_a_law(law, encoder, at_least):
    data = LawDataModule(law, steps_per_epoch=150, batch_size=64, val_batches=5)
    assert data.num_classes == law.num_y_labels
    module = MIEstimationModule(
        critics.LabelCritic(),
        bounds.InfoNCE(),
        pairs=pairs.EnumeratedLabels(law.num_y_labels),
        encoder=encoder,
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=0.02),
    )
    estimate = fit(module, datamodule=data).callback_metrics["val/mi"].item()
    assert at_least < estimate < law.true_mi + 0.15  # 5 batches of 64


def test_labels_of_another_number_raise():
    module = MIEstimationModule(
        critics.LabelCritic(), bounds.DV(), pairs=pairs.EnumeratedLabels(3), encoder=nn.Linear(1, 3)
    )
    with pytest.raises(ValueError, match="num_classes"):
        trainer().fit(module, LawDataModule(laws.Swapped(laws.DiscreteContinuous(4))))
    assert not hasattr(LawDataModule(LAW), "num_classes")


CONFIG = """
data:
  class_path: lightning_mi.data.LawDataModule
  init_args:
    steps_per_epoch: 3
    law:
      class_path: lightning_mi.data.laws.Mapped
      init_args:
        law: {LAW}
        x_map:
          class_path: lightning_mi.data.laws.Spiral
          init_args: {first: 0, second: 1, speed: 0.5}
"""
YAML_LAWS = {
    "{class_path: lightning_mi.data.laws.SparseGaussian, init_args: {dim_x: 2}}": laws.SparseGaussian(2),
    "{class_path: lightning_mi.data.laws.Gaussian, init_args: {covariance: [[1, 0, 0.5], [0, 1, 0], [0.5, 0, 1]], "
    "dim_x: 2}}": laws.Gaussian([[1, 0, 0.5], [0, 1, 0], [0.5, 0, 1]], 2),
    "{class_path: lightning_mi.data.laws.StudentT, init_args: {df: 3, gaussian: {class_path: "
    "lightning_mi.data.laws.DenseGaussian}}}": laws.StudentT(laws.DenseGaussian(), 3),
    "{class_path: lightning_mi.data.laws.Concatenated, init_args: {laws: [{class_path: "
    "lightning_mi.data.laws.AdditiveUniform}, {class_path: lightning_mi.data.laws.GaussianPairs}]}}": laws.Concatenated(
        [laws.AdditiveUniform(), laws.GaussianPairs()]
    ),
}


@pytest.mark.parametrize("law", YAML_LAWS, ids=lambda law: law.split(",")[0].rpartition(".")[2])
def test_configuration_file_gives_a_law(law, tmp_path, monkeypatch):
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG.replace("{LAW}", law))
    monkeypatch.setattr("sys.argv", ["program", f"--config={config}"])
    settings = {"trainer_defaults": {"barebones": True}, "save_config_callback": None, "seed_everything_default": False}

    class Module(MIEstimationModule):
        def __init__(self):
            super().__init__(critics.InnerProductCritic(), bounds.DV())

    data = LightningCLI(Module, subclass_mode_data=True, run=False, **settings).datamodule
    assert isinstance(data, LawDataModule)
    assert data.law == laws.Mapped(YAML_LAWS[law], laws.Spiral(0, 1, 0.5))
    assert len(data.train_dataloader()) == 3


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"law": "gaussian"}, TypeError, "law='gaussian'"),
        ({"steps_per_epoch": 0}, ValueError, "steps_per_epoch=0"),
        ({"batch_size": 1}, ValueError, "batch_size=1"),
        ({"law": laws.VectorAutoregression(), "independent_marginal": True}, ValueError, "not independent"),
    ],
)
def test_invalid_arguments_raise(arguments, error, message):
    with pytest.raises(error, match=message):
        LawDataModule(**({"law": LAW} | arguments))

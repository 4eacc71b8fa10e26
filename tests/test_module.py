"""The LightningModule in real trainings of a few steps."""

import inspect
import math
import re
import textwrap
from functools import partial

import lightning.pytorch as L
import numpy as np
import pytest
import torch
from lightning.pytorch.cli import ReduceLROnPlateau
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.loggers.logger import DummyLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from torch import nn

from lightning_mi import MIEstimationModule, Scores, bounds, critics, pairs, regularizers
from lightning_mi.data import GaussianDataModule
from lightning_mi.finite import NonFiniteBatchError
from tests.reference import Sheet
from tests.specs import BOUNDS, by_name

# True of most trainings here, and harmless: what they test happens while training.
pytestmark = pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`")

DIM = 3


class Batches:
    """A loader of given batches; Lightning would take a bare list for several loaders."""

    def __init__(self, batches):
        self.batches = list(batches)

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        return iter(self.batches)


class Kept(DummyLogger):
    """Keeps what is logged."""

    def __init__(self):
        super().__init__()
        self.rows = []

    def log_metrics(self, metrics, step=None):
        self.rows.append((step, dict(metrics)))

    def curve(self, name):
        return [row[name] for _, row in self.rows if name in row]


def draw(*sizes, seed=0):
    """Batches of dependent views."""
    generator = torch.Generator().manual_seed(seed)
    xs = [torch.randn(size, DIM, generator=generator) for size in sizes]
    return Batches((x, 0.9 * x + 0.4 * torch.randn(x.shape, generator=generator)) for x in xs)


def make(bound=None, cls=MIEstimationModule, **kwargs):
    torch.manual_seed(0)
    critic = kwargs.pop("critic", None) or critics.SeparableCritic(DIM, DIM, hidden=(8,), embed_dim=4)
    return cls(critic, bounds.DV() if bound is None else bound, **kwargs)


def trainer(**kwargs):
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    quiet |= {"enable_model_summary": False, "log_every_n_steps": 1, "max_epochs": 1, "accelerator": "cpu"}
    return L.Trainer(**(quiet | kwargs))


def fit(module, train=None, val=None, datamodule=None, **kwargs):
    fitted = trainer(**kwargs)
    if datamodule is not None:
        fitted.fit(module, datamodule=datamodule)
    else:
        fitted.fit(module, draw(8, 8, 8) if train is None else train, val)
    return fitted


def weights(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def sheet_of(module, batch):
    """All scores of a batch, for the reference."""
    t = module.critic.pairwise(*batch).detach().numpy().astype(np.float64)
    return Sheet(t, np.eye(len(t), dtype=bool), ~np.eye(len(t), dtype=bool))


def equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


# What is logged.

STEP_NAMES = {f"train/{name}" for name in ("mi", "joint_term", "marginal_term", "log_normalizer", "loss")}
EPOCH_NAMES = {"mi", "mi_macro", "log_normalizer", "effective_sample_size"}


def epoch_names(stage, *more):
    names = EPOCH_NAMES | set(more)
    if stage == "train":  # the steps have taken these two
        names = names - {"mi", "log_normalizer"} | {"mi_micro", "log_normalizer_micro"}
    return {f"{stage}/{name}" for name in names}


@pytest.mark.parametrize(
    ("bound", "regularizer", "steps", "everywhere", "epochs"),
    [
        (bounds.DV, None, set(), set(), set()),
        (bounds.DV, regularizers.Squared, {"train/penalty"}, set(), {"mi_plug_in"}),
        (bounds.NWJ, None, set(), set(), {"mi_plug_in"}),
        (bounds.InfoNCE, None, set(), {"log_n"}, set()),
        (bounds.InfoNCE, regularizers.Huber, {"train/penalty"}, {"log_n"}, {"mi_plug_in"}),
    ],
)
@pytest.mark.parametrize("knows_the_truth", [True, False])
def test_each_stage_logs_the_promised_names_and_no_others(
    bound, regularizer, steps, everywhere, epochs, knows_the_truth
):
    module = make(bound(), regularizer=None if regularizer is None else regularizer())
    data = GaussianDataModule(dim=DIM, mi=1.0, steps_per_mi=3, batch_size=8, val_batches=2, test_batches=2)
    if knows_the_truth:
        fitted = fit(module, datamodule=data)
        everywhere = everywhere | {"true_mi"}
    else:
        data = None
        fitted = fit(module, draw(8, 8), draw(8, 8))
    expected = STEP_NAMES | steps | epoch_names("train", *epochs) | {f"train/{name}" for name in everywhere}
    expected |= epoch_names("val", "loss", *epochs, *everywhere)
    assert set(fitted.callback_metrics) == expected
    fitted.test(module, None if knows_the_truth else draw(8), datamodule=data, verbose=False)
    assert set(fitted.callback_metrics) == epoch_names("test", "loss", *epochs, *everywhere)


def test_every_nth_step_is_logged_as_it_is_at_that_step():
    every, fifth = Kept(), Kept()
    fit(make(), draw(*[8] * 11), logger=every)
    fit(make(), draw(*[8] * 11), logger=fifth, log_every_n_steps=5)
    assert [step for step, row in fifth.rows if "train/mi" in row] == [4, 9]
    for name in STEP_NAMES:
        assert fifth.curve(name) == [every.curve(name)[4], every.curve(name)[9]]
    assert len(fifth.curve("train/mi_micro")) == 1


@pytest.mark.parametrize("bound", [bounds.DV, bounds.JS])
def test_the_value_does_not_contain_the_penalty_and_the_loss_does(bound):
    kept, objectives = Kept(), Objectives()
    fit(make(bound(), regularizer=regularizers.Squared(weight=3.0)), logger=kept, callbacks=objectives)
    mi, loss, penalty, joint, marginal, ell = (
        np.array(kept.curve(f"train/{name}"))
        for name in ("mi", "loss", "penalty", "joint_term", "marginal_term", "log_normalizer")
    )
    np.testing.assert_allclose(penalty, 3 * ell**2, rtol=1e-5)
    assert (penalty > 1e-6).all()
    np.testing.assert_allclose(mi, joint - marginal, atol=1e-6)
    np.testing.assert_allclose(loss, penalty - objectives.seen, atol=1e-6)


class Objectives(L.Callback):
    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.seen.append(outputs["terms"].objective.item())


def test_the_truth_and_the_ceiling_are_those_of_the_step():
    kept = Kept()
    data = GaussianDataModule(dim=DIM, mi=[1.0, 2.0], steps_per_mi=2, batch_size=8, val_batches=1)
    fit(make(bounds.InfoNCE()), datamodule=data, logger=kept)
    assert kept.curve("train/true_mi") == [1.0, 1.0, 2.0, 2.0]
    assert kept.curve("val/true_mi") == [2.0]
    np.testing.assert_allclose(kept.curve("train/log_n"), [math.log(8)] * 4, rtol=1e-6)


@pytest.mark.parametrize("spec", [spec for spec in BOUNDS if not spec.has_learned_baseline], ids=by_name)
def test_held_out_values_pool_all_pairs_as_float64_numpy_does(spec):
    module, batches = make(spec.make(), regularizer=regularizers.Squared()), draw(8, 5, 2)
    [read] = trainer().validate(module, batches, verbose=False)
    sheets = [sheet_of(module, batch) for batch in batches]
    readings, sizes = [spec.reference(sheet) for sheet in sheets], [len(sheet.t) for sheet in sheets]
    if spec.needs_rows:  # rows are whole within a batch, and each counts once
        value, log_normalizer = (
            np.average([getattr(reading, name) for reading in readings], weights=sizes)
            for name in ("value", "log_normalizer")
        )
    else:
        joint = np.concatenate([sheet.t[sheet.joint] for sheet in sheets])
        marginal = np.concatenate([sheet.t[sheet.marginal] for sheet in sheets])
        is_joint = np.arange(joint.size + marginal.size) < joint.size
        pooled = spec.reference(Sheet(np.concatenate([joint, marginal]), is_joint, ~is_joint))
        value, log_normalizer = pooled.value, pooled.log_normalizer
    near = partial(pytest.approx, rel=1e-5, abs=1e-6)
    assert read["val/mi"] == near(value)
    assert read["val/log_normalizer"] == near(log_normalizer)
    assert read["val/mi_macro"] == near(np.mean([reading.value for reading in readings]))
    losses = [reading.log_normalizer**2 - reading.objective for reading in readings]
    assert read["val/loss"] == near(np.average(losses, weights=sizes))
    w = np.exp(np.concatenate([sheet.t[sheet.marginal] for sheet in sheets]))
    assert read["val/effective_sample_size"] == near(w.sum() ** 2 / (w**2).sum() / w.size)


def test_the_plug_in_estimate_puts_the_target_in_the_place_of_the_marginal_term():
    x, y = next(iter(batches := draw(8)))
    for bound, target, marginal in ((bounds.DV(), 0.5, 0.5), (bounds.NWJ(), None, 1.0)):
        module = make(bound, regularizer=regularizers.Squared(target=target))
        [read] = trainer().validate(module, batches, verbose=False)
        joint = module.critic.paired(x, y).detach().numpy().astype(np.float64).mean()
        assert read["val/mi_plug_in"] == pytest.approx(joint - marginal, rel=1e-5)


# Regularizers.


def test_zero_weight_is_bit_equal_to_none():
    trained = []
    for regularizer in (None, regularizers.Squared(weight=0.0), regularizers.Huber(weight=lambda step: 0.0)):
        module = make(bounds.MINE(), regularizer=regularizer)
        start = weights(module)
        fit(module, draw(*[8] * 20))
        assert not equal(weights(module), start)
        trained.append(weights(module))
    assert equal(trained[0], trained[1])
    assert equal(trained[0], trained[2])
    regularized = make(bounds.MINE(), regularizer=regularizers.Squared(weight=1.0))
    fit(regularized, draw(*[8] * 20))
    assert not equal(trained[0], weights(regularized))


def test_a_scheduled_weight_follows_the_training_step():
    kept = Kept()
    module = make(regularizer=regularizers.Squared(weight=regularizers.LinearWarmup(weight=2.0, steps=4)))
    fit(module, draw(*[8] * 3), logger=kept, max_epochs=2)
    ell, penalty = np.array(kept.curve("train/log_normalizer")), np.array(kept.curve("train/penalty"))
    np.testing.assert_allclose(penalty / ell**2, [0.0, 0.5, 1.0, 1.5, 2.0, 2.0], rtol=1e-4)


def test_a_target_that_moves_the_optimum_is_refused_at_construction():
    with pytest.raises(ValueError, match=r"target=1\.0 for NWJ"):
        make(bounds.NWJ(), regularizer=regularizers.Squared(target=1.0))


# Encoders, pairings and hooks.


def test_one_encoder_is_shared_and_two_are_for_one_view_each():
    first, second = nn.Linear(DIM, DIM), nn.Linear(DIM, DIM)
    x, y = draw(8).batches[0]
    for encoder, expected in (
        (None, (x, y)),
        (first, (first(x), first(y))),
        ([first], (first(x), first(y))),
        ([first, second], (first(x), second(y))),
    ):
        encoded = make(encoder=encoder).encode(x, y)
        assert all(torch.equal(*pair) for pair in zip(encoded, expected, strict=True))
    assert len(list(make(encoder=first).encoders.parameters())) == 2


def test_encoders_train():
    first, second = nn.Linear(DIM, 2), nn.Linear(DIM, 2)
    before = first.weight.clone(), second.weight.clone()
    fit(make(critic=critics.InnerProductCritic(), encoder=[first, second]))
    assert not torch.equal(first.weight, before[0])
    assert not torch.equal(second.weight, before[1])


@pytest.mark.parametrize("count", [0, 3])
def test_another_number_of_encoders_is_refused(count):
    with pytest.raises(ValueError, match=f"Got {count} encoders"):
        make(encoder=[nn.Linear(DIM, DIM) for _ in range(count)])


class PairCounts(L.Callback):
    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.seen.append((outputs["scores"].num_joint, outputs["scores"].num_marginal))


def test_deranged_and_independent_pairs_train():
    independent = Batches((x, y, u[:5], v[:5]) for (x, y), (u, v) in zip(draw(8, 8), draw(8, 8, seed=1), strict=True))
    for pairing, data, expected in (
        (pairs.Derangement(), draw(8, 8), (8, 8)),
        (pairs.IndependentMarginal(), independent, (8, 5)),
        (pairs.AllPairs(), draw(8, 8), (8, 56)),
    ):
        module, counts = make(pairs=pairing, encoder=[nn.Linear(DIM, DIM), nn.Linear(DIM, DIM)]), PairCounts()
        start = weights(module)
        fit(module, data, callbacks=counts)
        assert counts.seen == [expected] * 2
        assert all(not torch.equal(start[name], p) for name, p in module.named_parameters() if name.endswith("weight"))


def example_of(hook):
    """The class that a hook's docstring shows."""
    lines = inspect.getdoc(getattr(MIEstimationModule, hook)).splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("    class "))
    code = [line for line in lines[start:] if line.startswith("    ") or not line]
    code = code[: next((i for i, line in enumerate(code) if i and line and line[4] != " "), None)]
    names = {"MIEstimationModule": MIEstimationModule, "Scores": Scores, "torch": torch}
    exec(textwrap.dedent("\n".join(code)), names)
    return next(value for name, value in names.items() if name.endswith("MI"))


def test_the_unpack_batch_example_takes_views_from_a_dictionary():
    captions = Batches({"image": x, "caption": y} for x, y in draw(8, 8))
    by_key, by_place = make(cls=example_of("unpack_batch")), make()
    fit(by_key, captions)
    fit(by_place, draw(8, 8))
    assert equal(weights(by_key), weights(by_place))


def test_the_encode_example_averages_tokens():
    tokens = Batches((x[:, None].expand(-1, 4, -1), y) for x, y in draw(8, 8))
    encoders = [nn.Linear(DIM, DIM), nn.Linear(DIM, DIM)]
    module = make(cls=example_of("encode"), encoder=encoders)
    x, y = draw(8).batches[0]
    output = module.step((x[:, None].expand(-1, 4, -1), y))
    torch.testing.assert_close(output.scores.joint, module.critic.paired(encoders[0](x), encoders[1](y)))
    fit(module, tokens)


def test_the_scores_example_adds_candidates_from_a_bank():
    module, kept = make(bounds.InfoNCE(), cls=example_of("scores")), Kept()
    module.bank = torch.randn(5, DIM)
    fit(module, draw(8), logger=kept)
    np.testing.assert_allclose(kept.curve("train/log_n"), math.log(8 + 5), rtol=1e-6)


def test_the_loss_example_adds_a_task():
    module, kept = make(cls=example_of("loss")), Kept()
    module.task_loss = torch.tensor(7.0)
    fit(module, draw(8), logger=kept)
    np.testing.assert_allclose(kept.curve("train/loss"), 7 - 0.1 * np.array(kept.curve("train/mi")), rtol=1e-6)


# Batches that cannot be used.


@pytest.mark.parametrize("view", [0, 1])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_found_before_any_parameter_changes(view, value):
    batches, good = draw(8, 8, 8, 8), make()
    fit(good, Batches(batches.batches[:2]))
    batches.batches[2][view][3, 1] = value
    bad = make()
    place = rf"View {'xy'[view]} .* holds 1 values .* {value}, at index \(3, 1\), at training step 2 "
    with pytest.raises(NonFiniteBatchError, match=place):
        fit(bad, batches)
    assert equal(weights(bad), weights(good))
    with pytest.raises(NonFiniteBatchError):
        trainer().predict(bad, batches)


@pytest.mark.parametrize(
    ("batch", "error", "message"),
    [
        ((torch.ones(1, DIM), torch.ones(1, DIM)), ValueError, "Got a batch of 1"),
        ((torch.ones(4, DIM), torch.ones(3, DIM)), ValueError, "Got 4 x and 3 y"),
        ((torch.ones(4, DIM),), ValueError, "Got 1 view of the batch"),
        ((torch.ones(4, DIM),) * 3, ValueError, "Got 3 views of the batch"),
        (torch.ones(4, DIM), TypeError, "Got a batch of type Tensor"),
        ({"x": torch.ones(4, DIM)}, TypeError, "batch of type dict.*Override `unpack_batch`"),
    ],
)
def test_a_batch_that_does_not_fit_is_explained(batch, error, message):
    with pytest.raises(error, match=message):
        fit(make(), Batches([batch]))


def test_rows_are_asked_for_where_the_pairing_has_none():
    with pytest.raises(ValueError, match=r"pairs\.AllPairs\(\)"):
        fit(make(bounds.InfoNCE(), pairs=pairs.Derangement()))


# Calibration, optimizers, precision.


def test_a_calibrated_critic_is_set_on_the_first_training_batch_and_not_before_or_again():
    critic = critics.Calibrated(critics.BilinearCritic(DIM, DIM), scale=True)
    with torch.no_grad():
        critic.critic.weight.mul_(5)
    module, kept = make(bounds.NWJ(), critic=critic, optimizer=partial(torch.optim.SGD, lr=0.0)), Kept()
    trainer().validate(module, draw(8), verbose=False)
    assert not critic.calibrated
    batches = draw(8, 8)
    fit(module, batches, logger=kept)
    first, second = kept.curve("train/log_normalizer")
    assert first == pytest.approx(0, abs=1e-5)
    assert abs(second) > 1e-2
    t = critic.pairwise(*batches.batches[0]).detach().numpy().astype(np.float64)
    assert t[~np.eye(8, dtype=bool)].std(ddof=1) == pytest.approx(1, rel=1e-5)


def test_a_calibrated_critic_starts_at_the_regularizer_target():
    critic, kept = critics.Calibrated(critics.BilinearCritic(DIM, DIM)), Kept()
    module = make(critic=critic, regularizer=regularizers.Squared(target=2.0))
    fit(module, draw(8), logger=kept)
    assert kept.curve("train/log_normalizer") == [pytest.approx(2, abs=1e-5)]


def test_a_module_without_anything_to_train_says_so():
    for encoder in (None, nn.Linear(DIM, DIM).requires_grad_(False)):
        with pytest.raises(ValueError, match="Neither the encoder nor InnerProductCritic has a parameter that trains"):
            fit(make(critic=critics.InnerProductCritic(), encoder=encoder))


def test_adam_is_the_default_and_a_callable_replaces_it():
    module = make(bounds.TUBA(nn.Linear(DIM, 1)))
    fit(module)
    optimizer = module.optimizers(use_pl_optimizer=False)
    assert (type(optimizer), optimizer.param_groups[0]["lr"]) == (torch.optim.Adam, 1e-3)
    module = make(optimizer=partial(torch.optim.SGD, lr=0.25))
    fit(module)
    optimizer = module.optimizers(use_pl_optimizer=False)
    assert (type(optimizer), optimizer.param_groups[0]["lr"]) == (torch.optim.SGD, 0.25)


def test_a_learned_baseline_trains_and_a_frozen_encoder_does_not():
    baseline, frozen = nn.Linear(DIM, 1), nn.Linear(DIM, DIM).requires_grad_(False)
    before = baseline.weight.clone(), frozen.weight.clone()
    fit(make(bounds.TUBA(baseline), encoder=frozen))
    assert not torch.equal(baseline.weight, before[0])
    assert torch.equal(frozen.weight, before[1])


@pytest.mark.parametrize(("interval", "rate"), [("step", 0.125), ("epoch", 0.5)])
def test_a_scheduler_steps_each_step_or_each_epoch(interval, rate):
    halve = partial(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=0.5)
    module = make(optimizer=partial(torch.optim.SGD, lr=1.0), scheduler=halve, scheduler_interval=interval)
    fit(module, draw(8, 8, 8))
    assert module.optimizers(use_pl_optimizer=False).param_groups[0]["lr"] == rate


def test_a_plateau_scheduler_watches_its_monitor():
    watch = partial(ReduceLROnPlateau, monitor="val/mi", mode="max", patience=0, factor=0.5)
    module = make(optimizer=partial(torch.optim.SGD, lr=0.0), scheduler=watch)  # nothing moves, so nothing improves
    module_trainer = fit(module, draw(8), draw(8), max_epochs=1)
    [config] = module_trainer.lr_scheduler_configs
    assert config.monitor == "val/mi"
    assert config.scheduler.best == pytest.approx(float(module_trainer.callback_metrics["val/mi"]))


class Precisions(L.Callback):
    """The types in the critic, and of the logged values."""

    def setup(self, trainer, pl_module, stage):
        self.hook = pl_module.critic.x_net[0].register_forward_hook(self._see)

    def _see(self, module, inputs, output):
        self.inside = output.dtype

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.outside = {value.dtype for value in (outputs["loss"], *outputs["terms"])}


def test_in_mixed_precision_the_critic_is_narrow_and_the_values_are_not():
    seen = Precisions()
    fitted = fit(make(regularizer=regularizers.Squared()), precision="bf16-mixed", callbacks=seen)
    assert (seen.inside, seen.outside) == (torch.bfloat16, {torch.float32})
    assert {fitted.callback_metrics[name].dtype for name in STEP_NAMES} == {torch.float32}


# Prediction.


@pytest.mark.parametrize("bound", [bounds.DV(), bounds.NWJ(), bounds.SMILE(tau=0.1), bounds.JS(), bounds.TUBA(3.0)])
def test_predicted_density_ratios_average_to_one_over_marginal_pairs(bound):
    module, batches = make(bound), draw(8, 5)
    with torch.no_grad():
        module.critic.x_net[-1].weight.mul_(10)
    for (x, y), predicted in zip(batches, trainer().predict(module, batches), strict=True):
        t = module.critic.pairwise(x, y).detach().numpy().astype(np.float64)
        shift = t.diagonal() - predicted.numpy()
        np.testing.assert_allclose(shift, shift[0], rtol=1e-4)
        assert np.exp(t[~np.eye(len(t), dtype=bool)] - shift[0]).mean() == pytest.approx(1, rel=1e-5)


def test_predicted_density_ratios_of_a_bound_over_rows_average_to_one_in_each_row():
    module, batches = make(bounds.InfoNCE()), draw(8)
    [predicted] = trainer().predict(module, batches)
    t = module.critic.pairwise(*batches.batches[0]).detach().numpy().astype(np.float64)
    shift = t.diagonal() - predicted.numpy()
    np.testing.assert_allclose(np.exp(t - shift[:, None]).mean(axis=1), 1, rtol=1e-5)


# TensorBoard.


@pytest.fixture(scope="module")
def events(tmp_path_factory):
    folder = tmp_path_factory.mktemp("board")
    logger = TensorBoardLogger(folder)
    data = GaussianDataModule(dim=DIM, mi=1.0, steps_per_mi=3, batch_size=8, val_batches=1)
    fit(make(bounds.InfoNCE(), regularizer=regularizers.Squared()), datamodule=data, logger=logger)
    logger.finalize("success")
    accumulator = EventAccumulator(logger.log_dir)
    accumulator.Reload()
    return accumulator


def test_tensorboard_gets_every_scalar_at_its_step(events):
    tags = set(events.Tags()["scalars"])
    assert STEP_NAMES | {"train/true_mi", "train/log_n", "train/penalty", "val/mi", "val/mi_plug_in"} <= tags
    assert [(event.step, event.value) for event in events.Scalars("train/true_mi")] == [(0, 1.0), (1, 1.0), (2, 1.0)]


def test_tensorboard_draws_estimate_truth_and_ceiling_together_and_the_terms_apart(events):
    [stored] = events.Tensors("custom_scalars__config__")
    layout = Layout.FromString(stored.tensor_proto.string_val[0])
    logged = events.Tags()["scalars"]
    charts = [
        {tag for tag in logged for pattern in chart.multiline.tag if re.search(pattern, tag)}
        for category in layout.category
        for chart in category.chart
    ]
    assert {"train/mi", "train/true_mi", "train/log_n"} in charts
    assert {"train/joint_term", "train/marginal_term"} in charts
    assert {"val/mi", "val/mi_plug_in", "val/true_mi", "val/log_n"} in charts
    assert all(charts)

"""A non-finite step changes nothing, is reported, and ends or is skipped on all ranks."""

import datetime
import math
import warnings

import lightning.pytorch as L
import pytest
import torch
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy
from torch import multiprocessing as mp
from torch import nn

from lightning_mi import (
    MIEstimationModule,
    MINumericalWarning,
    NonFiniteBatchError,
    NonFiniteStepError,
    bounds,
    critics,
)
from tests.helpers.bad_batches import BAD, with_bad_batch, without_bad_batch
from tests.helpers.ranks import become_rank, free_port
from tests.helpers.small_module import DIM, Batches, RecordingLogger, draw, equal, fit, make, trainer, weights

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),  # Python 3.12 and later
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`"),
    pytest.mark.filterwarnings("ignore:.* gave .* = (nan|-?inf):lightning_mi.MINumericalWarning"),
]


class Spoil(L.Callback):
    """Makes the scores or the gradients of one step infinite."""

    def __init__(self, what):
        self.what = what

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if self.what == "scores" and batch_idx == BAD:
            for view in batch:
                view.mul_(1e30)  # finite, but not their scores

    def on_after_backward(self, trainer, pl_module):
        if self.what == "gradients" and trainer.global_step == BAD:
            next(pl_module.critic.parameters()).grad[0, 0] = math.inf


def norm_encoder():
    return nn.BatchNorm1d(DIM)


@pytest.mark.parametrize(
    ("what", "error", "message"),
    [
        ("batch", NonFiniteBatchError, r"View x .* holds 1 values .* at training step 2 on rank 0"),
        (
            "scores",
            NonFiniteStepError,
            r"scores hold \d+ of \d+ .* at training step 2 on rank 0.*No parameter",
        ),
        (
            "gradients",
            NonFiniteStepError,
            r"gradients hold 1 values that are not finite \(mi_loss\.critic\..*No parameter",
        ),
    ],
)
def test_the_default_policy_raises_before_any_update(what, error, message):
    good, bad = make(), make()
    fit(good, Batches(draw(8, 8, 8, 8).batches[:BAD]))
    with pytest.raises(error, match=message):
        fit(bad, with_bad_batch() if what == "batch" else draw(8, 8, 8, 8), callbacks=[Spoil(what)])
    assert equal(weights(bad), weights(good))


def test_an_infinite_loss_of_finite_scores_is_an_error():
    class Odd(MIEstimationModule):
        def loss(self, terms, penalty):
            return super().loss(terms, penalty) + math.inf

    with pytest.raises(NonFiniteStepError, match="The loss is inf although all scores are finite"):
        fit(make(cls=Odd))


@pytest.mark.parametrize("what", ["batch", "gradients"])
def test_a_skipped_step_leaves_no_trace(what):
    logger, skipping = RecordingLogger(), make(bounds.MINE(ema_rate=0.25), encoder=norm_encoder(), on_non_finite="skip")
    plain, plain_logger = make(bounds.MINE(ema_rate=0.25), encoder=norm_encoder()), RecordingLogger()
    fit(skipping, with_bad_batch() if what == "batch" else draw(8, 8, 8, 8), logger=logger, callbacks=[Spoil(what)])
    fit(plain, without_bad_batch(), logger=plain_logger)
    assert equal(weights(skipping), weights(plain))
    assert logger.curve("train/mi_micro") == plain_logger.curve("train/mi_micro")
    assert logger.curve("train/skipped_steps") == [0, 0, 0, 1]


def test_the_number_of_skipped_steps_survives_a_resume(tmp_path):
    module = make(on_non_finite="skip")
    fit(module, with_bad_batch()).save_checkpoint(tmp_path / "a.ckpt")
    resumed, logger = make(on_non_finite="skip"), RecordingLogger()
    trainer(max_epochs=2, logger=logger).fit(
        resumed, draw(8, 8, 8, 8), ckpt_path=tmp_path / "a.ckpt", weights_only=True
    )
    assert logger.curve("train/skipped_steps") == [1] * 4


class Handles(L.Callback):
    handles_non_finite = True


@pytest.mark.parametrize("by_callback", [False, True])
def test_off_or_a_handling_callback_disables_the_policy(by_callback):
    module = make() if by_callback else make(on_non_finite="off")
    fit(module, with_bad_batch(), callbacks=[Handles()] if by_callback else [])
    assert all(torch.isnan(p).any() for p in module.parameters())


def test_a_handling_callback_silences_the_bound():
    for module, callbacks, warns in ((make(on_non_finite="off"), [], True), (make(), [Handles()], False)):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", MINumericalWarning)
            fit(module, with_bad_batch(), callbacks=callbacks)
        assert any(issubclass(warning.category, MINumericalWarning) for warning in caught) == warns


def test_large_finite_gradients_pass():
    class Large(MIEstimationModule):
        def loss(self, terms, penalty):
            return 1e25 * super().loss(terms, penalty)

    fit(make(cls=Large))


def test_an_unknown_policy_is_an_error():
    with pytest.raises(ValueError, match="Got on_non_finite='ignore': it is one of 'raise', 'skip', 'off'"):
        make(on_non_finite="ignore")


def test_the_policy_returns_after_a_handling_callback():
    module = make()
    fit(module, callbacks=[Handles()])
    with pytest.raises(NonFiniteBatchError):
        fit(module, with_bad_batch())


def test_the_first_finite_batch_calibrates_the_critic():
    module = make(critic=critics.CalibratedCritic(critics.BilinearCritic(DIM, DIM), scale=True), on_non_finite="skip")
    batches = draw(8, 8, 8, 8)
    batches.batches[0][0][0, 0] = math.inf
    fit(module, Batches(batches.batches[:1]))
    assert not module.critic.calibrated
    assert (module.critic.offset.item(), module.critic.log_scale.item()) == (0, 0)
    fit(module, batches)
    assert module.critic.calibrated
    assert all(torch.isfinite(p).all() for p in module.parameters())


@pytest.mark.parametrize(("what", "holds"), [("batch", "View x"), ("scores", "of 4 accumulated batches, hold")])
def test_errors_of_accumulated_batches_are_specific(what, holds):
    batches = draw(8, 8, 8, 8)
    if what == "batch":
        batches.batches[1][0][0, 0] = math.nan
    else:
        for view in batches.batches[1]:
            view.mul_(1e30)
    module = make()
    before = weights(module)
    with pytest.raises(ValueError, match=holds):
        fit(module, batches, accumulate_grad_batches=4)
    assert equal(weights(module), before)


class TwoOptimizers(MIEstimationModule):
    """Two optimizers step after one backward pass; the second has a NaN gradient."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.automatic_optimization = False

    def configure_optimizers(self):
        first, *rest = self.parameters()
        return torch.optim.SGD([first], lr=0.1), torch.optim.SGD(rest, lr=0.1)

    def training_step(self, batch, batch_idx):
        outputs = super().training_step(batch, batch_idx)
        both = self.optimizers()
        for optimizer in both:
            optimizer.zero_grad()
        self.manual_backward(outputs["loss"])
        if self.global_step == BAD:
            list(self.parameters())[-1].grad.fill_(math.nan)
        for optimizer in both:
            optimizer.step()
        return outputs


@pytest.mark.parametrize("policy", ["raise", "skip"])
def test_neither_of_two_optimizers_steps_on_nan_gradients(policy):
    module, good = make(cls=TwoOptimizers, on_non_finite=policy), make(cls=TwoOptimizers)
    batches = draw(8, 8)
    fit(good, Batches(batches.batches[:1]))  # two steps, one of each optimizer
    if policy == "raise":
        with pytest.raises(NonFiniteStepError, match="gradients"):
            fit(module, batches)
    else:
        fit(module, batches)
        assert module._guard.skipped == 1
    assert equal(weights(module), weights(good))


def test_values_with_an_overflowing_sum_are_finite():
    batches = draw(8, 8)
    for x, _ in batches.batches:
        x[:2] = 3e38
    fit(make(encoder=Tanh()), batches)


class Tanh(nn.Module):
    def forward(self, x):
        return torch.tanh(x)


@pytest.mark.parametrize("policy", ["raise", "skip"])
def test_two_ranks_agree(policy, tmp_path):
    mp.start_processes(_fit, (free_port(), tmp_path, policy), nprocs=2, start_method="fork")
    ended = [torch.load(tmp_path / str(rank), weights_only=False) for rank in range(2)]
    assert equal(ended[0]["weights"], ended[1]["weights"])
    assert all(torch.isfinite(value).all() for value in ended[0]["weights"].values())
    if policy == "raise":
        assert "see the error of the other ranks" in ended[0]["error"]
        assert "View x" in ended[1]["error"]
        assert "on rank 1" in ended[1]["error"]
    else:
        assert [end["skipped"] for end in ended] == [1, 1]


def _fit(rank, port, folder, policy):
    become_rank(rank, port)
    strategy = DDPStrategy(process_group_backend="gloo", timeout=datetime.timedelta(seconds=60))
    module, error = make(on_non_finite=policy), ""
    try:
        fit(
            module,
            with_bad_batch() if rank else draw(8, 8, 8, 8),
            strategy=strategy,
            devices=2,
            plugins=[LightningEnvironment()],
        )
    except ValueError as problem:
        error = str(problem)
    state = {"weights": weights(module), "skipped": module._guard.skipped, "error": error}
    torch.save(state, folder / str(rank))

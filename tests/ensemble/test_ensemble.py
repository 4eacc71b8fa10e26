"""An ensemble against separate trainings of its members."""

from collections.abc import Callable
from functools import partial
from typing import Any

import lightning.pytorch as L
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.utils.data import TensorDataset

from lightning_mi import (
    MIEnsemble,
    MIEstimationModule,
    MINumericalWarning,
    ViewScaleWarning,
    bounds,
    critics,
    encoders,
    pairs,
    regularizers,
)
from lightning_mi.data import GaussianDataModule, OneHotDataModule
from lightning_mi.ensemble.vmap_group import VmapGroup
from tests.helpers.ensembles import LOSSES, STEPS, fit, gaussian, make
from tests.helpers.recording import recorded


def assert_same_as_alone(makers: dict[str, Callable[[], Any]], data: Callable[[], Any] = gaussian) -> MIEnsemble:
    ensemble = MIEnsemble({name: maker() for name, maker in makers.items()})
    together, _ = fit(ensemble, data())
    for index, (name, maker) in enumerate(makers.items()):
        alone = maker()
        values, _ = fit(alone, data())
        named = partial("{}: {}".format, name)  # in the message of a failure
        torch.testing.assert_close(together[..., index], values, rtol=1e-5, atol=1e-5, msg=named)
        for mine, other in zip(ensemble.members[name].parameters(), alone.parameters(), strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)
    return ensemble


def test_every_bound_trains_as_it_does_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """In one vmapped group, of two seeds, without a regularizer and with several."""
    calls: list[Any] = []
    monkeypatch.setattr(VmapGroup, "step", recorded(calls, VmapGroup.step))
    # With SGD: along a constant of a row, InfoNCE's gradient is rounding, which Adam would turn into full steps.
    makers = {
        f"{loss}-{seed}-{weight}": partial(make, loss, seed, weight, optimizer=torch.optim.SGD)
        for loss in LOSSES
        for seed, weight in ((0, None), (0, 0.1), (1, 0.1), (1, 0.3))
    }
    ensemble = assert_same_as_alone(makers)
    assert {len(group.members) for group, *_ in calls} == {len(ensemble.members)}


@pytest.mark.parametrize(
    "parts",
    [
        lambda: {"critic": critics.JointCritic(4, 4, hidden=(8,))},
        lambda: {"encoder": encoders.MLP(4, [8], out_dim=4)},
        # With SGD: the gradient of a calibrated offset starts as rounding, which Adam would turn into full steps.
        lambda: {
            "critic": critics.CalibratedCritic(critics.BilinearCritic(4, 4), offset_unit=1.0),
            "optimizer": torch.optim.SGD,
        },
        lambda: {"optimizer": torch.optim.SGD},
    ],
    ids=["joint critic on all pairs", "encoder that trains", "calibrated", "SGD"],
)
def test_other_parts_train_as_they_do_alone(parts: Callable[[], dict[str, Any]]) -> None:
    def maker(seed: int) -> Any:
        torch.manual_seed(100 + seed)
        return make("NWJ", seed, 0.1, lr=1e-3, **parts())

    assert_same_as_alone({str(seed): partial(maker, seed) for seed in range(3)})


def test_log_densities_train_as_they_do_alone() -> None:
    def maker(seed: int) -> Any:
        torch.manual_seed(seed)
        return MIEstimationModule(
            critics.GaussianConditional(nn.Linear(4, 8)), bounds.L1Out(), optimizer=partial(torch.optim.SGD, lr=0.1)
        )

    assert_same_as_alone({str(seed): partial(maker, seed) for seed in range(2)})


def test_independent_marginal_pairs_train_as_they_do_alone() -> None:
    def maker(seed: int) -> Any:
        torch.manual_seed(seed)
        critic = critics.JointCritic(8, 8, hidden=(16,), output_bias=False)
        return make("DV", seed, 0.1, critic=critic, encoder=encoders.OneHot(8), pairs=pairs.IndependentMarginal())

    def data() -> OneHotDataModule:
        return OneHotDataModule(num_symbols=8, batch_size=16, steps=STEPS)

    assert_same_as_alone({str(seed): partial(maker, seed) for seed in range(3)}, data)


@pytest.mark.filterwarnings("ignore:You defined a `validation_step`", "ignore:.*does not have many workers")
@pytest.mark.parametrize("batched", [True, False])
def test_members_train_on_separate_batches(batched: bool) -> None:
    x = torch.randn(2, STEPS, 16, 4, generator=torch.Generator().manual_seed(1))
    y = 0.8 * x + 0.6 * torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
    losses = ["DV", "DV", "TUBA with a baseline"]  # two groups of bounds, one critic architecture
    rows = [0, 1, 0]
    ensemble = MIEnsemble(
        {str(i): make(loss, i, 0.1) for i, loss in enumerate(losses)}, batched=batched, separate_batches=True
    )
    stacked = torch.utils.data.DataLoader(TensorDataset(x[rows].transpose(0, 1), y[rows].transpose(0, 1)), None)
    together, _ = fit(ensemble, stacked)
    for index, loss in enumerate(losses):
        alone = make(loss, index, 0.1)
        values, _ = fit(alone, torch.utils.data.DataLoader(TensorDataset(x[rows[index]], y[rows[index]]), None))
        torch.testing.assert_close(together[..., index], values, rtol=1e-5, atol=1e-5)


def test_unbatched_members_are_bitwise_equal() -> None:
    ensemble = MIEnsemble({str(seed): make("MINE", seed, 0.1) for seed in range(3)}, batched=False)
    together, _ = fit(ensemble)
    for seed in range(3):
        values, _ = fit(make("MINE", seed, 0.1))
        assert torch.equal(together[..., seed], values)


def test_optimizer_settings_may_differ() -> None:
    assert_same_as_alone({str(lr): partial(make, lr=lr) for lr in (1e-3, 1e-2, 3e-3)})


def test_scheduled_weights_follow_the_step() -> None:
    def maker(seed: int) -> Any:
        module = make("DV", seed, 0.1, lr=1e-3)
        module.regularizer = regularizers.Squared(weight=regularizers.LinearWarmup(1.0, steps=10))
        return module

    assert_same_as_alone({str(seed): partial(maker, seed) for seed in range(2)})


def test_diverging_member_does_not_change_the_others() -> None:
    def members(last: Any) -> MIEnsemble:
        return MIEnsemble({"a": make("NWJ", 0), "b": make("NWJ", 1), "c": last})

    broken = make("NWJ", 2)
    with torch.no_grad():
        next(broken.critic.parameters()).fill_(float("nan"))
    with pytest.warns(MINumericalWarning, match=r"loss of member c is not finite"):
        values, _ = fit(members(broken), log_every_n_steps=5)
    healthy, _ = fit(members(make("NWJ", 2)))
    assert torch.equal(values[..., :2], healthy[..., :2])
    assert values[..., 2].isnan().all()


def test_resumed_ensemble_ends_with_equal_weights(tmp_path: Any) -> None:
    def members() -> MIEnsemble:
        return MIEnsemble({f"{loss}-{seed}": make(loss, seed, 0.1) for loss in ("MINE", "JS") for seed in range(2)})

    whole = members()
    fit(whole)

    class SavesTen(L.Callback):
        def on_train_batch_end(self, trainer: Any, *arguments: Any) -> None:
            if trainer.global_step == 10:
                trainer.save_checkpoint(tmp_path / "ten.ckpt")

    fit(members(), callbacks=[SavesTen()])
    second = members()
    values, trainer = fit(second, ckpt_path=tmp_path / "ten.ckpt")
    assert (len(values), trainer.global_step) == (STEPS - 10, STEPS)
    for mine, other in zip(second.state_dict().values(), whole.state_dict().values(), strict=True):
        assert torch.equal(mine, other)


def test_members_log_under_their_names(tmp_path: Any) -> None:
    logger = CSVLogger(tmp_path)
    ensemble = MIEnsemble({"a": make("InfoNCE", 0), "b": make("NWJ", 1, 0.1)})
    _, trainer = fit(ensemble, limit_val_batches=2, log_every_n_steps=5, logger=logger)
    metrics = trainer.callback_metrics
    assert {"a/train/mi", "a/train/log_n", "a/train/true_mi", "b/train/penalty", "b/val/loss", "a/val/mi_macro"} <= set(
        metrics
    )
    trainer.test(ensemble, gaussian(), verbose=False)
    alone = make("NWJ", 1, 0.1)
    alone.load_state_dict(ensemble.members["b"].state_dict())
    tester = L.Trainer(logger=False, accelerator="cpu", enable_progress_bar=False)
    values = tester.test(alone, gaussian(), verbose=False)
    for name in ("test/mi", "test/loss", "test/true_mi"):
        assert float(trainer.callback_metrics[f"b/{name}"]) == pytest.approx(values[0][name], rel=1e-6)


def test_views_far_from_unit_scale_warn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    data = GaussianDataModule(dim=4, mi=2.0, steps_per_mi=2, batch_size=16)
    monkeypatch.setattr(data, "on_after_batch_transfer", lambda batch, _: [1000 * view for view in batch])
    with pytest.warns(ViewScaleWarning) as caught:
        fit(MIEnsemble({"a": make(), "b": make(seed=1)}), data)
    assert sum(w.category is ViewScaleWarning for w in caught) == 1


def test_callbacks_read_scores_of_members() -> None:
    class Reads(L.Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            output = outputs["ensemble"]
            for index, name in enumerate(output.names):
                own = output.member(name)
                bound = ensemble.members[name].bound
                torch.testing.assert_close(bound(own.scores).joint_term, output.terms.joint_term[index])
                assert own.loss == output.losses[index]

    ensemble = MIEnsemble({"JS": make("JS"), "a": make("DV", 1), "joint": make("DV", critic=critics.JointCritic(4, 4))})
    fit(ensemble, max_steps=2, callbacks=[Reads()])

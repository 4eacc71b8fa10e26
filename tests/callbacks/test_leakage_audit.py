"""LeakageAudit: fresh critics after training, beside what the penalty believes."""

import pytest
import torch

from lightning_mi import estimate
from lightning_mi.callbacks import LeakageAudit, MIPenalty
from lightning_mi.exceptions import EstimateInputError, WatchError
from tests.helpers.estimation import shorten
from tests.helpers.leaky import Leaky, loader
from tests.helpers.small_module import trainer


@pytest.fixture(autouse=True)
def short(monkeypatch):
    shorten(monkeypatch)


@pytest.mark.parametrize("stage", ["test", "validate"])
def test_audit_is_the_estimate_of_all_samples(stage):
    class Validated(Leaky):
        def validation_step(self, batch, batch_idx):
            self(batch["x"])

    module, audit = Validated(), LeakageAudit("encoder", "batch.nuisance", budget="quick")
    audited = trainer(callbacks=[audit])
    getattr(audited, stage)(module, loader(200))
    batches = list(loader(200))
    z = torch.cat([module(batch["x"]) for batch in batches]).detach()
    expected = estimate(z, torch.cat([batch["nuisance"] for batch in batches]), budget="quick")
    assert audit.result.mi == expected.mi
    assert audited.callback_metrics["leakage/encoder/batch.nuisance"] == pytest.approx(expected.mi)
    assert audited.callback_metrics["leakage/encoder/batch.nuisance_lower"] == pytest.approx(expected.lower)
    assert not module.encoder._forward_hooks


def test_estimate_of_the_penalty_is_printed_beside_it(caplog):
    penalty, audit = (
        MIPenalty("encoder", "batch.nuisance"),
        LeakageAudit("encoder", "batch.nuisance", budget="quick"),
    )
    fitted = trainer(callbacks=[penalty, audit], max_steps=2)
    module = Leaky()
    fitted.fit(module, loader())
    assert audit.result is None  # nothing during fit
    with caplog.at_level("INFO"):
        fitted.test(module, loader(200), verbose=False)
    assert f"estimated {penalty.estimate:.3f} nats" in caplog.text


def test_labels_and_outputs_are_sources():
    audit = LeakageAudit("outputs.z", "batch.label", budget="quick", num_samples=100)
    trainer(callbacks=[audit]).test(Leaky(), loader(200))
    assert audit.result.kinds == ("continuous", "discrete")
    assert audit.probe.accuracy > 0.9  # the label is the sign of an input
    assert 0.5 <= audit.probe.chance < 0.65


@pytest.mark.parametrize(
    ("audit", "samples", "error", "message"),
    [
        (LeakageAudit("encoder", "batch.nuisance"), 40, EstimateInputError, "at least 50"),
        (LeakageAudit("decoder", "batch.nuisance"), 64, WatchError, "no submodule"),
        (LeakageAudit("encoder", "batch.age"), 64, WatchError, "'age'"),
    ],
    ids=["few samples", "no layer", "no entry"],
)
def test_what_cannot_be_audited_raises(audit, samples, error, message):
    with pytest.raises(error, match=message):
        trainer(callbacks=[audit]).test(Leaky(), loader(samples))


def test_too_few_samples_are_an_error_at_once():
    with pytest.raises(ValueError, match="num_samples"):
        LeakageAudit("encoder", "batch.nuisance", num_samples=10)


def test_fast_dev_run_estimates_nothing():
    audit = LeakageAudit("encoder", "batch.nuisance")
    trainer(callbacks=[audit], fast_dev_run=True).test(Leaky(), loader(32), verbose=False)
    assert audit.result is None


def test_unknown_budget_raises_at_once():
    with pytest.raises(ValueError, match="budget='fast'"):
        LeakageAudit("encoder", "batch.nuisance", budget="fast")

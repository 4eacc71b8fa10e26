"""StabilityMonitor on scripted trainings: detections, logs, and bad use."""

import re
import warnings
from typing import Any

import lightning.pytorch as L
import numpy as np
import pytest
import torch

from lightning_mi import bounds, regularizers
from lightning_mi.callbacks import StabilityMonitor, StabilityWarning
from tests.helpers.scripted_terms import NUM, Scripted, noise, steps
from tests.helpers.small_module import RecordingLogger, trainer

COUNT, EVERY, WINDOW = 120, 5, 100


def course(rate=0.0, value_rate=0.0, value=1.0, start=0.0, score=3.0, seed=0):
    """Rates in nats per 1000 steps."""
    noises = noise(COUNT + 1, seed)

    def at(step):
        a, b, _ = noises[:, step]
        return value + value_rate * step / 1000 + a, start + rate * step / 1000 + b, score

    return at


def run(module, count=COUNT, expect=None, **kwargs):
    """Train; return the monitor, the logger and the stability warnings."""
    monitor, logger = StabilityMonitor(**({"window": WINDOW, "every_n_steps": EVERY} | kwargs)), RecordingLogger()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", StabilityWarning)
        trainer(callbacks=monitor, logger=logger).fit(module, steps(count))
    messages = [str(w.message) for w in caught if issubclass(w.category, StabilityWarning)]
    return monitor, logger, messages


# Drift.


@pytest.mark.parametrize("rate", [-10.0, 10.0])
def test_drift_is_detected_with_its_rate_and_remedy(rate):
    monitor, logger, messages = run(Scripted(course(rate)))
    assert monitor.drifting_at == WINDOW
    assert monitor.exploded_at is None
    [message] = messages
    reported_rate = re.match(r"Step 100: the two terms of DV drift by (\S+) nats per 1000 steps", message).group(1)
    assert float(reported_rate) == pytest.approx(rate, rel=0.1)
    assert "while the value is steady" in message
    assert "add `regularizers.Squared(weight=0.1)`" in message
    assert logger.curve("stability/drift_rate")[-1] == pytest.approx(rate, rel=0.1)


@pytest.mark.parametrize(
    ("given", "bound", "regularizer"),
    [
        ({}, None, None),  # constant
        ({"rate": 10.0, "value_rate": 10.0}, None, None),  # the value rises too: it learns
        ({"rate": -10.0, "start": 1.0}, bounds.NWJ(), None),  # towards the optimum
        ({"rate": -10.0, "start": 1.0}, None, regularizers.Squared(weight=0.1)),  # towards the target
        ({"rate": 10.0}, bounds.InfoNCE(), None),  # capped: it cannot explode
    ],
)
def test_no_false_drift(given, bound, regularizer):
    # The objective is not the value, as with a robust exponential: a high log-normalizer is no push.
    monitor, _, messages = run(Scripted(course(**given), bound, regularizer, literal=False))
    assert (monitor.drifting_at, monitor.exploded_at, messages) == (None, None, [])


def test_fast_drift_is_detected_in_half_a_window():
    kwargs = {"window": 400, "min_rate": 4.0}  # 8 nats per 1000 steps over 200, 16 over 100
    assert run(Scripted(course(rate=20.0)), **kwargs)[0].drifting_at == WINDOW
    assert run(Scripted(course(rate=12.0)), **kwargs)[0].drifting_at is None


def test_drift_counts_from_the_minimum_rate():
    slow = course(rate=10.0)
    assert run(Scripted(slow), min_rate=7.0)[0].drifting_at is not None
    assert run(Scripted(slow), min_rate=13.0)[0].drifting_at is None


def test_remedy_names_the_regularizer_weight():
    _, _, messages = run(Scripted(course(rate=10.0), regularizer=regularizers.Huber(weight=0.25)))
    assert "raise the weight of Huber, now 0.25" in messages[0]


# Explosion.


def infinite(step):
    return (float("inf") if step == 47 else 1.0), 0.0, 3.0


def pushed(step):
    return 1.0, 1.7 if step in (2, 60, 65, 70) else 0.0, 3.0  # log 5 is 1.61


def wide(step):
    return 1.0, 0.0, 3.0 if step < 60 else 95.0


@pytest.mark.parametrize(
    ("script", "bound", "kwargs", "at", "words"),
    [
        (infinite, None, {}, 50, "infinite or NaN"),
        (infinite, bounds.InfoNCE(), {}, 50, "infinite or NaN"),
        (pushed, bounds.NWJ(cap=None), {}, 75, "3 of the last batches have more than 5 times"),
        (wide, None, {}, 65, "the scores span 95 nats"),
        (course(score=8.0), None, {"max_mi": 0.6}, 50, "the mean of the values, 1.0. nats, is above 0.60"),
        (course(value=2.5), bounds.InfoNCE(), {}, 50, "is above 2.08"),  # log 8
    ],
)
def test_explosion_is_detected_with_its_evidence(script, bound, kwargs, at, words):
    monitor, _, messages = run(Scripted(script, bound), **kwargs)
    assert monitor.exploded_at == at
    assert len(messages) == 1
    with pytest.warns(StabilityWarning, match=rf"Step {at}: .* explodes: .*{words}"):
        warnings.warn(messages[0], StabilityWarning, stacklevel=1)


def test_marginal_term_on_single_pairs_is_an_explosion():
    class OnePair(Scripted):
        def training_step(self, batch, batch_idx):
            outputs = super().training_step(batch, batch_idx)
            outputs["scores"] = type(outputs["scores"]).from_samples(torch.ones(2), torch.tensor([9.0, 0.0, 0.0]))
            return outputs

    monitor, logger, messages = run(OnePair(course()))
    assert monitor.exploded_at == 10 * EVERY
    assert "rests on 1.0 pairs" in messages[0]
    share = (np.exp(9) + 2) ** 2 / (np.exp(18) + 2) / 3
    assert logger.curve("stability/effective_sample_fraction")[-1] == pytest.approx(share, rel=1e-5)


@pytest.mark.parametrize(
    ("script", "bound", "kwargs"),
    [
        (pushed, None, {}),  # DV divides by the exponential
        (wide, bounds.InfoNCE(), {}),  # saturated rows push nothing
        (course(value=1.2), None, {"max_mi": 1.0}),  # within the margin for the bias of small batches
        (lambda step: (1.0 if step % 50 else 60.0, 0.0, 3.0), None, {"max_mi": 1.0}),  # a few outliers
    ],
)
def test_no_false_explosion(script, bound, kwargs):
    monitor, _, messages = run(Scripted(script, bound), **kwargs)
    assert (monitor.exploded_at, messages) == (None, [])


class Known(L.LightningDataModule):
    def train_dataloader(self):
        return steps(60)

    def true_mi(self):
        return 0.5


@pytest.mark.parametrize(("bound", "at"), [(bounds.DV(), 50), (bounds.SMILE(), None)])
def test_known_truth_limits_lower_bounds(bound, at):
    monitor = StabilityMonitor(window=WINDOW, every_n_steps=EVERY)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StabilityWarning)
        trainer(callbacks=monitor).fit(Scripted(course(), bound), datamodule=Known())
    assert monitor.exploded_at == at


class Unknown(Known):
    def true_mi(self):
        return None


def test_unknown_truth_sets_no_limit():
    monitor = StabilityMonitor(window=WINDOW, every_n_steps=EVERY, action="stop")
    fitted = trainer(callbacks=monitor)
    fitted.fit(Scripted(course()), datamodule=Unknown())
    assert monitor.exploded_at is None
    assert not fitted.should_stop


# Logs.


def test_logged_values_are_block_means():
    script = course(rate=1.0)
    _, logger, _ = run(Scripted(script), count=45)
    expected = [np.mean([script(step)[1] for step in range(i, i + EVERY)]) for i in range(0, 45, EVERY)]
    logged = {step: row["stability/log_normalizer"] for step, row in logger.rows if "stability/log_normalizer" in row}
    assert [logged[i] for i in range(EVERY - 1, 45, EVERY)] == pytest.approx(expected, rel=1e-5)
    assert logger.curve("stability/score_range")[-1] == pytest.approx(3.0)
    assert logger.curve("stability/drift_rate") == []  # too early to tell


def test_batches_without_joint_pairs_are_ignored():
    class Pairless(Scripted):
        def training_step(self, batch, batch_idx):
            outputs = super().training_step(batch, batch_idx)
            if batch_idx % 2:
                none, matrix = torch.zeros(NUM, NUM, dtype=torch.bool), torch.full((NUM, NUM), 99.0)
                outputs["scores"] = type(outputs["scores"]).from_matrix(matrix, joint=none, allow_no_joint=True)
                outputs["terms"] = outputs["terms"]._replace(value=torch.tensor(99.0))
            return outputs

    monitor, logger, _ = run(Pairless(lambda step: (1.0, step % 2, 3.0)), count=60, max_mi=2.0)
    assert monitor.exploded_at is None
    assert logger.curve("stability/log_normalizer")[-1] == 0.0
    every_second = StabilityMonitor(window=20, every_n_steps=1)
    trainer(callbacks=every_second).fit(Pairless(course()), steps(8))
    assert len(every_second.state_dict()["blocks"]) == 4


# Bad use.


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"window": 100}, r"window=100: .* 20 blocks of every_n_steps=50 .* at least 1000"),
        ({"every_n_steps": 0}, "every_n_steps=0"),
        ({"action": "reset"}, "action='reset': it is one of 'warn', 'stop', 'roll_back'"),
        ({"min_rate": -1.0}, r"min_rate=-1\.0"),
        ({"alpha": 1.0}, r"alpha=1\.0"),
        ({"max_mi": 0.0}, r"max_mi=0\.0"),
        ({"max_roll_backs": 0}, "max_roll_backs=0"),
        ({"raise_by": 1.0}, r"raise_by=1\.0"),
        ({"weight": 0.0}, r"weight=0\.0"),
    ],
)
def test_arguments_out_of_range_raise(kwargs, message):
    with pytest.raises(ValueError, match=message):
        StabilityMonitor(**kwargs)


def test_module_without_a_bound_raises_at_setup():
    module = Scripted(course())
    module.bound = None
    with pytest.raises(TypeError, match=r"StabilityMonitor\(bound=\.\.\.\)"):
        trainer(callbacks=StabilityMonitor()).fit(module, steps(1))
    trainer(callbacks=StabilityMonitor(bound=bounds.DV())).fit(module, steps(1))


def test_module_without_terms_raises_at_the_first_step():
    class Bare(Scripted):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch, batch_idx)["loss"]

    with pytest.raises(TypeError, match="StabilityMonitor reads the terms and the scores"):
        trainer(callbacks=StabilityMonitor()).fit(Bare(course()), steps(2))


def test_validate_needs_no_bound():
    module: Any = Scripted(course())
    module.bound, module.validation_step = None, lambda batch, batch_idx: None
    trainer(callbacks=StabilityMonitor()).validate(module, steps(1), verbose=False)

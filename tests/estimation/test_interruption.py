"""Ctrl-C during the fits: what is fitted is the result, marked as incomplete."""

import signal
import subprocess
import sys
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lightning_mi import estimate
from lightning_mi.critics import AbstractCritic, SeparableCritic
from lightning_mi.critics.gaussian_copula import GaussianCopulaCritic
from lightning_mi.estimation.cross_fit import CrossFitter
from lightning_mi.estimation.fits import fit_all
from lightning_mi.estimation.interruption import Interruption, catch_interrupts

pytestmark = pytest.mark.usefixtures("short_plans")
RNG = np.random.default_rng(0)
Z = RNG.normal(size=200)
X = Z + RNG.normal(size=200)
Y = X + Z + 0.5 * RNG.normal(size=200)
OPTIONS = {"folds": 2, "permutations": 19}


class Interrupting(AbstractCritic):
    """Sends SIGINT to this process in one of its calls, and again after a pause."""

    def __init__(self, x_dim, y_dim, call, pause=None):
        super().__init__()
        self.inner = SeparableCritic(x_dim, y_dim, hidden=(8,), embed_dim=4)
        self.calls, self.call, self.pause = 0, call, pause

    def paired(self, x, y):
        return self.inner.paired(x, y)

    def pairwise(self, x, y):
        self.calls += 1
        if self.calls == self.call:
            signal.raise_signal(signal.SIGINT)
            if self.pause is not None:
                time.sleep(self.pause)
                signal.raise_signal(signal.SIGINT)
        return self.inner.pairwise(x, y)


def interrupting(call, pause=None):
    return lambda x_dim, y_dim: Interrupting(x_dim, y_dim, call, pause)


def test_first_interrupt_gives_a_result_marked_as_incomplete():
    before = signal.getsignal(signal.SIGINT)
    result = estimate(X, Y, critic=interrupting(30), **OPTIONS)  # after an evaluation at step 20
    assert signal.getsignal(signal.SIGINT) is before
    assert not result.complete
    assert result.findings[0].code == "interrupted"
    assert "ended the fit" in result.findings[0].text
    assert str(result).startswith("INCOMPLETE: MI = ")
    assert result.upper is None
    assert np.isfinite([result.mi, result.lower, result.p_value]).all()
    assert len(result.learning_curve) == 1


def test_second_interrupt_raises():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        estimate(X, Y, critic=interrupting(5, pause=0.6), **OPTIONS)
    assert signal.getsignal(signal.SIGINT) is before


def test_copy_of_the_first_interrupt_does_not_count():
    result = estimate(X, Y, critic=interrupting(5, pause=0.0), **OPTIONS)
    assert not result.complete


def interrupt_in_fit(monkeypatch, number):
    """Send SIGINT in the closed-form fit of a critic."""
    calls = []
    fit = GaussianCopulaCritic.fit

    def send(self, *data):
        calls.append(1)
        if len(calls) == number:
            signal.raise_signal(signal.SIGINT)
        return fit(self, *data)

    monkeypatch.setattr(GaussianCopulaCritic, "fit", send)


def test_interrupt_before_training_leaves_the_closed_form(monkeypatch):
    interrupt_in_fit(monkeypatch, 1)
    result = estimate(X, Y, **OPTIONS)
    assert not result.complete
    assert result.mi == pytest.approx(result.cross_checks["gaussian_copula"], abs=0.1)


def test_interrupt_in_the_learning_curve_costs_the_extrapolation(monkeypatch):
    complete = estimate(X, Y, budget="standard", **OPTIONS)
    interrupt_in_fit(monkeypatch, 3)  # the first of two folds, to half of the samples
    result = estimate(X, Y, budget="standard", **OPTIONS)
    assert not result.complete
    assert "skipped fits to fewer samples" in result.findings[0].text
    assert (result.upper, result.learning_curve) == (None, complete.learning_curve[-1:])
    assert result.lower == complete.lower


def test_interrupt_before_the_second_mi_leaves_two_closed_forms(monkeypatch):
    interrupt_in_fit(monkeypatch, 1)
    fits = []
    call = CrossFitter.__call__

    def record(self, *arguments):
        fits.append(call(self, *arguments))
        return fits[-1]

    monkeypatch.setattr(CrossFitter, "__call__", record)
    result = estimate(X, Y, conditional_on=Z, **OPTIONS)
    assert "those before training" in result.findings[0].text
    assert [fit.fitted.best_steps for fit in fits] == [[0, 0]] * 3
    assert result.mi == pytest.approx(fits[2].reading.value - fits[1].reading.value)


def fits_with(interrupted_call):
    """The fits of two fitters and two fractions, if Ctrl-C is pressed in a call."""
    interruption, log = Interruption(), []

    def fitter(name):
        def fit(fraction, family):
            log.append((name, fraction))
            if len(log) == interrupted_call:
                interruption.receive(signal.SIGINT, None)
            return SimpleNamespace(name=name, fraction=fraction, complete=not interruption.requested)

        return fit

    fits = fit_all([fitter("z"), fitter("yz")], (0.5, 1.0), interruption)
    found: Any = fits.fits
    kept = [[(fit.fraction, fit.complete) for fit in row] for row in found]
    return log, kept, fits.complete


def test_fits_run_from_the_largest_fraction_to_the_smallest():
    log, kept, complete = fits_with(None)
    assert log == [("z", 1.0), ("yz", 1.0), ("z", 0.5), ("yz", 0.5)]
    assert kept == [[(0.5, True), (1.0, True)]] * 2
    assert complete


@pytest.mark.parametrize(
    ("call", "last", "kept"),
    [
        (1, ("yz", 1.0), [[(1.0, False)]] * 2),  # both again, before training
        (2, ("yz", 1.0), [[(1.0, True)], [(1.0, False)]]),
        (3, ("yz", 0.5), [[(1.0, True)]] * 2),
        (4, ("yz", 0.5), [[(1.0, True)]] * 2),
    ],
)
def test_interrupt_leaves_a_consistent_pair(call, last, kept):
    log, found, complete = fits_with(call)
    assert log[-1] == last
    assert found == kept
    assert not complete


def test_ignored_interrupts_stay_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with catch_interrupts() as interruption:
            signal.raise_signal(signal.SIGINT)
        assert not interruption.requested
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


PROGRAM = """
import numpy as np
from lightning_mi import critics, estimate

x = np.random.default_rng(0).normal(size=1000)
def critic(x_dim, y_dim):
    print("fits", flush=True)
    return critics.SeparableCritic(x_dim, y_dim)

result = estimate(x, x + 1, critic=critic, budget="careful")
print(result)
"""


def test_interrupt_from_another_process():
    process = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "fits\n"
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    assert "INCOMPLETE: MI = " in output

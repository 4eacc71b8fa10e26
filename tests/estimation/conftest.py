"""Short training, for tests that do not read the estimate."""

import pytest

from lightning_mi.estimation import options
from lightning_mi.estimation.schedule import Schedule


def shorten(monkeypatch):
    """Trainings of four steps with the quick budget."""
    schedule = Schedule(max_steps=4, check_every=2, patience=1)
    monkeypatch.setitem(options.PLANS, "quick", options.Plan(1, (1.0,), schedule))


@pytest.fixture
def short_training(monkeypatch):
    """Short training in one test."""
    shorten(monkeypatch)


@pytest.fixture(scope="module")
def short_training_of_module():
    """Short training in all tests of a module."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        shorten(monkeypatch)
        yield

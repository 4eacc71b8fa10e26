"""Short training, for tests that do not read the estimate."""

import pytest

from lightning_mi.estimation.options import PLANS, Plan
from lightning_mi.estimation.schedule import Schedule
from tests.helpers.estimation import shorten


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


@pytest.fixture
def short_plans(monkeypatch):
    """Budgets of 60 steps and one critic for each fold."""
    schedule = Schedule(max_steps=60, check_every=20)
    monkeypatch.setitem(PLANS, "quick", Plan(1, (1.0,), schedule))
    monkeypatch.setitem(PLANS, "standard", Plan(1, (0.5, 1.0), schedule))

"""Short estimations."""

import pytest

from lightning_mi.estimation.fit import Schedule
from lightning_mi.estimation.options import PLANS, Plan


@pytest.fixture
def short_plans(monkeypatch):
    """Budgets of 60 steps and one critic for each fold."""
    schedule = Schedule(max_steps=60, check_every=20, batch_size=64)
    monkeypatch.setitem(PLANS, "quick", Plan(1, (1.0,), schedule))
    monkeypatch.setitem(PLANS, "standard", Plan(1, (0.5, 1.0), schedule))

"""Short training of estimations, for tests that do not read the estimate."""

from lightning_mi.estimation.options import PLANS, Plan
from lightning_mi.estimation.schedule import Schedule


def shorten(monkeypatch, max_steps=4, check_every=2):
    """Give the quick budget one critic for each fold, with few steps."""
    schedule = Schedule(max_steps=max_steps, check_every=check_every, patience=1)
    monkeypatch.setitem(PLANS, "quick", Plan(1, (1.0,), schedule))

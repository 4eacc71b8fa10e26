"""Joint critics where a cross-check reads higher; the Gaussian base and its choices; critics of two labels."""

import numpy as np
import pytest
import torch

from lightning_mi import critics, estimate
from lightning_mi.bench.arrays.tasks import find_law
from lightning_mi.bounds import DV
from lightning_mi.data.laws import AdditiveUniform, SymmetricChannel
from lightning_mi.estimation import options
from lightning_mi.estimation.contingency import table_critic
from lightning_mi.estimation.cross_checks import reads_higher
from lightning_mi.estimation.cross_fit import CrossFit, CrossFitter
from lightning_mi.estimation.families import JOINT, SEPARABLE, SEPARABLE_CANONICAL, SEPARABLE_RANKS
from lightning_mi.estimation.fit import Fitted
from lightning_mi.estimation.fits import FullFits, better, fit_largest
from lightning_mi.estimation.folds import make_folds
from lightning_mi.estimation.joint_coordinates import Columns
from lightning_mi.estimation.schedule import Schedule


def fit(x, y, family=SEPARABLE):
    folds = make_folds(len(x.values), 2, np.random.default_rng(0))
    schedule = Schedule(max_steps=1)
    fitter = CrossFitter(
        x, y, folds, members=2, schedule=schedule, bound=DV, regularizer=lambda: None, accelerator="cpu"
    )
    return fitter(1.0, family)


def columns(n=80, seed=0):
    return Columns(torch.randn(n, 6, generator=torch.Generator().manual_seed(seed)), num_ranks=2)


@pytest.mark.parametrize(("family", "members"), [(SEPARABLE, 4), (JOINT, 2)], ids=["separable", "joint"])
def test_family_decides_residual_and_members(family, members):
    fitted = fit(columns(), columns(seed=1), family).fitted
    assert len(fitted.members) == members
    residuals = [member.critic.residual for member in fitted.members]
    assert all(isinstance(r, critics.JointCritic if family is JOINT else critics.SeparableCritic) for r in residuals)
    assert {(r.x_dim, r.y_dim) for r in residuals} == {(4, 4)}  # the products are hidden


def test_two_labels_start_from_their_table():
    labels = Columns(torch.eye(2).repeat(40, 1), num_ranks=0, one_hot=True)
    critic = fit(labels, labels).fitted.members[0].critic
    assert isinstance(critic, critics.BilinearCritic)


def test_table_is_the_smoothed_log_ratio():
    counts = np.array([[5, 0], [1, 4]])
    rows = np.repeat([(i, j) for i in range(2) for j in range(2)], counts.ravel(), axis=0)
    one_hot = torch.eye(2)
    weight = table_critic(one_hot[rows[:, 0]], one_hot[rows[:, 1]]).weight.detach().numpy()
    expected = np.outer(counts.sum(1), counts.sum(0)) / 10
    np.testing.assert_allclose(weight, np.log((counts + 1) / (expected + 1)), rtol=1e-6)


def test_few_samples_of_two_labels_suffice():
    law = SymmetricChannel(10, error=0.2)
    x, y = law.sample(600, torch.Generator().manual_seed(3))
    assert estimate(x, y, budget="quick", permutations=19).mi == pytest.approx(law.true_mi, abs=0.15)


@pytest.fixture
def families(monkeypatch):
    """The families that estimations with a short schedule fit."""
    monkeypatch.setitem(options.PLANS, "quick", options.Plan(1, (1.0,), Schedule(max_steps=60)))
    fitted = []

    def record(fitters, fractions, interruption, family):
        fitted.append(family)
        return fit_largest(fitters, fractions, interruption, family)

    monkeypatch.setattr("lightning_mi.estimation.fits.fit_largest", record)
    return fitted


def test_joint_critics_are_fitted_if_a_check_reads_higher(families):
    x, y = AdditiveUniform(0.1).sample(1000, torch.Generator().manual_seed(0))
    estimate(x, y, budget="quick", folds=2, permutations=19)
    assert families == [SEPARABLE, JOINT]


def test_ranks_alone_are_fitted_too_if_products_start_higher(families):
    x, y = find_law("spiral-multinormal-sparse-3-3-2-2.0").sample(1000, torch.Generator().manual_seed(0))
    result = estimate(x, y, budget="quick", folds=2, permutations=19)
    assert families == [SEPARABLE, SEPARABLE_RANKS]
    assert result.mi > 0.3


def test_canonical_variables_are_tried_if_there_are_many_columns(families):
    x, y = find_law("multinormal-sparse-25-25-2-2.0").sample(1000, torch.Generator().manual_seed(0))
    estimate(x, y, budget="quick", folds=2, permutations=19)
    assert families[:2] == [SEPARABLE, SEPARABLE_CANONICAL]


def test_residual_sees_canonical_variables_that_predict():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1500, 4, generator=generator)
    y = 0.8 * x[:, :2].flip(1) + 0.6 * torch.randn(1500, 2, generator=generator)
    critic = critics.GaussianCopulaCritic(4, 2, residual=critics.SeparableCritic(2, 2), canonical_dims=2)
    assert critic.fit((x[:1000], y[:1000]), (x[1000:], y[1000:])) == 2
    u, v = ((x - critic.x_mean) @ critic.x_directions, (y - critic.y_mean) @ critic.y_directions)
    critic.correlations[1] = 0.0
    torch.testing.assert_close(critic._seen(x, y), (u * torch.tensor([1.0, 0.0]), v * torch.tensor([1.0, 0.0])))


def test_each_fitter_keeps_its_better_family():
    def fits(family, *values):
        fitted = [Fitted([], [], [value], []) for value in values]
        return FullFits([CrossFit([], [], None, own, []) for own in fitted], [family] * 2, complete=True)

    first, second = fits(SEPARABLE, 1.0, 2.0), fits(SEPARABLE_RANKS, 1.5, 1.5)
    chosen = better(first, second)
    assert [own.fitted.values for own in chosen.fits] == [[1.5], [2.0]]
    assert chosen.families == [SEPARABLE_RANKS, SEPARABLE]
    interrupted = better(first, second._replace(complete=False))
    assert interrupted.fits == first.fits
    assert not interrupted.complete


def test_fewer_samples_are_fitted_with_the_best_family_alone(monkeypatch):
    calls = []
    call = CrossFitter.__call__

    def record(self, fraction, family):
        calls.append((fraction, family))
        return call(self, fraction, family)

    monkeypatch.setattr(CrossFitter, "__call__", record)
    monkeypatch.setitem(options.PLANS, "standard", options.Plan(1, (0.5, 1.0), Schedule(max_steps=20)))
    x, y = find_law("spiral-multinormal-sparse-3-3-2-2.0").sample(1000, torch.Generator().manual_seed(0))
    estimate(x, y, folds=2, permutations=19)
    *full, fewer = calls
    assert [fraction for fraction, _ in full] == [1.0] * len(full)
    assert [family for _, family in full][:2] == [SEPARABLE, SEPARABLE_RANKS]
    assert fewer[0] == 0.5


def test_check_reads_higher_by_its_margins():
    checks = {"copula": 1.04, "neighbors": 1.2, "low": 0.5}
    assert reads_higher(checks, 1.0, 0.01, 5000) == ["neighbors"]
    assert reads_higher(checks, 1.0, 0.1, 5000) == []
    assert reads_higher({"copula": 0.01}, -0.005, 0.0, 5000) == []
    assert reads_higher(checks, 1.0, 0.0, 16) == []


def test_gaussian_base_takes_the_products_only_if_they_predict():
    generator = torch.Generator().manual_seed(0)
    x, noise, other = (torch.randn(1500, 1, generator=generator) for _ in range(3))
    turning = torch.cat([x, other], dim=1)  # y follows the first column, or the second as well
    linear, both = 0.8 * x + 0.6 * noise, 0.6 * x + 0.6 * other + 0.5 * noise
    choices = ((slice(1), slice(1)), (slice(2), slice(1)))
    for y, used in ((linear, False), (both, True)):
        critic = critics.GaussianCopulaCritic(2, 1)
        critic.fit((turning[:1000], y[:1000]), (turning[1000:], y[1000:]), choices)
        assert bool(critic.x_directions[1].any()) is used


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"gaussian_dims": (4, 1)}, ValueError, "gaussian_dims=\\(4, 1\\)"),
        ({"canonical_dims": 3}, ValueError, "has 2 canonical variables"),
        ({"canonical_dims": 0}, ValueError, "canonical_dims"),
        ({"residual": critics.InnerProductCritic()}, ValueError, "no linear layer"),
        ({"residual": torch.nn.Linear(3, 2)}, TypeError, "residual"),
    ],
    ids=["too many columns", "too many variables", "no variable", "nothing to start at zero", "no critic"],
)
def test_wrong_parts_of_a_gaussian_critic_raise(options, error, message):
    with pytest.raises(error, match=message):
        critics.GaussianCopulaCritic(3, 2, **options)

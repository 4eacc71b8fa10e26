"""WithinLabel and TotalCorrelation: their pairs, and the information that they estimate, with Gaussian truths."""

import math

import numpy as np
import pytest
import torch

from lightning_mi import bounds, critics, pairs
from lightning_mi.critics import AbstractCritic
from lightning_mi.pairs._shuffles import random_cycles
from tests.helpers.processes import on_processes

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # Python 3.12 and later

RHO = 0.8
LABELS = torch.tensor([4, 1, 4, 0, 1, 4, 2])


class Columns(AbstractCritic):
    """Records the pairs; scores are 0."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def paired(self, x, y):
        self.seen.append((x, y))
        return (x.sum(1) + y.sum(1)) * 0

    def pairwise(self, x, y):
        return torch.zeros(len(x), len(y))


def test_cycles_have_no_fixed_point_but_samples_alone():
    for seed in range(20):
        torch.manual_seed(seed)
        shuffle = random_cycles(LABELS)
        assert sorted(shuffle.tolist()) == list(range(7))
        assert torch.equal(LABELS[shuffle], LABELS)
        fixed = shuffle == torch.arange(7)
        assert fixed.tolist() == [False, False, False, True, False, False, True]


def test_cycles_are_uniform():
    torch.manual_seed(0)
    draws = torch.stack([random_cycles(torch.zeros(3, dtype=torch.long)) for _ in range(2000)])
    assert (draws[:, 0] == 1).float().mean().item() == pytest.approx(0.5, abs=0.05)


def test_marginal_pairs_have_the_same_label():
    critic, rows = Columns(), torch.arange(7.0).unsqueeze(1)
    scores = pairs.WithinLabel()(critic, rows, rows, LABELS)
    (joint_x, joint_y), (x, y) = critic.seen
    assert torch.equal(joint_x, joint_y)
    assert torch.equal(joint_x, x)
    assert torch.equal(LABELS[x.long().squeeze(1)], LABELS[y.long().squeeze(1)])
    assert not (x == y).any()
    assert (scores.num_joint, scores.num_marginal) == (5, 5)


def test_total_correlation_shuffles_each_column():
    torch.manual_seed(0)
    critic, z = Columns(), torch.arange(30.0).view(10, 3)
    pairs.TotalCorrelation()(critic, z[:, :1], z[:, 1:])
    (joint_x, joint_y), (x, y) = critic.seen
    assert torch.equal(torch.cat([joint_x, joint_y], 1), z)
    shuffled = torch.cat([x, y], 1)
    for column in range(3):
        assert sorted(shuffled[:, column].tolist()) == z[:, column].tolist()
        assert not (shuffled[:, column] == z[:, column]).any()
    assert len({tuple(shuffled[:, column].sub(column).tolist()) for column in range(3)}) == 3


class SignedGaussian(AbstractCritic):
    """log p(x | y, z) / p(x | z) for correlation RHO if the label z, the second column of y, is 1, else -RHO."""

    def paired(self, x, y):
        rho = RHO * (2 * y[:, 1] - 1)
        x, y = x[:, 0], y[:, 0]
        return -0.5 * math.log(1 - RHO**2) - (rho**2 * (x**2 + y**2) - 2 * rho * x * y) / (2 * (1 - rho**2))

    def pairwise(self, x, y):
        raise NotImplementedError


def signed_gaussian(n):
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(2, (n,), generator=generator)
    x, noise = torch.randn(2, n, 1, generator=generator, dtype=torch.float64)
    y = RHO * (2 * labels - 1).unsqueeze(1) * x + math.sqrt(1 - RHO**2) * noise
    return x, torch.cat([y, labels.unsqueeze(1)], dim=1), labels


def test_exact_critic_reads_the_conditional_information():
    x, y, labels = signed_gaussian(20000)
    value = bounds.DV()(pairs.WithinLabel()(SignedGaussian(), x, y, labels)).value.item()
    assert value == pytest.approx(-0.5 * math.log(1 - RHO**2), abs=0.03)  # I(x; y) is 0.14


class GaussianDensityRatio(AbstractCritic):
    """log p(z) / prod p(z_d) of a Gaussian with unit variances."""

    def __init__(self, correlation):
        super().__init__()
        inverse = np.linalg.inv(correlation) - np.eye(len(correlation))
        self.inverse, self.log_det = torch.from_numpy(inverse), float(np.linalg.slogdet(correlation)[1])

    def paired(self, x, y):
        z = torch.cat([x, y], dim=1)
        return -0.5 * self.log_det - 0.5 * (z @ self.inverse * z).sum(1)

    def pairwise(self, x, y):
        raise NotImplementedError


def test_exact_critic_reads_the_total_correlation():
    correlation = np.array([[1.0, 0.6, 0.3], [0.6, 1.0, 0.5], [0.3, 0.5, 1.0]])
    z = torch.from_numpy(np.random.default_rng(0).multivariate_normal(np.zeros(3), correlation, 40000))
    scores = pairs.TotalCorrelation()(GaussianDensityRatio(correlation), z[:, :1], z[:, 1:])
    expected = -0.5 * np.linalg.slogdet(correlation)[1]
    assert bounds.DV()(scores).value.item() == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("rows", [(7, 7), (4, 10)], ids=str)
@pytest.mark.parametrize("name", ["WithinLabel", "TotalCorrelation"])
def test_two_ranks_average_over_the_pairs_of_both(name, rows, tmp_path):
    def value(rank):
        torch.manual_seed(5)
        generator = torch.Generator().manual_seed(rank)
        x, y = torch.randn(2, rows[rank], 2, generator=generator)
        critic = critics.SeparableCritic(2, 2, hidden=(4,))
        labels = [torch.arange(rows[rank]) // 2] if name == "WithinLabel" else []
        scores = getattr(pairs, name)()(critic, x, y, *labels)
        local = scores.local()
        means = local.joint_mean(), local.log_mean_exp()
        numbers = [local.num_joint, local.num_marginal, *(mean.item() for mean in means)]
        return bounds.DV()(scores).value.item(), scores.num_joint, numbers

    (first, total, a), (second, _, b) = on_processes(value, 2, tmp_path)
    assert first == second
    assert total == a[0] + b[0]
    joint = (a[0] * a[2] + b[0] * b[2]) / total
    marginal = np.log((a[1] * np.exp(a[3]) + b[1] * np.exp(b[3])) / (a[1] + b[1]))
    assert first == pytest.approx(joint - marginal, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pairs.WithinLabel()(Columns(), torch.ones(3, 1), torch.ones(3, 1), torch.arange(3)), "as many labels"),
        (
            lambda: pairs.WithinLabel()(Columns(), torch.ones(3, 1), torch.ones(2, 1), torch.zeros(3).long()),
            "3 x and 2",
        ),
        (lambda: pairs.TotalCorrelation()(Columns(), torch.ones(3), torch.ones(3, 1)), "must be \\(N, D\\)"),
        (lambda: pairs.TotalCorrelation()(Columns(), torch.ones(1, 1), torch.ones(1, 1)), "batch of 1"),
    ],
    ids=["all labels differ", "lengths", "one dimension", "one sample"],
)
def test_wrong_batches_raise(call, message):
    with pytest.raises(ValueError, match=message):
        call()

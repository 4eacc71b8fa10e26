"""All laws: their MI, samples and log-ratios agree with each other and with SciPy."""

import math
import pickle
from typing import Any

import pytest
import torch

from lightning_mi import Scores, bounds
from lightning_mi.data import laws
from lightning_mi.exceptions import NoLogRatioError
from tests.helpers.law_specs import LAWS, LawSpec

TASKS = [LawSpec(name, law, lambda: math.nan) for name, law in laws.benchmark_tasks().items()]
ANY_LAW = pytest.mark.parametrize("spec", LAWS, ids=lambda spec: spec.name)
ANY_LAW_OR_TASK = pytest.mark.parametrize("spec", [*LAWS, *TASKS], ids=lambda spec: spec.name)
TABLE = [[0.25, 0.25], [0.5, 0.0]]
WORDS: Any = [["a"]]
SMALL = [spec for spec in LAWS if spec.law.true_mi < 0.4]  # exp of the log-ratio has a small variance
BLOCKS, ROWS = 100, 40


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def blocks(law, seed=0):
    """Independent samples of ROWS pairs, concatenated; a time series is autocorrelated only within one."""
    source = generator(seed)
    if law.independent_samples:
        return law.sample(BLOCKS * ROWS, source)
    return tuple(map(torch.cat, zip(*(law.sample(ROWS, source) for _ in range(BLOCKS)), strict=True)))


def means(values):
    """The mean of each block."""
    return values.reshape(BLOCKS, ROWS).mean(dim=1)


def within(values, expected, errors=4.0):
    """Whether the mean of independent values is that expected, within standard errors."""
    values = torch.as_tensor(values, dtype=torch.float64)
    return abs(values.mean() - expected) <= errors * values.std() / math.sqrt(len(values)) + 1e-12


def single_precision(side):
    return side.float() if side.is_floating_point() else side


@ANY_LAW
def test_true_mi_equals_an_independent_computation(spec):
    assert spec.law.true_mi == pytest.approx(spec.reference(), abs=spec.tolerance)


@ANY_LAW_OR_TASK
def test_mean_log_ratio_of_samples_is_the_true_mi(spec):
    ratio = spec.law.log_ratio(*map(single_precision, blocks(spec.law)))
    assert within(means(ratio), spec.law.true_mi)


@ANY_LAW_OR_TASK
def test_log_ratio_classifies_pairs_as_the_densities_do(spec):
    # With p the joint law and q the product of the marginals, the mean over p of q / (p + q) is the mean over q of
    # p / (p + q). Both are bounded, so their standard errors hold at any MI. A wrong ratio or constant breaks it.
    first, second = blocks(spec.law, seed=1), blocks(spec.law, seed=2)
    joint, product = -spec.law.log_ratio(*first), spec.law.log_ratio(first[0], second[1])
    assert within(means(torch.sigmoid(joint) - torch.sigmoid(product)), 0.0)


@pytest.mark.parametrize("spec", SMALL, ids=lambda spec: spec.name)
def test_mean_exponential_over_independent_pairs_is_one(spec):
    ratio = spec.law.log_ratio(blocks(spec.law, seed=3)[0], blocks(spec.law, seed=4)[1])
    assert within(means(ratio.exp()), 1.0)


@pytest.mark.parametrize("spec", [spec for spec in SMALL if spec.law.independent_samples], ids=lambda spec: spec.name)
def test_an_unbiased_bound_reads_the_true_mi(spec):
    pairs = zip(*(side.split(ROWS) for side in blocks(spec.law)), strict=True)
    values = [bounds.NWJ()(Scores.from_matrix(1 + spec.law.log_ratio_matrix(*pair))).value for pair in pairs]
    assert within(values, spec.law.true_mi)


@ANY_LAW_OR_TASK
def test_log_ratio_matrix_contains_every_pair(spec):
    x, y = spec.law.sample(7, generator())
    y = y[:5]
    matrix = spec.law.log_ratio_matrix(x, y)
    assert matrix.shape == (7, 5)
    assert matrix.dtype == torch.float64
    for i, row in enumerate(matrix):
        same_x = x[i : i + 1].expand(5, *x.shape[1:])
        torch.testing.assert_close(row, spec.law.log_ratio(same_x, y), rtol=1e-8, atol=1e-8)


@ANY_LAW
def test_samples_have_the_documented_shapes_and_types(spec):
    sides = zip(spec.law.sample(300, generator()), (spec.x_shape, spec.y_shape), strict=True)
    for (side, shape), num_labels in zip(sides, (spec.law.num_x_labels, spec.law.num_y_labels), strict=True):
        assert len(side) == 300
        assert side.isfinite().all()
        if shape == (0,):
            assert (side.dtype, side.ndim) == (torch.int64, 1)
            assert set(side.tolist()) == set(range(num_labels))
        else:
            assert (side.dtype, side.shape[1:], num_labels) == (torch.float64, shape, None)


@ANY_LAW_OR_TASK
def test_law_is_a_value(spec):
    law = spec.law
    again = eval(repr(law), vars(laws))
    assert again == law == pickle.loads(pickle.dumps(law))
    assert len({law, again}) == 1
    assert all(torch.equal(a, b) for a, b in zip(law.sample(9, generator()), again.sample(9, generator()), strict=True))
    assert not torch.equal(law.sample(9, generator())[0], law.sample(9, generator(1))[0])
    assert law.describe()
    assert "\n" not in law.describe() + law.name
    assert law.has_log_ratio


EXCHANGEABLE = [spec for spec in [*LAWS, *TASKS] if spec.law.exchangeable]


@pytest.mark.parametrize("spec", EXCHANGEABLE, ids=lambda spec: spec.name)
def test_log_ratio_of_an_exchangeable_law_is_symmetric(spec):
    x, y = spec.law.sample(20, generator())
    assert x.shape[1:] == y.shape[1:]
    torch.testing.assert_close(spec.law.log_ratio(y, x), spec.law.log_ratio(x, y))


def test_law_of_different_sides_is_not_exchangeable():
    base, cubic = laws.GaussianPairs(3), laws.Elementwise("cubic")
    skewed, labelled = laws.JointTable([[0.3, 0.1], [0.2, 0.4]]), laws.DigitChannel(0.1, y_is_label=True)
    for law in (laws.DenseGaussian(3, 2), laws.Mapped(base, cubic), skewed, labelled):
        assert not law.exchangeable
        assert not laws.Swapped(law).exchangeable
    assert laws.Mapped(base, cubic, cubic).exchangeable
    assert laws.Concatenated([base, laws.NoisyBits()]).exchangeable
    assert not laws.Concatenated([base, laws.AdditiveUniform()]).exchangeable


def test_law_without_a_density_raises():
    class Unknown(laws.AbstractLaw):
        true_mi = 1.0

        def _sample(self, n, generator):
            return torch.zeros(n, 1), torch.zeros(n, 1)

        def describe(self):
            return "unknown"

    for law in (Unknown(), laws.Swapped(Unknown()), laws.Mapped(Unknown()), laws.Concatenated([Unknown()])):
        assert not law.has_log_ratio
        for method in (law.log_ratio, law.log_ratio_matrix):
            with pytest.raises(NoLogRatioError, match="Unknown has no log-ratio"):
                method(*law.sample(2, generator()))


X = torch.zeros(3, 1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: laws.GaussianPairs().sample(0, generator()), "n=0"),
        (lambda: laws.GaussianPairs().log_ratio(X, X[:2]), "Got 3 x and 2 y"),
        (lambda: laws.GaussianPairs(2).log_ratio(X, X), r"Got x of shape \(3, 1\): .* \(N, 2\)"),
        (lambda: laws.GaussianPairs(0), "dim=0"),
        (lambda: laws.GaussianPairs(1, 1.0), "rho=1.0"),
        (lambda: laws.DenseGaussian(2, 2, -0.4), "correlation=-0.4"),
        (lambda: laws.SparseGaussian(2, 1, 2), "num_pairs=2"),
        (lambda: laws.Gaussian([[1.0, 2.0], [2.0, 1.0]]), "not positive definite"),
        (lambda: laws.Gaussian([[1.0, 0.5], [0.0, 1.0]]), "not symmetric"),
        (lambda: laws.Gaussian([[1.0, 0.5]]), r"shape \(1, 2\)"),
        (lambda: laws.Gaussian([[1.0], [0.0, 1.0]]), r"lengths \[1, 2\]"),
        (lambda: laws.Gaussian([[1.0, math.nan], [0.0, 1.0]]), "all are finite"),
        (lambda: laws.Gaussian([[1.0, 0.0], [0.0, 1.0]], 2), "none is left for y"),
        (lambda: laws.StudentT(laws.GaussianPairs(), df=0), "df=0"),
        (lambda: laws.AdditiveUniform(0.0), "noise=0.0"),
        (lambda: laws.GaussianMixture([0.5, 0.6], [[0, 0]], [[[1, 0], [0, 1]]]), "sum 1.1"),
        (lambda: laws.GaussianMixture([1.0], [[0, 0], [1, 1]], [[[1, 0], [0, 1]]]), "1 weights, 2 means"),
        (lambda: laws.GaussianMixture([1.0], [[0]], [[[1]]]), "another dimension than 2"),
        (lambda: laws.JointTable([[0.5, -0.1], [0.3, 0.3]]), "minimum -0.1"),
        (lambda: laws.JointTable(TABLE).log_ratio(torch.tensor([2]), torch.tensor([0])), "label 2 at position 0"),
        (lambda: laws.SymmetricChannel(1), "num_labels=1"),
        (lambda: laws.NoisyBits(1.5), "flip=1.5"),
        (lambda: laws.DiscreteContinuous(1), "num_values=1"),
        (lambda: laws.ZeroInflatedPoisson(-0.1), "inflation=-0.1"),
        (lambda: laws.VectorAutoregression([[1.0, 0.0], [0.0, 0.5]]), "modulus 1:"),
        (lambda: laws.VectorAutoregression([[0.5]]), "dim_x=1"),
        (lambda: laws.VectorAutoregression(noise_covariance=[[1.0]]), "of 1 coordinates: the series has 2"),
        (lambda: laws.DigitChannel(2.0), "error=2.0"),
        (lambda: laws.Concatenated([]), r"laws=\[\]"),
        (lambda: laws.Concatenated([laws.SymmetricChannel()]), "Map labels with OneHotLabels"),
    ],
)
def test_invalid_arguments_raise(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: laws.Mapped("law"), "law='law'"),
        (lambda: laws.Mapped(laws.GaussianPairs(), "cubic"), "x_map='cubic'"),
        (lambda: laws.StudentT(laws.AdditiveUniform()), "gaussian of type AdditiveUniform"),
        (lambda: laws.Gaussian(WORDS), "an entry of covariance='a'"),
        (lambda: laws.SymmetricChannel(error="0.1"), "error='0.1'"),
    ],
)
def test_arguments_of_a_wrong_type_raise(call, message):
    with pytest.raises(TypeError, match=message):
        call()

"""One line per law of `lightning_mi.data.laws`: the generic tests run over all lines."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np
from scipy import integrate, linalg, special, stats

from lightning_mi.data import laws

CORRELATED = [[2.0, 0.3, 0.5], [0.3, 1.0, -0.4], [0.5, -0.4, 1.5]]
TABLE = [[0.2, 0.1, 0.0], [0.05, 0.25, 0.4]]
COEFFICIENTS, NOISE = [[0.8, 0.1], [0.5, 0.4]], [[1.0, 0.3], [0.3, 2.0]]
WEIGHTS, MEANS = [0.3, 0.7], [[-1.0, 1.5], [1.0, 0.0]]
COVARIANCES = [[[1.0, 0.5], [0.5, 0.6]], [[0.5, -0.3], [-0.3, 0.8]]]


@dataclass(frozen=True)
class LawSpec:
    """A law and its mutual information by an independent computation.

    Attributes:
        name: The class, with the arguments that differ from the defaults.
        law: The law.
        reference: Returns the mutual information in nats, by SciPy or NumPy.
        x_shape: Shape of one sample of x; (0,) for labels.
        y_shape: Shape of one sample of y.
        tolerance: Of the reference.
    """

    name: str
    law: laws.AbstractLaw
    reference: Callable[[], float]
    x_shape: tuple[int, ...] = (1,)
    y_shape: tuple[int, ...] = (1,)
    tolerance: float = 1e-9


LABELS = (0,)


def gaussian_mi(covariance, dim_x: int) -> float:
    matrix = np.array(covariance)
    parts = matrix[:dim_x, :dim_x], matrix[dim_x:, dim_x:], matrix
    x, y, joint = (np.linalg.slogdet(part)[1] for part in parts)
    return (x + y - joint) / 2


def student_mi(covariance, dim_x: int, df: float) -> float:
    matrix = np.array(covariance)
    parts = matrix[:dim_x, :dim_x], matrix[dim_x:, dim_x:], matrix
    x, y, joint = (stats.multivariate_t(shape=part, df=df).entropy() for part in parts)
    return float(x + y - joint)


def table_mi(table) -> float:
    total = 0.0
    for i, j in product(range(len(table)), range(len(table[0]))):
        if table[i][j] > 0:
            total += table[i][j] * math.log(table[i][j] / sum(table[i]) / sum(row[j] for row in table))
    return total


def channel_table(size: int, error: float) -> list[list[float]]:
    return [[(1 - error if i == j else error / (size - 1)) / size for j in range(size)] for i in range(size)]


def additive_mi(noise: float) -> float:
    """h(y) - h(y | x), with h(y) by quadrature."""

    def density(y):
        return (min(1, y + noise) - max(0, y - noise)) / (2 * noise)

    kinks = sorted({-noise, noise, 1 - noise, 1 + noise})
    pieces = [integrate.quad(lambda y: special.entr(density(y)), a, b)[0] for a, b in pairwise(kinks)]
    return sum(pieces) - math.log(2 * noise)


def mixture_mi() -> float:
    joints = [stats.multivariate_normal(mean, matrix) for mean, matrix in zip(MEANS, COVARIANCES, strict=True)]

    def marginal(value, side):
        parts = zip(WEIGHTS, MEANS, COVARIANCES, strict=True)
        return sum(w * stats.norm.pdf(value, mean[side], matrix[side][side] ** 0.5) for w, mean, matrix in parts)

    nodes, weights = np.polynomial.legendre.leggauss(120)
    grid = 8.5 * nodes  # the density is below 1e-16 outside
    x, y = np.meshgrid(grid, grid, indexing="ij")
    joint = sum(w * part.pdf(np.dstack([x, y])) for w, part in zip(WEIGHTS, joints, strict=True))
    ratio = np.log(joint) - np.log(marginal(grid, 0))[:, None] - np.log(marginal(grid, 1))
    return float(8.5**2 * weights @ (joint * ratio) @ weights)


def zero_inflated_mi(p: float) -> float:
    """H(y) - H(y | x)."""
    counts = np.arange(200)
    marginal = (1 - p) * 0.5 ** (counts + 1) + p * (counts == 0)

    def conditional_entropy(x):
        return np.exp(-x) * special.entr((1 - p) * stats.poisson.pmf(counts, x) + p * (counts == 0)).sum()

    parts = [integrate.quad(conditional_entropy, a, b, epsabs=1e-12)[0] for a, b in ((0, 0.1), (0.1, 2), (2, 60))]
    return float(special.entr(marginal).sum() - sum(parts))


def stationary(noise) -> np.ndarray:
    return linalg.solve_discrete_lyapunov(np.array(COEFFICIENTS), np.array(noise))


def dense(dim: int, correlation: float) -> np.ndarray:
    return np.full((dim, dim), correlation) + (1 - correlation) * np.eye(dim)


def paired(dim_x: int, dim_y: int, correlations) -> np.ndarray:
    matrix = np.eye(dim_x + dim_y)
    for i, value in enumerate(correlations):
        matrix[i, dim_x + i] = matrix[dim_x + i, i] = value
    return matrix


GAUSSIAN, STUDENT = laws.GaussianPairs(3, 0.6), laws.StudentT(laws.DenseGaussian(2, 1, 0.4), df=2.5)
LAWS = [
    LawSpec("GaussianPairs", laws.GaussianPairs(), lambda: gaussian_mi(paired(1, 1, [0.75]), 1)),
    LawSpec(
        "GaussianPairs(3, -0.9)",
        laws.GaussianPairs(3, -0.9),
        lambda: gaussian_mi(paired(3, 3, [-0.9] * 3), 3),
        (3,),
        (3,),
    ),
    LawSpec("DenseGaussian(3, 2)", laws.DenseGaussian(3, 2, 0.7), lambda: gaussian_mi(dense(5, 0.7), 3), (3,), (2,)),
    LawSpec("SparseGaussian", laws.SparseGaussian(), lambda: gaussian_mi(paired(3, 3, [0.8, 0.8]), 3), (3,), (3,)),
    LawSpec(
        "SparseGaussian(4, 2, 1)",
        laws.SparseGaussian(4, 2, 1, 1.5),
        lambda: gaussian_mi(paired(4, 2, [2.25 / 3.25]), 4),
        (4,),
        (2,),
    ),
    LawSpec("Gaussian", laws.Gaussian(CORRELATED, 2), lambda: gaussian_mi(CORRELATED, 2), (2,)),
    LawSpec("StudentT", laws.StudentT(laws.GaussianPairs(1, 0.0)), lambda: student_mi(np.eye(2), 1, 1)),
    LawSpec("StudentT(dense, 2.5)", STUDENT, lambda: student_mi(dense(3, 0.4), 2, 2.5), (2,)),
    LawSpec("AdditiveUniform(0.3)", laws.AdditiveUniform(0.3), lambda: additive_mi(0.3)),
    LawSpec("AdditiveUniform(0.75)", laws.AdditiveUniform(0.75), lambda: additive_mi(0.75)),
    LawSpec("GaussianMixture", laws.GaussianMixture(WEIGHTS, MEANS, COVARIANCES), mixture_mi),
    LawSpec("JointTable", laws.JointTable(TABLE), lambda: table_mi(TABLE), LABELS, LABELS),
    LawSpec("SymmetricChannel", laws.SymmetricChannel(5, 0.2), lambda: table_mi(channel_table(5, 0.2)), LABELS, LABELS),
    LawSpec("SymmetricChannel(0)", laws.SymmetricChannel(4, 0.0), lambda: math.log(4), LABELS, LABELS),
    LawSpec("NoisyBits", laws.NoisyBits(0.2, 3), lambda: 3 * table_mi(channel_table(2, 0.2)), (3,), (3,)),
    LawSpec("DiscreteContinuous", laws.DiscreteContinuous(), lambda: 1.0549, LABELS, tolerance=5e-5),
    LawSpec("ZeroInflatedPoisson", laws.ZeroInflatedPoisson(), lambda: zero_inflated_mi(0.15)),
    LawSpec("ZeroInflatedPoisson(0)", laws.ZeroInflatedPoisson(0.0), lambda: 0.30124477335),
    LawSpec("Independent", laws.Independent(STUDENT, laws.AdditiveUniform()), lambda: 0.0, (2,)),
    LawSpec(
        "VectorAutoregression",
        laws.VectorAutoregression(COEFFICIENTS, NOISE),
        lambda: gaussian_mi(stationary(NOISE), 1),
    ),
    LawSpec(
        "VectorAutoregression()", laws.VectorAutoregression(COEFFICIENTS), lambda: gaussian_mi(stationary(np.eye(2)), 1)
    ),
    LawSpec("DigitChannel", laws.DigitChannel(0.3), lambda: table_mi(channel_table(10, 0.3)), (1, 8, 8), (1, 8, 8)),
    LawSpec(
        "DigitChannel(labels)",
        laws.DigitChannel(0.3, y_is_label=True),
        lambda: table_mi(channel_table(10, 0.3)),
        (1, 8, 8),
        LABELS,
    ),
    LawSpec(
        "Swapped", laws.Swapped(laws.DiscreteContinuous(3)), lambda: math.log(3) - 2 / 3 * math.log(2), (1,), LABELS
    ),
    LawSpec(
        "Concatenated",
        laws.Concatenated([GAUSSIAN, laws.AdditiveUniform(0.75), STUDENT]),
        lambda: -1.5 * math.log(0.64) + 1 / 3 + student_mi(dense(3, 0.4), 2, 2.5),
        (6,),
        (5,),
    ),
    LawSpec(
        "Mapped(one-hot)",
        laws.Mapped(laws.DiscreteContinuous(), x_map=laws.OneHotLabels(5)),
        lambda: 1.0549,
        (5,),
        tolerance=5e-5,
    ),
    LawSpec(
        "Mapped(plasma)",
        laws.Mapped(GAUSSIAN, laws.Plasma(3, size=8), laws.Rotation(3, seed=1)),
        lambda: -1.5 * math.log(0.64),
        (1, 8, 8),
        (3,),
    ),
]

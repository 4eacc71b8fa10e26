"""Laws of samples with known mutual information and exact log-ratios, as objects that can be combined."""

from lightning_mi.data.laws.abstract_gaussian import AbstractGaussian
from lightning_mi.data.laws.base import AbstractLaw
from lightning_mi.data.laws.benchmark import benchmark_tasks
from lightning_mi.data.laws.bottleneck import (
    BottleneckPoint,
    canonical_correlations,
    gaussian_bottleneck,
    gaussian_bottleneck_at,
)
from lightning_mi.data.laws.concatenated import Concatenated
from lightning_mi.data.laws.conditional import AbstractConditionalLaw, ConditionalGaussian, ConfoundedGaussian
from lightning_mi.data.laws.discrete import AbstractTable, JointTable, NoisyBits, SymmetricChannel
from lightning_mi.data.laws.gaussian import DenseGaussian, Gaussian, GaussianPairs, SparseGaussian
from lightning_mi.data.laws.images import DigitChannel, Plasma
from lightning_mi.data.laws.mapped import Independent, Mapped, Swapped
from lightning_mi.data.laws.maps import AbstractMap, Bimodal, Elementwise, Wiggly
from lightning_mi.data.laws.mixed import DiscreteContinuous, ZeroInflatedPoisson
from lightning_mi.data.laws.mixture import GaussianMixture
from lightning_mi.data.laws.student import StudentT
from lightning_mi.data.laws.time_series import VectorAutoregression
from lightning_mi.data.laws.uniform import AdditiveUniform
from lightning_mi.data.laws.vector_maps import OneHotLabels, Rotation, Spiral, SwissRoll

__all__ = [
    "AbstractConditionalLaw",
    "AbstractGaussian",
    "AbstractLaw",
    "AbstractMap",
    "AbstractTable",
    "AdditiveUniform",
    "Bimodal",
    "BottleneckPoint",
    "Concatenated",
    "ConditionalGaussian",
    "ConfoundedGaussian",
    "DenseGaussian",
    "DigitChannel",
    "DiscreteContinuous",
    "Elementwise",
    "Gaussian",
    "GaussianMixture",
    "GaussianPairs",
    "Independent",
    "JointTable",
    "Mapped",
    "NoisyBits",
    "OneHotLabels",
    "Plasma",
    "Rotation",
    "SparseGaussian",
    "Spiral",
    "StudentT",
    "Swapped",
    "SwissRoll",
    "SymmetricChannel",
    "VectorAutoregression",
    "Wiggly",
    "ZeroInflatedPoisson",
    "benchmark_tasks",
    "canonical_correlations",
    "gaussian_bottleneck",
    "gaussian_bottleneck_at",
]

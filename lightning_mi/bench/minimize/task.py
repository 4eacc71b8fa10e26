r"""The task of the benchmark of minimization: Gaussian data with a target and a nuisance, and exact values of encoders.

The data are :math:`x = M (t, s) + 0.5\, e` with a target t of 2 numbers and a nuisance s of 4, all standard normal. A
linear encoder makes :math:`z = W x + 0.5\, e'`. So z, t and s are jointly Gaussian, and mutual information is a
difference of log-determinants.
"""

import math
from dataclasses import dataclass, field
from typing import NamedTuple, Self, final

import torch
from torch import Tensor

DIM_X, DIM_Z, DIM_TARGET, DIM_NUISANCE = 20, 6, 2, 4
NUISANCE_ENTROPY = 0.5 * DIM_NUISANCE * math.log(2 * math.pi * math.e)  # nats, of the standard normal s

# Chosen on seeds 100 and 101: without a penalty about 2.5 nats of I(z; s) and 3.1 of I(z; t) remain.
_TARGET_LENGTH, _NUISANCE_LENGTH = 3.2, 4.2  # of the columns of M
_DATA_NOISE = 0.5  # standard deviation of the noise of x
ENCODER_NOISE = 0.5  # of the noise of z: without noise both mutual informations would be those of W's range alone


class Samples(NamedTuple):
    """Samples of the task, float32.

    Attributes:
        x: (N, 20) data.
        target: (N, 2) numbers to predict, t.
        nuisance: (N, 4) numbers to remove, s.
    """

    x: Tensor
    target: Tensor
    nuisance: Tensor


class ExactValues(NamedTuple):
    """Exact values of K linear encoders and heads, float64 (K,).

    Attributes:
        mi_nuisance: I(z; s), nats.
        mi_target: I(z; t), nats.
        head_mse: Mean squared error of the head, over the two targets.
        best_mse: The same of the best linear head on z.
    """

    mi_nuisance: Tensor
    mi_target: Tensor
    head_mse: Tensor
    best_mse: Tensor


@final
@dataclass(frozen=True)
class GaussianTask:
    """A target and a nuisance that are mixed in Gaussian data.

    Attributes:
        mixing: M, (20, 6) float64: the columns of the target, then those of the nuisance.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> task = GaussianTask.draw(generator)
        >>> [tuple(part.shape) for part in task.sample(8, generator)]
        [(8, 20), (8, 2), (8, 4)]
        >>> task.exact(torch.zeros(1, 6, 20), torch.zeros(1, 2, 6), torch.zeros(1, 2)).head_mse
        tensor([1.], dtype=torch.float64)
    """

    mixing: Tensor = field(repr=False)

    @classmethod
    def draw(cls, generator: torch.Generator) -> Self:
        """The task with orthogonal columns of M in random directions: every draw has the same best encoder, rotated."""
        random = torch.randn(DIM_X, DIM_TARGET + DIM_NUISANCE, generator=generator, dtype=torch.float64)
        lengths = [_TARGET_LENGTH] * DIM_TARGET + [_NUISANCE_LENGTH] * DIM_NUISANCE
        return cls(torch.linalg.qr(random).Q * torch.tensor(lengths, dtype=torch.float64))

    def sample(self, n: int, generator: torch.Generator) -> Samples:
        """Draw N samples."""
        sources = torch.randn(n, self.mixing.shape[1], generator=generator)
        x = sources @ self.mixing.T.float() + _DATA_NOISE * torch.randn(n, DIM_X, generator=generator)
        return Samples(x, sources[:, :DIM_TARGET], sources[:, DIM_TARGET:])

    def mi_nuisance(self, weight: Tensor) -> Tensor:
        """Exact I(z; s) of an encoder W (..., 6, 20), differentiable; (...) float64, nats."""
        covariance, _, given_nuisance = self._covariances(weight.double())
        return 0.5 * (torch.logdet(covariance) - torch.logdet(given_nuisance))

    def exact(self, weight: Tensor, head_weight: Tensor, head_bias: Tensor) -> ExactValues:
        """Exact values of K encoders, each with its head.

        Args:
            weight: W, (K, 6, 20).
            head_weight: (K, 2, 6).
            head_bias: (K, 2).

        Source: Cover and Thomas 2006, section 8.4 (entropy of a Gaussian).
        """
        weight, head_weight, head_bias = (tensor.double() for tensor in (weight, head_weight, head_bias))
        covariance, given_target, _ = self._covariances(weight)
        of_target = weight @ self.mixing[:, :DIM_TARGET]
        explained = (of_target * torch.linalg.solve(covariance, of_target)).sum((-2, -1))
        cross = (head_weight.mT * of_target).sum((-2, -1))
        of_head = (head_weight @ covariance * head_weight).sum((-2, -1)) + head_bias.square().sum(-1)
        return ExactValues(
            mi_nuisance=self.mi_nuisance(weight),
            mi_target=0.5 * (torch.logdet(covariance) - torch.logdet(given_target)),
            head_mse=(DIM_TARGET - 2 * cross + of_head) / DIM_TARGET,
            best_mse=(DIM_TARGET - explained) / DIM_TARGET,
        )

    def _covariances(self, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(..., 6, 6) covariances of z, of z given t, and of z given s."""
        of_target, of_nuisance = weight @ self.mixing[:, :DIM_TARGET], weight @ self.mixing[:, DIM_TARGET:]
        noise = _DATA_NOISE**2 * weight @ weight.mT + ENCODER_NOISE**2 * torch.eye(DIM_Z, dtype=torch.float64)
        given_target, given_nuisance = noise + of_nuisance @ of_nuisance.mT, noise + of_target @ of_target.mT
        return given_target + of_target @ of_target.mT, given_target, given_nuisance


def encode(weight: Tensor, x: Tensor, generator: torch.Generator) -> Tensor:
    """(N, 6) representations z of x (N, 20).

    Args:
        weight: W, (6, 20).
        x: (N, 20) data.
        generator: Of the noise of z.
    """
    return x @ weight.T + ENCODER_NOISE * torch.randn(len(x), len(weight), generator=generator)

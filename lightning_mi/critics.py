"""Critics: T(x, y) for matching rows, and for all pairs of rows."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import final

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, normalize

from lightning_mi.distributed import average_


class AbstractCritic(nn.Module, ABC):
    """A function T(x, y) of two representations.

    A subclass implements both methods; they agree: ``paired(x, y)`` is the diagonal of ``pairwise(x, y)``.
    """

    @abstractmethod
    def paired(self, x: Tensor, y: Tensor) -> Tensor:
        """Score row i of x against row i of y.

        Args:
            x: (N, Dx).
            y: (N, Dy).

        Returns:
            (N,) scores.
        """

    @abstractmethod
    def pairwise(self, x: Tensor, y: Tensor) -> Tensor:
        """Score every row of x against every row of y.

        Args:
            x: (N, Dx).
            y: (M, Dy).

        Returns:
            (N, M) scores.
        """


def mlp(in_dim: int, hidden: Sequence[int], out_dim: int, bias: bool = True) -> nn.Sequential:
    """Linear layers with ReLU between them; ``bias`` is that of the last one."""
    widths = [in_dim, *hidden]
    layers: list[nn.Module] = []
    for width, next_width in pairwise(widths):
        layers += [nn.Linear(width, next_width), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.Linear(widths[-1], out_dim, bias=bias))


@final
class JointCritic(AbstractCritic):
    """A perceptron of the concatenated pair. The most expressive critic, and N x M forward passes for all pairs.

    The first layer is linear, so it is applied to x and y apart and summed for each pair: the concatenations of all
    pairs are never made.

    Source: Poole et al. 2019; Choi and Lee 2022.

    Args:
        x_dim: Dx.
        y_dim: Dy.
        hidden: Widths of the hidden layers, at least one.
        output_bias: Whether the last layer has a bias, a constant that every score shares.

    Raises:
        ValueError: There is no hidden layer, or x or y has another shape.

    Example:
        >>> critic = JointCritic(3, 2, hidden=(8,))
        >>> critic.pairwise(torch.zeros(4, 3), torch.zeros(5, 2)).shape
        torch.Size([4, 5])
    """

    def __init__(self, x_dim: int, y_dim: int, hidden: Sequence[int] = (256, 256), output_bias: bool = True) -> None:
        super().__init__()
        if not hidden:
            raise ValueError("Got hidden=(): a joint critic needs a hidden layer, or it cannot relate x to y.")
        self.x_dim, self.y_dim = x_dim, y_dim
        # One layer of both widths, so that its initialization is that of a layer over the concatenation.
        self.first = nn.Linear(x_dim + y_dim, hidden[0])
        self.rest = nn.Sequential(nn.ReLU(inplace=True), *mlp(hidden[0], hidden[1:], 1, bias=output_bias))

    def paired(self, x: Tensor, y: Tensor) -> Tensor:
        """(N,) scores of matching rows."""
        hx, hy = self._first(x, y)
        scores: Tensor = self.rest(hx + hy)
        return scores.squeeze(-1)

    def pairwise(self, x: Tensor, y: Tensor) -> Tensor:
        """(N, M) scores of all pairs."""
        hx, hy = self._first(x, y)
        scores: Tensor = self.rest((hx.unsqueeze(1) + hy).flatten(0, 1))
        return scores.view(len(x), len(y))

    def _first(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        _check_shapes(x, y, self.x_dim, self.y_dim)
        weight = self.first.weight
        return linear(x, weight[:, : self.x_dim], self.first.bias), linear(y, weight[:, self.x_dim :])


@final
class SeparableCritic(AbstractCritic):
    """The inner product of two perceptrons, g(x) . h(y): all pairs at the price of one matrix product.

    Source: Poole et al. 2019.

    Args:
        x_dim: Dx.
        y_dim: Dy.
        hidden: Widths of the hidden layers of both perceptrons.
        embed_dim: The dimension of g(x) and h(y).

    Raises:
        ValueError: x or y has another shape.

    Example:
        >>> critic = SeparableCritic(3, 2, hidden=(8,), embed_dim=4)
        >>> critic.pairwise(torch.zeros(4, 3), torch.zeros(5, 2)).shape
        torch.Size([4, 5])
    """

    def __init__(self, x_dim: int, y_dim: int, hidden: Sequence[int] = (256, 256), embed_dim: int = 32) -> None:
        super().__init__()
        self.x_dim, self.y_dim = x_dim, y_dim
        self.x_net = mlp(x_dim, hidden, embed_dim)
        self.y_net = mlp(y_dim, hidden, embed_dim)

    def paired(self, x: Tensor, y: Tensor) -> Tensor:
        """(N,) scores of matching rows."""
        g, h = self._embed(x, y)
        return (g * h).sum(-1)

    def pairwise(self, x: Tensor, y: Tensor) -> Tensor:
        """(N, M) scores of all pairs."""
        g, h = self._embed(x, y)
        return g @ h.T

    def _embed(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        _check_shapes(x, y, self.x_dim, self.y_dim)
        return self.x_net(x), self.y_net(y)


@final
class BilinearCritic(AbstractCritic):
    """T(x, y) = x^T W y, with W drawn so that standard normal x and y give scores of unit variance.

    Source: van den Oord et al. 2018.

    Args:
        x_dim: Dx.
        y_dim: Dy.

    Raises:
        ValueError: x or y has another shape.

    Example:
        >>> BilinearCritic(3, 2).pairwise(torch.zeros(4, 3), torch.zeros(5, 2)).shape
        torch.Size([4, 5])
    """

    def __init__(self, x_dim: int, y_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(x_dim, y_dim) / math.sqrt(x_dim * y_dim))

    def paired(self, x: Tensor, y: Tensor) -> Tensor:
        """(N,) scores of matching rows."""
        return (self._project(x, y) * y).sum(-1)

    def pairwise(self, x: Tensor, y: Tensor) -> Tensor:
        """(N, M) scores of all pairs."""
        return self._project(x, y) @ y.T

    def _project(self, x: Tensor, y: Tensor) -> Tensor:
        _check_shapes(x, y, *self.weight.shape)
        return x @ self.weight


@final
class InnerProductCritic(AbstractCritic):
    """T(x, y) = x . y, for representations that an encoder has already made comparable. It has no parameters.

    Source: Choi and Lee 2022 (plain); Chen et al. 2020 (normalized, with a temperature).

    Args:
        normalize: Scale x and y to unit length first, so that scores are cosines.
        temperature: Divides the scores.
        scaled: Divide by sqrt(D) too, which keeps scores of unit variance at any width D.

    Raises:
        ValueError: The temperature is not positive, or x and y differ in width.

    Example:
        >>> x = torch.tensor([[3.0, 4.0]])
        >>> InnerProductCritic().paired(x, x), InnerProductCritic(normalize=True, temperature=0.5).paired(x, x)
        (tensor([25.]), tensor([2.]))
    """

    def __init__(self, normalize: bool = False, temperature: float = 1.0, scaled: bool = False) -> None:
        super().__init__()
        if not (temperature > 0 and math.isfinite(temperature)):
            raise ValueError(f"Got temperature={temperature}: it divides the scores, so it is a positive number.")
        self.normalize = normalize
        self.temperature = temperature
        self.scaled = scaled

    def paired(self, x: Tensor, y: Tensor) -> Tensor:
        """(N,) scores of matching rows."""
        x, y = self._prepare(x, y)
        return (x * y).sum(-1)

    def pairwise(self, x: Tensor, y: Tensor) -> Tensor:
        """(N, M) scores of all pairs."""
        x, y = self._prepare(x, y)
        return x @ y.T

    def _prepare(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        _check_shapes(x, y, x.shape[-1], x.shape[-1])
        if self.normalize:
            x, y = normalize(x, dim=-1), normalize(y, dim=-1)
        factor = 1 / (self.temperature * (math.sqrt(x.shape[-1]) if self.scaled else 1.0))
        return (x if factor == 1.0 else x * factor), y


@final
class Calibrated(AbstractCritic):
    """Another critic's scores times a learnable scale plus a learnable offset, both set from the first batch.

    The offset lets training move the log-normalizer without touching the features, which otherwise could only shrink
    to obey a regularizer. :meth:`calibrate` starts it where the log-normalizer is at its target, and the scale where
    marginal scores have unit standard deviation. ``MIEstimationModule`` calls it on the first training batch.

    Args:
        critic: The critic to wrap.
        offset: Learn an offset.
        scale: Learn a scale; it is kept positive.

    Raises:
        ValueError: Neither is asked for.

    Example:
        >>> critic, x = Calibrated(InnerProductCritic()), torch.randn(8, 2)
        >>> scores = lambda: critic.pairwise(x, x).flatten()
        >>> critic.calibrate(scores, lambda: scores().logsumexp(0), target=5.0)
        >>> scores().logsumexp(0)
        tensor(5.0000, grad_fn=<LogsumexpBackward0>)
    """

    calibrated: Tensor

    def __init__(self, critic: AbstractCritic, offset: bool = True, scale: bool = False) -> None:
        super().__init__()
        if not (offset or scale):
            raise ValueError("Got offset=False and scale=False: there is nothing to calibrate; use the critic itself.")
        self.critic = critic
        self.offset = nn.Parameter(torch.zeros(())) if offset else None
        self.log_scale = nn.Parameter(torch.zeros(())) if scale else None
        self.register_buffer("calibrated", torch.tensor(False))

    def paired(self, x: Tensor, y: Tensor) -> Tensor:
        """(N,) scores of matching rows."""
        return self._affine(self.critic.paired(x, y))

    def pairwise(self, x: Tensor, y: Tensor) -> Tensor:
        """(N, M) scores of all pairs."""
        return self._affine(self.critic.pairwise(x, y))

    @torch.no_grad()
    def calibrate(
        self, marginal_scores: Callable[[], Tensor], log_normalizer: Callable[[], Tensor], target: float = 0.0
    ) -> None:
        """Set scale and offset from a batch, once: nothing happens if they have been set before.

        Args:
            marginal_scores: Gives this critic's scores of the batch's marginal pairs, (K,).
            log_normalizer: Gives the bound's log-normalizer with this critic on the batch, a scalar in nats.
            target: Where the offset puts it, nats.
        """
        if self.calibrated:
            return
        if self.log_scale is not None:
            scores = marginal_scores()
            if scores.numel() > 1 and (deviation := scores.std()) > 0:
                self.log_scale.sub_(deviation.log())
            average_(self.log_scale)
        if self.offset is not None:
            self.offset.add_(target - log_normalizer())
            average_(self.offset)
        self.calibrated.fill_(True)

    def _affine(self, scores: Tensor) -> Tensor:
        if self.log_scale is not None:
            scores = scores * self.log_scale.exp()
        return scores if self.offset is None else scores + self.offset


def _check_shapes(x: Tensor, y: Tensor, x_dim: int, y_dim: int) -> None:
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != x_dim or y.shape[1] != y_dim:
        raise ValueError(
            f"Got x of shape {tuple(x.shape)} and y of shape {tuple(y.shape)}: this critic takes "
            f"(N, {x_dim}) and (M, {y_dim}). Flatten the representations, or choose a critic of their widths."
        )

"""Correlated Gaussians with known mutual information: one level of MI, or a staircase of levels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from lightning_mi.data.base import AbstractStreamDataModule
from lightning_mi.data.gaussian_laws import gaussian_log_ratio, gaussian_log_ratio_matrix, gaussian_rho
from lightning_mi.data.stream import Batch
from lightning_mi.data.transforms import TransformName, get_transform
from lightning_mi.utilities.checks import check_number, check_whole


@final
@dataclass(frozen=True)
class _Staircase:
    """The law at each training step. Picklable, because worker processes get a copy."""

    dim: int
    levels: tuple[float, ...]  # nats
    steps_per_level: int
    transform: str

    @property
    def num_steps(self) -> int:
        return self.steps_per_level * len(self.levels)

    def mi(self, step: int) -> float:
        check_whole("step", step, 0)
        return self.levels[min(step // self.steps_per_level, len(self.levels) - 1)]

    def rho(self, step: int) -> float:
        return gaussian_rho(self.mi(step), self.dim)

    def __call__(self, step: int, num_rows: int, generator: torch.Generator) -> Batch:
        rho = self.rho(step)
        x = torch.randn(num_rows, self.dim, generator=generator)
        noise = torch.randn(num_rows, self.dim, generator=generator)
        y = rho * x + (1 - rho * rho) ** 0.5 * noise
        return x, get_transform(self.transform).forward(y)


@final
class GaussianDataModule(AbstractStreamDataModule):
    """Correlated standard normal vectors x and y with known MI; y may be mapped by an injective function.

    x ~ N(0, I) and y = rho x + sqrt(1 - rho^2) noise, with rho = sqrt(1 - exp(-2 MI / D)). A batch is a tuple (x, y) of
    float32 tensors of shape (N, D). Batches are new at every training step and pure functions of (``seed``, step): they
    do not depend on the number of workers or on a resume, and two ranks with batches of 32 see the data of one rank
    with batches of 64.

    A list of MIs is a staircase with ``steps_per_mi`` training batches on each level; one epoch is the whole staircase.
    Later epochs (``max_epochs > 1``) stay on the last level, with new batches.

    Validation and test batches are fixed draws, at the MI of the last training batch of the same trainer. A new
    trainer, as in ``lightning-mi test``, always evaluates on the last level: after a training that stopped on an
    earlier level, set ``mi`` to that level.

    Args:
        dim: Dimension D of x and of y.
        mi: Mutual information in nats, or a list of levels.
        steps_per_mi: Number of training batches on each level.
        batch_size: Pairs N per batch on each rank, at least 2.
        transform: Map of y that keeps the MI: identity, cubic, asinh, half_cube or normal_cdf.
        seed: Seed of the data, independent of ``seed_everything``.
        num_workers: Worker processes of each loader; 0 is fastest, because drawing is cheap.
        val_batches: Number of validation batches.
        test_batches: Number of test batches.

    Raises:
        TypeError: If a number is not of the right type.
        ValueError: If an argument is out of range.

    The defaults, with levels of 2, 4, 6, 8 and 10 nats, are those of the Gaussian benchmark of Choi and Lee.

    Source: Choi and Lee 2022 (Gaussian benchmark); Poole et al. 2019 (cubic variant).

    Example:
        >>> data = GaussianDataModule(dim=3, mi=[2, 4], steps_per_mi=100, batch_size=8)
        >>> x, y = next(iter(data.train_dataloader()))
        >>> x.shape, data.true_mi(99), data.true_mi(100)
        (torch.Size([8, 3]), 2.0, 4.0)
    """

    def __init__(
        self,
        dim: int = 20,
        mi: float | list[float] = 2.0,
        *,
        steps_per_mi: int = 4000,
        batch_size: int = 64,
        transform: TransformName = "identity",
        seed: int = 0,
        num_workers: int = 0,
        val_batches: int = 100,
        test_batches: int = 100,
    ) -> None:
        values = tuple(mi) if isinstance(mi, Sequence) else (mi,)
        for value in values:
            check_number("mi", value, "the mutual information in nats, or a list of them")
        if not values:
            raise ValueError("Got mi=[]: give one mutual information in nats, or one for each level of the staircase.")
        levels = tuple(map(float, values))
        check_whole("dim", dim, 1)
        check_whole("steps_per_mi", steps_per_mi, 1)
        for level in levels:
            gaussian_rho(level, dim)  # raises for an unreachable level
        get_transform(transform)  # raises for an unknown name
        self._staircase = _Staircase(dim, levels, steps_per_mi, transform)
        super().__init__(
            self._staircase,
            num_steps=self._staircase.num_steps,
            batch_size=batch_size,
            seed=seed,
            num_workers=num_workers,
            val_batches=val_batches,
            test_batches=test_batches,
        )

    def true_mi(self, step: int | None = None) -> float:
        """Mutual information at a training step, in nats.

        Args:
            step: Index of a training batch, counted over all epochs; steps after the staircase are on the last level.
                By default the current step: that of the last training batch.

        Raises:
            ValueError: If ``step`` is negative.

        Example:
            >>> GaussianDataModule(mi=3.0).true_mi(0)
            3.0
        """
        return self._staircase.mi(self.current_step() if step is None else step)

    @property
    def exchangeable(self) -> bool:
        """Whether (x, y) and (y, x) have the same law: true without a transform."""
        return self._staircase.transform == "identity"

    def log_ratio(self, x: Tensor, y: Tensor, step: int = 0) -> Tensor:
        """Exact log p(x, y) / (p(x) p(y)) of each pair: the scores of the optimal critic.

        Args:
            x: (N, D), as in a batch.
            y: (N, D), as in a batch: after ``transform``.
            step: Training step of the law.

        Returns:
            (N,) nats, in the inputs' dtype.

        Raises:
            ValueError: If ``step`` is negative, or the shapes are not (N, D) twice.

        Example:
            >>> data = GaussianDataModule(dim=1, mi=0.5)
            >>> data.log_ratio(torch.tensor([[1.0]]), torch.tensor([[1.0]]))
            tensor([0.9430])
        """
        return gaussian_log_ratio(x, self._base(y), self._staircase.rho(step))

    def log_ratio_matrix(self, x: Tensor, y: Tensor, step: int = 0) -> Tensor:
        """Exact log-ratio of every x with every y: (N, D) and (M, D) to (N, M) nats; see :meth:`log_ratio`.

        Raises:
            ValueError: If ``step`` is negative, or the shapes are not (N, D) and (M, D).

        Example:
            >>> GaussianDataModule(dim=1).log_ratio_matrix(torch.zeros(2, 1), torch.zeros(3, 1)).shape
            torch.Size([2, 3])
        """
        return gaussian_log_ratio_matrix(x, self._base(y), self._staircase.rho(step))

    def _base(self, y: Tensor) -> Tensor:
        return get_transform(self._staircase.transform).inverse(y)

"""Correlated Gaussians with known mutual information: one level, or a staircase of levels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from lightning_mi.data.base import AbstractStreamDataModule
from lightning_mi.data.gaussian_laws import gaussian_log_ratio, gaussian_log_ratio_matrix, gaussian_rho
from lightning_mi.data.stream import Batch, check_at_least
from lightning_mi.data.transforms import TransformName, get_transform
from lightning_mi.utilities.checks import check_number


@final
@dataclass(frozen=True)
class _Staircase:
    """The law at each training step; draws batches, and is all that a worker process needs."""

    dim: int
    levels: tuple[float, ...]  # nats
    steps_per_level: int
    transform: str

    @property
    def num_steps(self) -> int:
        return self.steps_per_level * len(self.levels)

    def mi(self, step: int) -> float:
        check_at_least("step", step, 0)
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
    """d independent pairs of correlated standard normal coordinates, y optionally mapped, at known MI.

    x ~ N(0, I) and y = rho x + sqrt(1 - rho^2) noise, with rho = sqrt(1 - exp(-2 MI / d)). A batch is a tuple (x, y),
    each (N, D) float32, drawn afresh at each training step and a function of (``seed``, step) alone: the same for any
    number of workers, after a resume, and for one rank with batches of 64 or two with batches of 32.

    A list of MIs is a staircase: ``steps_per_mi`` training batches on each level, and one epoch climbs it once.
    Training that goes on (``max_epochs > 1``) stays on the last level, with fresh batches.

    Validation and test batches are fixed draws, at the MI of the last batch trained on (at the last level if this
    trainer has trained on none, as in a test run of its own).

    Args:
        dim: Coordinates D of x and of y.
        mi: The mutual information in nats, or a list of them for a staircase.
        steps_per_mi: Training batches on each MI.
        batch_size: Pairs N per batch on each rank; at least 2, since marginal pairs are made within a batch.
        transform: A map of y that keeps the MI: identity, cubic, asinh, half_cube or normal_cdf.
        seed: Chooses the data, independently of ``seed_everything``.
        num_workers: Worker processes; 0 is right for data this cheap.
        val_batches: Validation batches.
        test_batches: Test batches.

    Raises:
        ValueError: If an argument is out of range; the message says which and what would be right.

    Source:
        Choi & Lee (UAI 2022), the Gaussian benchmark (d = 20, MI 2, 4, 6, 8, 10 for 4000 steps each, batch 64);
        its cubic variant is that of Poole et al. (2019).

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
        steps_per_mi: int = 4000,
        batch_size: int = 64,
        transform: TransformName = "identity",
        seed: int = 0,
        num_workers: int = 0,
        val_batches: int = 100,
        test_batches: int = 100,
    ) -> None:
        given = tuple(mi) if isinstance(mi, Sequence) else (mi,)
        for level in given:
            check_number("mi", level, "the mutual information in nats, or a list of them")
        levels = tuple(map(float, given))
        if not levels:
            raise ValueError("mi is an empty list: give one mutual information in nats, or one for each stair.")
        check_at_least("dim", dim, 1)
        check_at_least("steps_per_mi", steps_per_mi, 1)
        for level in levels:
            gaussian_rho(level, dim)  # raises for a level that no correlation reaches
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
        """The mutual information, in nats, at a training step.

        Args:
            step: Index of a training batch, counted through all epochs; beyond the staircase it means the last level.
                By default the one in force: the batch being trained on, or the last one during validation and test.

        Raises:
            ValueError: If ``step`` is negative.

        Example:
            >>> GaussianDataModule(mi=3.0).true_mi(0)
            3.0
        """
        return self._staircase.mi(self.step_in_force() if step is None else step)

    @property
    def exchangeable(self) -> bool:
        """Whether (x, y) and (y, x) have the same law: only if y is not mapped."""
        return self._staircase.transform == "identity"

    def log_ratio(self, x: Tensor, y: Tensor, step: int = 0) -> Tensor:
        """The exact log p(x, y) / (p(x) p(y)) of each pair: the oracle critic.

        Args:
            x: (N, D), as in a batch.
            y: (N, D), as in a batch, hence after ``transform``.
            step: Training step whose law is meant.

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
        """The exact log-ratio of every x with every y: (N, D) and (M, D) to (N, M) nats, as :meth:`log_ratio`.

        Raises:
            ValueError: If ``step`` is negative, or the shapes are not (N, D) and (M, D).

        Example:
            >>> GaussianDataModule(dim=1).log_ratio_matrix(torch.zeros(2, 1), torch.zeros(3, 1)).shape
            torch.Size([2, 3])
        """
        return gaussian_log_ratio_matrix(x, self._base(y), self._staircase.rho(step))

    def _base(self, y: Tensor) -> Tensor:
        return get_transform(self._staircase.transform).inverse(y)

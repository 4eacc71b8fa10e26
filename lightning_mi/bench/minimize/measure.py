"""Run one cell of the benchmark of minimization and write its result."""

import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from lightning_mi.bench.minimize.cell import MinimizeCell
from lightning_mi.bench.minimize.methods import make_penalty
from lightning_mi.bench.minimize.task import GaussianTask, encode
from lightning_mi.bench.minimize.training import Settings, Training, train
from lightning_mi.bench.results import write_curves
from lightning_mi.bench.worker import configure_worker
from lightning_mi.estimation.two_arrays import estimate

AUDIT_SAMPLES = 5000


def measure_cell(
    folder: Path, cell: MinimizeCell, report: Callable[[float], None], stopped: Callable[[], bool]
) -> None:
    """Train the cell, and write exact values, estimates, the audit and the CPU time under ``folder``.

    Args:
        folder: Results of the benchmark.
        cell: The training.
        report: Called with the fraction of the steps done.
        stopped: Called as often; the training stops once it returns True.

    Raises:
        Interrupted: If ``stopped`` returned True.
    """
    configure_worker()
    settings = Settings(**cell.config["training"])
    generator = torch.Generator().manual_seed(cell.seed)
    task = GaussianTask.draw(generator)
    penalty = partial(make_penalty, cell.method, task, weight=settings.penalty_weight, critic_steps=cell.critic_steps)
    training = train(task, penalty, settings, cell.seed, generator, report, stopped)
    curves = {name: values.numpy() for name, values in training.exact._asdict().items()}
    curves |= {name: getattr(training, name).numpy() for name in ("estimate", "estimate_before")}
    facts = {"diverged_at": training.diverged_at, "cpu_seconds": training.cpu_seconds}
    facts |= _audit(training, task, generator, cell.config["audit"], cell.seed)
    write_curves(folder, cell, curves, **facts)


def _audit(
    training: Training, task: GaussianTask, generator: torch.Generator, budget: Any, seed: int
) -> dict[str, float | None]:
    """I(z; s) of the last encoder by a fresh fit to new samples, and its lower limit, nats; None without an audit."""
    if budget is None:
        return {"audit_mi": None, "audit_lower": None}
    from threadpoolctl import threadpool_limits  # comes with scikit-learn

    x, _, nuisance = task.sample(AUDIT_SAMPLES, generator)
    z = encode(training.weight, x, generator)
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the report compares with the truth
        result = estimate(z.numpy(), nuisance.numpy(), budget=budget, seed=seed)
    return {"audit_mi": result.mi, "audit_lower": result.lower}

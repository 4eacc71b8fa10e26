"""The training of the benchmark of minimization: an encoder with a head, and a penalty on I(z; s)."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, final

import torch
from torch import Tensor, nn

from lightning_mi.bench.cells import Interrupted
from lightning_mi.bench.minimize.task import DIM_TARGET, DIM_X, DIM_Z, ExactValues, GaussianTask, encode

_REPORT_EVERY = 20  # steps


@final
@dataclass(frozen=True)
class Settings:
    """Settings of every training of a preset.

    Attributes:
        steps: Training steps.
        batch_size: N.
        learning_rate: Of Adam for encoder and head.
        task_weight: Factor of the task's mean squared error in the loss.
        penalty_weight: Factor of the penalty in the loss.
    """

    steps: int
    batch_size: int
    learning_rate: float
    task_weight: float
    penalty_weight: float


class PenaltyValue(NamedTuple):
    """The penalty of one batch.

    Attributes:
        penalty: The scalar to add to the loss, nats.
        estimates: Its estimates of I(z; s) after and before the critic trained on the batch, nats; None without critic.
    """

    penalty: Tensor
    estimates: tuple[Tensor, Tensor] | None


PenaltyFunction = Callable[[Tensor, Tensor, Tensor], PenaltyValue]  # of z (N, 6), s (N, 4) and W (6, 20)


class Training(NamedTuple):
    """A finished training.

    Attributes:
        weight: W of the last encoder, (6, 20).
        exact: Exact values of the encoder and head before each step and after the last one, (steps + 1,).
        estimate: (steps,) estimates of the penalty on the batch that the critic has just trained on, nats; (0,) without
            critic.
        estimate_before: (steps,) the same before the critic trained on the batch, nats.
        diverged_at: The step with a loss that is not finite, which is the last one; None if there is none.
        cpu_seconds: Processor time of the steps.
    """

    weight: Tensor
    exact: ExactValues
    estimate: Tensor
    estimate_before: Tensor
    diverged_at: int | None
    cpu_seconds: float


def train(
    task: GaussianTask,
    make_penalty: Callable[[], PenaltyFunction | None],
    settings: Settings,
    seed: int,
    generator: torch.Generator,
    report: Callable[[float], None] = lambda fraction: None,
    stopped: Callable[[], bool] = lambda: False,
) -> Training:
    """Train encoder and head on the task's error plus the penalty.

    Args:
        task: Source of the batches.
        make_penalty: Creates the penalty, or returns None for none. It is called after encoder and head exist, so that
            these start alike for all methods with one seed.
        settings: Settings of the training.
        seed: Seed of all weights; it sets torch's global generator.
        generator: Of the batches.
        report: Called every 20 steps with the fraction of the steps done.
        stopped: Called as often; the training stops once it returns True.

    Raises:
        Interrupted: If ``stopped`` returned True.
    """
    torch.manual_seed(seed)
    encoder, head = nn.Linear(DIM_X, DIM_Z, bias=False), nn.Linear(DIM_Z, DIM_TARGET)
    penalty = make_penalty()
    parameters = [encoder.weight, head.weight, head.bias]
    optimizer = torch.optim.Adam(parameters, lr=settings.learning_rate)
    states = [_copy(parameters)]
    estimates: list[Tensor] = []
    diverged_at: int | None = None
    start = time.process_time()
    for step in range(settings.steps):
        if step % _REPORT_EVERY == 0:
            report(step / settings.steps)
            if stopped():
                raise Interrupted
        x, target, nuisance = task.sample(settings.batch_size, generator)
        z = encode(encoder.weight, x, generator)
        loss = settings.task_weight * nn.functional.mse_loss(head(z), target)
        if penalty is not None:
            value = penalty(z, nuisance, encoder.weight)
            loss = loss + value.penalty
            if value.estimates is not None:
                estimates.append(torch.stack(value.estimates))
        if not torch.isfinite(loss):
            diverged_at = step
            break
        optimizer.zero_grad()
        torch.autograd.backward([loss])
        optimizer.step()
        states.append(_copy(parameters))
    seconds = time.process_time() - start
    after, before = torch.stack(estimates, dim=1) if estimates else torch.empty(2, 0)
    exact = task.exact(*(torch.stack(column) for column in zip(*states, strict=True)))
    return Training(states[-1][0], exact, after, before, diverged_at, seconds)


def _copy(parameters: list[Tensor]) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in parameters]

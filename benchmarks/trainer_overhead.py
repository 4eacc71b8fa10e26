"""What MIEstimationModule costs under the Lightning trainer: time of a step, over that of bare PyTorch loops.

Regularized DV with a separable critic 256-256 on 64 pairs of 20 dimensions, logging to TensorBoard every 50 steps:

- `loop`: the same mathematics written out, without Lightning and without us, and torch's Adam;
- `loop, fused`: the same with torch's fused Adam, which has to be asked for;
- `lightning`: the loop's step as the `training_step` of a LightningModule of five lines, which logs nothing;
- `module`: MIEstimationModule, its terms, metrics and logs, with the loop's Adam;
- `module, default`: the same with the optimizer that it has by default, which is the fused Adam;
- `module, default, LightningModule.log`: the same without the shortcut of `lightning_logs.log_step`.

A bare loop runs as where Lightning was not imported, which has torch look for CUDA's driver at every step of Adam;
MIEstimationModule stops that where there is no device.

Rounds alternate, so that whatever slows the machine slows all of them. Printed are the fastest round of each, since
what else a machine does only adds to it, and the median of the rounds' ratios.

    python benchmarks/trainer_overhead.py
"""

import argparse
import os
import statistics
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import lightning.pytorch as L
import torch
from torch import Tensor, nn
from torch.utils.data import IterableDataset

from benchmarks.common import Clock, add_device, quiet, seconds_now, show
from lightning_mi import MIEstimationModule, bounds, critics, regularizers
from lightning_mi._compat import lightning_logs

PAIRS, DIM = 64, 20
WARM_UP = 100  # steps that are not timed
DRIVER_IS_ASKED = "PYTORCH_NVML_BASED_CUDA_CHECK"  # for devices, at each step of an optimizer, as Lightning has it
WAYS = ("loop", "loop, fused", "lightning", "module", "module, default", "module, default, LightningModule.log")


class Batches(IterableDataset[tuple[Tensor, Tensor]]):
    """Batches that cost nothing to make."""

    def __init__(self, steps: int, pairs: int = PAIRS, device: str = "cpu") -> None:
        generator = torch.Generator().manual_seed(0)
        self.steps = steps
        self.some = [
            tuple(torch.randn(pairs, DIM, generator=generator).to(device) for _ in range(2)) for _ in range(16)
        ]

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        return (self.some[step % len(self.some)] for step in range(self.steps))


def make_critic() -> critics.SeparableCritic:
    torch.manual_seed(0)
    return critics.SeparableCritic(DIM, DIM, hidden=(256, 256))


def make_optimizer(parameters: Iterator[nn.Parameter], fused: bool | None = None) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=5e-4, fused=fused)


class PlainCritic(nn.Module):
    """The same networks, as torch runs them."""

    def __init__(self) -> None:
        super().__init__()
        critic = make_critic()
        self.x_net, self.y_net = nn.Sequential(*critic.x_net), nn.Sequential(*critic.y_net)


def written_out(critic: PlainCritic, batch: Sequence[Tensor]) -> Tensor:
    """Regularized DV, as one would write it for this case alone."""
    x, y = batch
    scores = critic.x_net(x) @ critic.y_net(y).T
    joint = scores.diagonal()
    marginal = scores.flatten()[1:].view(PAIRS - 1, PAIRS + 1)[:, :-1]  # all but the diagonal
    log_normalizer = torch.logsumexp(marginal.flatten(), 0) - torch.log(torch.tensor(PAIRS * (PAIRS - 1.0)))
    return log_normalizer - joint.mean() + log_normalizer**2


class FiveLines(L.LightningModule):
    """The least that a LightningModule can be."""

    def __init__(self) -> None:
        super().__init__()
        self.critic = PlainCritic()

    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> Tensor:
        return written_out(self.critic, batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return make_optimizer(self.critic.parameters())


def loop(steps: int, device: str, fused: bool) -> float:
    """Seconds of so many steps of a bare loop, as where Lightning was never imported."""
    os.environ.pop(DRIVER_IS_ASKED, None)
    critic = PlainCritic().to(device)
    optimizer = make_optimizer(critic.parameters(), fused or None)
    started = 0.0
    for step, batch in enumerate(Batches(WARM_UP + steps, device=device)):
        if step == WARM_UP:
            started = seconds_now(device)
        optimizer.zero_grad()
        written_out(critic, batch).backward()
        optimizer.step()
    return seconds_now(device) - started


def train(module: L.LightningModule, steps: int, device: str) -> float:
    """Seconds of so many steps under the trainer."""
    os.environ[DRIVER_IS_ASKED] = "1"
    clock = Clock(WARM_UP, device)
    with tempfile.TemporaryDirectory() as folder:
        trainer = L.Trainer(
            accelerator=device,
            devices=1,
            max_steps=WARM_UP + steps,
            default_root_dir=folder,
            callbacks=[clock],
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
        )
        trainer.fit(module, torch.utils.data.DataLoader(Batches(WARM_UP + steps, device=device), batch_size=None))
    return clock.seconds


def seconds(way: str, steps: int, device: str) -> float:
    if way.startswith("loop"):
        return loop(steps, device, fused=way.endswith("fused"))
    if way == "lightning":
        return train(FiveLines(), steps, device)
    optimizer = None if "default" in way else make_optimizer
    module = MIEstimationModule(
        make_critic(), bounds.DV(), regularizer=regularizers.Squared(weight=1.0), optimizer=optimizer
    )
    lightning_logs.FAST_LOGS = not way.endswith("LightningModule.log")
    try:
        return train(module, steps, device)
    finally:
        lightning_logs.FAST_LOGS = True


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=25)
    add_device(parser)
    parser.add_argument("--csv", type=Path)
    options = parser.parse_args(arguments)
    quiet()
    rounds = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number in range(options.rounds):
            order = WAYS if number % 2 else WAYS[::-1]
            found = {way: seconds(way, options.steps, options.device) for way in order}
            rounds.append([found[way] for way in WAYS])
    heading = ["way", "ms a step", "over the loop", "median of the rounds' ratios"]
    fastest = [min(times) for times in zip(*rounds, strict=True)]
    rows = [
        [
            way,
            f"{fastest[i] / options.steps * 1000:.3f}",
            f"{fastest[i] / fastest[0]:.3f}",
            f"{statistics.median(times[i] / times[0] for times in rounds):.3f}",
        ]
        for i, way in enumerate(WAYS)
    ]
    show(heading, rows, options.csv)


if __name__ == "__main__":
    main()

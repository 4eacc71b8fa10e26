"""Overhead of MIEstimationModule: time of a step, relative to a plain LightningModule and to a PyTorch loop.

Regularized DV with a separable critic 256-256 on N pairs of 20 dimensions, logging to TensorBoard every 50 steps:

- `loop`: the same mathematics written out, without Lightning and without this package, with torch's Adam;
- `loop, fused`: the same with torch's fused Adam;
- `lightning`: the step of the loop as `training_step` of a plain LightningModule that logs nothing;
- `module`: MIEstimationModule with its terms, metrics and logs, with the loop's Adam;
- `module, default`: the same with its default optimizer, the fused Adam;
- `module, default, LightningModule.log`: the same without the shortcut of `lightning_logs.log_step`.

Rounds alternate, so that load on the machine slows all of them. Printed are the fastest round of each, because load
only adds time, and the median of the ratios within a round. "Over lightning" of `module` is the cost of this package.

    python benchmarks/trainer_overhead.py                 N = 64
    python benchmarks/trainer_overhead.py --pairs 256
"""

import argparse
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

PAIRS, DIM = 64, 20  # by default
WARM_UP = 100  # steps that are not timed
WAYS = ("loop", "loop, fused", "lightning", "module", "module, default", "module, default, LightningModule.log")


class Batches(IterableDataset[tuple[Tensor, ...]]):
    """Precomputed batches."""

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
    """The same networks as plain torch modules."""

    def __init__(self) -> None:
        super().__init__()
        critic = make_critic()
        self.x_net, self.y_net = nn.Sequential(*critic.x_net), nn.Sequential(*critic.y_net)


def written_out(critic: PlainCritic, batch: Sequence[Tensor]) -> Tensor:
    """Regularized DV, written for this case only."""
    x, y = batch
    scores = critic.x_net(x) @ critic.y_net(y).T
    joint = scores.diagonal()
    n = len(x)
    marginal = scores.flatten()[1:].view(n - 1, n + 1)[:, :-1]  # all but the diagonal
    log_normalizer = torch.logsumexp(marginal.flatten(), 0) - torch.log(torch.tensor(n * (n - 1.0)))
    return log_normalizer - joint.mean() + log_normalizer**2


class Plain(L.LightningModule):
    """A minimal LightningModule."""

    def __init__(self) -> None:
        super().__init__()
        self.critic = PlainCritic()

    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> Tensor:
        return written_out(self.critic, batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return make_optimizer(self.critic.parameters())


def loop(steps: int, pairs: int, device: str, fused: bool) -> float:
    """Seconds of these steps in a PyTorch loop."""
    critic = PlainCritic().to(device)
    optimizer = make_optimizer(critic.parameters(), fused or None)
    started = 0.0
    for step, batch in enumerate(Batches(WARM_UP + steps, pairs, device)):
        if step == WARM_UP:
            started = seconds_now(device)
        optimizer.zero_grad()
        written_out(critic, batch).backward()
        optimizer.step()
    return seconds_now(device) - started


def train(module: L.LightningModule, steps: int, pairs: int, device: str) -> float:
    """Seconds of these steps with a Lightning trainer."""
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
        batches = Batches(WARM_UP + steps, pairs, device)
        trainer.fit(module, torch.utils.data.DataLoader(batches, batch_size=None))
    return clock.seconds


def seconds(way: str, steps: int, pairs: int, device: str) -> float:
    if way.startswith("loop"):
        return loop(steps, pairs, device, fused=way.endswith("fused"))
    if way == "lightning":
        return train(Plain(), steps, pairs, device)
    optimizer = None if "default" in way else make_optimizer
    module = MIEstimationModule(
        make_critic(), bounds.DV(), regularizer=regularizers.Squared(weight=1.0), optimizer=optimizer
    )
    lightning_logs.FAST_LOGS = not way.endswith("LightningModule.log")
    try:
        return train(module, steps, pairs, device)
    finally:
        lightning_logs.FAST_LOGS = True


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--pairs", type=int, default=PAIRS, help="N, the batch size")
    add_device(parser)
    parser.add_argument("--csv", type=Path)
    options = parser.parse_args(arguments)
    quiet()
    rounds = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number in range(options.rounds):
            order = WAYS if number % 2 else WAYS[::-1]
            found = {way: seconds(way, options.steps, options.pairs, options.device) for way in order}
            rounds.append([found[way] for way in WAYS])
    heading = ["way", "ms a step", "over the loop", "over lightning", "median over the loop", "median over lightning"]
    fastest = [min(times) for times in zip(*rounds, strict=True)]
    bases = (WAYS.index("loop"), WAYS.index("lightning"))
    rows = [
        [
            way,
            f"{fastest[i] / options.steps * 1000:.3f}",
            *(f"{fastest[i] / fastest[base]:.3f}" for base in bases),
            *(f"{statistics.median(times[i] / times[base] for times in rounds):.3f}" for base in bases),
        ]
        for i, way in enumerate(WAYS)
    ]
    show(heading, rows, options.csv)


if __name__ == "__main__":
    main()

"""Time of a step of sixty small critics, as one ensemble and one by one, on one thread or GPU.

Six losses from ten seeds, every second one regularized; separable critics of width 32 on 64 pairs of 20 correlated
Gaussian dimensions; fused Adam.

- `loop`: each critic alone in a plain PyTorch loop, with bound and regularizer, without Lightning;
- `apart`: each as an `MIEstimationModule` with its trainer;
- `ensemble`: all as one `MIEnsemble` with one trainer;
- `exact`: the same with `batched=False`, which is bitwise equal to `apart`.

Rounds alternate; the fastest of each way counts. `difference` is the largest difference of any member's value, nats.

    python benchmarks/many_critics.py
"""

import argparse
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import lightning.pytorch as L
import torch

from benchmarks.common import Clock, add_device, quiet, seconds_now, show
from lightning_mi import MIEnsemble, MIEstimationModule, bounds, critics, regularizers
from lightning_mi.bench.worker import configure_worker
from lightning_mi.data import GaussianDataModule

LOSSES = (bounds.DV, bounds.MINE, bounds.SMILE, bounds.InfoNCE, bounds.NWJ, bounds.JS)
WARM_UP = 20  # steps that are not timed


def make_member(loss: type[bounds.AbstractBound], seed: int, width: int = 32) -> MIEstimationModule:
    torch.manual_seed(seed)
    return MIEstimationModule(
        critics.SeparableCritic(20, 20, hidden=(width,), embed_dim=32),
        loss(),
        regularizer=regularizers.Squared(weight=0.1) if seed % 2 else None,
        optimizer=partial(torch.optim.Adam, lr=1e-3, fused=True),
    )


class Values(Clock):
    """The clock, and the value of each step of one module or of an ensemble's members."""

    def __init__(self, device: str) -> None:
        super().__init__(WARM_UP, device)
        self.values: list[torch.Tensor] = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        terms = outputs["ensemble"].terms if "ensemble" in outputs else outputs["terms"]
        self.values.append(terms.value)


def fit(module: L.LightningModule, steps: int, device: str) -> tuple[float, torch.Tensor]:
    """Milliseconds of a step, and (steps, ...) values."""
    clock = Values(device)
    off = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    options = {"max_epochs": 1, "accelerator": device, "devices": 1, "limit_val_batches": 0} | dict.fromkeys(off, False)
    trainer = L.Trainer(callbacks=[clock], **options)
    trainer.fit(module, GaussianDataModule(mi=4.0, steps_per_mi=steps + WARM_UP))
    return 1000 * clock.seconds / steps, torch.stack(clock.values)


def loop(module: MIEstimationModule, steps: int, device: str) -> float:
    """Milliseconds of a step of the plain loop."""
    module.to(device)
    optimizer = module.configure_optimizers()
    for index, batch in enumerate(GaussianDataModule(mi=4.0, steps_per_mi=steps + WARM_UP).train_dataloader()):
        if index == WARM_UP:
            started = seconds_now(device)
        optimizer.zero_grad()
        module.step(tuple(view.to(device) for view in batch)).loss.backward()
        optimizer.step()
    return 1000 * (seconds_now(device) - started) / steps


def measure(steps: int, rounds: int, seeds: int, width: int, device: str) -> list[dict[str, str]]:
    members = [(loss, seed) for loss in LOSSES for seed in range(seeds)]

    def ensemble(batched: bool) -> tuple[float, torch.Tensor]:
        made = {f"{loss.__name__}-{seed}": make_member(loss, seed, width) for loss, seed in members}
        return fit(MIEnsemble(made, batched=batched), steps, device)

    best: dict[str, float] = {}
    for _ in range(rounds):
        apart = [fit(make_member(*member, width), steps, device) for member in members]
        ways = {"ensemble": ensemble(True), "exact": ensemble(False)}
        found = {
            "loop": sum(loop(make_member(*member, width), steps, device) for member in members),
            "apart": sum(milliseconds for milliseconds, _ in apart),
            **{way: milliseconds for way, (milliseconds, _) in ways.items()},
        }
        best = {way: min(best.get(way, spent), spent) for way, spent in found.items()}
    values = torch.stack([values for _, values in apart], dim=1)
    differences = {way: f"{(found - values).abs().max():.1e}" for way, (_, found) in ways.items()}
    return [
        {
            "way": way,
            "critics": str(len(members)),
            "ms a step": f"{spent:.2f}",
            "loop over it": f"{best['loop'] / spent:.2f}",
            "apart over it": f"{best['apart'] / spent:.2f}",
            "difference": differences.get(way, ""),
        }
        for way, spent in best.items()
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200, help="timed steps of a training")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=10, help="critics of each loss")
    parser.add_argument("--width", type=int, default=32)
    add_device(parser)
    parser.add_argument("--csv", type=Path, default=Path("many_critics.csv"))
    parser.add_argument("--tiny", action="store_true", help="a short run without meaningful times")
    options = parser.parse_args(arguments)
    if options.tiny:
        options.steps, options.rounds, options.seeds = 3, 1, 2
    quiet()
    configure_worker()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows = measure(options.steps, options.rounds, options.seeds, options.width, options.device)
    show(list(rows[0]), [list(row.values()) for row in rows], options.csv)


if __name__ == "__main__":
    main()

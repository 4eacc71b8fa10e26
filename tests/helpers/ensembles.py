"""Members of an ensemble, and short trainings that record the values of their bounds."""

from collections.abc import Callable
from functools import partial
from typing import Any

import lightning.pytorch as L
import torch
from torch import Tensor, nn

from lightning_mi import MIEstimationModule, bounds, critics, regularizers
from lightning_mi.data import GaussianDataModule

LOSSES: dict[str, Callable[[], bounds.AbstractBound]] = {
    "DV": bounds.DV,
    "MINE": bounds.MINE,
    "SMILE": bounds.SMILE,
    "InfoNCE": bounds.InfoNCE,
    "NWJ": bounds.NWJ,
    "TUBA": bounds.TUBA,
    "TUBA with a baseline": lambda: bounds.TUBA(baseline=nn.Linear(4, 1)),
    "JS": bounds.JS,
    "ReleasedNWJ": bounds.ReleasedNWJ,
    "ReleasedTUBA": bounds.ReleasedTUBA,
    "ReleasedJS": bounds.ReleasedJS,
}
STEPS = 15


def make(loss: str = "DV", seed: int = 0, weight: float | None = None, lr: float = 1e-2, **parts: Any) -> Any:
    torch.manual_seed(seed)
    return MIEstimationModule(
        parts.pop("critic", None) or critics.SeparableCritic(4, 4, hidden=(16,), embed_dim=8),
        LOSSES[loss](),
        regularizer=None if weight is None else regularizers.Squared(weight=weight),
        optimizer=partial(parts.pop("optimizer", torch.optim.Adam), lr=lr),
        **parts,
    )


class Values(L.Callback):
    def __init__(self) -> None:
        self.values: list[Tensor] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        terms = outputs["ensemble"].terms if "ensemble" in outputs else outputs["terms"]
        self.values.append(torch.stack((terms.value, terms.log_normalizer)))


def gaussian() -> GaussianDataModule:
    return GaussianDataModule(dim=4, mi=2.0, steps_per_mi=STEPS, batch_size=16, val_batches=2, test_batches=2)


def fit(
    module: Any, data: Any = None, callbacks: Any = (), ckpt_path: Any = None, **options: Any
) -> tuple[Tensor, Any]:
    values = Values()
    off = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    given = {"accelerator": "cpu", "max_epochs": 1, "limit_val_batches": 0} | dict.fromkeys(off, False) | options
    trainer = L.Trainer(callbacks=[values, *callbacks], **given)
    trainer.fit(module, gaussian() if data is None else data, ckpt_path=ckpt_path)
    return torch.stack(values.values), trainer

"""Modules whose batches hold ids or several labels: each trains, and its loss is that of MILoss."""

from collections.abc import Callable
from typing import Any

import lightning.pytorch as L
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_mi import MIEstimationModule, bounds, critics, pairs

X, Y = torch.randn(2, 24, 4, generator=torch.Generator().manual_seed(0))
IDS, CAPTION_IDS = torch.arange(24) // 2, torch.arange(36) // 3
CAPTIONS = torch.randn(36, 4, generator=torch.Generator().manual_seed(1))
MULTI_HOT = (torch.rand(24, 5, generator=torch.Generator().manual_seed(2)) < 0.3).int()
CASES: dict[str, tuple[Callable[[], pairs.AbstractPairing], dict[str, Any]]] = {
    "images and captions": (
        pairs.SameId,
        {"views": (X, CAPTIONS), "labels": torch.cat([IDS, CAPTION_IDS])},
    ),
    "multi-hot labels": (pairs.OverlappingLabels, {"views": (X,), "labels": MULTI_HOT}),
    "two views and labels": (
        lambda: pairs.SameLabel(num_views=2, weighting="anchor", ignore_index=-1),
        {"views": (X, Y), "labels": torch.arange(24) % 4 - 1},
    ),
}


class Dictionaries(MIEstimationModule):
    def unpack_batch(self, batch: dict) -> tuple[Tensor, ...]:
        return *batch["views"], batch["labels"]


@pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers")
@pytest.mark.parametrize("name", CASES)
def test_module_trains_and_logs_the_value(name) -> None:
    make, batch = CASES[name]
    torch.manual_seed(0)
    critic = critics.InnerProductCritic(normalize=True, temperature=0.5, learnable=True, min_temperature=0.1)
    module = Dictionaries(critic, bounds.InfoNCE(), pairs=make(), encoder=nn.Linear(4, 3))
    with torch.no_grad():
        scores = module.pairs(critic, *(module.encoders[0](view) for view in batch["views"]), batch["labels"])
        before = module.bound(scores).value.item()
    trainer = L.Trainer(
        max_epochs=3, logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False
    )
    first: list[float] = []

    class Recorder(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
            first.append(outputs["terms"].value.item())

    trainer.callbacks.append(Recorder())  # type: ignore[attr-defined]
    loader: DataLoader = DataLoader([batch], batch_size=None)
    trainer.fit(module, loader, loader)
    assert first[0] == pytest.approx(before, rel=1e-5)
    assert first[-1] > first[0]
    assert trainer.callback_metrics["val/mi"].isfinite()
    assert critic.temperature != 0.5
    predicted = module.eval().predict_step(batch)
    assert predicted["x"].shape == (24, 3)

"""Digits in two views with their labels, sharded over ranks without padding, and a module for them."""

import datetime

import lightning.pytorch as L
import torch
from lightning.pytorch.strategies import DDPStrategy
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_mi import MIEstimationModule, bounds, critics

NUM_FEATURES = 16


class Digits(L.LightningDataModule):
    """(image, noisy image, label) to train, validate and test on; (image, label) for reference."""

    num_classes = 10

    def __init__(self, batch_size=64, workers=0, with_labels=True):
        super().__init__()
        x, y = load_digits(return_X_y=True)
        x = torch.tensor(x, dtype=torch.float32) / 16
        noisy = x + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
        self.x, self.noisy, self.y = x, noisy, torch.tensor(y)
        self.batch_size, self.workers, self.with_labels = batch_size, workers, with_labels

    def loader(self, part, reference=False, **kwargs):
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        views = (self.x,) if reference else (self.x, self.noisy)
        tensors = (*views, self.y) if self.with_labels or reference else views
        shard = TensorDataset(*(t[part][rank::world] for t in tensors))
        return DataLoader(shard, batch_size=self.batch_size // world, num_workers=self.workers, **kwargs)

    def train_dataloader(self):
        return self.loader(slice(0, 640))

    def val_dataloader(self):
        return self.loader(slice(1000, 1301))

    def test_dataloader(self):
        return self.loader(slice(1301, 1600))

    def reference_dataloader(self):
        return self.loader(slice(0, 701), reference=True)


def make(encoder=None, critic=None, seed=0, **kwargs):
    torch.manual_seed(seed)
    encoder = encoder or nn.Sequential(nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, NUM_FEATURES))
    critic = critic or critics.BilinearCritic(NUM_FEATURES, NUM_FEATURES)
    return MIEstimationModule(critic, kwargs.pop("bound", bounds.InfoNCE()), encoder=encoder, **kwargs)


def features_of(module, x):
    with torch.no_grad():
        return module.eval().encode(x)[0]


def ddp(**kwargs):
    """Arguments of a trainer with two ranks that use the shards of the data module."""
    strategy = DDPStrategy(start_method="fork", process_group_backend="gloo", timeout=datetime.timedelta(seconds=60))
    return {"strategy": strategy, "devices": 2, "use_distributed_sampler": False} | kwargs

"""A plain module whose representation carries a nuisance that its loss does not need."""

import lightning.pytorch as L
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Leaky(L.LightningModule):
    """Predicts the first half of its input from a linear representation with noise."""

    def __init__(self, lr=0.02):
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Linear(2, 2)
        self.head = nn.Linear(2, 1)
        self.lr = lr

    def forward(self, x):
        return self.encoder(x)

    def training_step(self, batch, batch_idx):
        return (self.head(self(batch["x"]) + 0.1) - batch["x"][:, :1]).square().mean()

    def test_step(self, batch, batch_idx):
        return {"z": self(batch["x"])}

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.lr)


class Samples(TensorDataset):
    """A dictionary for each sample: x, its second column (the nuisance), and the sign of it as a label."""

    def __getitem__(self, index):
        (x,) = super().__getitem__(index)
        return {"x": x, "nuisance": x[1:], "label": (x[1] > 0).long()}


def loader(n=256, batch_size=32, seed=0):
    x = torch.randn(n, 2, generator=torch.Generator().manual_seed(seed))
    return DataLoader(Samples(x), batch_size)

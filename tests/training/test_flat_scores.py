"""Equal scores with a zero gradient are a warning."""

import pytest
import torch
from torch import nn

from lightning_mi import MINumericalWarning, bounds, critics
from tests.helpers.small_module import DIM, Batches, fit, make

pytestmark = pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`")


@pytest.mark.parametrize("batch", ["zeros", "same rows"])
def test_a_constant_batch_is_a_warning(batch):
    row = torch.zeros(DIM) if batch == "zeros" else torch.randn(DIM)
    views = (row.expand(8, DIM).contiguous(), row.expand(8, DIM).contiguous())
    with pytest.warns(MINumericalWarning, match="All pairs have the same score"):
        fit(make(), Batches([views]))


@pytest.mark.parametrize("make_bound", [bounds.DV, bounds.InfoNCE])
def test_zero_features_are_one_warning(make_bound):
    x = torch.zeros(8, DIM)
    with pytest.warns(MINumericalWarning, match="features that are all zero") as caught:
        fit(make(make_bound(), critic=critics.InnerProductCritic(), encoder=Dead()), Batches([(x, x)] * 3))
    assert len([warning for warning in caught if warning.category is MINumericalWarning]) == 1


class Dead(nn.Module):
    """An encoder whose last activation is always 0."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(DIM, DIM)

    def forward(self, x):
        return torch.relu(self.linear(x) - 100)

"""``module(x)``: representations, for summaries, export and inference."""

import pytest
import torch
from lightning.fabric import Fabric
from lightning.pytorch.utilities.model_summary import ModelSummary
from torch import nn

from lightning_mi import MIEstimationModule
from tests.helpers.small_module import DIM, draw, equal, make, weights


def networks():
    return [nn.Sequential(nn.Linear(DIM, 2), nn.ReLU()), nn.Linear(DIM, 2)]


def test_forward_encodes_one_view_or_several():
    (first, second), x, y = networks(), torch.randn(4, DIM), torch.randn(4, DIM)
    module = make(encoder=[first, second])
    assert torch.equal(module(x), first(x))
    both = module(x, y)
    assert isinstance(both, tuple)
    assert torch.equal(both[0], first(x))
    assert torch.equal(both[1], second(y))
    assert torch.equal(make()(x), x)


class Double(MIEstimationModule):
    def encode(self, *views):
        return [2 * view for view in views]


def test_forward_uses_an_overridden_encode():
    assert torch.equal(make(cls=Double)(torch.ones(2, DIM)), 2 * torch.ones(2, DIM))


def test_export_and_compile_give_the_encoder():
    module, x = make(encoder=networks()[0]).eval(), torch.randn(4, DIM)
    exported = torch.export.export(module, (x,)).module()
    torch.testing.assert_close(exported(x), module(x))
    compiled = torch.compile(module, backend="eager")
    torch.testing.assert_close(compiled(x), module(x))


@pytest.mark.parametrize("shown", [torch.zeros(1, DIM), (torch.zeros(1, DIM), torch.zeros(1, DIM))])
def test_an_example_input_gives_the_summary_sizes(shown):
    module = make(encoder=networks())
    module.example_input_array = shown
    summary = str(ModelSummary(module, max_depth=2))
    assert "[1, 3]" in summary
    assert "[1, 2]" in summary


def test_fabric_trains_the_module():
    module, fabric = make(encoder=nn.Linear(DIM, DIM)), Fabric(accelerator="cpu", devices=1)
    before = weights(module)
    model, optimizer = fabric.setup(module, torch.optim.SGD(module.parameters(), 0.1))
    model.mark_forward_method("step")
    for x, y in draw(8, 8):
        optimizer.zero_grad()
        fabric.backward(model.step((x, y)).loss)
        optimizer.step()
    assert not equal(weights(module), before)
    torch.testing.assert_close(model(x), module(x))

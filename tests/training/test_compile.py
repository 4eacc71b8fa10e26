"""torch.compile of encoder and critic networks: no graph break, no recompilation after the first step."""

import pytest
import torch
import torch._dynamo
from torch import nn
from torch._dynamo.utils import counters

from lightning_mi import MIEstimationModule, bounds, critics, pairs, regularizers
from tests.helpers.small_module import DIM, draw, trainer

WIDTH = 5


@pytest.fixture(autouse=True)
def counted():
    """Counts the graphs of this test alone."""
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


class Graphs(list):
    """The number of compiled graphs after each step."""

    def record(self):
        self.append(counters["stats"]["unique_graphs"])


def fitted(critic, networks, pairing, compiled=True):
    torch.manual_seed(0)
    graphs = Graphs()

    class Module(MIEstimationModule):
        def on_train_batch_end(self, *args):
            super().on_train_batch_end(*args)
            graphs.record()

    module = Module(
        critic(),
        bounds.JS(),
        pairs=pairing,
        regularizer=regularizers.Squared(weight=0.1),
        encoder=nn.Sequential(nn.Linear(DIM, WIDTH), nn.BatchNorm1d(WIDTH), nn.ReLU(), nn.Linear(WIDTH, DIM)),
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1),
    )
    if compiled:
        for network in (*module.encoders, *(module.critic.get_submodule(name) for name in networks)):
            network.compile(backend="eager", fullgraph=True)
    trainer(limit_val_batches=0).fit(module, draw(8, 8, 8, 8))
    return module, graphs


CRITICS = {
    "separable": (lambda: critics.SeparableCritic(DIM, DIM, hidden=(4,)), ["x_net", "y_net"]),
    "joint": (lambda: critics.JointCritic(DIM, DIM, hidden=(4,)), ["rest"]),
}


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # dynamo reads it
@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`")
@pytest.mark.parametrize("name", CRITICS)
def test_encoder_and_critic_are_compiled_once_without_breaks(name):
    critic, networks = CRITICS[name]
    module, graphs = fitted(critic, networks, pairs.AllPairs())
    assert not counters["graph_break"]
    # One of the encoder and one of the critic: networks of the same shapes share it.
    assert graphs == [2, 2, 2, 2], "a graph is added after the first step"
    assert all("_orig_mod" not in key for key in module.state_dict())
    plain, _ = fitted(critic, networks, pairs.AllPairs(), compiled=False)
    for (key, value), (_, other) in zip(module.state_dict().items(), plain.state_dict().items(), strict=True):
        torch.testing.assert_close(value, other, msg=key)

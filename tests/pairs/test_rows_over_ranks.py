"""LocalGlobal, TimeSteps and Queue under DistributedDataParallel: gradients of one process on the whole batch."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from lightning_mi import MILoss, bounds, critics, pairs, regularizers
from lightning_mi.utilities.distributed import single_process
from tests.helpers.processes import on_processes

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # Python 3.12 and later

DIM, SHARDS, STEPS = 3, (3, 0, 2), 3
WEIGHTED = {"hardness": 1.0, "debias": 0.1, "lowest_score": -2.0}
CASES = {
    "LocalGlobal": (lambda: pairs.LocalGlobal(), lambda: bounds.DV()),
    "LocalGlobal, tiles": (lambda: pairs.LocalGlobal(tile_bytes=100), lambda: bounds.InfoNCE()),
    "TimeSteps": (lambda: pairs.TimeSteps((1, 2)), lambda: bounds.InfoNCE()),
    "TimeSteps, tiles": (lambda: pairs.TimeSteps(2, same_sequence=True, tile_bytes=300), lambda: bounds.NWJ()),
    "Queue of LocalGlobal": (lambda: pairs.Queue(pairs.LocalGlobal(), 8, DIM), lambda: bounds.DV()),
    "Queue of TimeSteps, tiles": (
        lambda: pairs.Queue(pairs.TimeSteps(1, tile_bytes=300), 50, DIM),
        lambda: bounds.InfoNCE(**WEIGHTED),
    ),
    "Queue of TwoViews": (lambda: pairs.Queue(pairs.TwoViews(), 13, DIM, in_batch=False), lambda: bounds.InfoNCE()),
}


class Model(nn.Module):
    def __init__(self, pairing, bound):
        super().__init__()
        self.encoder = nn.Linear(DIM, DIM)
        self.loss = MILoss(critics.BilinearCritic(DIM, DIM), bound, pairing, regularizers.Squared(weight=0.3))

    def forward(self, x, y):
        return self.loss(self.encoder(x), self.encoder(y))


def batch(name, step):
    generator = torch.Generator().manual_seed(step)
    shape = (sum(SHARDS), DIM) if "TwoViews" in name else (sum(SHARDS), 4, DIM)
    x, y = torch.randn(2, *shape, generator=generator, dtype=torch.float64)
    return x, y[:, 0] if "LocalGlobal" in name else y


def train(model, name, rows):
    """Loss and gradients of each step, with plain gradient descent."""
    results = []
    for step in range(STEPS):
        model.zero_grad()
        loss = model(*(view[rows] for view in batch(name, step)))
        loss.backward()
        results += [loss.detach(), *(parameter.grad.clone() for parameter in model.parameters())]
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 0.1 * parameter.grad
    return torch.cat([result.flatten() for result in results])


def compare(rank):
    rows, errors = slice(sum(SHARDS[:rank]), sum(SHARDS[: rank + 1])), {}
    for name, (pairing, bound) in CASES.items():
        torch.manual_seed(0)
        model = Model(pairing(), bound()).double()
        whole = copy.deepcopy(model)
        on_ranks = train(DistributedDataParallel(model), name, rows)
        with single_process():
            alone = train(whole, name, slice(None))
        errors[name] = float((on_ranks - alone).abs().max() / alone.abs().max())
    return errors


def test_three_ranks_train_as_one(tmp_path):
    results = on_processes(compare, len(SHARDS), tmp_path)
    assert len(results[0]) == len(CASES)
    assert max(error for errors in results for error in errors.values()) < 1e-12


def reject(rank):
    """Rank 1 has a wrong shape or an offset that is too large for its sequences."""
    messages, critic = [], critics.InnerProductCritic()
    for pairing, good, bad in (
        (pairs.LocalGlobal(), (2, DIM, 2, 2), (2, DIM)),
        (pairs.TimeSteps(3), (2, 4, DIM), (2, 3, DIM)),
    ):
        x = torch.ones(bad if rank else good)
        y = torch.ones(x.shape if isinstance(pairing, pairs.TimeSteps) else (2, DIM))
        with pytest.raises(ValueError, match=r"Got .*|Rank 1 rejected its shard") as error:
            pairing(critic, x, y)
        messages.append(str(error.value))
    return messages


def test_wrong_shape_on_one_rank_raises_on_all(tmp_path):
    first, second = on_processes(reject, 2, tmp_path)
    assert all(message.startswith("Rank 1 rejected its shard of the batch") for message in first)
    assert [message.split(":")[0] for message in second] == [
        "Got local features of shape (2, 3) and global features of shape (2, 3)",
        "Got offset 3 and sequences of 3 times",
    ]

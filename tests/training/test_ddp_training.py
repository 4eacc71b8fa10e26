"""DDP: two ranks train and log as one process does on the global batch."""

import lightning.pytorch as L
import pytest
import torch
import torch.distributed as dist
from lightning.pytorch.strategies import DDPStrategy

from lightning_mi import MIEstimationModule, bounds, critics, pairs, regularizers
from lightning_mi.utilities.distributed import all_reduce_mean_
from tests.helpers.processes import TIMEOUT, on_processes
from tests.helpers.small_module import trainer

# Python 3.12 and later warn of every fork of a process with threads; gloo on one thread forks well.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

DIM, ROWS, BATCHES = 3, 8, 4


# The mean over ranks.


def test_one_process_returns_the_tensor():
    tensor = torch.tensor([1.0, -2.0])
    assert all_reduce_mean_(tensor) is tensor
    assert tensor.tolist() == [1.0, -2.0]


def test_a_group_of_one_changes_nothing(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1, timeout=TIMEOUT)
    try:
        assert all_reduce_mean_(torch.tensor(3.0)).item() == 3.0
    finally:
        dist.destroy_process_group()


def averages(rank):
    vector = torch.tensor([1.0, 10.0]) * (rank + 1)
    parameter = torch.nn.Parameter(torch.tensor(float(rank)))
    assert all_reduce_mean_(vector) is vector
    all_reduce_mean_(parameter)
    critic = critics.CalibratedCritic(critics.InnerProductCritic(), scale=True, offset_unit=2.0)
    scores = torch.tensor([-1.0, 1.0]) * (rank + 1)
    critic.calibrate(lambda: scores, lambda: torch.tensor(float(rank)), target=2.0)
    return [vector, parameter.detach(), critic.offset.detach(), critic.log_scale.detach()]


def test_two_ranks_average_in_place_and_calibrate(tmp_path):
    for vector, parameter, offset, log_scale in on_processes(averages, 2, tmp_path):
        assert vector.tolist() == [1.5, 15.0]
        assert parameter.item() == 0.5
        assert offset.item() == 0.75  # half of the mean of 2 - 0 and 2 - 1
        scores = torch.tensor([-1.0, 1.0, -2.0, 2.0], dtype=torch.float64)
        assert log_scale.item() == pytest.approx(-scores.std().log().item())


# A training.


class Shards:
    """Batches that ranks take in turn; ``joined`` concatenates each two of them for one process."""

    def __init__(self, seed, joined=False):
        generator = torch.Generator().manual_seed(seed)
        xs = torch.randn(BATCHES, ROWS, DIM, generator=generator)
        noise = torch.randn(xs.shape, generator=generator)
        if joined and world_size() == 1:
            xs, noise = (part.view(BATCHES // 2, 2 * ROWS, DIM) for part in (xs, noise))
        self.batches = [(x, 0.9 * x + 0.4 * e) for x, e in zip(xs, noise, strict=True)]

    def __len__(self):
        return len(self.batches) // world_size()

    def __iter__(self):
        rank = dist.get_rank() if dist.is_initialized() else 0
        return iter(self.batches[rank :: world_size()])


def world_size():
    return dist.get_world_size() if dist.is_initialized() else 1


class Data(L.LightningDataModule):
    def __init__(self, joined):
        super().__init__()
        self.joined = joined

    def train_dataloader(self):
        return Shards(seed=0, joined=self.joined)

    def val_dataloader(self):
        return Shards(seed=1)

    def true_mi(self):
        return 1.5


class Keep(L.Callback):
    """Writes the logged values and the weights of each rank."""

    def __init__(self, folder):
        self.folder = folder

    def on_fit_end(self, trainer, pl_module):
        weights = {name: value.detach().clone() for name, value in pl_module.state_dict().items()}
        del weights["mi_loss._extra_state"]  # the number of batches, of which two ranks need fewer
        path = f"{self.folder}/{trainer.world_size}-{trainer.global_rank}.pt"
        torch.save((dict(trainer.callback_metrics), weights), path)


def fit(bound, folder, gather=True, **kwargs):
    torch.manual_seed(0)
    critic = critics.SeparableCritic(DIM, DIM, hidden=(8,), embed_dim=4)
    module = MIEstimationModule(
        # The first batch calibrates it, which differs without an all-gather.
        critics.CalibratedCritic(critic, scale=True, offset_unit=1.0) if gather else critic,
        bound,
        pairs=pairs.AllPairs(gather=gather),
        regularizer=regularizers.Squared(weight=0.5),
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1),
    )
    trainer(max_epochs=2, callbacks=Keep(folder), **kwargs).fit(module, datamodule=Data(joined=gather))


@pytest.fixture
def launched(monkeypatch):
    """Restores the environment variables of the launcher."""
    for name in ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def ddp():
    strategy = DDPStrategy(start_method="fork", process_group_backend="gloo", timeout=TIMEOUT)
    return {"devices": 2, "strategy": strategy}


def compare(folder, names=None):
    """Compare values and weights of one process with those of two ranks."""
    alone, weights = torch.load(folder / "1-0.pt", weights_only=True)
    for rank in range(2):
        together, rank_weights = torch.load(folder / f"2-{rank}.pt", weights_only=True)
        assert together.keys() == alone.keys()
        for name in names or alone:
            torch.testing.assert_close(together[name], alone[name], rtol=1e-5, atol=1e-5, msg=name)
        torch.testing.assert_close(rank_weights, weights)


def learned_tuba():
    return bounds.TUBA(torch.nn.Linear(DIM, 1))


@pytest.mark.usefixtures("launched")
@pytest.mark.parametrize("bound", [bounds.MINE, bounds.InfoNCE, learned_tuba])
def test_two_ranks_equal_one_on_the_global_batch(bound, tmp_path):
    torch.manual_seed(0)
    fit(bound(), tmp_path)
    torch.manual_seed(0)
    fit(bound(), tmp_path, **ddp())
    compare(tmp_path)


@pytest.mark.usefixtures("launched")
def test_without_gathering_two_ranks_equal_gradient_accumulation(tmp_path):
    # Two ranks average the gradients of two batches, so one process steps after two.
    bound = bounds.NWJ
    fit(bound(), tmp_path, gather=False, accumulate_grad_batches=2)
    fit(bound(), tmp_path, gather=False, **ddp())
    pooled = {f"val/{name}" for name in ("mi", "mi_macro", "mi_standard_error", "log_normalizer", "loss")}
    pooled |= {
        f"train/{name}" for name in ("mi_micro", "mi_macro", "log_normalizer_micro", "effective_sample_fraction")
    }
    compare(tmp_path, pooled)


class FakeTrainer:
    """The attributes of a trainer that ``on_fit_start`` reads."""

    loggers, datamodule = (), None

    def __init__(self, world_size):
        self.world_size = world_size


@pytest.mark.parametrize(("gather", "world_size", "times"), [(True, 2, 0), (False, 2, 1), (False, 1, 0)])
def test_local_pairs_are_logged_once(gather, world_size, times, monkeypatch):
    logged: list[str] = []
    monkeypatch.setattr(
        "lightning_mi.training.loop_hooks.rank_zero_info", logged.append
    )  # other tests may have silenced its logger
    module = MIEstimationModule(critics.SeparableCritic(DIM, DIM), bounds.DV(), pairs=pairs.AllPairs(gather=gather))
    module._trainer = FakeTrainer(world_size)  # type: ignore[assignment]  # has what `on_fit_start` reads
    module.on_fit_start()
    assert len(logged) == times
    assert all("AllPairs has gather=False: each of the 2 ranks pairs its own samples" in line for line in logged)

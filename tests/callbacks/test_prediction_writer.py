"""PredictionWriter: files of predictions."""

import datetime

import lightning.pytorch as L
import pytest
import torch
import torch.multiprocessing as mp
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy
from torch.utils.data import DataLoader, TensorDataset

from lightning_mi.callbacks import PredictionWriter
from tests.helpers.ranks import become_rank, free_port
from tests.helpers.small_module import DIM, make, trainer

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),  # Python 3.12 and later
    pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers"),
]


def loader(rows=10, batch_size=4):
    generator = torch.Generator().manual_seed(rows)
    x, y = torch.randn(2, rows, DIM, generator=generator)
    return DataLoader(TensorDataset(x, y), batch_size=batch_size)


def encoding(**kwargs):
    return make(encoder=torch.nn.Linear(DIM, DIM), **kwargs)


def read(path):
    return torch.load(path, weights_only=True)


def test_a_file_holds_all_predictions_in_order(tmp_path):
    module, writer = encoding(prediction="both"), PredictionWriter(tmp_path)
    returned = trainer(callbacks=[writer]).predict(module, loader())
    assert writer.paths == [tmp_path / "predictions.pt"]
    content = read(writer.paths[0])
    assert content.pop("indices").tolist() == list(range(10))
    assert content.keys() == {"x", "y", "pmi"}
    for name, value in content.items():
        assert torch.equal(value, torch.cat([batch[name] for batch in returned]))
    torch.testing.assert_close(content["x"], module(loader().dataset.tensors[0]))


def test_each_data_loader_has_a_file(tmp_path):
    writer = PredictionWriter()
    trainer(callbacks=[writer], default_root_dir=tmp_path).predict(encoding(), [loader(10), loader(6)])
    assert [path.name for path in writer.paths] == [f"predictions-dataloader_idx_{i}.pt" for i in range(2)]
    assert [len(read(path)["x"]) for path in writer.paths] == [10, 6]


class Constant(L.LightningModule):
    def __init__(self, value):
        super().__init__()
        self.value = value

    def predict_step(self, batch, batch_idx):
        return self.value


def test_tensors_of_any_module_are_written(tmp_path):
    trainer(callbacks=[PredictionWriter(tmp_path)]).predict(Constant(torch.ones(2)), loader())
    assert read(tmp_path / "predictions.pt")["predictions"].tolist() == [1.0] * 6


def test_other_predictions_are_an_error(tmp_path):
    with pytest.raises(TypeError, match="Got predictions of type str from `predict_step` of Constant"):
        trainer(callbacks=[PredictionWriter(tmp_path)]).predict(Constant("cat"), loader())
    assert not list(tmp_path.iterdir())


def test_each_rank_writes_its_samples(tmp_path):
    mp.start_processes(_predict, (free_port(), tmp_path), nprocs=2, start_method="fork")
    found = [read(tmp_path / f"predictions-rank_{rank}.pt") for rank in range(2)]
    order = torch.cat([content["indices"] for content in found]).argsort()
    x = torch.cat([content["x"] for content in found])[order]
    torch.testing.assert_close(x, encoding()(loader().dataset.tensors[0]))


def _predict(rank, port, folder):
    torch.set_num_threads(1)
    become_rank(rank, port)
    strategy = DDPStrategy(process_group_backend="gloo", timeout=datetime.timedelta(seconds=60))
    options = {"strategy": strategy, "devices": 2, "plugins": [LightningEnvironment()]}
    trainer(callbacks=[PredictionWriter(folder)], **options).predict(encoding(), loader())

"""The benchmark of layer readings: its network, its probes, and what a grid of them stores."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedShuffleSplit
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.nn import functional as F

from lightning_mi.bench import local_pool, run
from lightning_mi.bench.cells import Interrupted
from lightning_mi.bench.dispatch import run_cell
from lightning_mi.bench.plane import measure as measure_module
from lightning_mi.bench.plane import training as training_module
from lightning_mi.bench.plane.cell import LAYERS, METHODS
from lightning_mi.bench.plane.converged import HeldOutValue, read_converged
from lightning_mi.bench.plane.grid import Settings, load_plane_grid
from lightning_mi.bench.plane.training import PlainClassifier, Split, layer_rows, read_layers, split_digits
from lightning_mi.bench.results import load_curves
from lightning_mi.callbacks.watch.reading import read_pair
from lightning_mi.exceptions import GridError
from lightning_mi.utilities.recipe_registry import find_file
from tests.helpers.grids import ignore
from tests.helpers.small_module import equal

pytestmark = pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers")
FILE = find_file("plane", "benchmark").path
SETTINGS = Settings(batch_size=64, learning_rate=1e-3, online_learning_rate=1e-2)


def mean_row(fitted: Any, held_out: Any) -> HeldOutValue:
    """A stand-in for the converged probe, which takes seconds: the means of the rows that it receives."""
    assert [len(labels) for _, labels in (fitted, held_out)] == [256, 128]
    return HeldOutValue(float(fitted[0].mean()), float(held_out[0].mean()))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Split:
    """A part of the digits, and no converged probes."""
    split = split_digits(0)
    part = Split(*(tuple(rows[:size] for rows in part) for part, size in zip(split, (256, 128), strict=True)))
    monkeypatch.setattr(measure_module, "split_digits", lambda seed: part)
    monkeypatch.setattr(training_module, "read_converged", mean_row)
    return part


# The readings.


def test_digits_are_split_without_overlap_by_seed() -> None:
    first, again, other = split_digits(0), split_digits(0), split_digits(1)
    assert [len(labels) for _, labels in first] == [1437, 360]
    assert torch.equal(first.held_out[0], again.held_out[0])
    assert not torch.equal(first.held_out[0], other.held_out[0])
    images = [torch.cat([part[0] for part in split]) for split in (first, other)]
    assert torch.equal(*(rows.sum(dim=1).sort().values for rows in images))  # the same images, in another order
    assert images[0].max() == 1


def test_all_methods_read_the_network_of_a_plain_loop(small: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    all_batches: list[Any] = []
    step = PlainClassifier.training_step

    def recorded_step(self: PlainClassifier, batch: Any, batch_idx: int) -> torch.Tensor:
        all_batches.append(batch)
        return step(self, batch, batch_idx)

    monkeypatch.setattr(PlainClassifier, "training_step", recorded_step)
    fractions: list[float] = []
    trained, readings = read_layers(small, SETTINGS, [1, 2], 3, fractions.append)
    assert fractions == [0.0, 0.5]
    assert readings.shape == (2, len(LAYERS), len(METHODS), 2)

    torch.manual_seed(3)
    widths = (64, 128, 64, 16, 10)
    parts = [part for i in range(4) for part in (nn.Linear(widths[i], widths[i + 1]), nn.ReLU())]
    net = nn.Sequential(*parts[:-1])
    probes = [nn.Sequential(nn.Linear(width, 64), nn.ReLU(), nn.Linear(64, 10)) for width in widths[1:]]
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    probe_optimizers = [torch.optim.Adam(probe.parameters(), lr=1e-2) for probe in probes]
    ends = (2, 4, 6, 7)  # of the layers in the sequence
    held_x, held_y = small.held_out
    law = torch.bincount(held_y) / len(held_y)
    for epoch in range(2):
        batches = all_batches[4 * epoch : 4 * epoch + 4]
        stored: list[list[torch.Tensor]] = [[], [], [], []]
        for x, y in batches:
            for end, probe, probe_optimizer, seen in zip(ends, probes, probe_optimizers, stored, strict=True):
                seen.append(net[:end](x).detach())
                probe_optimizer.zero_grad()
                F.cross_entropy(probe(seen[-1]), y).backward()
                probe_optimizer.step()
            optimizer.zero_grad()
            F.cross_entropy(net(x), y).backward()
            optimizer.step()
        labels = torch.cat([y for _, y in batches])
        for layer, (end, probe) in enumerate(zip(ends, probes, strict=True)):
            with torch.no_grad():
                present, held = torch.cat([net[:end](x) for x, _ in batches]), net[:end](held_x)
                online = -(law * law.log()).sum() - F.cross_entropy(probe(held), held_y)
            plane, lagging = (
                read_pair((rows, labels), (held, held_y), noise=0.0, hidden=64, seed=0)
                for rows in (present, torch.cat(stored[layer]))
            )
            expected = [plane.value, lagging.value, float(online), float(present.mean())]
            np.testing.assert_allclose(readings[epoch, layer, :, 0], expected, atol=1e-4)
            expected = [plane.standard_error, lagging.standard_error, float(held.mean())]
            np.testing.assert_allclose(readings[epoch, layer, [0, 1, 3], 1], expected, atol=1e-4)
    assert equal(trained.net.state_dict(), net.state_dict())  # bitwise: probes do not change the training


def test_layers_are_the_three_rectified_ones_and_the_logits(small: Split) -> None:
    images = small.held_out[0]
    module = PlainClassifier(1e-3)
    rows = layer_rows(module.net, images)
    assert [rows[path].shape[1] for path in LAYERS] == [128, 64, 16, 10]
    assert all((rows[path] >= 0).all() for path in LAYERS[:3])
    torch.testing.assert_close(rows["net.6"], module(images))


def rows_of(kind: str, count: int, seed: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Two features whose label is a linear function of them with noise, or their exclusive or."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, 2)) * [1.0, 50.0]
    if kind == "linear":
        return x, (x[:, 0] + x[:, 1] / 50 + rng.normal(size=count) > 0).astype(int)
    return x, (x[:, 0] * x[:, 1] > 0).astype(int)


@pytest.mark.parametrize(("kind", "seed", "winner"), [("linear", 1, 0), ("linear", 2, 1), ("xor", 0, 1)])
def test_converged_probe_is_chosen_without_held_out_rows(kind: str, seed: int, winner: int) -> None:
    (fit_x, fit_y), (x, y) = rows_of(kind, 300, seed), rows_of(kind, 200, seed + 100)
    [(part, rest)] = StratifiedShuffleSplit(1, test_size=0.2, random_state=0).split(fit_x, fit_y)

    def probabilities(probe: Any, rows: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        scaler = StandardScaler().fit(fit_x[rows])
        probe.fit(scaler.transform(fit_x[rows]), fit_y[rows])
        return np.asarray(probe.predict_proba(scaler.transform(other)))

    probes = LogisticRegression(), MLPClassifier((64,), solver="lbfgs", alpha=1.0, max_iter=1000, random_state=0)
    losses = [log_loss(fit_y[rest], probabilities(probe, part, fit_x[rest])) for probe in probes]
    assert np.argmin(losses) == winner
    held_out = probabilities(probes[winner], np.arange(300), x)
    law = np.bincount(y) / len(y)
    read = read_converged((fit_x, fit_y), (x, y))
    assert read.value == pytest.approx(-(law * np.log(law)).sum() - log_loss(y, held_out), abs=1e-9)
    pointwise = [np.log(p[label] / law[label]) for p, label in zip(held_out, y, strict=True)]
    assert read.standard_error == pytest.approx(np.std(pointwise, ddof=1) / 200**0.5, abs=1e-9)
    if kind == "xor":
        assert 0.45 < read.value < np.log(2)  # a linear classifier reads 0


def test_reading_stops_when_told(small: Split) -> None:
    for steps in (0, 4):  # in the first step; at the first layer, after four steps
        answers = [True] + [False] * steps
        with pytest.raises(Interrupted):
            read_layers(small, SETTINGS, [1], 0, ignore, answers.pop)


# The grid.


def test_paper_preset_has_five_seeds_and_four_epochs() -> None:
    grid = load_plane_grid(FILE, "paper")
    assert [cell.name for cell in grid.cells] == [f"plane-seed{seed}" for seed in range(5)]
    assert {tuple(cell.config["epochs"]) for cell in grid.cells} == {(1, 3, 10, 30)}
    assert load_plane_grid(FILE, "quick", [4]).note == "one seed, epochs 1 and 3; seeds replaced on the command line"


def write(folder: Path, **changes: Any) -> Path:
    """The benchmark's file with other epochs of the preset `quick`, or another training."""
    document = yaml.safe_load(FILE.read_text())
    document["presets"]["quick"] |= changes.pop("quick", {})
    document["training"] |= changes
    path = folder / "plane.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def test_digest_depends_on_all_settings(tmp_path: Path) -> None:
    changes: list[dict[str, Any]] = [{}, {"quick": {"epochs": [1]}}, {"quick": {"seeds": [1]}}, {"batch_size": 32}]
    changes += [{"learning_rate": 0.1}, {"online_learning_rate": 0.1}]
    digests = {load_plane_grid(write(tmp_path, **change), "quick").cells[0].digest for change in changes}
    assert len(digests) == len(changes)


@pytest.mark.parametrize(
    ("changes", "preset", "message"),
    [
        ({}, "papers", "Got preset 'papers': plane.yaml has paper, quick"),
        ({"quick": {"epochs": [3, 0]}}, "quick", r"Got epochs \[3, 0\]: give at least one, counted from 1"),
        ({"quick": {"epochs": []}}, "quick", r"Got epochs \[\]"),
        ({"quick": {"epoch": [1]}}, "quick", "unknown key epoch"),
        ({"momentum": 0.9}, "quick", "unknown key momentum"),
    ],
)
def test_invalid_files_raise(changes: dict[str, Any], preset: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(GridError, match=message):
        load_plane_grid(write(tmp_path, **changes), preset)


def test_options_of_another_benchmark_are_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.run("plane", "quick", output=tmp_path, methods=["online"]) == 2
    assert "Got --methods for the benchmark plane" in capsys.readouterr().err


@pytest.mark.usefixtures("small")
def test_finished_grid_is_reported_without_a_process(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    [cell] = load_plane_grid(FILE, "quick").cells
    run_cell(tmp_path, cell, ignore)
    result = load_curves(tmp_path, cell)
    assert result is not None
    assert result["mi"].shape == result["standard_error"].shape == (2, len(LAYERS), len(METHODS))
    assert result["cpu_seconds"] > 0
    monkeypatch.setattr(local_pool, "_executor", None)
    assert run.run("plane", "quick", output=tmp_path) == 0
    output = capsys.readouterr().out
    assert "1 training, results in" in output
    assert "InformationPlane" in output
    assert {"table.md", "results.csv", "layers.png"} < {path.name for path in tmp_path.iterdir()}

"""Cells that train together have the files that they have alone."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_mi import freed_memory
from lightning_mi.bench import process
from lightning_mi.bench.cell import CURVES, load_curves, train_cell, train_cells
from lightning_mi.bench.grid import Cell, Grid, load_grid
from lightning_mi.bench.recorder import Interrupted
from lightning_mi.bench.sharing import shared
from tests.bench.test_run import tiny_grid


@pytest.fixture(autouse=True)
def no_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["lightning-mi"])


def train_both_ways(folder: Path, cells: list[Cell]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    fractions: list[float] = []
    train_cells(folder / "together", cells, fractions.append, lambda: False)
    assert fractions
    assert all(0 < fraction <= 1 for fraction in fractions)
    found = []
    for cell in cells:
        train_cell(folder / "apart", cell, lambda fraction: None, lambda: False)
        curves = [load_curves(folder / way, cell) for way in ("together", "apart")]
        assert curves[0] is not None
        assert curves[1] is not None
        found.append((curves[0], curves[1]))
    return found


def assert_equal(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one.keys() == other.keys()
    for name, values in one.items():
        np.testing.assert_array_equal(values, other[name], err_msg=name)


@pytest.mark.parametrize(
    ("name", "losses", "data"),
    [
        ("gaussian", ("SMILE", "InfoNCE", "JS"), {"steps_per_mi": 2, "batch_size": 8}),
        ("onehot", ("MINE", "InfoNCE"), {"steps": 25}),
    ],
)
def test_losses_and_variants_have_the_same_curves_together_and_apart(
    name: str, losses: tuple[str, ...], data: dict[str, int], tmp_path: Path
) -> None:
    for group in shared(tiny_grid(name, losses, **data).cells, jobs=1):
        assert len(group) > 1
        for together, apart in train_both_ways(tmp_path, group):
            assert_equal(together, apart)


def test_a_cell_that_diverges_ends_where_it_would_alone_and_leaves_the_others(tmp_path: Path) -> None:
    cells = [cell for cell in tiny_grid(losses=("NWJ", "DV")).cells if cell.variant == "original"]
    # Of one optimizer's class: that members' settings differ is no obstacle.
    for cell in cells:
        if cell.loss == "NWJ":
            cell.config["model"]["init_args"]["optimizer"]["init_args"]["lr"] = 1e4
    found = train_both_ways(tmp_path, cells)
    for together, apart in found:
        assert_equal(together, apart)
    lengths = [len(together["value"]) for together, _ in found]
    diverged = [together["diverged_at"] for together, _ in found]
    assert [length < 40 for length in lengths] == [end is not None for end in diverged]
    assert sum(end is not None for end in diverged) == 1


def test_a_training_in_which_all_diverge_ends(tmp_path: Path) -> None:
    cells = tiny_grid(losses=("NWJ", "TUBA")).cells
    cells = [cell for cell in cells if cell.variant == "original"]
    for cell in cells:
        cell.config["model"]["init_args"]["optimizer"]["init_args"]["lr"] = 1e4
    for together, apart in train_both_ways(tmp_path, cells):
        assert_equal(together, apart)
        assert together["diverged_at"] is not None


def test_tensorboard_has_the_same_of_a_cell_together_and_apart(tmp_path: Path) -> None:
    cells = tiny_grid(losses=("DV",)).cells
    train_both_ways(tmp_path, cells)
    for cell in cells:
        boards = []
        for way in ("together", "apart"):
            board = EventAccumulator(str(tmp_path / way / "tensorboard" / cell.name))
            board.Reload()
            boards.append(board)
        together, apart = (board.Tags() for board in boards)
        # Averages over the whole epoch, one point at its end, are not kept together.
        averages = {"mi_micro", "mi_macro", "mi_plug_in", "log_normalizer_micro", "effective_sample_size"}
        assert {name for name in apart["scalars"] if name.removeprefix("train/") not in averages} == set(
            together["scalars"]
        )
        assert (together["histograms"], together["images"]) == (apart["histograms"], apart["images"])
        assert set(together["tensors"]) == set(apart["tensors"])
        for name in set(together["scalars"]) - {"epoch"}:
            points = [[(event.step, event.value) for event in board.Scalars(name)] for board in boards]
            assert points[0] == points[1]


def test_an_interrupt_leaves_no_curves(tmp_path: Path) -> None:
    answers = iter([False] * 3 + [True])
    cells = tiny_grid().cells
    with pytest.raises(Interrupted):
        train_cells(tmp_path, cells, lambda fraction: None, lambda: next(answers))
    assert not list(tmp_path.glob(f"*/{CURVES}"))


def sizes(grid: Grid, jobs: int) -> list[int]:
    return [len(group) for group in shared(grid.cells, jobs)]


def test_small_cells_on_the_same_batches_share_a_training_and_large_ones_do_not() -> None:
    assert sizes(load_grid("gaussian", "quick"), jobs=1) == [14]
    assert sizes(load_grid("gaussian", "quick"), jobs=2) == [7, 7]
    assert sizes(load_grid("gaussian", "quick", seeds=[0, 1]), jobs=2) == [14, 14]
    assert set(sizes(load_grid("gaussian", "paper"), jobs=2)) == {1}
    assert set(sizes(load_grid("supervised", "quick"), jobs=2)) == {1}
    assert sorted(sizes(load_grid("onehot", "quick"), jobs=1)) == [4, 4, 5]
    assert set(sizes(load_grid("gaussian", "quick"), jobs=100)) == {1}


def test_every_cell_is_in_one_group_and_a_group_has_one_seed_and_optimizer() -> None:
    grid = load_grid("onehot", "paper")
    groups = shared(grid.cells, jobs=3)
    assert sorted(cell.name for group in groups for cell in group) == sorted(cell.name for cell in grid.cells)
    for group in groups:
        assert len({(cell.seed, str(cell.config["model"]["init_args"]["optimizer"])) for cell in group}) == 1
        assert len(group) <= 16


def test_other_callbacks_or_modules_train_by_themselves() -> None:
    cells = tiny_grid().cells
    cells[0].config["trainer"]["callbacks"].append({"class_path": "lightning_mi.callbacks.StabilityMonitor"})
    assert [len(group) for group in shared(cells, 1)] == [1, 1]
    cells = tiny_grid().cells
    cells[0].config["model"]["class_path"] = "project.MyModule"
    assert [len(group) for group in shared(cells, 1)] == [1, 1]
    cells = tiny_grid().cells
    for cell in cells:
        cell.config["model"]["init_args"]["critic"] = {
            "class_path": "lightning_mi.critics.BilinearCritic",
            "init_args": {"x_dim": 16, "y_dim": 16},
        }
    assert [len(group) for group in shared(cells, 1)] == [2]


def test_a_process_that_has_no_mallopt_settles_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freed_memory.ctypes, "CDLL", lambda name: object())
    process.settle()
    monkeypatch.setattr(freed_memory.sys, "platform", "darwin")
    process.settle()

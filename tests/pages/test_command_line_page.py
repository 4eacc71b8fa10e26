"""docs/command_line.md: its commands are understood in their order, its typos get the suggestions that it shows."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from lightning_mi.bench import run as bench
from lightning_mi.cli import main as cli
from lightning_mi.cli import sweep_command
from lightning_mi.cli.commands import TRAINING_COMMANDS
from lightning_mi.cli.sweep import load_sweep
from tests.helpers.paths import ROOT

PAGE = (ROOT / "docs" / "command_line.md").read_text(encoding="utf-8")
TYPOS = re.findall(r"^\| `lightning-mi ([^`]+)` \| (\S+) \|$", PAGE, flags=re.MULTILINE)


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)


def commands():
    return [shlex.split(line)[1:] for block in blocks("console") for line in block.splitlines()]


@pytest.fixture
def grids(monkeypatch):
    """The grids that `bench` would run, by their output folders."""
    found = {}

    def run_grid(grid, output, **options):
        found[output.as_posix()] = grid
        return 0

    for module in (bench, sweep_command):
        monkeypatch.setattr(module, "run_grid", run_grid)
    return found


def test_commands_of_the_page_are_understood_in_their_order(tmp_path, monkeypatch, grids, capsys):
    monkeypatch.chdir(tmp_path)
    for arguments in commands():
        if arguments[0] in TRAINING_COMMANDS:
            capsys.readouterr()
            assert cli.main([*arguments, "--print_config"]) == 0
            printed = yaml.safe_load(capsys.readouterr().out)
            assert printed["model"]["init_args"]["bound"]["class_path"] == "lightning_mi.bounds.NWJ"
            assert printed["model"]["init_args"]["critic"]["init_args"]["x_dim"] == 5
        elif arguments[0] != "results":
            assert cli.main(arguments) == 0, arguments
    assert {cell.loss for cell in grids["lightning_mi_runs/grid-quick"].cells} == {"DV", "NWJ"}
    names = [cell.name for cell in grids["lightning_mi_runs/sweep-gaussian-weight-mi"].cells]
    assert len(names) == 27
    assert "weight=0.1,mi=4-seed0" in names
    assert grids["lightning_mi_runs/contrastive-fashion_mnist-quick"].data == "fashion_mnist"
    read = {word for arguments in commands() if arguments[0] == "results" for word in arguments if "_runs/" in word}
    assert read <= set(grids)


def test_sweep_file_of_the_page_is_a_grid(tmp_path):
    [block] = blocks("yaml")
    path = Path(tmp_path / "grid.yaml")
    path.write_text(block)
    cells = load_sweep(str(path)).cells
    assert len(cells) == 27
    assert {cell.config["data"]["init_args"]["dim"] for cell in cells} == {5}


@pytest.mark.parametrize(("line", "suggestion"), TYPOS)
def test_typo_of_the_page_gets_the_suggestion_shown(line, suggestion, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    try:
        status = cli.main(shlex.split(line))
    except SystemExit as stop:
        status = int(stop.code or 0)
    assert status == 2
    assert f"Did you mean {suggestion}?" in capsys.readouterr().err


def test_the_page_shows_ten_typos():
    assert len(TYPOS) == 10

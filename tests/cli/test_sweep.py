"""`lightning-mi bench` on a recipe with axes, on a grid of one's own, and `lightning-mi results`."""

import csv
import statistics
from pathlib import Path

import pytest
import yaml

from lightning_mi.bench import loggers
from lightning_mi.bench.results import CURVES
from lightning_mi.cli.main import main
from lightning_mi.cli.sweep import load_sweep
from lightning_mi.exceptions import GridError
from tests.helpers.grid_commands import TWO_STEPS, run_in_process

WEIGHTS, LEVELS, SEEDS = ("0.01", "0.1", "1"), ("2", "4", "6"), ("0", "1")
AXES = [f"--sweep=model.regularizer.init_args.weight={','.join(WEIGHTS)}", f"--sweep=data.mi={','.join(LEVELS)}"]


def rows_of(path):
    with Path(path).open(newline="") as file:
        return list(csv.DictReader(file))


def table_of(text):
    lines = [line for line in text.splitlines() if line.startswith("|")]
    heading, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [dict(zip(heading, row, strict=True)) for row in rows]


def test_three_by_three_sweep_in_one_command(here, monkeypatch, capsys):
    ran = run_in_process(monkeypatch)
    assert main(["bench", "gaussian", *AXES, *TWO_STEPS, "--seeds", *SEEDS]) == 0
    printed = table_of(capsys.readouterr().out)
    points = [(row["weight"], row["mi"], row["runs"]) for row in printed]
    assert points == [(weight, level, "2") for weight in WEIGHTS for level in LEVELS]
    assert ran[:2] == ["weight=0.01,mi=2-seed0", "weight=0.01,mi=4-seed0"]
    folder = Path("lightning_mi_runs/sweep-gaussian-weight-mi")
    assert {path.parent.name for path in folder.glob(f"*/{CURVES}")} == set(ran)

    runs = rows_of(folder / "results.csv")
    assert len(runs) == 18
    for row in printed:
        own = [run for run in runs if (run["weight"], run["mi"]) == (row["weight"], row["mi"])]
        values = [float(run["test/mi"]) for run in own]
        assert row["test/mi"] == f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f}"
        assert [float(run["test/true_mi"]) for run in own] == pytest.approx([float(row["mi"])] * 2, rel=1e-5)
    assert len({run["test/mi"] for run in runs}) == 18  # every weight, level and seed makes a difference

    # The same command again runs nothing; `results` makes the table in other formats.
    ran.clear()
    assert main(["bench", "gaussian", *AXES, *TWO_STEPS, "--seeds", *SEEDS]) == 0
    assert ran == []
    assert main(["bench", "gaussian", *AXES, *TWO_STEPS, "--sweep=model.optimizer.lr=0.01", "--seeds", *SEEDS]) == 2
    assert "its runs would be overwritten. Pass another folder" in capsys.readouterr().err
    assert main(["results", "lightning_mi_runs", "--format", "csv", "--figures", "pdf"]) == 0
    [first, *_] = csv.DictReader(capsys.readouterr().out.splitlines())
    own = [float(run["test/mi"]) for run in runs[:1] + runs[9:10]]
    assert (float(first["test/mi"]), float(first["test/mi_sd"])) == pytest.approx(
        (statistics.mean(own), statistics.stdev(own))
    )
    assert (folder / "test-mi.pdf").read_bytes().startswith(b"%PDF")
    assert main(["results", str(folder), "--format", "latex", "--metrics", "val/mi"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:4] == [r"\begin{tabular}{llrr}", r"\toprule", r"weight & mi & runs & val/mi \\"]
    assert main(["results", str(folder), "--metrics", "val/m"]) == 2
    assert "Did you mean val/mi?" in capsys.readouterr().err


def test_diverged_training_is_counted_and_the_others_go_on(here, monkeypatch, capsys):
    run_in_process(monkeypatch)
    options = ["--sweep=model.optimizer.lr=0.001,1e30", "--sweep=data.mi=2", "--sweep=model.bound=NWJ"]
    steps = [option for option in TWO_STEPS if "steps_per_mi" not in option] + ["--sweep=data.steps_per_mi=9"]
    assert main(["bench", "gaussian", *options, *steps, "--sweep=model.regularizer=null"]) == 0
    printed = table_of(capsys.readouterr().out)
    assert [(row["lr"], row["not finite"]) for row in printed] == [("0.001", "0"), ("1e30", "1")]
    assert printed[1]["test/mi"] == "-"


def test_configurations_of_a_sweep_are_those_of_fit(here):
    cells = load_sweep("gaussian", ["model.bound=DV,lightning_mi.bounds.NWJ", "data.dim=3,5"], seeds=[7]).cells
    assert [cell.name for cell in cells] == [f"bound={b},dim={d}-seed7" for b in ("DV", "NWJ") for d in (3, 5)]
    config = cells[-1].config
    assert config["model"]["init_args"]["bound"]["class_path"] == "lightning_mi.bounds.NWJ"
    assert config["model"]["init_args"]["critic"]["init_args"]["x_dim"] == 5  # linked to data.dim
    assert (config["seed_everything"], config["data"]["init_args"]["seed"]) == (7, 7)


def test_grid_file_with_a_sweep_equals_the_command_line(here):
    sweep = "{data.mi: [2, 4], data.dim: 3, model.bound: [DV, NWJ]}"
    Path("grid.yaml").write_text(f"recipe: gaussian\nsweep: {sweep}\nseeds: [1]")
    from_file = load_sweep("grid.yaml").cells
    assert from_file == load_sweep("gaussian", ["data.mi=2,4", "data.dim=3", "model.bound=DV,NWJ"], seeds=[1]).cells
    assert [cell.name for cell in load_sweep("grid.yaml", ["data.mi=8"]).cells] == ["bound=DV-seed1", "bound=NWJ-seed1"]


def test_copied_grid_with_one_changed_line_runs(here, monkeypatch, capsys):
    ran = run_in_process(monkeypatch)
    assert main(["cp", "bench/gaussian", "mine.yaml"]) == 0
    text = Path("mine.yaml").read_text()
    assert text.count("data.init_args.steps_per_mi: 500") == 1
    Path("mine.yaml").write_text(text.replace("data.init_args.steps_per_mi: 500", "data.init_args.steps_per_mi: 2"))
    assert main(["bench", "mine.yaml", "--losses", "JS"]) == 0
    assert ran == ["staircase-JS-original-seed0", "staircase-JS-regularized-seed0"]
    folder = Path("lightning_mi_runs/mine-quick")
    assert {row["steps"] for row in rows_of(folder / "results.csv")} == {"2"}
    capsys.readouterr()
    assert main(["results", str(folder), "--figures", "svg"]) == 0
    rows = table_of(capsys.readouterr().out)
    assert {row["loss"] for row in rows} == {"JS"}
    assert {row["true_mi"] for row in rows} == {"2.0", "4.0", "6.0", "8.0", "10.0"}
    assert (folder / "staircase.svg").read_text().startswith("<?xml")


def test_recipe_of_a_grid_may_be_a_file_beside_it(here):
    assert main(["cp", "gaussian", "recipe.yaml"]) == 0
    Path("grid.yaml").write_text("recipe: recipe.yaml\nsweep: {data.mi: [2, 4]}")
    assert len(load_sweep("grid.yaml").cells) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gaussian", "--sweep", "data.mi"], "it has no values. Write KEY=VALUE,VALUE"),
        (["gaussian", "--sweep", "=1,2"], "it has no key"),
        (["gaussian", "--sweep", "data.mi="], "without a value: there is nothing to run"),
        (["gaussian", "--sweep", "data.mi=1,,2"], "value 2 is empty"),
        (["gaussian", "--sweep", "data.mi=1,2,1"], "1 is there twice"),
        (["gaussian", "--sweep", "data.mi=1", "--sweep", "data.init_args.mi=2"], "--sweep data.mi twice"),
        (["gaussian", "--sweep", "data.mi=two,4"], "Given value: two"),
        (["gaussian", "--sweep", "data.seed=1,2"], "a sweep sets it by --seeds"),
        (["gaussian", "--sweep", "trainer.devices=2"], "a sweep sets it by --gpus-per-run"),
        (["supervised/digits", "--losses", "DV"], "Use --sweep, such as --sweep model.bound=DV,NWJ"),
        (["gaussian", "--sweep", "data.mi=2", "--data", "digits"], "got --data for a sweep of the recipe gaussian"),
        (["mine.yml"], "there is no file mine.yml"),
        (["no_recipe.yaml"], "no_recipe.yaml has no key recipe: it names the recipe"),
        (["no_recipe_sweep.yaml"], "but no key recipe"),
        (["empty_sweep.yaml"], "empty_sweep.yaml: sweep is {}"),
        (["no_grid.yaml"], "no_grid.yaml: it holds no keys"),
        (["not_yaml.yaml"], "which is not valid YAML"),
        (["gaussian", "--logger", "wandb"], "the package wandb is not installed. Run `pip install wandb`"),
        (["gaussian", "--download"], "these runs have no data set of torchvision"),
        (["arrays", "--logger", "mlflow"], "Got --logger for the benchmark arrays"),
    ],
)
def test_invalid_sweep_gives_one_message(arguments, message, here, capsys, monkeypatch):
    monkeypatch.setattr(loggers, "find_spec", lambda name: None)
    document = {"report": "gaussian", "losses": [], "presets": {}, "studies": {}}
    Path("no_recipe.yaml").write_text(yaml.safe_dump(document))
    Path("no_recipe_sweep.yaml").write_text("sweep: {data.mi: [1]}")
    Path("empty_sweep.yaml").write_text("recipe: gaussian\nsweep: {}")
    Path("no_grid.yaml").write_text("- 1")
    Path("not_yaml.yaml").write_text("a: [1")
    try:
        status = main(["bench", *arguments])
    except SystemExit as stop:
        status = int(stop.code or 0)
    assert status == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    assert message in line
    assert not Path("lightning_mi_runs").exists()


@pytest.mark.parametrize(("folder", "message"), [("nowhere", "there is no grid.json in it"), (".", "holds no runs")])
def test_results_of_a_folder_without_runs_raise(folder, message, here, capsys):
    assert main(["results", folder]) == 2
    assert message in capsys.readouterr().err


def test_results_without_a_finished_run_raise(here, capsys):
    from lightning_mi.bench.manifest import write_grid

    write_grid(Path("runs"), load_sweep("gaussian", ["data.mi=2,4"]))
    assert main(["results", "runs"]) == 2
    assert "none of its 2 trainings is finished" in capsys.readouterr().err
    write_grid(Path("others"), load_sweep("gaussian", ["data.dim=2,4"]))
    assert main(["results", "."]) == 2
    errors = capsys.readouterr().err
    assert "left out runs: no run of it" in errors
    assert "Got 2 folders: no run in them is finished" in errors
    Path("runs/grid.json").write_text("{}")
    assert main(["results", "runs"]) == 2
    assert "it cannot be read (KeyError: 'cells')" in capsys.readouterr().err


def test_names_that_collide_raise(here):
    with pytest.raises(GridError, match=r"both runs would be called bound=NWJ-seed0"):
        load_sweep("gaussian", ["model.bound=NWJ,lightning_mi.bounds.NWJ"])

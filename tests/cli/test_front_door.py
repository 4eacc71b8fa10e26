"""`ls`, `cp`, `bench` and help: what the command line answers without Lightning."""

import runpy
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from lightning_mi import __version__
from lightning_mi.cli.main import main
from lightning_mi.utilities import recipe_registry as recipe_files

COMMANDS = ["fit", "validate", "test", "predict", "ls", "cp", "bench"]


@pytest.fixture
def recipes(tmp_path, monkeypatch):
    """A recipes folder of two recipes and one benchmark; one name is both."""
    folder = tmp_path / "recipes"
    (folder / "bench").mkdir(parents=True)
    (folder / "alpha.yaml").write_text("# The first.\n# More.\na: 1\n")
    (folder / "beta.yaml").write_text("b: 2\n")
    (folder / "bench" / "alpha.yaml").write_text("# A grid.\nc: 3\n")
    (folder / "bench" / "gamma.yaml").write_text("# Another grid.\nc: 3\n")
    monkeypatch.setattr(recipe_files, "recipes_folder", lambda: folder)
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.fixture
def bench_calls(monkeypatch):
    """Stands in for the bench package and records how it is called."""
    calls = []
    stand_in = ModuleType("lightning_mi.bench.run")
    stand_in.run = lambda **arguments: calls.append(arguments) or 7
    monkeypatch.setitem(sys.modules, "lightning_mi.bench", ModuleType("lightning_mi.bench"))
    monkeypatch.setitem(sys.modules, "lightning_mi.bench.run", stand_in)
    return calls


def stops_with(arguments):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    return stop.value.code


def test_ls_shows_each_name_with_its_first_comment_line(recipes, capsys):
    assert main(["ls"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "recipes (lightning-mi fit --config NAME)",
        "  alpha  The first.",
        "  beta",
        "benchmarks (lightning-mi bench NAME)",
        "  alpha  A grid.",
        "  gamma  Another grid.",
    ]


def test_every_shipped_recipe_and_benchmark_states_its_purpose():
    files = [*recipe_files.list_files("recipe"), *recipe_files.list_files("benchmark")]
    assert {file.name for file in files} >= {"gaussian", "onehot"}
    assert [file.name for file in files if not file.purpose.endswith(".")] == []


def test_cp_writes_the_recipe_here_by_default(recipes, tmp_path, capsys):
    assert main(["cp", "alpha"]) == 0
    assert (tmp_path / "alpha.yaml").read_bytes() == (recipes / "alpha.yaml").read_bytes()
    assert capsys.readouterr().out == "copied recipe alpha to alpha.yaml\n"


def test_cp_takes_a_file_or_a_folder_as_destination(recipes, tmp_path):
    (tmp_path / "folder").mkdir()
    assert main(["cp", "beta", "mine.yaml"]) == 0
    assert main(["cp", "beta", "folder"]) == 0
    assert (tmp_path / "mine.yaml").read_text() == (tmp_path / "folder" / "beta.yaml").read_text() == "b: 2\n"


def test_cp_prefers_the_recipe_and_bench_slash_names_the_benchmark(recipes, tmp_path):
    assert main(["cp", "bench/alpha", "grid.yaml"]) == 0
    assert main(["cp", "gamma"]) == 0
    assert (tmp_path / "grid.yaml").read_text() == "# A grid.\nc: 3\n"
    assert (tmp_path / "gamma.yaml").read_text() == "# Another grid.\nc: 3\n"


def test_cp_does_not_overwrite_unless_forced(recipes, tmp_path, capsys):
    (tmp_path / "alpha.yaml").write_text("my edits\n")
    assert main(["cp", "alpha"]) == 2
    assert (tmp_path / "alpha.yaml").read_text() == "my edits\n"
    assert "alpha.yaml exists already" in capsys.readouterr().err
    assert main(["cp", "alpha", "--force"]) == 0
    assert (tmp_path / "alpha.yaml").read_text() == (recipes / "alpha.yaml").read_text()


def test_cp_of_an_unknown_name_lists_the_known_ones(recipes, tmp_path, capsys):
    assert main(["cp", "delta"]) == 2
    error = capsys.readouterr().err
    assert "no recipe called 'delta'" in error
    assert "alpha, beta" in error
    assert "bench/alpha, bench/gamma" in error
    assert len(error.splitlines()) == 1


def test_cp_into_a_missing_folder_is_an_error_without_traceback(recipes, capsys):
    assert main(["cp", "alpha", "missing/mine.yaml"]) == 2
    assert "missing/mine.yaml" in capsys.readouterr().err


def test_bench_passes_its_defaults(recipes, bench_calls):
    assert main(["bench", "gamma"]) == 7
    assert bench_calls == [
        {
            "name": "gamma",
            "preset": "quick",
            "output": Path("lightning_mi_runs/gamma-quick"),
            "jobs": None,
            "seeds": None,
            "losses": None,
            "data": None,
            "ray": None,
            "gpus_per_run": 0.0,
        }
    ]


def test_bench_passes_what_it_is_given(recipes, bench_calls):
    options = ["--preset", "paper", "--output", "out", "--jobs", "2", "--seeds", "0", "1", "--losses", "NWJ", "MINE"]
    assert main(["bench", "alpha", *options]) == 7
    assert bench_calls == [
        {
            "name": "alpha",
            "preset": "paper",
            "output": Path("out"),
            "jobs": 2,
            "seeds": [0, 1],
            "losses": ["NWJ", "MINE"],
            "data": None,
            "ray": None,
            "gpus_per_run": 0.0,
        }
    ]


@pytest.mark.parametrize(
    ("options", "gpus"), [([], 0.0), (["--gpus-per-run", "0.5"], 0.5), (["--gpus-per-run", "2"], 2.0)]
)
def test_bench_passes_the_ray_cluster_and_the_gpus_of_a_run(recipes, bench_calls, options, gpus):
    assert main(["bench", "alpha", "--ray", "ray://head:10001", *options]) == 7
    assert [(call["ray"], call["gpus_per_run"]) for call in bench_calls] == [("ray://head:10001", gpus)]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["beta"], "'beta'"),
        (["alpha", "--preset", "huge"], "'huge'"),
        (["alpha", "--jobs", "0"], "'0' is not a positive whole number"),
        (["alpha", "--seeds", "-1"], "--seeds"),
        (["alpha", "--seeds", "1.5"], "'1.5' is not a seed"),
        (["alpha", "--loses", "NWJ"], "--loses"),
        (["alpha", "--ray", "auto", "--gpus-per-run", "1.5"], "'1.5' is neither a whole number of GPUs nor a fraction"),
        (["alpha", "--ray", "auto", "--gpus-per-run", "-1"], "'-1' is neither"),
        (["alpha", "--ray", "auto", "--gpus-per-run", "nan"], "'nan' is neither"),
        (["alpha", "--ray", "auto", "--gpus-per-run", "inf"], "'inf' is neither"),
        (["alpha", "--ray", "auto", "--jobs", "2"], "--jobs does not go with --ray"),
    ],
)
def test_bench_refuses_arguments_that_mean_nothing(recipes, bench_calls, arguments, named, capsys):
    assert stops_with(["bench", *arguments]) == 2
    assert named in capsys.readouterr().err
    assert bench_calls == []


def test_bench_refuses_an_output_folder_that_cannot_be_written(recipes, bench_calls, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["bench", "alpha", "--output", "file/inside"]) == 2
    assert "cannot write to the output folder file/inside" in capsys.readouterr().err
    assert bench_calls == []


def test_checking_an_output_folder_leaves_nothing_behind(recipes, bench_calls, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    assert main(["bench", "alpha", "--output", "new/deep"]) == 7
    assert sorted(tmp_path.rglob("*")) == before


def test_version_is_the_package_version(capsys):
    assert stops_with(["--version"]) == 0
    assert capsys.readouterr().out == f"lightning_mi {__version__}\n"


def test_help_lists_every_command(capsys):
    assert stops_with(["--help"]) == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.startswith("    ")]
    assert listed == COMMANDS


@pytest.mark.parametrize("command", ["ls", "cp", "bench"])
def test_help_of_each_command_shows_how_to_call_it(command, capsys):
    assert stops_with([command, "--help"]) == 0
    assert f"\n  lightning-mi {command}" in capsys.readouterr().out


def test_no_command_is_an_error(capsys):
    assert stops_with([]) == 2
    assert "COMMAND" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["ls"], ["cp", "gaussian"], ["--help"], ["--version"], ["bench", "--help"], []])
def test_answers_at_once_without_importing_torch(arguments, tmp_path):
    program = (
        "import sys\n"
        "from lightning_mi.cli.main import main\n"
        "try:\n"
        f"    main({arguments})\n"
        "except SystemExit:\n"
        "    pass\n"
        "heavy = {'torch', 'lightning', 'numpy', 'matplotlib', 'jsonargparse'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_python_dash_m_is_the_same_program(recipes, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["lightning_mi", "cp", "alpha"])
    statuses = []
    for _ in range(2):
        with pytest.raises(SystemExit) as stop:
            runpy.run_module("lightning_mi", run_name="__main__")
        statuses.append(stop.value.code)
    assert statuses == [0, 2]
    assert "alpha.yaml exists already" in capsys.readouterr().err


def test_the_installed_command_is_the_same_program(tmp_path):
    command = [str(Path(sys.executable).with_name("lightning-mi")), "--version"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == f"lightning_mi {__version__}\n"

"""`ls`, `cp`, `bench` and help: commands that do not need Lightning."""

import runpy
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from lightning_mi import __version__
from lightning_mi.cli.main import main
from lightning_mi.utilities import recipe_registry


@pytest.fixture
def recipes(tmp_path, monkeypatch):
    """A recipes folder with two recipes and two benchmarks; `alpha` is both."""
    folder = tmp_path / "recipes"
    (folder / "bench").mkdir(parents=True)
    (folder / "alpha.yaml").write_text("# The first.\n# More.\na: 1\n")
    (folder / "beta.yaml").write_text("b: 2\n")
    (folder / "bench" / "alpha.yaml").write_text("# A grid.\nc: 3\n")
    (folder / "bench" / "gamma.yaml").write_text("# Another grid.\nc: 3\n")
    monkeypatch.setattr(recipe_registry, "recipes_folder", lambda: folder)
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.fixture
def bench_calls(monkeypatch):
    """Replaces the bench package and records its calls."""
    calls = []

    def run(name, preset, **options):
        calls.append((name, preset, options))
        return 7

    fake: Any = ModuleType("lightning_mi.bench.run")
    fake.run = run
    monkeypatch.setitem(sys.modules, "lightning_mi.bench.run", fake)
    return calls


def exit_code(arguments):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    return stop.value.code


def test_ls_shows_names_with_their_first_comment_line(recipes, capsys):
    assert main(["ls"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "recipes (lightning-mi fit --config NAME)",
        "  alpha  The first.",
        "  beta",
        "benchmarks (lightning-mi bench NAME)",
        "  alpha  A grid.",
        "  gamma  Another grid.",
    ]


def test_shipped_recipes_and_benchmarks_state_their_purpose():
    files = [*recipe_registry.list_files("recipe"), *recipe_registry.list_files("benchmark")]
    assert {file.name for file in files} >= {"gaussian", "onehot"}
    assert [file.name for file in files if not file.purpose.endswith(".")] == []


def test_cp_copies_to_a_file_or_a_folder(recipes, tmp_path, capsys):
    assert main(["cp", "alpha"]) == 0
    assert (tmp_path / "alpha.yaml").read_bytes() == (recipes / "alpha.yaml").read_bytes()
    assert capsys.readouterr().out == "copied recipe alpha to alpha.yaml\n"
    (tmp_path / "folder").mkdir()
    assert main(["cp", "beta", "mine.yaml"]) == 0
    assert main(["cp", "beta", "folder"]) == 0
    assert (tmp_path / "mine.yaml").read_text() == (tmp_path / "folder" / "beta.yaml").read_text() == "b: 2\n"


def test_cp_prefers_recipes_over_benchmarks(recipes, tmp_path):
    assert main(["cp", "bench/alpha", "grid.yaml"]) == 0
    assert main(["cp", "gamma"]) == 0
    assert (tmp_path / "grid.yaml").read_text() == "# A grid.\nc: 3\n"
    assert (tmp_path / "gamma.yaml").read_text() == "# Another grid.\nc: 3\n"


def test_cp_does_not_overwrite_unless_forced(recipes, tmp_path, capsys):
    (tmp_path / "alpha.yaml").write_text("my edits\n")
    assert main(["cp", "alpha"]) == 2
    assert (tmp_path / "alpha.yaml").read_text() == "my edits\n"
    assert "alpha.yaml already exists" in capsys.readouterr().err
    assert main(["cp", "alpha", "--force"]) == 0
    assert (tmp_path / "alpha.yaml").read_text() == (recipes / "alpha.yaml").read_text()


def test_cp_errors_are_one_line(recipes, capsys):
    assert main(["cp", "alpha", "missing/mine.yaml"]) == 2
    assert "missing/mine.yaml" in capsys.readouterr().err
    assert main(["cp", "delta"]) == 2
    error = capsys.readouterr().err
    assert "no recipe called 'delta'" in error
    assert "alpha, beta" in error
    assert "bench/alpha, bench/gamma" in error
    assert len(error.splitlines()) == 1


DEFAULTS = {
    "jobs": None,
    "seeds": None,
    "losses": None,
    "data": None,
    "tasks": None,
    "methods": None,
    "samples": None,
    "peers": None,
    "critic_steps": None,
    "audit": None,
    "ray": None,
    "gpus_per_run": 0.0,
    "tracker": None,
    "download": False,
}


@pytest.mark.parametrize(
    ("arguments", "output", "options"),
    [
        ([], "lightning_mi_runs/alpha-quick", {}),
        (["--data", "digits", "--preset", "paper"], "lightning_mi_runs/alpha-digits-paper", {"data": "digits"}),
        (
            ["--output", "out", "--jobs", "2", "--seeds", "0", "1", "--losses", "NWJ", "MINE"],
            "out",
            {"jobs": 2, "seeds": [0, 1], "losses": ["NWJ", "MINE"]},
        ),
        (["--output", "out", "--ray", "ray://head:1", "--gpus-per-run", "0.5"], "out",
         {"ray": "ray://head:1", "gpus_per_run": 0.5}),
        (["--output", "out", "--samples", "500", "2000"], "out", {"samples": [500, 2000]}),
        (["--output", "out", "--gpus-per-run", "2"], "out", {"gpus_per_run": 2.0}),
        (["--output", "out", "--logger", "wandb", "--download"], "out", {"tracker": "wandb", "download": True}),
        (
            ["--output", "out", "--tasks", "a", "b*", "--methods", "cca", "--peer", "p=q", "--peer", "r=s"],
            "out",
            {"tasks": ["a", "b*"], "methods": ["cca"], "peers": ["p=q", "r=s"]},
        ),
    ],
)  # fmt: skip
def test_bench_passes_its_options(recipes, bench_calls, arguments, output, options):
    assert main(["bench", "alpha", *arguments]) == 7
    preset = "paper" if "paper" in arguments else "quick"
    assert bench_calls == [("alpha", preset, DEFAULTS | {"output": Path(output)} | options)]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["beta", "--losses", "NWJ"], "--losses for a sweep of the recipe beta"),
        (["beta", "--data", "digits"], "--sweep data.mi=2,4"),
        (["alpha", "--jobs", "0"], "got '0': it must be a positive whole number"),
        (["alpha", "--samples", "-5"], "got '-5': it must be a positive whole number"),
        (["alpha", "--seeds", "1.5"], "got '1.5': a seed is a whole number"),
        (["alpha", "--loses", "NWJ"], "--loses"),
        (["alpha", "--gpus-per-run", "1.5"], "got '1.5': it must be a whole number of GPUs or a fraction"),
        (["alpha", "--gpus-per-run", "-1"], "got '-1'"),
        (["alpha", "--gpus-per-run", "nan"], "got 'nan'"),
        (["alpha", "--gpus-per-run", "inf"], "got 'inf'"),
        (["alpha", "--ray", "auto", "--jobs", "2"], "got --jobs with --ray"),
    ],
)
def test_bench_rejects_invalid_arguments(recipes, bench_calls, arguments, named, capsys):
    assert exit_code(["bench", *arguments]) == 2
    assert named in capsys.readouterr().err
    assert bench_calls == []


def test_bench_checks_the_output_folder_and_creates_nothing(recipes, bench_calls, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    before = sorted(tmp_path.rglob("*"))
    assert main(["bench", "alpha", "--output", "file/inside"]) == 2
    assert "cannot write to the output folder file/inside" in capsys.readouterr().err
    assert bench_calls == []
    assert main(["bench", "alpha", "--output", "new/deep"]) == 7
    assert sorted(tmp_path.rglob("*")) == before


def test_version_is_the_package_version(capsys):
    assert exit_code(["--version"]) == 0
    assert capsys.readouterr().out == f"lightning_mi {__version__}\n"


def test_help_lists_every_command(capsys):
    assert exit_code(["--help"]) == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.startswith("    ")]
    assert listed == ["fit", "validate", "test", "predict", "ls", "estimate", "pairwise", "cp", "bench", "results"]


@pytest.mark.parametrize("command", ["ls", "estimate", "pairwise", "cp", "bench", "results"])
def test_help_of_a_command_shows_examples(command, capsys):
    assert exit_code([command, "--help"]) == 0
    assert f"\n  lightning-mi {command}" in capsys.readouterr().out


def test_missing_command_is_an_error(capsys):
    assert exit_code([]) == 2
    assert "COMMAND" in capsys.readouterr().err


def test_light_commands_do_not_import_torch(tmp_path):
    program = (
        "import sys\n"
        "from lightning_mi.cli.main import main\n"
        "for arguments in (['ls'], ['cp', 'gaussian'], ['--help'], ['--version'], ['bench', '--help'], []):\n"
        "    try:\n"
        "        main(arguments)\n"
        "    except SystemExit:\n"
        "        pass\n"
        "heavy = {'torch', 'lightning', 'numpy', 'matplotlib', 'jsonargparse'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_python_dash_m_equals_the_command(recipes, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["lightning_mi", "cp", "alpha"])
    statuses = []
    for _ in range(2):
        with pytest.raises(SystemExit) as stop:
            runpy.run_module("lightning_mi", run_name="__main__")
        statuses.append(stop.value.code)
    assert statuses == [0, 2]
    assert "alpha.yaml already exists" in capsys.readouterr().err


def test_installed_command_equals_python_dash_m(tmp_path):
    command = [str(Path(sys.executable).with_name("lightning-mi")), "--version"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == f"lightning_mi {__version__}\n"

"""The README is run and read: its Python, its command lines, its table."""

import io
import re
import runpy
import shlex
import sys
import tomllib
import warnings
from contextlib import chdir, redirect_stdout
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from lightning_mi import bounds
from lightning_mi.bench import run as bench
from lightning_mi.cli import main as cli
from lightning_mi.cli import sweep_command
from lightning_mi.cli.commands import TRAINING_COMMANDS, build_parser
from lightning_mi.exceptions import StabilityWarning
from lightning_mi.utilities.recipe_registry import find_file, list_files
from tests.helpers.paths import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.DOTALL | re.MULTILINE)


def lines():
    """Each command of the README, in its order: in the text, in a block, on either side of `&&`."""
    spans = re.findall(r"^```console\n(.*?)^```$|`(lightning-mi [^`]+)`", README, flags=re.DOTALL | re.MULTILINE)
    whole = "".join(block or f"{inline}\n" for block, inline in spans).splitlines()
    return [shlex.split(part, comments=True) for line in whole for part in line.split("&&")]


def commands(*names):
    """The arguments of those that call `lightning-mi` with one of these subcommands."""
    return [line[1:] for line in lines() if line[0] == "lightning-mi" and line[1] in names]


MY_ENCODER = """
class MyEncoder(torch.nn.Sequential):
    def __init__(self):
        super().__init__(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 128))
"""


def write_images(folder):
    """Files that someone has: two classes, of different brightness."""
    for label, name in enumerate(("cats", "dogs")):
        (folder / name).mkdir(parents=True)
        for i in range(60):
            pixels = np.random.default_rng(i).integers(0, 100, (20, 24, 3), dtype=np.uint8) + np.uint8(120 * label)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")


def write_arrays(folder):
    """Two arrays with the MI that the README states."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2000, 3))
    np.save(folder / "x.npy", x)
    np.save(folder / "y.npy", x + rng.normal(size=x.shape))


# Python.


def run(code, folder):
    """What a block prints and the drift or explosion it is warned of, run as it stands in a folder of its own."""
    (folder / "block.py").write_text(code, encoding="utf-8")
    if "my_images" in code:
        write_images(folder / "my_images")
    if "np.load" in code:
        write_arrays(folder)
    with chdir(folder), redirect_stdout(io.StringIO()) as stdout, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", StabilityWarning)
        runpy.run_path("block.py")
    return stdout.getvalue(), [str(w.message) for w in caught if w.category is StabilityWarning]


@pytest.fixture(scope="module")
def output_of(tmp_path_factory):
    """Output and warnings of the one Python block with these words, which runs once."""

    @cache
    def output(block):
        torch.manual_seed(0)
        return run(block, tmp_path_factory.mktemp("block"))

    def output_of(words):
        [block] = [block for block in blocks("python") if words in block]
        return output(block)

    return output_of


def read(text):
    """The estimate in a line such as `1.98 +- 0.01 nats, truth 2.00`, and the truth."""
    [(estimate, truth)] = re.findall(r"(-?[\d.]+)(?: \+- [\d.]+)? nats, truth ([\d.]+)", text)
    return float(estimate), float(truth)


def test_the_readme_has_python_blocks():
    assert len(blocks("python")) == README.count("```python") >= 3


@pytest.mark.parametrize("block", blocks("python"), ids=range(README.count("```python")))
def test_every_python_block_runs_as_it_stands(block, output_of):
    printed, _ = output_of(block)
    assert ("nats" in printed) == ("print(" in block)


def test_the_training_shown_reads_the_truth(output_of):
    estimate, truth = read(output_of("steps_per_mi")[0])
    assert truth == 2.0
    assert abs(estimate - truth) < 0.1  # 5 %; seeds 0 to 4 read 1.951 to 1.981
    quoted = re.search(r"^It prints `(.*)`", README, flags=re.MULTILINE).group(1)
    assert read(quoted) == pytest.approx((estimate, truth), abs=0.05)  # another processor rounds otherwise


def test_the_score_matrix_shown_reads_the_truth(output_of):
    estimate, truth = read(output_of("log_ratio_matrix")[0])
    assert truth == 2.0
    assert abs(estimate - truth) < 0.2  # four standard deviations of one batch


def test_the_estimate_of_two_arrays_is_as_shown(output_of):
    printed = output_of("from lightning_mi import estimate")[0].splitlines()[0]
    shown = re.search(r"print\(estimate\(.*\)\)  # (.*)$", README, flags=re.MULTILINE).group(1)
    numbers = [[float(n) for n in re.findall(r"\d+\.\d+", line)] for line in (printed, shown)]
    assert numbers[0] == pytest.approx(numbers[1], abs=0.01)  # another processor rounds otherwise
    assert numbers[0][1] < 1.5 * np.log(2) < numbers[0][0] + 0.1


def test_the_drift_shown_is_warned_of_as_quoted(output_of):
    [warning] = output_of("StabilityMonitor")[1]
    [quoted] = [" ".join(text.split()) for text in blocks("text")]
    number = r"-?\d+(?:\.\d+)?"
    assert re.sub(number, "#", warning) == re.sub(number, "#", quoted)
    for text in (warning, quoted):
        step, rate = map(float, re.search(rf"Step ({number}): .* drift by ({number}) nats", text).groups())
        assert 1200 <= step <= 1500  # seeds 0, 101, 102, 103: 1300 to 1400
        assert -2.5 < rate < -0.7  # -1.6 to -1.1


@pytest.mark.slow
def test_with_the_remedy_no_warning_comes(output_of, tmp_path):
    [block] = [block for block in blocks("python") if "StabilityMonitor" in block]
    [warning] = output_of("StabilityMonitor")[1]
    remedy = re.search(r"add `(regularizers\.\w+\(weight=[\d.]+\))`", warning).group(1)
    assert f"With `regularizer={remedy}` no warning comes." in README
    fixed = block.replace("    bound=", f"    regularizer={remedy},\n    bound=")
    assert run(f"from lightning_mi import regularizers\n{fixed}", tmp_path)[1] == []


# Command lines.


def test_every_line_of_the_program_is_one_of_these_subcommands():
    assert len(commands("ls", "cp", "fit", "test", "predict", "bench", "results", "estimate")) == README.count(
        "lightning-mi "
    )
    assert {line[0] for line in lines()} == {"pip", "pytest", "lightning-mi", "tensorboard"}


def test_set_up_is_one_line_and_so_is_testing():
    assert README.count("\npip install -e . && lightning-mi bench gaussian\n") == 1
    assert README.count("\npip install -e '.[test]' && pytest -n 2\n") == 1
    assert PROJECT["scripts"] == {"lightning-mi": "lightning_mi.cli.main:main"}
    assert any(requirement.startswith("pytest>") for requirement in PROJECT["optional-dependencies"]["test"])


@pytest.mark.parametrize("arguments", commands("bench"), ids=" ".join)
def test_bench_lines_name_benchmarks_and_the_folder_of_results(arguments, monkeypatch):
    started = []

    def run(*_, output, **__):
        started.append(output.as_posix())
        return 0

    monkeypatch.setattr(cli, "require_writable", lambda folder: None)
    monkeypatch.setattr(bench, "run", run)
    monkeypatch.setattr(sweep_command, "run_grid", run)
    assert cli.main(arguments) == 0
    if arguments == ["bench", "gaussian"]:
        assert f"`{started[0]}`" in README


@pytest.mark.parametrize("preset", sorted(set(re.findall(r"--preset (\w+)", README))))
def test_the_preset_exists(preset):
    assert build_parser().parse_args(["bench", "gaussian", "--preset", preset]).preset == preset


def test_the_training_lines_are_understood_in_their_order(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    sys.modules.pop("my_project", None)  # another test's, from another folder
    caption = next(block for block in blocks("python") if "class CaptionMI" in block)
    Path("my_project.py").write_text("import torch\n" + caption + MY_ENCODER)
    Path("my_images.yaml").write_text(blocks("yaml")[0])
    understood = []
    for arguments in commands("ls", "cp", "fit", "test", "predict"):
        training = arguments[0] in TRAINING_COMMANDS
        assert cli.main([*arguments, "--print_config"] if training else arguments) == 0, arguments
        printed = capsys.readouterr().out
        if training:
            understood.append((arguments, yaml.safe_load(printed)))
    sys.modules.pop("my_project", None)
    for arguments, configuration in understood:
        given = dict(zip(arguments[1::2], arguments[2::2], strict=True))
        if given["--config"] == "my_images.yaml":
            continue  # it trains, below
        model = configuration["model"]
        assert model["class_path"] == given.get("--model", "lightning_mi.MIEstimationModule")
        assert model["init_args"]["bound"]["class_path"] == given.get("--model.bound", "lightning_mi.bounds.DV")
        assert configuration.get("ckpt_path") == given.get("--ckpt_path")
    assert len(understood) == len(commands("fit", "test", "predict"))


def test_the_yaml_trains_on_a_folder_of_images(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    sys.modules.pop("my_project", None)
    write_images(Path("my_images"))
    Path("my_project.py").write_text("import torch\n" + MY_ENCODER)
    Path("my_images.yaml").write_text(blocks("yaml")[0])
    assert len(blocks("yaml")) == 1
    quiet = ["--trainer.logger=false", "--trainer.enable_checkpointing=false", "--trainer.enable_progress_bar=false"]
    assert cli.main(["fit", "--config", "my_images.yaml", "--trainer.accelerator=cpu", *quiet]) == 0
    sys.modules.pop("my_project", None)


def test_tensorboard_is_pointed_at_the_folder_of_every_recipe():
    [[folder]] = [line[2:] for line in lines() if line[0] == "tensorboard"]
    for recipe in list_files("recipe"):
        trainer = yaml.safe_load(find_file(recipe.name, "recipe").path.read_text(encoding="utf-8"))["trainer"]
        assert trainer["default_root_dir"].split("/")[0] == folder


# The table.


def rows(heading):
    """The section's first table, without backquotes."""
    section = README.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    table = section[section.index("\n|") + 1 :].partition("\n\n")[0]
    found = [line.strip("|").split("|") for line in table.splitlines()]
    header, _, *body = [[cell.strip().strip("`") for cell in row] for row in found]
    return [dict(zip(header, row, strict=True)) for row in body]


def test_the_table_of_bounds_equals_the_declarations():
    yes_or_no = {"yes": True, "no": False}
    written = rows("Choose a bound")
    assert len(written) >= 7
    for row in written:
        bound = getattr(bounds, row["bound"])
        assert yes_or_no[row["lower bound"]] == bound.is_lower_bound
        assert yes_or_no[row["ceiling log N"]] == bound.capped_at_log_n
        assert yes_or_no[row["self-normalized"]] == bound.self_normalized


def test_the_pages_it_links_to_exist():
    linked = [target for target in re.findall(r"\]\(([^)]+)\)", README) if not target.startswith(("https://", "#"))]
    assert [target for target in linked if not (ROOT / target.partition("#")[0]).is_file()] == []
    assert linked

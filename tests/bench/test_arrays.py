"""The benchmark of arrays: its estimations, and what a grid of them stores."""

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.feature_selection import mutual_info_regression

from lightning_mi.bench import local_pool, run
from lightning_mi.bench.arrays import grid as grid_module
from lightning_mi.bench.arrays.cell import ArrayCell
from lightning_mi.bench.arrays.grid import ArrayChoices, load_array_grid
from lightning_mi.bench.arrays.methods import METHODS, _neighbors_of_columns
from lightning_mi.bench.arrays.tasks import Sample, all_tasks, draw, find_law
from lightning_mi.bench.cells import Grid
from lightning_mi.bench.dispatch import run_cell
from lightning_mi.bench.results import CURVES, load_curves
from lightning_mi.estimation.two_arrays import estimate
from lightning_mi.exceptions import GridError
from lightning_mi.utilities.recipe_registry import find_file
from tests.helpers.estimation import shorten
from tests.helpers.grids import finished_cells, ignore

FILE = find_file("arrays", "benchmark").path


def array_grid(preset: str = "quick", **choices: Any) -> Grid[ArrayCell]:
    return load_array_grid(FILE, preset, ArrayChoices(**choices))


def measure(folder: Path, **choices: Any) -> list[dict[str, Any]]:
    """The results of a grid that runs in this process."""
    results = []
    for cell in array_grid(**choices).cells:
        run_cell(folder, cell, ignore)
        result = load_curves(folder, cell)
        assert result is not None
        results.append(result)
    return results


def test_paper_preset_has_all_tasks_methods_and_seeds() -> None:
    cells = array_grid("paper").cells
    assert len({cell.name for cell in cells}) == len(cells) == 40 * 6 * 3
    assert {cell.samples for cell in cells} == {5000}
    assert {cell.seed for cell in cells} == {0, 1, 2}
    assert {cell.method for cell in array_grid("sizes").cells} < set(METHODS)


def test_note_states_what_the_command_line_replaced() -> None:
    assert array_grid(samples=[60]).note.endswith("`careful`; samples replaced on the command line")
    assert array_grid("paper", tasks=["bits-5"], seeds=[1]).note == "seeds, tasks replaced on the command line"


@pytest.mark.parametrize(
    ("task", "skipped"),
    [
        ("1v1-normal-0.75", set()),
        ("spiral-multinormal-sparse-3-3-2-2.0", set()),
        ("label-uniform-5", {"gaussian-copula", "cca"}),
        ("channel-10", {"gaussian-copula", "cca"}),
    ],
)
def test_methods_skip_tasks_without_a_definition(task: str, skipped: set[str]) -> None:
    methods = {cell.method for cell in array_grid(tasks=[task], methods=list(METHODS)).cells}
    assert methods == set(METHODS) - skipped


def test_digest_depends_on_law_method_settings_samples_and_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {"tasks": ["1v1-additive-*"], "methods": ["estimate-quick", "cca"], "samples": [60, 70]}
    cells = array_grid(seeds=[0, 1], **options).cells
    assert len({cell.digest for cell in cells}) == len(cells) == 16
    assert [cell.digest for cell in array_grid(seeds=[0, 1], **options).cells] == [cell.digest for cell in cells]
    changed = dict(METHODS) | {"cca": METHODS["cca"]._replace(settings="other")}
    monkeypatch.setattr(grid_module, "METHODS", changed)
    equal = [a.digest == b.digest for a, b in zip(cells, array_grid(seeds=[0, 1], **options).cells, strict=True)]
    assert equal == [cell.method != "cca" for cell in cells]


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"preset": "papers"}, "Got preset 'papers': arrays.yaml has quick, paper, sizes"),
        ({"tasks": ["1v1-norml-0.75"]}, r"Got task '1v1-norml-0.75'.*close names: 1v1-normal-0.75"),
        ({"tasks": ["nothing*"]}, "Groups: beyond-normal, other-laws"),
        ({"methods": ["ksg"]}, "Got method 'ksg': the methods are estimate-quick"),
        ({"methods": ["neuralmi"]}, "Name its interpreter: --peer neuralmi=PYTHON"),
        ({"samples": [10, 100]}, "Got 10 samples: an estimation needs at least 50"),
        ({"tasks": ["channel-10"], "methods": ["cca"]}, "none of the methods is defined"),
    ],
)
def test_invalid_choices_raise(choices: dict[str, Any], message: str) -> None:
    with pytest.raises(GridError, match=message):
        array_grid(**choices)


def test_unknown_keys_in_the_file_raise(tmp_path: Path) -> None:
    path = tmp_path / "arrays.yaml"
    path.write_text(FILE.read_text().replace("    samples: [2000]", "    sample: [2000]"))
    with pytest.raises(GridError, match=r"unknown key sample; known: .*samples"):
        load_array_grid(path, "quick", ArrayChoices())


@pytest.mark.parametrize(
    ("name", "option", "message"),
    [
        ("arrays", {"losses": ["DV"], "gpus_per_run": 1.0}, "Got --losses, --gpus-per-run for the benchmark arrays"),
        ("onehot", {"tasks": ["bits-5"], "peers": ["a=b"]}, "Got --tasks, --peer for the benchmark onehot"),
        ("arrays", {"methods": ["ksg"]}, "Got method 'ksg'"),
    ],
)
def test_options_of_another_benchmark_are_an_error(
    name: str, option: dict[str, Any], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run.run(name, "quick", output=tmp_path, **option) == 2
    assert message in capsys.readouterr().err


def test_sample_and_estimation_have_the_seed_of_the_cell(tmp_path: Path) -> None:
    [result] = measure(tmp_path, tasks=["1v1-normal-0.75"], methods=["estimate-quick"], samples=[100], seeds=[3])
    expected = estimate(*draw(find_law("1v1-normal-0.75"), 100, 3), budget="quick", seed=3)
    assert (result["mi"], result["lower"], result["upper"]) == (expected.mi, expected.lower, None)
    assert result["p_value"] == expected.p_value
    assert result["findings"] == [finding.code for finding in expected.findings]
    assert result["true_mi"] == pytest.approx(0.4133, abs=1e-4)
    assert result["cpu_seconds"] > 0
    assert result["failure"] == ""


def test_estimate_takes_labels_as_discrete(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten(monkeypatch, max_steps=100, check_every=25)
    law = find_law("label-uniform-5")
    assert METHODS["estimate-quick"].read(draw(law, 400, 0), 0).mi == pytest.approx(law.true_mi, abs=0.25)


@pytest.mark.parametrize("task", ["channel-10", "table-2x3", "label-uniform-5", "uniform-label-5"])
def test_nearest_neighbors_take_labels_as_discrete(task: str) -> None:
    law = find_law(task)
    assert METHODS["nearest-neighbors"].read(draw(law, 2000, 0), 0).mi == pytest.approx(law.true_mi, abs=0.1)


def test_closed_forms_read_a_gaussian() -> None:
    sample = draw(find_law("multinormal-sparse-3-3-2-2.0"), 4000, 0)
    for method in ("cca", "gaussian-copula", "nearest-neighbors"):
        assert METHODS[method].read(sample, 0).mi == pytest.approx(1.0217, abs=0.12)


def test_cca_is_the_log_determinant_of_the_covariance() -> None:
    sample = draw(find_law("student-identity-3-3-2"), 200, 1)
    covariance = np.cov(np.hstack(sample.columns).T)
    parts = covariance[:3, :3], covariance[3:, 3:], covariance
    x, y, joint = (np.linalg.slogdet(part)[1] for part in parts)
    assert METHODS["cca"].read(sample, 0).mi == pytest.approx((x + y - joint) / 2)
    rank_deficient = Sample(np.hstack([sample.x, sample.x]), sample.y)
    assert METHODS["cca"].read(rank_deficient, 0).mi == pytest.approx((x + y - joint) / 2)


def test_neighbors_of_several_columns_agree_with_scikit_learn_on_one() -> None:
    x, y = draw(find_law("1v1-normal-0.75"), 500, 0).columns
    expected = mutual_info_regression(x, y[:, 0], random_state=0)[0]
    assert _neighbors_of_columns(x, y, np.random.default_rng(0)) == pytest.approx(expected, abs=1e-6)


def test_other_laws_have_samples_and_positive_mi_but_one() -> None:
    laws = all_tasks()["other-laws"]
    assert [name for name, law in laws.items() if law.true_mi == 0] == ["independent-5"]
    assert laws["gaussian-10-10-5-nats"].true_mi == pytest.approx(5.0)
    assert draw(laws["label-uniform-5"], 60, 0).columns[0].sum() == 60  # one-hot


def test_interrupted_grid_resumes_and_a_failed_peer_is_a_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "peer.py"
    script.write_text("import sys\nsys.exit('too few samples')\n")
    options: dict[str, Any] = {"tasks": ["1v1-additive-*"], "methods": ["cca"], "samples": [60]}
    options["peers"] = [f"fake={sys.executable} {script}"]
    cells = array_grid(**options).cells
    (cell, other), (fake, _) = ([c for c in cells if c.method == method] for method in ("cca", "fake"))
    run_cell(tmp_path, cell, ignore)
    (tmp_path / other.name).mkdir()
    (tmp_path / other.name / CURVES).write_bytes(b"damaged")
    before = finished_cells(tmp_path)[cell.name]
    assert run.run("arrays", "quick", output=tmp_path, jobs=1, **options) == 0
    assert finished_cells(tmp_path)[cell.name] == before
    assert load_curves(tmp_path, other) is not None
    failed = load_curves(tmp_path, fake)
    assert failed is not None
    assert np.isnan(failed["mi"])
    assert "- 1v1-additive-0.1, fake, seed 0: exit status 1" in (tmp_path / "table.md").read_text()
    output = capsys.readouterr().out
    assert "failed: exit status 1: too few samples" in output
    assert "4 estimations, results in" in output
    assert "wrote" in output
    assert "tensorboard" not in output
    assert {"table.md", "results.csv", "errors-n60.png"} < {path.name for path in tmp_path.iterdir()}
    monkeypatch.setattr(local_pool, "_executor", None)  # a finished grid starts no process
    assert run.run("arrays", "quick", output=tmp_path, **options) == 0


def test_grid_imports_torch_only_when_it_is_loaded() -> None:
    program = "import sys, lightning_mi.bench.run; sys.exit('torch' in sys.modules or 'sklearn' in sys.modules)"
    assert os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "-c", program]) == 0

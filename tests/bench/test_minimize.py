"""The benchmark of minimization: its task, its trainings, and what a grid of them stores."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from lightning_mi.bench import local_pool, run
from lightning_mi.bench.benchmark_file import read_record
from lightning_mi.bench.cells import Grid, Interrupted
from lightning_mi.bench.dispatch import run_cell
from lightning_mi.bench.minimize import grid as grid_module
from lightning_mi.bench.minimize import methods as methods_module
from lightning_mi.bench.minimize.cell import MinimizeCell
from lightning_mi.bench.minimize.grid import MinimizeChoices, load_minimize_grid
from lightning_mi.bench.minimize.methods import METHODS, NO_PENALTY, WITHOUT_CRITIC, make_penalty
from lightning_mi.bench.minimize.task import ExactValues, GaussianTask, encode
from lightning_mi.bench.minimize.training import Settings, Training, train
from lightning_mi.bench.results import load_curves
from lightning_mi.exceptions import GridError
from lightning_mi.utilities.recipe_registry import find_file
from tests.helpers.estimation import shorten
from tests.helpers.grids import ignore

FILE = find_file("minimize", "benchmark").path
STEPS = 40


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings of 40 steps."""
    monkeypatch.setattr(
        grid_module, "read_record", lambda kind, entry, file: read_record(kind, entry | {"steps": STEPS}, file)
    )


def minimize_grid(preset: str = "quick", **choices: Any) -> Grid[MinimizeCell]:
    return load_minimize_grid(FILE, preset, MinimizeChoices(**choices))


def measure(folder: Path, **choices: Any) -> dict[str, dict[str, Any]]:
    """The results of a grid that runs in this process, by cell."""
    results = {}
    for cell in minimize_grid(**choices).cells:
        run_cell(folder, cell, ignore)
        result = load_curves(folder, cell)
        assert result is not None
        results[cell.kind] = result
    return results


def random_state(seed: int) -> tuple[GaussianTask, tuple[torch.Tensor, ...]]:
    """A task, and two encoders with heads."""
    generator = torch.Generator().manual_seed(seed)
    task = GaussianTask.draw(generator)
    shapes = ((2, 6, 20), (2, 2, 6), (2, 2))
    return task, tuple(0.3 * torch.randn(shape, generator=generator) for shape in shapes)


def covariance(task: GaussianTask, weight: torch.Tensor) -> np.ndarray[Any, Any]:
    """(12, 12) covariance of t, s and z, from the definition of the data."""
    mixing, encoder = task.mixing.numpy(), weight.double().numpy()
    # (t, s, z) as a linear map of independent standard normal t, s, e and e'
    first = np.hstack([np.eye(6), np.zeros((6, 26))])
    second = np.hstack([encoder @ mixing, 0.5 * encoder, 0.5 * np.eye(6)])
    maps = np.vstack([first, second])
    return np.asarray(maps @ maps.T)


def entropy(of_all: np.ndarray[Any, Any], *parts: range) -> float:
    index = [i for part in parts for i in part]
    return float(multivariate_normal(cov=of_all[np.ix_(index, index)]).entropy())


def test_exact_mi_is_the_difference_of_scipys_entropies() -> None:
    task, state = random_state(0)
    exact = task.exact(*state)
    t, s, z = range(2), range(2, 6), range(6, 12)
    for k in range(2):
        of_all = covariance(task, state[0][k])
        for part, value in ((t, exact.mi_target[k]), (s, exact.mi_nuisance[k])):
            expected = entropy(of_all, part) + entropy(of_all, z) - entropy(of_all, part, z)
            assert float(value) == pytest.approx(expected, abs=1e-9)


def test_exact_errors_are_those_of_many_samples() -> None:
    task, state = random_state(1)
    exact = task.exact(*state)
    generator = torch.Generator().manual_seed(2)
    x, target, _ = task.sample(200_000, generator)
    for k in range(2):
        weight, head, bias = (part[k] for part in state)
        z = encode(weight, x, generator)
        assert float(exact.head_mse[k]) == pytest.approx(float((z @ head.T + bias - target).square().mean()), rel=0.02)
        best = np.linalg.lstsq(z.double().numpy(), target.double().numpy(), rcond=None)[1].sum() / target.numel()
        assert float(exact.best_mse[k]) == pytest.approx(best, rel=0.02)


def test_gradient_of_exact_mi_agrees_with_differences() -> None:
    task, (weight, *_) = random_state(5)
    encoder = weight[0].double().requires_grad_()
    assert torch.autograd.gradcheck(task.mi_nuisance, encoder)


def test_samples_have_the_covariance_of_the_mixing() -> None:
    task, _ = random_state(3)
    x, target, nuisance = task.sample(100_000, torch.Generator().manual_seed(0))
    expected = task.mixing @ task.mixing.T + 0.25 * torch.eye(20)
    torch.testing.assert_close(torch.cov(x.T.double()), expected, atol=0.15, rtol=0)
    cross = x.T @ torch.cat([target, nuisance], dim=1) / len(x)
    torch.testing.assert_close(cross.double(), task.mixing, atol=0.06, rtol=0)


def test_mixing_has_orthogonal_columns_of_fixed_lengths() -> None:
    task, _ = random_state(4)
    expected = torch.tensor([3.2**2] * 2 + [4.2**2] * 4, dtype=torch.float64).diag()
    torch.testing.assert_close(task.mixing.T @ task.mixing, expected)


def test_paper_preset_has_its_methods_steps_and_seeds() -> None:
    cells = minimize_grid("paper").cells
    assert len({cell.name for cell in cells}) == len(cells) == (2 * 6 + 2) * 5
    assert {cell.config["audit"] for cell in cells} == {"quick"}
    assert {cell.critic_steps for cell in cells if cell.method in WITHOUT_CRITIC} == {None}
    assert minimize_grid("quick").cells[0].config["audit"] is None


def test_note_states_what_the_command_line_replaced() -> None:
    assert minimize_grid("paper", audit="standard", critic_steps=[2]).note == (
        "critic steps, audit replaced on the command line"
    )


def test_digest_depends_on_all_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    variants: list[dict[str, Any]] = [
        {},
        {"audit": "quick"},
        {"audit": "standard"},
        {"critic_steps": [2]},
        {"methods": ["BA"]},
    ]
    options: dict[str, Any] = {"methods": ["DV"], "critic_steps": [5], "seeds": [0]}
    digests = [minimize_grid(**(options | variant)).cells[0].digest for variant in variants]
    monkeypatch.setattr(methods_module, "_HIDDEN", (32,))
    digests.append(minimize_grid(**options).cells[0].digest)
    assert len(set(digests)) == len(digests)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"preset": "papers"}, "Got preset 'papers': minimize.yaml has quick, paper"),
        ({"methods": ["MINE"]}, "Got method 'MINE': the methods are none, exact, DV"),
        ({"critic_steps": [5, 0]}, "Got 0 critic steps"),
        ({"audit": "fast"}, "Got audit 'fast': the budgets of estimate are quick"),
    ],
)
def test_invalid_choices_raise(choices: dict[str, Any], message: str) -> None:
    with pytest.raises(GridError, match=message):
        minimize_grid(**choices)


@pytest.mark.parametrize(
    ("name", "option", "message"),
    [
        ("minimize", {"tasks": ["a"], "gpus_per_run": 1.0}, "Got --gpus-per-run, --tasks for the benchmark minimize"),
        ("arrays", {"critic_steps": [1]}, "Got --critic-steps for the benchmark arrays"),
        ("onehot", {"audit": "quick"}, "Got --audit for the benchmark onehot"),
    ],
)
def test_options_of_another_benchmark_are_an_error(
    name: str, option: dict[str, Any], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run.run(name, "quick", output=tmp_path, **option) == 2
    assert message in capsys.readouterr().err


@pytest.mark.usefixtures("short")
def test_every_method_records_a_finite_training(tmp_path: Path) -> None:
    results = measure(tmp_path, methods=[*WITHOUT_CRITIC, *METHODS], critic_steps=[2], seeds=[100])
    assert len(results) == 2 + len(METHODS)
    for kind, result in results.items():
        for name in ExactValues._fields:
            assert np.isfinite(result[name]).all(), kind
            assert result[name].shape == (STEPS + 1,)
            assert result[name][0] == results["none"][name][0]  # all start with the same encoder and head
        assert len(result["estimate"]) == len(result["estimate_before"]) == (0 if kind in WITHOUT_CRITIC else STEPS)
        assert np.isfinite(result["estimate"]).all()
        assert result["cpu_seconds"] > 0
        assert (result["diverged_at"], result["audit_mi"], result["audit_lower"]) == (None, None, None)
    assert results["DV-steps2"]["mi_nuisance"][-1] != results["none"]["mi_nuisance"][-1]


SETTINGS = Settings(steps=STEPS, batch_size=32, learning_rate=1e-3, task_weight=5.0, penalty_weight=0.0)


def trained(settings: Settings = SETTINGS, **options: Any) -> Training:
    generator = torch.Generator().manual_seed(0)
    task = GaussianTask.draw(generator)
    return train(
        task,
        lambda: make_penalty("DV", task, weight=settings.penalty_weight, critic_steps=1),
        settings,
        0,
        generator,
        **options,
    )


def test_penalty_of_weight_zero_changes_no_encoder() -> None:
    generator = torch.Generator().manual_seed(0)
    without = train(GaussianTask.draw(generator), lambda: None, SETTINGS, 0, generator)
    assert torch.equal(trained().weight, without.weight)


def test_training_reports_progress_and_stops_when_told() -> None:
    fractions: list[float] = []
    trained(report=fractions.append)
    assert fractions == [0.0, 0.5]
    with pytest.raises(Interrupted):
        trained(stopped=lambda: True)


def test_training_ends_at_a_loss_that_is_not_finite() -> None:
    training = trained(Settings(STEPS, 32, learning_rate=1e25, task_weight=5.0, penalty_weight=0.0))
    assert training.diverged_at is not None
    assert 0 < training.diverged_at < STEPS
    assert len(training.exact.mi_nuisance) == training.diverged_at + 1


@pytest.mark.usefixtures("short")
def test_audit_is_an_estimate_on_new_samples_of_the_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shorten(monkeypatch)  # critics start from the closed form, which is right for this task
    [result] = measure(tmp_path, methods=[NO_PENALTY], audit="quick", seeds=[101]).values()
    assert result["audit_mi"] == pytest.approx(result["mi_nuisance"][-1], rel=0.15)
    assert result["audit_lower"] < result["audit_mi"]


@pytest.mark.usefixtures("short")
def test_finished_grid_is_reported_without_a_process(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"methods": [NO_PENALTY, "CLUB"], "critic_steps": [1]}
    for cell in minimize_grid(**options).cells:
        run_cell(tmp_path, cell, ignore)
    monkeypatch.setattr(local_pool, "_executor", None)
    assert run.run("minimize", "quick", output=tmp_path, **options) == 0
    assert "2 trainings, results in" in (output := capsys.readouterr().out)
    assert "CLUB-steps1" in output
    assert {"table.md", "results.csv", "mi.png"} < {path.name for path in tmp_path.iterdir()}

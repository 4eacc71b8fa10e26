"""The scripts in benchmarks/ run, at sizes that show nothing else."""

import csv
import re
import subprocess
from pathlib import Path

import pytest
import torch

import lightning_mi
from benchmarks import (
    encoder_chunks,
    many_critics,
    mutants,
    run,
    scoring,
    staircase_peers,
    trainer_overhead,
    weak_scaling,
)
from lightning_mi import MIEstimationModule, bounds, critics, regularizers


def test_the_staircase_has_a_row_for_each_reading(tmp_path, capsys):
    path = tmp_path / "staircase.csv"
    arguments = [
        "--steps",
        "4",
        "--batch",
        "8",
        "--critics",
        "separable",
        "--losses",
        "DV",
        "InfoNCE",
        "--csv",
        str(path),
    ]
    staircase_peers.main(arguments)
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert [row["loss"] for row in rows] == ["DV, per batch", "DV, plug-in", "InfoNCE, per batch"]
    assert all(float(row["steps a second"]) > 0 for row in rows)
    assert "| separable | DV, plug-in | 0.1 |" in capsys.readouterr().out


def test_errors_are_of_the_second_half_of_each_level():
    values = [0.0, 0.0, 3.0, 1.0] * 5  # means of squares to 2, 4, 6, 8, 10
    assert staircase_peers.errors(values, steps=4) == [1.0, 5.0, 17.0, 37.0, 65.0]


def test_the_overhead_has_a_row_for_each_way(tmp_path, monkeypatch):
    monkeypatch.setattr(trainer_overhead, "WARM_UP", 2)
    path = tmp_path / "overhead.csv"
    trainer_overhead.main(["--steps", "5", "--rounds", "2", "--csv", str(path)])
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert [row["way"] for row in rows] == list(trainer_overhead.WAYS)
    assert rows[0]["over the loop"] == "1.000"


def test_what_is_written_out_is_the_loss_of_the_module():
    critic, (batch, *_) = trainer_overhead.make_critic(), trainer_overhead.Batches(1).some
    module = MIEstimationModule(critic, bounds.DV(), regularizer=regularizers.Squared(weight=1.0))
    torch.testing.assert_close(module.step(batch).loss, trainer_overhead.written_out(critic, batch))


@pytest.mark.slow
def test_weak_scaling_has_a_row_for_each_number_of_processes(tmp_path):
    path = tmp_path / "scaling.csv"
    weak_scaling.main(["--processes", "2", "--gather", "1", "--batches", "4", "--steps", "60", "--csv", str(path)])
    (row,) = csv.DictReader(path.read_text().splitlines())
    assert (row["processes"], row["gather"], row["over the fewest"]) == ("2", "True", "1.00")
    assert float(row["ms a step"]) > 0


def test_scoring_has_a_row_for_each_form(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(scoring, "megabytes_apart", scoring.megabytes)  # A process takes seconds to start.
    path = tmp_path / "scoring.csv"
    arguments = ["--tiny", "--critics", "joint", "--bounds", "DV", "--forms", "tiles", "concatenated"]
    scoring.main([*arguments, "--csv", str(path)])
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert [row["form"] for row in rows] == ["tiles", "concatenated"]
    assert float(rows[0]["over the last form"]) > 0
    scoring.main(["--memory-of", "tiles", "separable", "64", "4", "DV"])
    assert float(capsys.readouterr().out.splitlines()[-1]) < 4096


def test_concatenations_give_the_scores_of_the_joint_critic():
    critic, (x, y) = critics.JointCritic(3, 3), torch.randn(2, 5, 3)
    torch.testing.assert_close(scoring.Concatenated(critic).pairwise(x, y), critic.pairwise(x, y))


def test_many_critics_has_a_row_for_each_way_and_the_exact_one_is_exact(tmp_path, capsys):
    path = tmp_path / "many.csv"
    many_critics.main(["--tiny", "--csv", str(path)])
    rows = {row["way"]: row for row in csv.DictReader(path.read_text().splitlines())}
    assert list(rows) == ["loop", "apart", "ensemble", "exact"]
    assert float(rows["exact"]["difference"]) == 0
    assert float(rows["ensemble"]["difference"]) < 1e-5
    assert "| ensemble | 12 |" in capsys.readouterr().out
    torch.set_num_threads(1)


def test_a_peer_has_a_row_over_the_last_form(tmp_path, monkeypatch):
    def instead(command, **_):
        answer = '{"milliseconds": 30.0, "megabytes": 7.0}' if "peer" in command else "5.0"
        return subprocess.CompletedProcess(command, 0, answer)

    monkeypatch.setattr(subprocess, "run", instead)
    monkeypatch.setattr(scoring, "milliseconds", lambda *_: [10.0, 20.0])
    path = tmp_path / "scoring.csv"
    arguments = ["--critics", "joint", "--sizes", "8", "--bounds", "DV", "JS", "--peer", "peer", "--csv", str(path)]
    scoring.main(arguments)
    written = csv.DictReader(path.read_text().splitlines())
    rows = [(row["bound"], row["form"], row["over the last form"], row["MB"]) for row in written]
    of_ours = [("tiles", "0.50", "5"), ("at once", "1.00", "5")]
    assert rows == [("DV", *one) for one in of_ours] + [("JS", *one) for one in [*of_ours, ("torch-mist", "1.50", "7")]]


def test_a_peer_is_measured_in_a_loop_and_by_its_trainer(tmp_path, monkeypatch):
    answer = '{"in_loop": 0.02, "by_trainer": 0.04, "values": [0.0, 2.0, 0.0, 4.0, 0.0, 6.0, 0.0, 8.0, 0.0, 9.0]}'
    monkeypatch.setattr(subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 0, answer))
    monkeypatch.setattr(
        staircase_peers, "ours", lambda *_: {"seconds": 0.01, "values": [0.0] * 10, "plug_in": [0.0] * 10}
    )
    path = tmp_path / "staircase.csv"
    arguments = ["--steps", "2", "--critics", "joint", "--losses", "InfoNCE", "--peer", "peer", "--csv", str(path)]
    staircase_peers.main(arguments)
    own, in_loop, by_trainer = csv.DictReader(path.read_text().splitlines())
    assert (own["over its loop"], own["over its trainer"]) == ("2.00", "4.00")
    assert (in_loop["over its trainer"], by_trainer["over its loop"]) == ("2.00", "0.50")
    assert (own["MSE at 10"], in_loop["MSE at 10"], by_trainer["MSE at 10"]) == ("100.00", "1.00", "-")


@pytest.mark.slow
def test_measurements_run_one_after_the_other(tmp_path, capfd):
    assert run.main(["--tiny", "--only", "overhead", "--output", str(tmp_path)]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["overhead.csv", "overhead.txt"]
    assert "| module |" in capfd.readouterr().out


def test_a_measurement_that_fails_is_named(tmp_path, capfd, monkeypatch):
    monkeypatch.setitem(run.MEASUREMENTS, "chunks", ("no_such_script.py", [], []))
    assert run.main(["--only", "chunks", "--output", str(tmp_path)]) == 1
    assert "failed: chunks" in capfd.readouterr().err


@pytest.mark.parametrize("mutant", mutants.MUTANTS, ids=lambda mutant: mutant.name)
def test_every_mistake_still_has_its_place_in_the_source(mutant):
    assert (Path(lightning_mi.__file__).parent / mutant.file).read_text().count(mutant.right) == 1


SCRIPTS = [run, scoring, encoder_chunks, many_critics, staircase_peers, trainer_overhead, weak_scaling]


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_gpu_that_is_not_there_is_said_before_anything_runs(script, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="2"):
        script.main(["--device", "cuda"])
    assert "torch finds no CUDA device" in capsys.readouterr().err


def test_the_device_is_handed_to_every_measurement(tmp_path, monkeypatch):
    commands = []

    def instead(command, **_):
        commands.append(command)
        return subprocess.CompletedProcess(command, 0, "")

    monkeypatch.setattr(subprocess, "run", instead)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert run.main(["--device", "cuda", "--output", str(tmp_path)]) == 0
    assert len(commands) == len(run.MEASUREMENTS)
    assert all(command[command.index("--device") + 1] == "cuda" for command in commands)


@pytest.mark.slow
def test_encoder_chunks_has_a_row_for_each_batch(capsys):
    encoder_chunks.main(["--batches", "8", "--chunk", "4"])
    assert re.search(r"^\| 8 \| \d+ \| \d+ \| ([\d.]+|inf|nan) \| [\d.]+ \|$", capsys.readouterr().out, re.MULTILINE)

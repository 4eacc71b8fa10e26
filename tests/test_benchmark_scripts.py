"""The scripts in benchmarks/ run, at sizes that show nothing else."""

import csv

from benchmarks import staircase_peers


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
    assert "| separable | DV, plug-in |" in capsys.readouterr().out


def test_errors_are_of_the_second_half_of_each_stair():
    values = [0.0, 0.0, 3.0, 1.0] * 5  # means of squares to 2, 4, 6, 8, 10
    assert staircase_peers.errors(values, steps=4) == [1.0, 5.0, 17.0, 37.0, 65.0]

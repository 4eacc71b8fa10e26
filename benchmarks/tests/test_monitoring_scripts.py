"""The scripts behind docs/monitoring.md run, at a size that shows nothing else."""

import re

import pytest
import torch

from benchmarks import monitor_overhead, monitoring, plane_overhead


@pytest.fixture(autouse=True)
def quiet(caplog):
    yield
    torch.set_num_threads(1)


def test_the_overhead_is_a_ratio_of_processor_times(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("sys.argv", ["monitor_overhead.py", "--steps", "20", "--pairs", "2"])
    monkeypatch.setattr(monitor_overhead, "WARM_UP", 5)
    monitor_overhead.main()
    assert re.match(r"onehot: a step takes [\d.]+ ms without; with the monitor [\d.]+ times", capsys.readouterr().out)


def test_the_tables_have_a_row_for_each_training(capsys):
    healthy = ("drifting", "DV", "regularized", "nothing")
    table = monitoring.verdict_table([7, 8], steps=60, rows=[healthy])
    assert "| 100 | DV | regularized | nothing | nothing | nothing |" in table
    assert table.endswith("As expected: 2 of 2.")
    table = monitoring.roll_back_table([7], steps=60, rows=[healthy[:3]])
    assert re.search(r"\| 100 \| DV \| 7 \| never \| 60 \| [\d.-]+ \| [\d.-]+ \|", table)
    table = monitoring.adaptive_table([7], steps=60, weights=[0.5], batches=[32])
    assert re.search(r"\| 32 \| 0\.5 \| 7 \| (0\.\d+ \| ){2}[\d.-]+ \| [\d.-]+ \| [\d.-]+ \|", table)


def test_false_alarms_are_counted(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["monitoring.py", "--only", "false-alarms"])
    monkeypatch.setattr(monitoring.false_alarm_table, "__defaults__", (3, 3000, 50, 2000))
    monitoring.main()
    rows = re.findall(r"^\| 0\.0?5 \| \d+ \| [\d.]+% \| [\d.]+% \|$", capsys.readouterr().out, re.MULTILINE)
    assert len(rows) == 4


def test_the_plane_adds_time_by_layer_and_step(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["plane_overhead.py", "--steps", "12", "--epochs", "1", "--pairs", "1"])
    plane_overhead.main()
    assert len(re.findall(r"ms per layer and step \(-?[\d.]+ to", capsys.readouterr().out)) == 2

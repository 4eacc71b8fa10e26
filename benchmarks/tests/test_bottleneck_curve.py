"""The script of the information-bottleneck curve at a size that shows nothing else."""

import pytest

from benchmarks import bottleneck_curve
from lightning_mi.data import laws


def test_each_method_has_a_row(capsys):
    bottleneck_curve.main(["--betas", "0.3", "--steps", "3", "--batch-size", "8"])
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    optimum = laws.gaussian_bottleneck(bottleneck_curve.make_law(), 0.3)
    assert [row[0] for row in rows] == ["| VIB", "| CEB"]
    for row in rows:
        assert [float(cell) for cell in row[5:7]] == pytest.approx(optimum, abs=5e-4)
        assert float(row[4]) >= 0, "no encoder is above the curve"

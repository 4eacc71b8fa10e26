"""The table of docs/theory.md equals the script's output, and the script equals NumPy."""

import re
from pathlib import Path

import numpy as np
import pytest
from scipy.special import logsumexp

from benchmarks import oracle_table
from lightning_mi.data import GaussianDataModule

PAGE = (Path(__file__).parents[2] / "docs" / "theory.md").read_text(encoding="utf-8")


def table(text):
    """The cells of a table by bound and reading."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    head, _, *body = rows
    return {(row[0], row[1]): dict(zip(head[2:], row[2:], strict=True)) for row in body}


def published():
    """The page's table of readings with a perfect critic."""
    section = PAGE.partition("### With a perfect critic")[2].partition("\n## ")[0]
    return table(section)


def numbers(cell):
    return [float(number) for number in re.findall(r"[\d.]+", cell)]


def test_table_of_the_page_equals_the_script_output(capsys):
    oracle_table.main(["--mi", "10"])
    printed, written = table(capsys.readouterr().out), published()
    equal_to_others = {key for key in printed if key[0] == "Hellinger, RPC"}
    assert written.keys() == printed.keys() - equal_to_others - oracle_table.OTHERS.keys()
    for key, cells in ((key, printed[key]) for key in written):
        # Processors round the last digit of a float32 sample differently.
        assert numbers(written[key]["MI = 10"]) == pytest.approx(numbers(cells["MI = 10"]), abs=0.011), key


def test_script_equals_numpy(capsys):
    shape = {"batches": 3, "batch_size": 5, "dim": 2, "seed": 4}
    rows = {(row[0], row[1]): row[2] for row in oracle_table.rows([0.5], **shape)}
    data = GaussianDataModule(dim=2, mi=0.5, steps_per_mi=3, batch_size=5, seed=4)
    rho, off = np.sqrt(-np.expm1(-0.5)), ~np.eye(5, dtype=bool)
    joints, marginals = [], []
    for views in data.train_dataloader():
        x, y = (view.double().numpy() for view in views)
        x, y = x[:, None], y[None]
        quadratic = (rho**2 * (x**2 + y**2) - 2 * rho * x * y).sum(-1) / (2 * (1 - rho**2))
        joints.append((0.5 - quadratic).diagonal().mean())
        marginals.append(logsumexp((0.5 - quadratic)[off]) - np.log(20))
    joint, marginal = np.array(joints), np.array(marginals)
    macro, nwj = joint - marginal, 1 + joint - np.exp(marginal)
    z = np.exp(marginal)
    influence = joint - joint.mean() - (z / z.mean() - 1)
    micro, error = joint.mean() - np.log(z.mean()), influence.std(ddof=1) / np.sqrt(3)
    expected = {
        ("DV", "macro ± sd"): (macro.mean(), macro.std(ddof=1)),
        ("DV", "micro ± se"): (micro, error),
        ("DV", "plug-in ± sd"): (joint.mean(), joint.std(ddof=1)),
        ("NWJ", "macro ± sd"): (nwj.mean(), nwj.std(ddof=1)),
    }
    for (bound, reading), (value, spread) in expected.items():
        [cell] = [cell for (names, label), cell in rows.items() if bound in names.split(", ") and label == reading]
        # `numbers` drops signs, so compare text.
        assert cell == f"{value:.2f} ± {spread:.2f}"

"""`lightning-mi pairwise`: files, columns, output and errors."""

import json

import numpy as np
import pytest

from lightning_mi.cli.main import main
from lightning_mi.cli.tables import read_columns
from lightning_mi.exceptions import EstimateInputError
from tests.helpers.estimation import shorten

RNG = np.random.default_rng(0)
DATA = RNG.normal(size=(80, 3))


@pytest.fixture
def file(here, monkeypatch):
    shorten(monkeypatch)
    np.savetxt("table.csv", DATA, delimiter=",", header="a,b,c", comments="", fmt="%.17g")
    return here / "table.csv"


def test_pairwise_prints_text_or_json(file, capsys):
    assert main(["pairwise", "table.csv", "--folds", "2"]) == 0
    assert capsys.readouterr().out.startswith("MI of 3 columns, 3 pairs, nats; * p < 0.05, adjusted by Holm")
    assert main(["pairwise", "table.csv", "--columns", "a, c", "--folds", "2", "--adjust", "fdr", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["names"], result["adjust"], len(result["pairs"])) == (["a", "c"], "fdr", 1)


def test_declared_labels_may_be_text(file, capsys):
    rows = "".join(f"{value},{'up' if value > 0 else 'down'}\n" for value in DATA[:, 0])
    file.write_text("number,label\n" + rows)
    assert main(["pairwise", "table.csv", "--discrete", "label", "--folds", "2"]) == 0
    assert main(["pairwise", "table.csv"]) == 2
    assert "lightning-mi pairwise: error: Got label with text or objects" in capsys.readouterr().err


def test_all_columns_of_each_kind_of_file_are_read(file):
    np.save("table.npy", DATA)
    np.savez("table.npz", a=DATA[:, :2], b=DATA[:, 2])
    csv, npy, npz = (read_columns(file.with_suffix(suffix), None) for suffix in (".csv", ".npy", ".npz"))
    assert (list(csv), list(npy), list(npz)) == (["a", "b", "c"], ["0", "1", "2"], ["a", "b"])
    np.testing.assert_array_equal(csv["c"], npy["2"])
    assert npz["a"].shape == (80, 2)


def test_unusable_files_raise(file):
    np.save("flat.npy", DATA[:, 0])
    with pytest.raises(EstimateInputError, match=r"flat.npy of shape \(80,\): pairs of columns need an \(n, D\) array"):
        read_columns(file.with_name("flat.npy"), None)
    with pytest.raises(EstimateInputError, match=r"Got column 'z': .* has a, b, c"):
        read_columns(file, "a,z")
    with pytest.raises(EstimateInputError, match="give one csv"):
        read_columns(file.with_suffix(".txt"), None)

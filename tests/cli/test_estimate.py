"""`lightning-mi estimate`: files, columns, output and errors."""

import json
import os
import pty
import signal
import subprocess
import sys

import numpy as np
import pytest

from lightning_mi.cli.main import main
from lightning_mi.cli.tables import read_variables
from lightning_mi.exceptions import EstimateInputError
from tests.helpers.estimation import shorten

RNG = np.random.default_rng(0)
X = RNG.normal(size=(200, 2))
Y = X[:, 0] + RNG.normal(size=200)
Z = RNG.normal(size=200)


@pytest.fixture
def files(here, monkeypatch):
    shorten(monkeypatch)
    np.save("x.npy", X)
    np.save("y.npy", Y)
    np.save("z.npy", Z)
    np.savez("both.npz", features=X, target=Y, cause=Z)
    np.savetxt("table.csv", np.c_[X, Y, Z], delimiter=",", header="a,b,c,d", comments="", fmt="%.17g")
    return here


@pytest.mark.parametrize(
    "source",
    [
        (["x.npy", "y.npy"], None, None),
        (["both.npz"], "features", "target"),
        (["table.csv"], "a, b", "c"),
    ],
    ids=["npy", "npz", "csv"],
)
def test_variables_are_read_from_files(files, source):
    names, x, y = source
    read = read_variables([files / name for name in names], x, y)
    np.testing.assert_array_equal(read[0], X)
    np.testing.assert_array_equal(read[1], Y)


@pytest.mark.parametrize(
    "source",
    [
        (["x.npy", "y.npy", "z.npy"], None, None, None),
        (["both.npz"], "features", "target", "cause"),
        (["table.csv"], "a, b", "c", "d"),
    ],
    ids=["npy", "npz", "csv"],
)
def test_condition_is_read_from_files(files, source):
    names, *columns = source
    read = read_variables([files / name for name in names], *columns)
    np.testing.assert_array_equal(read[2], Z)


def test_given_prints_the_conditional_mi(files, capsys):
    assert main(["estimate", "table.csv", "--x", "a,b", "--y", "c", "--given", "d", "--budget", "quick"]) == 0
    assert capsys.readouterr().out.startswith("conditional MI = ")


def test_given_names_columns_of_one_file(files, capsys):
    assert main(["estimate", "x.npy", "y.npy", "--given", "d"]) == 2
    assert "Give z.npy as third file" in capsys.readouterr().err


def test_groups_and_limits_are_options(files, capsys):
    person = np.repeat(np.arange(40), 5)
    np.savetxt("people.csv", np.c_[X[:, 0], Y, person], delimiter=",", header="a,c,person", comments="", fmt="%.17g")
    command = ["estimate", "people.csv", "--x", "a", "--y", "c", "--budget", "quick", "--json", "--permutations", "19"]
    assert main([*command, "--groups", "person", "--confidence", "0.5"]) == 0
    grouped = json.loads(capsys.readouterr().out)
    assert grouped["confidence"] == 0.5
    assert "dependent_samples" in [finding["code"] for finding in grouped["findings"]]
    assert main([*command, "--blocks", "5"]) == 0
    assert json.loads(capsys.readouterr().out)["lower"] != grouped["lower"]


def test_groups_name_a_column_of_one_file(files, capsys):
    assert main(["estimate", "x.npy", "y.npy", "--groups", "person"]) == 2
    assert "names a column of one file" in capsys.readouterr().err


def test_ctrl_c_prints_the_incomplete_estimate(here):
    x = RNG.normal(size=3000)
    np.save("x.npy", x)
    np.save("y.npy", x + RNG.normal(size=3000))
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "lightning_mi", "estimate", "x.npy", "y.npy", "--budget", "careful"]
    environment = {**os.environ, "TERM": "xterm"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, text=True, env=environment) as process:
        os.close(theirs)
        drawn = b""
        while b"steps" not in drawn:  # the progress bar: the fits have begun
            drawn += os.read(ours, 1024)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=120)
    os.close(ours)
    assert process.returncode == 130
    assert output.startswith("INCOMPLETE: MI = ")
    assert "  interrupted: Ctrl-C" in output


def test_estimate_prints_three_lines_and_json(files, capsys):
    assert main(["estimate", "table.csv", "--x", "a,b", "--y", "c", "--budget", "quick"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("MI = ")
    assert main(["estimate", "x.npy", "y.npy", "--budget", "quick", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert text.startswith(f"MI = {result['mi']:.3f} nats")


def test_text_columns_stay_text_and_empty_fields_are_nan(here):
    (here / "t.csv").write_text("a,b,c\n1,x,1.5\n2,y,\n")
    a, b, *_ = read_variables([here / "t.csv"], "a", "b")
    assert a.dtype.kind == "i"
    assert b.tolist() == ["x", "y"]
    assert np.isnan(read_variables([here / "t.csv"], "c", "a")[0][1])


def test_parquet_columns_are_read(here):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    pandas.DataFrame({"a": [1.5, 2.5], "b": ["u", "v"]}).to_parquet("t.parquet")
    a, b, *_ = read_variables([here / "t.parquet"], "a", "b")
    assert (a.tolist(), b.tolist()) == ([1.5, 2.5], ["u", "v"])


WRONG = {
    "missing file": (["no.npy", "x.npy"], None, None, "no.npy: there is no such file"),
    "missing table": (["no.csv"], "a", "b", "no.csv: there is no such file"),
    "kind": (["x.txt"], "a", "b", "give one csv, parquet or npz file"),
    "no columns": (["table.csv"], None, None, "without --x and --y"),
    "column": (["table.csv"], "a,q", "c", "Got column 'q': .* has a, b, c, d"),
    "two tables": (["table.csv", "x.npy"], None, None, "one of several files"),
    "damaged npy": (["bad.npy", "x.npy"], None, None, "bad.npy: it cannot be read as a file of type npy"),
    "damaged npz": (["bad.npz"], "a", "b", "bad.npz: it cannot be read as a file of type npz"),
    "npz named npy": (["zip.npy", "x.npy"], None, None, "zip.npy: it cannot be read as a file of type npy"),
    "no zip file": (["bad_zip.npz"], "a", "b", "it cannot be read as a file of type npz"),
    "other encoding": (["latin.csv"], "a", "b", "latin.csv: it cannot be read as a file of type csv"),
    "semicolons": (["semicolons.csv"], "a", "b", "the separator must be a comma"),
    "two columns of a name": (["twice.csv"], "a", "b", "two columns called 'a'"),
    "ragged csv": (["ragged.csv"], "a", "b", "line 3 has 1 fields, and the header 2"),
    "empty csv": (["empty.csv"], "a", "b", "with 0 lines"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_unusable_files_raise(files, wrong):
    for name in ("bad.npy", "bad.npz"):
        (files / name).write_bytes(b"not an array")
    (files / "ragged.csv").write_text("a,b\n1,2\n3\n")
    (files / "empty.csv").write_text("")
    with (files / "zip.npy").open("wb") as file:
        np.savez(file, a=np.zeros(3))
    (files / "bad_zip.npz").write_bytes(b"PK\x03\x04 not a zip file")
    (files / "latin.csv").write_bytes("a,b\n1,\u00e9\n".encode("latin-1"))
    (files / "semicolons.csv").write_text("a;b\n1;2\n")
    (files / "twice.csv").write_text("a, a,b\n1,2,3\n")
    names, x, y, message = WRONG[wrong]
    with pytest.raises(EstimateInputError, match=message):
        read_variables([files / name for name in names], x, y)


def test_error_is_one_message(files, capsys):
    assert main(["estimate", "table.csv", "--x", "q", "--y", "c"]) == 2
    assert capsys.readouterr().err.startswith("lightning-mi estimate: error: Got column 'q'")

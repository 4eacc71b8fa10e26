"""Other packages in environments of their own, here scripts of a few lines."""

import multiprocessing
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightning_mi.bench.arrays import peers
from lightning_mi.bench.arrays.peers import RUNNER, Peer, PeerFailedError, parse_peer, run_peer
from lightning_mi.bench.arrays.tasks import Sample, draw, find_law
from lightning_mi.bench.cells import Interrupted
from lightning_mi.exceptions import GridError
from tests.helpers.grids import wait_until

ECHO = """
    import json, sys
    import numpy as np
    arrays = np.load(sys.argv[1])
    print("progress of a package")
    shape = [*arrays["x"].shape, *arrays["y"].shape]
    print(json.dumps({"mi": 0.25, "lower": 0.125, "upper": None, "cpu_seconds": 7.5, "shape": shape}))
"""


def sample() -> Sample:
    return draw(find_law("label-uniform-5"), 60, 0)


def peer(folder: Path, program: str) -> Peer:
    path = folder / "peer.py"
    path.write_text(textwrap.dedent(program))
    return Peer("fake", (sys.executable, str(path)))


def fake_package(folder: Path) -> Peer:
    """An interpreter with a fake `neural_mi` of version 9.9."""
    site = folder / "site"
    (site / "neural_mi-9.9.dist-info").mkdir(parents=True)
    (site / "neural_mi-9.9.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: neural_mi\nVersion: 9.9\n")
    (site / "neural_mi.py").write_text(
        "import types\n"
        "def Output(units):\n"
        "    return units\n"
        "def run(x, y, *, mode, output, seed, device, show_progress):\n"
        "    print('training')\n"
        "    assert (mode, output, device) == ('estimate', 'nats', 'cpu')\n"
        "    return types.SimpleNamespace(mi_estimate=seed + x.shape[1] / 10, details={'input_dim_x': x.shape[1]})\n"
    )
    launcher = folder / "launch.py"  # -I hides PYTHONPATH, so that the package reaches the path in another way
    launcher.write_text(
        f"import runpy, sys\nsys.path.insert(0, {str(site)!r})\nsys.argv = sys.argv[2:]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    return Peer("neuralmi", (sys.executable, str(launcher)))


def test_peer_reads_the_samples_and_its_last_line_is_the_reading(tmp_path: Path) -> None:
    reading, seconds = run_peer(peer(tmp_path, ECHO), sample(), 3, tmp_path / "cell", lambda: False)
    assert (reading.mi, reading.lower, reading.upper, seconds) == (0.25, 0.125, None, 7.5)
    assert not list((tmp_path / "cell").iterdir())


def test_peer_gets_columns_seed_one_thread_and_no_gpu(tmp_path: Path) -> None:
    program = """
        import os, sys
        import numpy as np
        arrays = np.load(sys.argv[1])
        assert arrays["x"].shape == (60, 5) and arrays["x"].dtype == "float64" and set(arrays["x"].sum(1)) == {1.0}
        assert arrays["y"].shape == (60, 1) and int(arrays["seed"]) == 3
        assert os.environ["OMP_NUM_THREADS"] == "1" and os.environ["CUDA_VISIBLE_DEVICES"] == ""
        sum(range(10 ** 7))
        print('{"mi": 1}')
    """
    reading, seconds = run_peer(peer(tmp_path, program), sample(), 3, tmp_path / "cell", lambda: False)
    assert reading.mi == 1.0
    assert seconds > 0.05  # of the whole process, if the peer does not report its own


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("raise RuntimeError('no memory.')", "exit status 1: RuntimeError: no memory$"),
        ("print('0.25')", "the last line of its output is no JSON object with numbers: '0.25'"),
        ('print(\'{"mi": "0.25"}\')', "no JSON object with numbers"),
        ("print('{\"mi\": true}')", "no JSON object with numbers"),
        ("print('{\"lower\": 1}')", "no JSON object with numbers"),
        ("print('{\"mi\": NaN}')", "its estimate is nan"),
        ("", "no JSON object with numbers: ''"),
    ],
)
def test_failing_peer_raises_with_the_reason(program: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(PeerFailedError, match=message):
        run_peer(peer(tmp_path, program), sample(), 0, tmp_path / "cell", lambda: False)
    assert not list((tmp_path / "cell").iterdir())


def test_stop_flag_kills_the_peer(tmp_path: Path) -> None:
    started = tmp_path / "started"
    program = f"import time, pathlib; pathlib.Path({str(started)!r}).touch(); time.sleep(60)"
    before = time.monotonic()
    with pytest.raises(Interrupted):
        run_peer(peer(tmp_path, program), sample(), 0, tmp_path / "cell", started.exists)
    assert time.monotonic() - before < 30


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("neuralmi", "write NAME=COMMAND"),
        ("Neural MI=python", "write NAME=COMMAND"),
        ("cca=python", "another name"),
        ("fake=", "there is no program ''"),
        ("fake=/no/such/python", "there is no program '/no/such/python'"),
        ('fake="', "the command has no words of a shell"),
        (f"bmi={sys.executable}", "cannot use the distribution benchmark-mi: .*PackageNotFoundError"),
    ],
)
def test_malformed_peers_raise(text: str, message: str) -> None:
    with pytest.raises(GridError, match=message):
        parse_peer(text)


def test_runner_prints_the_version_and_the_estimate_of_a_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = fake_package(tmp_path)
    text = f"neuralmi={package.command[0]} {package.command[1]}"
    assert parse_peer(text) == Peer("neuralmi", tuple(package.command), "9.9")
    reading, seconds = run_peer(package, sample(), 3, tmp_path / "cell", lambda: False)
    assert reading.mi == 3.5
    assert 0 <= seconds < 1


def test_runner_ends_when_its_standard_input_closes(tmp_path: Path) -> None:
    package = fake_package(tmp_path)
    np.savez(tmp_path / "samples.npz", x=np.zeros((60, 1)), y=np.zeros((60, 1)), seed=0)
    (tmp_path / "site" / "neural_mi.py").write_text("import time\ntime.sleep(60)\n")
    process = subprocess.Popen([*package.program, str(tmp_path / "samples.npz")], stdin=subprocess.PIPE)
    time.sleep(0.5)
    assert process.poll() is None
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(timeout=20) == 1


def test_runner_imports_neither_lightning_mi_nor_a_package_at_its_top() -> None:
    lines = RUNNER.read_text().splitlines()
    names = {line.split()[1].split(".")[0] for line in lines if line.startswith(("import ", "from "))}
    assert names - set(sys.stdlib_module_names) == {"numpy"}
    assert "lightning_mi" not in "".join(line for line in lines if "import " in line)
    assert {name: distribution for name, (_, distribution) in _runner_peers().items()} == peers.DISTRIBUTIONS


def _runner_peers() -> dict[str, Any]:
    from lightning_mi.bench.arrays.peer_runner import PEERS

    return PEERS


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="needs POSIX signals")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_peer_ends_with_a_killed_worker(tmp_path: Path) -> None:
    package = fake_package(tmp_path)
    pid = tmp_path / "pid"
    (tmp_path / "site" / "neural_mi.py").write_text(
        f"import os, pathlib, time\npathlib.Path({str(pid)!r}).write_text(str(os.getpid()))\ntime.sleep(60)\n"
    )
    arguments = (package, sample(), 0, tmp_path / "cell", lambda: False)
    worker = multiprocessing.get_context("fork").Process(target=run_peer, args=arguments)
    worker.start()
    wait_until(lambda: pid.exists() and pid.read_text(), seconds=60)
    worker.kill()
    worker.join()
    wait_until(lambda: not _runs(int(pid.read_text())), seconds=20)
    assert not _runs(int(pid.read_text()))


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False

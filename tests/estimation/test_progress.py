"""Progress bar: when it is drawn, and how steps are counted."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console
from rich.progress import Progress

from lightning_mi import estimate
from lightning_mi.estimation.progress import StepProgress, progress_bar


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("stream", "shown", "drawn"),
    [
        (io.StringIO, None, False),
        (io.StringIO, True, True),
        (Terminal, None, True),
        (Terminal, False, False),
    ],
    ids=["file", "file, True", "terminal", "terminal, False"],
)
def test_bar_is_drawn_if_wanted_or_on_a_terminal(stream, shown, drawn, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    output = stream()
    monkeypatch.setattr("sys.stderr", output)
    with progress_bar(shown, 10) as callbacks:
        assert len(callbacks) == drawn
    assert ("0/10 steps" in output.getvalue()) == drawn


def test_early_stop_takes_steps_off_the_total():
    progress = Progress(console=Console(file=io.StringIO()))
    callback = StepProgress(progress, progress.add_task("estimate", total=200))
    trainer = SimpleNamespace(max_steps=100)
    for steps in (30, 100):
        callback.on_train_start(trainer, None)
        for step in range(steps):
            callback.on_train_batch_end(trainer, None, None, None, step)
        callback.on_train_end(trainer, None)
    [task] = progress.tasks
    assert (task.completed, task.total) == (130, 130)
    callback.on_train_start(trainer, None)  # a fit that was not planned
    assert (task.completed, task.total) == (130, 230)


def test_estimate_ends_with_all_steps_done(short_plans, capsys):
    x = np.random.default_rng(0).normal(size=100)
    estimate(x, np.roll(x, 1), budget="quick", folds=2, permutations=19, progress=True)
    [line] = capsys.readouterr().err.strip().splitlines()
    done, total = line.split(" steps")[0].split()[-1].split("/")
    assert 0 < int(done) == int(total) <= 60


def test_estimate_prints_nothing_by_default(short_plans, capfd):
    x = np.random.default_rng(0).normal(size=100)
    estimate(x, np.roll(x, 1), budget="quick", folds=2, permutations=19)
    assert capfd.readouterr() == ("", "")


def test_wrong_progress_raises():
    with pytest.raises(TypeError, match="Got progress='yes'"):
        estimate(np.arange(60.0), np.arange(60.0), progress="yes")

"""The pages in docs: their Python runs, their commands parse, their links and images exist."""

import os
import re
import shlex
import subprocess
from contextlib import chdir

import pytest
import yaml
from lightning.pytorch import Callback

from lightning_mi import callbacks
from lightning_mi.cli import main as cli
from lightning_mi.cli.commands import TRAINING_COMMANDS, build_parser
from tests.helpers.estimation import shorten
from tests.helpers.paths import ROOT

MADE_BY_THE_BUILD = {"recipes.md", "reference/index.md", "reference/bounds.md"}  # the build checks links to them
PAGES = {page.name: page.read_text(encoding="utf-8") for page in sorted((ROOT / "docs").glob("*.md"))}


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGES[page], flags=re.DOTALL | re.MULTILINE)


def anchors(page):
    """GitHub's anchors of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", PAGES[page], flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands():
    """The words of each command line of the pages."""
    pages = ((page, block) for page in PAGES for language in ("bash", "console") for block in blocks(page, language))
    found = [(page, shlex.split(line, comments=True)) for page, block in pages for line in block.splitlines()]
    return [pytest.param(words, id=f"{page}: {' '.join(words)}") for page, words in found if words]


@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`")
@pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers")
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python") and page != "images.md"])
def test_python_of_a_page_runs_from_top_to_bottom(page, tmp_path, monkeypatch):
    shorten(monkeypatch)
    monkeypatch.setenv("PL_TRAINER_LIMIT_TRAIN_BATCHES", "50")
    namespace = {"__name__": page}
    for i, block in enumerate(blocks(page, "python")):
        folder = tmp_path / str(i)
        folder.mkdir()
        with chdir(folder):
            exec(compile(block, page, "exec"), namespace)


@pytest.mark.parametrize("words", commands())
def test_command_of_a_page_parses(words):
    if words == ["python", "train.py"]:
        assert "Save this as `train.py`" in " ".join(PAGES["distributed.md"].split())
    elif words[0] == "python":
        assert (ROOT / words[1]).is_file()
    elif words[0] == "lightning-mi":
        if words[1] not in TRAINING_COMMANDS:  # Lightning's CLI parses these, in test_command_line_page.py
            build_parser().parse_args(words[1:])
    else:
        assert words[0] in ("tensorboard", "pip", "sbatch")


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "yaml")])
def test_callbacks_that_a_page_lists_exist(page):
    for block in blocks(page, "yaml"):
        for entry in yaml.safe_load(block).get("callbacks", []):
            module, _, name = entry["class_path"].rpartition(".")
            assert module == callbacks.__name__
            assert issubclass(getattr(callbacks, name), Callback)


@pytest.mark.parametrize("page", PAGES)
def test_links_of_a_page_lead_to_files_and_headings(page):
    links = [link.partition("#") for link in re.findall(r"\]\(([^)\s]+)\)", PAGES[page]) if "://" not in link]
    missing = [target for target, _, _ in links if target and not (ROOT / "docs" / target).exists()]
    assert [target for target in missing if target not in MADE_BY_THE_BUILD] == []
    headings = [(target, anchor) for target, _, anchor in links if anchor and target not in MADE_BY_THE_BUILD]
    assert [(target, anchor) for target, anchor in headings if anchor not in anchors(target or page)] == []


# The SLURM job.

JOB = ROOT / "docs" / "slurm.sbatch"


def options(job):
    """The options that sbatch reads, from the comments before the first command."""
    return dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(\S+))?", job, flags=re.MULTILINE))


def run_job(folder, status, *files):
    """Exit status, srun call and later calls of the job if srun ends with this status."""
    for name in ("srun", "scontrol"):
        path = folder / name
        path.write_text(f'#!/bin/sh\necho {name} "$@" >> called\nexit {status if name == "srun" else 0}\n')
        path.chmod(0o755)
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).touch()
    environment = {"PATH": f"{folder}:{os.environ['PATH']}", "SLURM_JOB_ID": "7"}
    ended = subprocess.run(["bash", "-u", JOB], cwd=folder, env=environment, check=False).returncode
    called = [shlex.split(line) for line in (folder / "called").read_text().splitlines()]
    return ended, called[0], called[1:]


def test_job_requests_what_lightning_and_requeueing_need():
    job = JOB.read_text()
    requested = options(job)
    assert subprocess.run(["bash", "-n", JOB], check=False).returncode == 0
    assert {"requeue", "open-mode"} < requested.keys()
    assert requested["open-mode"] == "append"
    assert re.fullmatch(r"TERM@\d+", requested["signal"])  # without B:, so that the signal goes to the tasks
    assert "ntasks" not in requested
    assert requested["job-name"] not in ("bash", "interactive")
    words = shlex.split(job[job.index("lightning-mi fit") :].split("\nstatus")[0], comments=True)
    assert requested["ntasks-per-node"] == words[words.index("--trainer.devices") + 1]
    assert requested["gpus-per-node"] == requested["ntasks-per-node"]
    assert requested["nodes"] == words[words.index("--trainer.num_nodes") + 1]


def test_command_line_of_the_job_parses(tmp_path, capsys):
    _, (_, kill, *command), _ = run_job(tmp_path, 0)
    assert kill == "--kill-on-bad-exit=1"
    assert command[0] == "lightning-mi"
    assert cli.main([*command[1:], "--trainer.accelerator", "cpu", "--print_config"]) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert int(printed["trainer"]["devices"]) == 2
    assert printed["trainer"]["default_root_dir"] == "lightning_mi_runs/gaussian"
    assert printed["ckpt_path"] is None


@pytest.mark.parametrize(("status", "again"), [(0, []), (1, []), (143, [["scontrol", "requeue", "7"]])])
def test_job_is_requeued_after_sigterm_and_resumes(status, again, tmp_path):
    ended, srun, then = run_job(tmp_path, status, "lightning_mi_runs/gaussian/a/last.ckpt")
    assert (ended, then) == (status, again)
    assert srun[-2:] == ["--ckpt_path", "last"]

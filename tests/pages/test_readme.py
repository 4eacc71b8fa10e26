"""The README: its Python runs and reads what it states, its commands parse, its links lead to files."""

import re
import shlex
import tomllib
from functools import cache

import numpy as np
import pytest
import torch

from lightning_mi.bench import run as bench
from lightning_mi.cli import main as cli
from lightning_mi.cli.commands import build_parser
from tests.helpers.page_files import read_estimate, run_block
from tests.helpers.paths import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.DOTALL | re.MULTILINE)


def lines():
    """The words of each command with arguments: in the text, in a block, on either side of `&&`."""
    spans = re.findall(r"^```console\n(.*?)^```$|`(lightning-mi [^`]+)`", README, flags=re.DOTALL | re.MULTILINE)
    whole = "".join(block or f"{inline}\n" for block, inline in spans).splitlines()
    return [shlex.split(part, comments=True) for line in whole for part in line.split("&&")]


@pytest.fixture(scope="module")
def output_of(tmp_path_factory):
    """What the one Python block with these words prints; it runs once."""

    @cache
    def output(block):
        torch.manual_seed(0)
        return run_block(block, tmp_path_factory.mktemp("block"))[0]

    def output_of(words):
        [block] = [block for block in blocks("python") if words in block]
        return output(block)

    return output_of


def test_every_python_block_prints_an_estimate(output_of):
    assert len(blocks("python")) == README.count("```python") >= 2
    assert all("nats" in output_of(block) for block in blocks("python"))


def test_the_training_shown_reads_the_truth(output_of):
    estimate, truth = read_estimate(output_of("steps_per_mi"))
    assert truth == 2.0
    assert abs(estimate - truth) < 0.1  # 5 %; seeds 0 to 4 read 1.951 to 1.981
    quoted = re.search(r"^It prints `(.*)`", README, flags=re.MULTILINE).group(1)
    assert read_estimate(quoted) == pytest.approx((estimate, truth), abs=0.05)  # another processor rounds otherwise


def test_the_estimate_of_two_arrays_is_as_shown(output_of):
    printed = output_of("from lightning_mi import estimate").splitlines()[0]
    shown = re.search(r"print\(estimate\(.*\)\)  # (.*)$", README, flags=re.MULTILINE).group(1)
    numbers = [[float(n) for n in re.findall(r"\d+\.\d+", line)] for line in (printed, shown)]
    assert numbers[0] == pytest.approx(numbers[1], abs=0.01)  # another processor rounds otherwise
    assert numbers[0][1] < 1.5 * np.log(2) < numbers[0][0] + 0.1


def test_set_up_is_one_line_and_so_is_testing():
    assert README.count("\npip install -e . && lightning-mi bench gaussian\n") == 1
    assert README.count("\npip install -e '.[test]' && pytest -n 2\n") == 1
    assert PROJECT["scripts"] == {"lightning-mi": "lightning_mi.cli.main:main"}
    assert any(requirement.startswith("pytest>") for requirement in PROJECT["optional-dependencies"]["test"])


def test_commands_parse(monkeypatch):
    words = lines()
    assert {line[0] for line in words} == {"pip", "pytest", "lightning-mi"}
    for line in words:
        if line[0] == "lightning-mi" and len(line) > 2:
            build_parser().parse_args(line[1:])
    started = []

    def run(*_, output, **__):
        started.append(output.as_posix())
        return 0

    monkeypatch.setattr(cli, "require_writable", lambda folder: None)
    monkeypatch.setattr(bench, "run", run)
    assert cli.main(["bench", "gaussian"]) == 0
    assert f"`{started[0]}`" in README


def test_the_pages_it_links_to_exist():
    linked = [target for target in re.findall(r"\]\(([^)]+)\)", README) if not target.startswith(("https://", "#"))]
    assert [target for target in linked if not (ROOT / target.partition("#")[0]).is_file()] == []
    assert len(linked) > 20


def test_headings_that_it_links_to_exist():
    for target, anchor in re.findall(r"\]\((docs/\w+\.md)#([^)]+)\)", README):
        headings = re.findall(r"^#+ (.+)$", (ROOT / target).read_text(encoding="utf-8"), flags=re.MULTILINE)
        assert anchor in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}

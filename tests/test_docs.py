"""The pages in docs: their Python runs as it stands, their commands are understood, their links and images exist."""

import re
import shlex
from contextlib import chdir
from pathlib import Path

import pytest
import yaml
from lightning.pytorch import Callback

from lightning_mi import callbacks, cli

ROOT = Path(__file__).resolve().parents[1]
PAGES = {page.name: page.read_text(encoding="utf-8") for page in sorted((ROOT / "docs").glob("*.md"))}


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGES[page], flags=re.DOTALL | re.MULTILINE)


def commands():
    pages = ((page, block) for page in PAGES for language in ("bash", "console") for block in blocks(page, language))
    found = [(page, shlex.split(line, comments=True)) for page, block in pages for line in block.splitlines()]
    return [pytest.param(words, id=f"{page}: {' '.join(words)}") for page, words in found if words]


@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`")
@pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers")
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")])
def test_the_python_of_a_page_runs_from_top_to_bottom(page, tmp_path):
    namespace = {"__name__": page}
    for i, block in enumerate(blocks(page, "python")):
        folder = tmp_path / str(i)
        folder.mkdir()
        with chdir(folder):
            exec(compile(block, page, "exec"), namespace)


@pytest.mark.parametrize("words", commands())
def test_a_command_of_a_page_is_understood(words):
    if words[0] == "python":
        assert (ROOT / words[1]).is_file()
    elif words[0] == "lightning-mi":
        assert words[1] == "bench"
        cli._parser().parse_args(words[1:])
    else:
        assert words[0] == "tensorboard"


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "yaml")])
def test_the_callbacks_that_a_page_lists_exist(page):
    for block in blocks(page, "yaml"):
        for entry in yaml.safe_load(block)["callbacks"]:
            module, _, name = entry["class_path"].rpartition(".")
            assert module == callbacks.__name__
            assert issubclass(getattr(callbacks, name), Callback)


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_links_to_exists(page):
    targets = [t.partition("#")[0] for t in re.findall(r"\]\(([^)\s]+)\)", PAGES[page]) if "://" not in t]
    assert [target for target in targets if target and not (ROOT / "docs" / target).exists()] == []

"""docs/images.md: its module and its configuration file train on a folder of images."""

import re
import sys
from contextlib import chdir
from pathlib import Path

from lightning_mi.cli import main as cli
from tests.helpers.page_files import MY_ENCODER, write_images
from tests.helpers.paths import ROOT

PAGE = (ROOT / "docs" / "images.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)


def test_the_yaml_trains_on_a_folder_of_images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    sys.modules.pop("my_project", None)
    write_images(Path("my_images"))
    Path("my_project.py").write_text(MY_ENCODER)
    [configuration] = blocks("yaml")
    Path("my_images.yaml").write_text(configuration)
    quiet = ["--trainer.logger=false", "--trainer.enable_checkpointing=false", "--trainer.enable_progress_bar=false"]
    assert cli.main(["fit", "--config", "my_images.yaml", "--trainer.accelerator=cpu", *quiet]) == 0
    sys.modules.pop("my_project", None)


def test_the_python_trains_on_a_folder_of_images(tmp_path):
    write_images(tmp_path / "my_images")
    with chdir(tmp_path):
        for block in blocks("python"):
            exec(compile(block, "images.md", "exec"), {"__name__": "images"})

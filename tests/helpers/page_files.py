"""Files and modules that the examples of the pages assume."""

import io
import re
import runpy
import warnings
from contextlib import chdir, redirect_stdout
from pathlib import Path

import numpy as np
from PIL import Image

from lightning_mi.exceptions import StabilityWarning

MY_ENCODER = """
import torch


class MyEncoder(torch.nn.Sequential):
    def __init__(self):
        super().__init__(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 128))
"""


def write_images(folder):
    """Image files of two classes, which differ in brightness."""
    for label, name in enumerate(("cats", "dogs")):
        (folder / name).mkdir(parents=True)
        for i in range(60):
            pixels = np.random.default_rng(i).integers(0, 100, (20, 24, 3), dtype=np.uint8) + np.uint8(120 * label)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")


def write_arrays(folder):
    """Two arrays with the MI that the README states."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2000, 3))
    np.save(folder / "x.npy", x)
    np.save(folder / "y.npy", x + rng.normal(size=x.shape))


def run_block(code: str, folder: Path) -> tuple[str, list[str]]:
    """What a block prints, and the messages of its stability warnings; it runs in a folder of its own."""
    (folder / "block.py").write_text(code, encoding="utf-8")
    if "np.load" in code:
        write_arrays(folder)
    with chdir(folder), redirect_stdout(io.StringIO()) as stdout, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", StabilityWarning)
        runpy.run_path("block.py")
    return stdout.getvalue(), [str(w.message) for w in caught if w.category is StabilityWarning]


def read_estimate(text: str) -> tuple[float, float]:
    """The estimate in a line such as `1.98 +- 0.01 nats, truth 2.00`, and the truth."""
    [(estimate, truth)] = re.findall(r"(-?[\d.]+)(?: \+- [\d.]+)? nats, truth ([\d.]+)", text)
    return float(estimate), float(truth)

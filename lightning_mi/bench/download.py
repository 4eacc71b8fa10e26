"""Download the data sets of a grid before its first training."""

import inspect
from collections.abc import Iterable
from typing import Any

from lightning_mi.bench.cells import AbstractCell
from lightning_mi.exceptions import GridError


def download(cells: Iterable[AbstractCell]) -> list[str]:
    """Download the torchvision data sets of the cells that are missing, and return their names.

    Raises:
        DatasetDownloadError: If a download fails.
        GridError: If no cell has a data set of torchvision.
    """
    from lightning_mi.data import ImageDataModule  # imports torch: seconds
    from lightning_mi.data.images.datasets import download_torchvision

    root = inspect.signature(ImageDataModule).parameters["root"].default
    data: list[dict[str, Any]] = [cell.config.get("data", {}).get("init_args", {}) for cell in cells]
    found = {(each["dataset"], str(each.get("root", root))) for each in data if isinstance(each.get("dataset"), str)}
    if not found:
        raise GridError("Got --download: these runs have no data set of torchvision. Drop the option.")
    for name, folder in sorted(found):
        download_torchvision(name, folder)
    return sorted({name for name, _ in found})

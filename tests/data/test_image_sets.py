"""Named datasets: torchvision's files on disk, downloads, and their errors."""

import gzip
import pickle
from urllib.error import URLError

import numpy as np
import pytest
import torch
from torchvision import datasets

from lightning_mi.data import DatasetDownloadError, DatasetNotFoundError, ImageDataModule
from lightning_mi.data.images.splits import subsample_by_class

CIFAR = {"cifar10": (datasets.CIFAR10, "labels", 10), "cifar100": (datasets.CIFAR100, "fine_labels", 100)}


def fake_fashion(root, train=60, test=20):
    """Write files in the format of Fashion-MNIST: a header of big-endian integers, then bytes."""
    raw = root / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    pixels = {}
    for name, count in (("train", train), ("t10k", test)):
        pixels[name] = np.random.default_rng(count).integers(0, 256, (count, 28, 28), dtype=np.uint8)
        header = np.array([0x803, count, 28, 28], dtype=">i4").tobytes()
        (raw / f"{name}-images-idx3-ubyte").write_bytes(header + pixels[name].tobytes())
        labels = (np.arange(count) % 10).astype(np.uint8)
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(
            np.array([0x801, count], dtype=">i4").tobytes() + labels.tobytes()
        )
    return pixels


@pytest.fixture(params=["cifar10", "cifar100"])
def fake_cifar(request, tmp_path, monkeypatch):
    """Write pickles in the format of CIFAR, without checksums; return the dataset's name, pixels and labels."""
    vision, key, num_classes = CIFAR[request.param]
    folder = tmp_path / vision.base_folder
    folder.mkdir()
    monkeypatch.setattr(vision, "train_list", [[file, None] for file, _ in vision.train_list])
    monkeypatch.setattr(vision, "test_list", [[file, None] for file, _ in vision.test_list])
    monkeypatch.setattr(vision, "meta", {**vision.meta, "md5": None})
    generator = np.random.default_rng(0)
    pixels, labels = [], []
    for file, _ in vision.train_list + vision.test_list:
        pixels.append(generator.integers(0, 256, (4 * num_classes, 3 * 32 * 32), dtype=np.uint8))
        labels.append(np.arange(4 * num_classes) % num_classes)
        (folder / file).write_bytes(pickle.dumps({"data": pixels[-1], key: labels[-1].tolist()}))
    names = [f"class {i}" for i in range(num_classes)]
    (folder / vision.meta["filename"]).write_bytes(pickle.dumps({vision.meta["key"]: names}))
    return request.param, np.concatenate(pixels), np.concatenate(labels)


def test_fashion_mnist_has_its_official_parts(tmp_path):
    pixels = fake_fashion(tmp_path)
    data = ImageDataModule("fashion_mnist", root=str(tmp_path), batch_size=10, val_fraction=0)
    images, labels = (torch.cat(parts) for parts in zip(*data.reference_dataloader("test"), strict=True))
    expected = {image.tobytes(): i % 10 for i, image in enumerate(pixels["t10k"])}
    assert images.shape == (20, 1, 28, 28)
    assert {image.numpy().tobytes(): int(label) for image, label in zip(images, labels, strict=True)} == expected
    assert len(data.reference_dataloader().dataset) == 60
    assert data.class_names[:2] == ["T-shirt/top", "Trouser"]


def test_cifar_is_channels_first_with_its_official_parts(fake_cifar, tmp_path):
    name, pixels, labels = fake_cifar
    data = ImageDataModule(name, root=str(tmp_path), val_fraction=0, batch_size=10)
    found, expected = {}, {row.tobytes(): int(label) for row, label in zip(pixels, labels, strict=True)}
    for split in ("train", "test"):
        for image, label in zip(
            *(torch.cat(part) for part in zip(*data.reference_dataloader(split), strict=True)), strict=True
        ):
            assert image.shape == (3, 32, 32)
            found[image.numpy().tobytes()] = int(label)
    assert found == expected
    assert data.num_classes == len(set(labels))
    assert data.true_mi() == pytest.approx(np.log(data.num_classes))
    assert data.class_names[3] == "class 3"


@pytest.mark.parametrize(
    ("name", "folder"),
    [("fashion_mnist", "FashionMNIST/raw"), ("cifar10", "cifar-10-batches-py"), ("cifar100", "cifar-100-python")],
)
def test_missing_dataset_raises_with_folder_and_download_option(name, folder, tmp_path):
    data = ImageDataModule(name, root=str(tmp_path))
    with pytest.raises(
        DatasetNotFoundError, match=rf"Found no usable {name} in {tmp_path}/{folder} .*--data.download=true"
    ):
        data.setup()
    assert issubclass(DatasetNotFoundError, FileNotFoundError)


def test_damaged_dataset_raises(tmp_path):
    fake_fashion(tmp_path)
    file = tmp_path / "FashionMNIST" / "raw" / "train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(DatasetNotFoundError, match=r"Found no usable fashion_mnist in .*FashionMNIST/raw"):
        ImageDataModule("fashion_mnist", root=str(tmp_path)).setup()


@pytest.mark.parametrize("name", ["fashion_mnist", "cifar100"])
def test_failed_download_raises_with_the_folder(name, tmp_path, monkeypatch):
    def offline(*args, **kwargs):
        raise URLError("no network")

    for module in ("mnist", "cifar"):
        monkeypatch.setattr(f"torchvision.datasets.{module}.download_and_extract_archive", offline)
    with pytest.raises(DatasetDownloadError, match=rf"Download of {name} to {tmp_path}.* failed .* Check the network"):
        ImageDataModule(name, root=str(tmp_path), download=True).prepare_data()


def test_download_fetches_missing_files_once(tmp_path, monkeypatch):
    fetched = []

    def fetch(url, download_root, filename, md5):
        fetched.append(filename)
        (tmp_path / "FashionMNIST" / "raw" / filename.removesuffix(".gz")).write_bytes(files[filename])

    fake_fashion(tmp_path / "elsewhere")
    raw = tmp_path / "elsewhere" / "FashionMNIST" / "raw"
    files = {f"{path.name}.gz": gzip.decompress(gzip.compress(path.read_bytes())) for path in raw.iterdir()}
    monkeypatch.setattr("torchvision.datasets.mnist.download_and_extract_archive", fetch)
    data = ImageDataModule("fashion_mnist", root=str(tmp_path), download=True, val_fraction=0)
    assert data.num_classes == 10
    data.prepare_data()
    assert sorted(fetched) == sorted(files)


def test_embedded_datasets_and_folders_download_nothing(tmp_path):
    ImageDataModule("digits", root=str(tmp_path / "none"), download=True).setup()
    ImageDataModule("image_folder", root=str(tmp_path), download=True).prepare_data()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("count", [1, 7, 100])
def test_subset_keeps_classes_in_proportion(count):
    labels = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)[torch.randperm(100)]
    chosen = subsample_by_class(labels, count, torch.Generator())
    assert len(set(chosen.tolist())) == count
    np.testing.assert_allclose(labels[chosen].bincount(minlength=3), np.array([0.6, 0.3, 0.1]) * count, atol=1.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dataset": "cifar11"}, "dataset='cifar11': it is one of 'digits', 'digit_pairs'"),
        ({"dataset": "digits", "test_dataset": object()}, "Got test_dataset with dataset='digits'"),
        ({"batch_size": 1}, "batch_size=1: it must be at least"),
        ({"eval_batch_size": 1}, "eval_batch_size=1: it must be at least"),
        ({"limit_train": 1}, "limit_train=1: it must be at least"),
        ({"image_size": (8, 0)}, "image_size=0: it must be at least"),
        ({"seed": -1}, "seed=-1"),
        ({"num_workers": -1}, "num_workers=-1"),
        ({"val_fraction": 1.0}, "Got val_fraction=1.0: .* below 1"),
        ({"val_fraction": -0.1}, "Got val_fraction=-0.1"),
        ({"two_views": True}, "two_views=True without a transform"),
    ],
)
def test_invalid_arguments_raise_before_reading_files(arguments, message):
    with pytest.raises(ValueError, match=message):
        ImageDataModule(**{"root": "/nowhere", **arguments})


def test_batch_larger_than_the_training_set_raises():
    with pytest.raises(ValueError, match=r"needs 2000 training samples, and there are 1\d\d\d"):
        ImageDataModule("digits", batch_size=2000).train_dataloader()

"""Users' datasets and folders, from Python and from YAML."""

import math
from typing import Any

import lightning.pytorch as L
import numpy as np
import pytest
import torch
import yaml
from jsonargparse import ArgumentParser
from PIL import Image
from torch.utils.data import Dataset, IterableDataset, Subset, TensorDataset
from torchvision.transforms import v2

from lightning_mi.data import CorruptImageError, DatasetNotFoundError, ImageDataModule
from lightning_mi.data.images.sources import read_labels


class MyDataset(Dataset):
    """A dataset of the user, with a class_path for YAML."""

    def __init__(self, size: int = 40):
        self.size = size

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        return np.full((8, 8, 3), index, dtype=np.uint8), index % 4


def test_users_dataset_of_arrays_in_a_subset():
    data = ImageDataModule(Subset(MyDataset(), range(1, 40, 2)), test_dataset=MyDataset(8), batch_size=8)
    assert data.num_classes == 4
    assert data.class_prior.tolist() == [0, 0.5, 0, 0.5]  # the odd samples have the labels 1 and 3
    image, label = next(iter(data.reference_dataloader("test")))
    assert image.shape == (8, 3, 8, 8)
    assert torch.equal(image[:, 0, 0, 0] % 4, label)


def test_label_attribute_is_used_instead_of_reading_images():
    class Listed(MyDataset):
        targets = torch.arange(40) % 3

        def __getitem__(self, index):
            raise AssertionError("an image was read")

    assert torch.equal(read_labels(Listed()), torch.arange(40) % 3)
    listed: Any = Listed()
    listed.target_transform = lambda label: 0  # labels of samples then differ from the attribute
    with pytest.raises(AssertionError, match="an image was read"):
        read_labels(listed)


def build(text):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(L.LightningDataModule, "data")
    return parser.instantiate_classes(parser.parse_object(yaml.safe_load(text))).data


def test_yaml_builds_a_data_module_with_a_transform():
    data = build("""
      data:
        class_path: lightning_mi.data.ImageDataModule
        init_args:
          dataset: digit_pairs
          image_size: [16, 32]
          two_views: true
          transform:
            class_path: torchvision.transforms.v2.Compose
            init_args:
              transforms:
                - class_path: lightning_mi.data.ContrastiveTransform
                  init_args: {size: [8, 16], flip: false}
                - class_path: torchvision.transforms.v2.RandomInvert
    """)
    view1, view2, _ = data.on_after_batch_transfer(next(iter(data.train_dataloader())))
    assert view1.shape == view2.shape == (100, 1, 16, 32)


def test_yaml_builds_the_users_dataset():
    data = build(f"""
      data:
        class_path: lightning_mi.data.ImageDataModule
        init_args:
          dataset: {{class_path: {__name__}.MyDataset, init_args: {{size: 80}}}}
    """)
    assert data.true_mi() == pytest.approx(math.log(4))


class Endless(IterableDataset):
    def __iter__(self):
        yield torch.zeros(1, 8, 8), 0


def tensors(labels, shape=(1, 8, 8)):
    return TensorDataset(torch.zeros(len(labels), *shape, dtype=torch.uint8), torch.as_tensor(labels))


@pytest.mark.parametrize(
    ("dataset", "error", "message"),
    [
        (tensors([0.5, 1.0] * 20), TypeError, "Got labels of torch.float32"),
        (tensors([True, False] * 20), TypeError, "Got labels of torch.bool"),
        (tensors([[0, 1], [1, 0]] * 20), TypeError, "Got labels that are not numbers"),
        (tensors([0, -1] * 20), ValueError, "Got label -1 in the dataset: .* often means an unlabelled"),
        (tensors([]), ValueError, "Got an empty dataset"),
        (
            TensorDataset(torch.zeros(4, 1, 8, 8)),
            TypeError,
            r"sample 0 .* with 1 parts: it must be a tuple \(image, label\)",
        ),
        ([(torch.zeros(1, 8, 8), "cat")], TypeError, "dataset of type list"),
        (Endless(), TypeError, "dataset of type Endless"),
        (tensors([0] * 20 + [1]), ValueError, r"Got 1 sample\(s\) of class 1: val_fraction=0.1 holds out 1"),
    ],
)
def test_unusable_datasets_raise(dataset, error, message):
    with pytest.raises(error, match=message):
        ImageDataModule(dataset).setup()


def test_label_attribute_and_text_labels_are_checked():
    dataset = tensors([0, 1] * 20)
    dataset.targets = torch.zeros(40, 1, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"Got labels of shape \(40, 1\)"):
        ImageDataModule(dataset).setup()

    class Words(MyDataset):
        def __getitem__(self, index):
            return np.zeros((8, 8), dtype=np.uint8), "cat"

    with pytest.raises(TypeError, match="give each sample the index of its class, from 0"):
        ImageDataModule(Words()).setup()


def test_missing_test_part_raises_with_the_remedy():
    with pytest.raises(ValueError, match=r"pass ImageDataModule\(test_dataset=...\)"):
        ImageDataModule(MyDataset()).test_dataloader()
    with pytest.raises(ValueError, match="Got split='test': this data module has train, val"):
        ImageDataModule(MyDataset()).reference_dataloader("test")


def test_images_of_mixed_channels_types_or_shapes_raise():
    class Mixed(MyDataset):
        def __getitem__(self, index):
            return torch.zeros(1 + 2 * (index % 2), 8, 8), index % 2

    with pytest.raises(ValueError, match=r"Got images with \[1, 3\] channels: convert all"):
        ImageDataModule(Mixed()).setup()
    with pytest.raises(TypeError, match=r"Got images of torch.int32: give bytes"):
        ImageDataModule(TensorDataset(torch.zeros(40, 1, 8, 8, dtype=torch.int32), torch.arange(40) % 2)).setup()
    with pytest.raises(ValueError, match=r"Got an image of shape \(8,\)"):
        ImageDataModule(TensorDataset(torch.zeros(40, 8), torch.arange(40) % 2)).setup()


def write(folder, count, size=(6, 5), shade=0):
    folder.mkdir(parents=True)
    for i in range(count):
        pixels = np.full((size[1], size[0], 3), shade + i, dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:03}.png")


def first_pixels(loader):
    return sorted(
        pair for images, labels in loader for pair in zip(images[:, 0, 0, 0].tolist(), labels.tolist(), strict=True)
    )


def test_folder_is_split_in_three_disjoint_parts(tmp_path):
    write(tmp_path / "cat", 20)
    write(tmp_path / "dog", 10, shade=100)
    data = ImageDataModule("image_folder", root=str(tmp_path), batch_size=4)
    assert data.class_names == ["cat", "dog"]
    splits = [first_pixels(data.reference_dataloader(split)) for split in ("train", "val", "test")]
    assert [len(split) for split in splits] == [14 + 7, 2 + 1, 4 + 2]
    assert sorted(pair for split in splits for pair in split) == [(i, 0) for i in range(20)] + [
        (100 + i, 1) for i in range(10)
    ]
    assert data.true_mi() == pytest.approx(-(2 / 3 * math.log(2 / 3) + 1 / 3 * math.log(1 / 3)))


@pytest.mark.parametrize("name", ["test", "val"])
def test_test_folder_uses_the_classes_of_the_training_folder(name, tmp_path):
    for label, animal in enumerate(("ant", "bee", "cow")):
        write(tmp_path / "train" / animal, 4, shade=50 * label)
    write(tmp_path / name / "cow", 3, shade=200)  # only the third class
    data = ImageDataModule("image_folder", root=str(tmp_path), batch_size=4)
    assert first_pixels(data.test_dataloader()) == [(200, 2), (201, 2), (202, 2)]
    assert data.num_classes == 3

    write(tmp_path / name / "yak", 3)
    with pytest.raises(ValueError, match=r"Got the classes yak in .* no such folders"):
        ImageDataModule("image_folder", root=str(tmp_path)).setup()


def test_images_of_several_sizes_need_image_size(tmp_path):
    write(tmp_path / "cat", 10, size=(6, 5))
    write(tmp_path / "dog", 10, size=(9, 7))
    data = ImageDataModule("image_folder", root=str(tmp_path), batch_size=16, image_size=(4, 8), val_fraction=0)
    image, _ = data.on_after_batch_transfer(next(iter(data.train_dataloader())))
    assert image.shape == (16, 3, 4, 8)
    with pytest.raises(
        ValueError, match=r"shapes \(3, 5, 6\) and \(3, 7, 9\) \(C, H, W\) in one batch: set image_size"
    ):
        next(iter(ImageDataModule("image_folder", str(tmp_path), batch_size=16, val_fraction=0).train_dataloader()))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_corrupt_image_raises_with_its_file(num_workers, tmp_path):
    for part in ("train", "test"):
        write(tmp_path / part / "cat", 10, size=(60, 60))
        write(tmp_path / part / "dog", 10)
    broken = tmp_path / "train" / "cat" / "003.png"
    broken.write_bytes(broken.read_bytes()[:60])
    options = {"batch_size": 20, "val_fraction": 0, "image_size": 8, "num_workers": num_workers}
    data = ImageDataModule("image_folder", str(tmp_path), **options)
    with pytest.raises(CorruptImageError, match=r"train/cat/003.png, which cannot be read"):
        next(iter(data.train_dataloader()))
    with pytest.raises(CorruptImageError, match=r"train/cat/003.png, which cannot be read"):
        data.setup()  # reads images for the statistics


def test_folder_without_images_raises_with_its_path(tmp_path):
    for root in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(DatasetNotFoundError, match=f"Found no images in {root} "):
            ImageDataModule("image_folder", root=str(root)).setup()
    (tmp_path / "cat").mkdir()
    with pytest.raises(
        DatasetNotFoundError, match=rf"Found no images in {tmp_path} .*no valid file for the classes cat"
    ):
        ImageDataModule("image_folder", root=str(tmp_path)).setup()


def test_statistics_are_those_of_the_resized_training_images(tmp_path):
    generator = np.random.default_rng(0)
    for animal, size in (("cat", (8, 8)), ("dog", (16, 8))):
        (tmp_path / animal).mkdir()
        for i in range(10):
            Image.fromarray(generator.integers(0, 256, (*size, 3), dtype=np.uint8)).save(tmp_path / animal / f"{i}.png")
    data = ImageDataModule("image_folder", root=str(tmp_path), image_size=8)
    files = [path for animal in ("cat", "dog") for path in sorted((tmp_path / animal).iterdir())]
    resized = {
        path: v2.functional.resize(v2.functional.pil_to_tensor(Image.open(path)).float() / 255, [8, 8], antialias=True)
        for path in files
    }
    dataset: Any = data.reference_dataloader().dataset
    train = dataset.images
    chosen = torch.stack([resized[files[i]] for i in map(int, train.indices)]).double().numpy()
    assert chosen.shape == (14, 3, 8, 8)
    raw, label = torch.stack([resized[path] for path in files]), torch.zeros(20, dtype=torch.int64)
    image, _ = data.on_after_batch_transfer((raw, label))
    mean, deviation = chosen.mean(axis=(0, 2, 3)), chosen.std(axis=(0, 2, 3))
    np.testing.assert_allclose(image, (raw.numpy() - mean[:, None, None]) / deviation[:, None, None], atol=1e-5)

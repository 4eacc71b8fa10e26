"""Unlabelled images, and views that are made on the device."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from lightning_mi import MIEstimationModule, bounds, critics, encoders, pairs
from lightning_mi.callbacks import Probes
from lightning_mi.data import BatchedContrastiveTransform, CorruptImageError, DatasetNotFoundError, ImageDataModule
from tests.helpers.small_module import RecordingLogger, trainer

pytestmark = [
    pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`"),
]

AUGMENT = BatchedContrastiveTransform(8, jitter=0.5)


def write(folder, *names, size=8):
    """Image files; the pixels of a file are its place in the list."""
    for value, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((size, size, 3), value, dtype=np.uint8)).save(folder / name)


def pixels(loader):
    return sorted(int(image[0, 0, 0]) for batch in loader for image in batch[0])


def unlabelled(folder, **kwargs):
    return ImageDataModule("image_folder", root=str(folder), **({"labelled": False, "batch_size": 2} | kwargs))


def simclr(**kwargs):
    torch.manual_seed(0)
    return MIEstimationModule(
        critics.InnerProductCritic(normalize=True, temperature=0.2),
        bounds.InfoNCE(),
        pairs=pairs.TwoViews(),
        encoder=encoders.MLP(kwargs.pop("in_dim", 64), 16, out_dim=8),
        head=encoders.MLP(8, 8, out_dim=4),
        **kwargs,
    )


# Folders.


@pytest.mark.parametrize(
    "names",
    [
        [f"{i}.png" for i in range(10)],
        [f"a/b/{i}.png" if i % 3 else f"c/{i}.PNG" for i in range(10)],
        [f"{i}.png" if i % 2 else f"deep/er/still/{i}.png" for i in range(10)],
    ],
)
def test_files_at_any_depth_are_in_one_split(names, tmp_path):
    write(tmp_path, *names)
    (tmp_path / "notes.txt").write_text("no image")
    data = unlabelled(tmp_path, val_fraction=0.25)
    parts = [pixels(data.reference_dataloader(split)) for split in ("train", "val", "test")]
    assert [len(part) for part in parts] == [6, 2, 2]
    assert sorted(part for each in parts for part in each) == list(range(10))
    assert all(len(batch) == 1 for batch in data.train_dataloader())


def test_train_and_test_folders_are_the_parts(tmp_path):
    write(tmp_path, "train/a/0.png", "train/1.png", "test/2.png", "test/b/3.png")
    data = unlabelled(tmp_path, val_fraction=0)
    assert pixels(data.reference_dataloader()) == [0, 1]
    assert pixels(data.test_dataloader()) == [2, 3]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: None, r"it has no image file at any depth"),
        (lambda folder: (folder / "notes.txt").write_text(""), r"it has no image file at any depth"),
        (lambda folder: folder.rmdir(), r"there is no such folder"),
    ],
)
def test_folder_without_images_raises(make, message, tmp_path):
    make(tmp_path)
    with pytest.raises(DatasetNotFoundError, match=rf"Found no images in .*: {message}\. Set root to a folder with"):
        unlabelled(tmp_path).setup()


def test_damaged_file_is_named(tmp_path):
    write(tmp_path, *[f"{i}.png" for i in range(5)])
    for file in tmp_path.iterdir():
        file.write_bytes(b"broken")
    with pytest.raises(CorruptImageError, match=r"image file .*\.png, which cannot be read"):
        unlabelled(tmp_path, normalize=False, val_fraction=0).train_dataloader().dataset[0]


def test_dataset_of_images_or_tuples_has_no_labels_read():
    images = torch.arange(40, dtype=torch.uint8).view(40, 1, 1, 1).expand(40, 1, 4, 4)
    for dataset in (images, TensorDataset(images, torch.rand(40))):
        data = ImageDataModule(dataset, labelled=False, batch_size=5, val_fraction=0.25)
        parts = [pixels(data.reference_dataloader(split)) for split in ("train", "val")]
        assert sorted(part for each in parts for part in each) == list(range(40))


def test_iterable_dataset_raises_with_the_remedy():
    class Stream(IterableDataset):
        def __iter__(self):
            yield torch.zeros(1, 8, 8)

    with pytest.raises(TypeError, match=r"Stream: it has no length or no items by index\. .*two_views"):
        ImageDataModule(Stream(), labelled=False).setup()


# Labels.


def test_unlabelled_images_have_no_classes_and_no_true_mi():
    data = ImageDataModule("digits", labelled=False)
    assert data.true_mi() is None
    for name in ("num_classes", "class_names", "class_prior"):
        with pytest.raises(AttributeError, match=r"labelled=False: the images have no classes"):
            getattr(data, name)
    with pytest.raises(AttributeError, match=r"labelled=False"):
        data.class_counts("train")


@pytest.mark.parametrize("pairing", [pairs.SameLabel(), pairs.EnumeratedLabels(10)])
def test_pairings_of_labels_raise(pairing):
    module = MIEstimationModule(
        critics.LabelCritic(), bounds.DV(), pairs=pairing, encoder=encoders.MLP(64, 8, out_dim=10)
    )
    with pytest.raises((TypeError, AttributeError), match=r"needs labels|labelled=False"):
        trainer(fast_dev_run=True).fit(module, ImageDataModule("digits", labelled=False))


def test_probes_of_unlabelled_batches_raise():
    data = ImageDataModule("digits", labelled=False, two_views=True, batch_transform=AUGMENT)
    with pytest.raises(TypeError, match=r"Probes needs labels"):
        trainer(max_steps=1, callbacks=Probes(), num_sanity_val_steps=0).fit(simclr(), data)


@pytest.mark.parametrize("labelled", [True, False])
def test_augmented_views_log_no_true_mi(labelled):
    data = ImageDataModule("digits", labelled=labelled, two_views=True, batch_transform=AUGMENT, limit_train=200)
    logger = RecordingLogger()
    fitted = trainer(logger=logger, num_sanity_val_steps=0)
    fitted.fit(simclr(), data)
    names = {name for _, row in logger.rows for name in row} | set(fitted.callback_metrics)
    assert {"train/mi", "val/mi"} <= names
    assert not [name for name in names if "true_mi" in name]


def test_supervised_augmentation_keeps_the_true_mi_of_evaluation():
    data = ImageDataModule("digits", batch_transform=AUGMENT, limit_train=200)
    logger = RecordingLogger()
    module = MIEstimationModule(
        critics.LabelCritic(), bounds.DV(), pairs=pairs.EnumeratedLabels(10), encoder=encoders.MLP(64, 8, out_dim=10)
    )
    trainer(logger=logger, num_sanity_val_steps=0).fit(module, data)
    names = {name for _, row in logger.rows for name in row}
    assert "val/true_mi" in names
    assert "train/true_mi" not in names


# Views on the device.


def views(data, loader="train_dataloader"):
    """First and second views of all samples of a loader, by the bytes of the sample."""
    found = {}
    for batch in getattr(data, loader)():
        first, second = data.on_after_batch_transfer(batch)[:2]
        assert not torch.equal(first, second)
        for image, x, y in zip(batch[0], first, second, strict=True):
            found[image.numpy().tobytes()] = torch.stack([x, y])
    return found


def digits(**kwargs):
    options = {"two_views": True, "batch_transform": AUGMENT, "limit_train": 120, "val_fraction": 0.3, "batch_size": 20}
    return ImageDataModule("digits", **(options | kwargs))


def compare(first, second, differ=False):
    common = first.keys() & second.keys()
    assert len(common) > 50
    for key in common:
        assert torch.allclose(first[key], second[key], rtol=0, atol=1e-5) != differ


def test_views_do_not_depend_on_batches_workers_or_ranks():
    reference = views(digits())
    compare(reference, views(digits(batch_size=30)))
    compare(reference, views(digits(num_workers=1)))
    second_rank = digits(batch_size=60)
    second_rank._rank_and_world_size = lambda: (1, 2)
    compare(reference, views(second_rank))
    compare(reference, views(digits(labelled=False)))
    compare(reference, views(digits(seed=1, val_fraction=0.0, limit_train=None, batch_size=60)), differ=True)


def test_views_differ_between_passes_and_are_fixed_in_evaluation():
    data = digits()
    first = views(data)
    data.trainer = SimpleNamespace(
        global_rank=0,
        world_size=1,
        overfit_batches=0,
        precision_plugin=SimpleNamespace(convert_input=lambda view: view),
        strategy=SimpleNamespace(root_device=torch.device("cpu")),
        fit_loop=SimpleNamespace(
            epoch_loop=SimpleNamespace(batch_progress=SimpleNamespace(total=SimpleNamespace(processed=6)))
        ),
        state=SimpleNamespace(fn=None),
    )
    compare(first, views(data), differ=True)
    compare(views(data, "val_dataloader"), views(data, "val_dataloader"))


def test_reference_samples_are_not_augmented():
    data = digits()
    [(image, _), *_] = data.reference_dataloader()
    assert torch.equal(data.on_after_batch_transfer((image, torch.arange(len(image))))[0], data._scaling(image))


def test_probes_evaluate_samples_without_augmentation():
    module, data = simclr(), digits(batch_transform=BatchedContrastiveTransform(8, 0.08, jitter=1.25))
    fitted = trainer(callbacks=Probes(linear=False, head=True))
    [read] = fitted.validate(module, data, verbose=False)
    by_split = {}
    for split in ("train", "val"):
        batches = list(data.reference_dataloader(split))
        image, label = (torch.cat(part) for part in zip(*batches, strict=True))
        by_split[split] = module.encode(data._scaling(image))[0].detach(), label
    for name, project in (("", lambda x: x), ("head_", module.heads[0])):
        (train, train_label), (val, val_label) = ((project(x).detach(), y) for x, y in by_split.values())
        expected = (train_label[(val @ train.T).argmax(dim=1)] == val_label).float().mean()
        assert read[f"probe/{name}nearest_neighbor"] == pytest.approx(expected.item(), abs=0.005)


def test_probes_of_a_missing_head_raise():
    module = MIEstimationModule(critics.InnerProductCritic(), bounds.InfoNCE(), encoder=torch.nn.Flatten())
    with pytest.raises(ValueError, match=r"Probes\(head=True\) for a module without a head"):
        trainer(callbacks=Probes(head=True), fast_dev_run=True).fit(module, digits())


def test_wrong_batch_transform_raises():
    with pytest.raises(TypeError, match=r"batch_transform=32, an int: .*=BatchedContrastiveTransform\(32\)"):
        ImageDataModule("digits", batch_transform=32)


# Any iterable.


class SimCLR(MIEstimationModule):
    augment = BatchedContrastiveTransform(8, jitter=0.5)

    def on_after_batch_transfer(self, batch, dataloader_idx=0):
        return self.augment.two_views(batch)


@pytest.mark.parametrize("length", [True, False])
def test_any_iterable_of_batches_trains(length):
    class Stream(IterableDataset):
        def __iter__(self):
            generator = torch.Generator().manual_seed(0)
            yield from (torch.rand(1, 8, 8, generator=generator) for _ in range(24))

    loader = DataLoader(TensorDataset(torch.rand(24, 1, 8, 8)) if length else Stream(), batch_size=8)
    module = SimCLR(
        critics.InnerProductCritic(normalize=True),
        bounds.InfoNCE(),
        pairs=pairs.TwoViews(),
        encoder=encoders.MLP(64, 8, out_dim=4),
    )
    fitted = trainer(max_epochs=2)
    fitted.fit(module, loader)
    assert fitted.global_step == 6
    assert torch.isfinite(fitted.callback_metrics["train/mi"])

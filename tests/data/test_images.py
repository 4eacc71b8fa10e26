"""ImageDataModule on embedded data: entropies, splits, batches, pixels and views."""

import math
from typing import Any

import lightning.pytorch as L
import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch.utils.data import TensorDataset
from torchvision.transforms import v2

from lightning_mi.data import ContrastiveTransform, GaussianDataModule, ImageDataModule


def samples(loader):
    """All batches of a loader, concatenated."""
    return [torch.cat(parts) for parts in zip(*loader, strict=True)]


def rows(images):
    return {image.numpy().tobytes() for image in images}


def my_dataset(counts=(30, 20, 10), seed=0):
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    pixels = torch.randint(
        256, (len(labels), 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )
    return TensorDataset(pixels, labels)


def numpy_entropy(labels):
    shares = np.unique(labels, return_counts=True)[1] / len(labels)
    return -np.sum(shares * np.log(shares))


@pytest.mark.parametrize("val_fraction", [0.0, 0.3])
def test_digits_equal_scikit_learn_and_are_in_one_split(val_fraction):
    data = ImageDataModule("digits", val_fraction=val_fraction)
    splits = ["train", "val", "test"] if val_fraction else ["train", "test"]
    parts = [samples(data.reference_dataloader(split)) for split in splits]
    assert [part[0].dtype for part in parts] == [torch.uint8] * len(splits)

    reference = load_digits()
    expected = np.concatenate([reference.images.reshape(1797, 64), reference.target[:, None]], axis=1)
    images, labels = (torch.cat(part).numpy() for part in zip(*parts, strict=True))
    found = np.concatenate([images.reshape(1797, 64) * (16 / 255), labels[:, None]], axis=1)
    np.testing.assert_allclose(found[np.lexsort(found.T.round())], expected[np.lexsort(expected.T)], atol=0.04)


def test_splits_have_each_class_in_proportion():
    whole = np.bincount(load_digits().target)
    data = ImageDataModule("digits", val_fraction=0.25)
    shares = {"train": 0.8 * 0.75, "val": 0.8 * 0.25, "test": 0.2}
    for split, share in shares.items():
        counts = samples(data.reference_dataloader(split))[1].bincount().numpy()
        np.testing.assert_allclose(counts, whole * share, atol=1.01)


def test_true_mi_is_the_entropy_of_the_training_labels():
    data = ImageDataModule(my_dataset((300, 100, 50)), val_fraction=0.2)
    labels = samples(data.reference_dataloader())[1].numpy()
    assert len(labels) == 360
    assert data.true_mi() == data.true_mi(7) == pytest.approx(numpy_entropy(labels), rel=1e-12)
    np.testing.assert_allclose(data.class_prior, [240 / 360, 80 / 360, 40 / 360], rtol=1e-6)
    assert data.class_prior.shape == (data.num_classes,) == (3,)


def test_digit_pairs_have_log_100_nats():
    data = ImageDataModule("digit_pairs")
    image, label = samples(data.reference_dataloader())
    assert image.shape == (10_000, 1, 8, 16)
    assert data.true_mi() == pytest.approx(math.log(100), rel=1e-12)
    assert torch.equal(label.bincount(), torch.full((100,), 100))
    assert data.class_names[37] == "37"
    assert len(data.val_dataloader().dataset) == 1000
    assert len(data.test_dataloader().dataset) == 2000


def test_digit_pairs_match_their_labels_and_splits_are_disjoint():
    reference = load_digits()
    pixels = np.round(reference.images * (255 / 16)).astype(np.uint8)
    label_of = {image.tobytes(): label for image, label in zip(pixels, reference.target, strict=True)}
    data = ImageDataModule("digit_pairs", val_fraction=0.2)
    halves = {}
    for split in ("train", "val", "test"):
        image, label = samples(data.reference_dataloader(split))
        assert len(rows(image)) == len(image)  # all pairs of a split differ
        left, right = image[:, 0, :, :8].contiguous().numpy(), image[:, 0, :, 8:].contiguous().numpy()
        found = [10 * label_of[a.tobytes()] + label_of[b.tobytes()] for a, b in zip(left, right, strict=True)]
        assert found == label.tolist()
        halves[split] = {half.tobytes() for half in [*left, *right]}
    assert not halves["train"] & halves["val"]
    assert not halves["train"] & halves["test"]
    assert not halves["val"] & halves["test"]


def test_seed_changes_validation_and_order_but_not_the_test():
    first_data, same_seed, other_seed = (ImageDataModule("digit_pairs", seed=seed) for seed in (0, 0, 1))
    for loader in ("train_dataloader", "val_dataloader", "test_dataloader"):
        first, again, different = (samples(getattr(data, loader)()) for data in (first_data, same_seed, other_seed))
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
        assert torch.equal(first[0], different[0]) == (loader == "test_dataloader")


@pytest.mark.parametrize(("batch_size", "sizes"), [(25, [25, 25, 10]), (59, [59])])
def test_evaluation_drops_only_a_single_last_sample(batch_size, sizes):
    data = ImageDataModule(my_dataset(), test_dataset=my_dataset(seed=1), batch_size=batch_size)
    batches = [label for _, label in data.test_dataloader()]
    assert [len(label) for label in batches] == sizes
    assert len(data.test_dataloader()) == len(sizes)
    assert len(batches[0].unique()) == 3  # not sorted by class
    assert sum(len(label) for _, label in data.reference_dataloader("test")) == 60


def test_eval_batch_size_is_that_of_evaluation_batches():
    data = ImageDataModule("digits", batch_size=10, eval_batch_size=70)
    assert [len(next(iter(loader))[1]) for loader in (data.train_dataloader(), data.val_dataloader())] == [10, 70]


def test_training_images_are_standardized_in_each_channel():
    pixels = torch.randint(256, (500, 3, 6, 5), dtype=torch.uint8)
    pixels[:, 1:] //= 3
    labels = torch.arange(500) % 2
    for dataset in (TensorDataset(pixels, labels), TensorDataset(pixels.float() / 255, labels)):
        data = ImageDataModule(dataset)
        image = torch.cat([data.on_after_batch_transfer(batch)[0] for batch in data.reference_dataloader()]).double()
        assert image.dtype == torch.float64
        np.testing.assert_allclose(image.mean(dim=(0, 2, 3)), 0, atol=1e-5)
        np.testing.assert_allclose(image.std(dim=(0, 2, 3), correction=0), 1, atol=1e-5)


def test_test_images_use_the_training_statistics():
    data = ImageDataModule("digits")
    train = samples(data.reference_dataloader())[0].double().numpy() / 255
    raw, label = next(iter(data.test_dataloader()))
    image, same_label = data.on_after_batch_transfer((raw, label))
    assert image.dtype == torch.float32
    assert torch.equal(same_label, label)
    np.testing.assert_allclose(image, (raw.numpy() / 255 - train.mean()) / train.std(), atol=1e-5)


def test_constant_channel_stays_finite():
    data = ImageDataModule(TensorDataset(torch.full((20, 1, 4, 4), 7, dtype=torch.uint8), torch.arange(20) % 2))
    image, _ = data.on_after_batch_transfer(next(iter(data.val_dataloader())))
    assert torch.equal(image, torch.zeros_like(image))


@pytest.mark.parametrize(("image_size", "shape"), [((8, 32), (8, 32)), (4, (4, 4))])
def test_resizing_equals_that_of_torchvision(image_size, shape):
    data = ImageDataModule("digit_pairs", image_size=image_size, normalize=False)
    raw, label = next(iter(data.test_dataloader()))
    image, _ = data.on_after_batch_transfer((raw, label))
    expected = v2.functional.resize(raw.float() / 255, list(shape), antialias=True)
    np.testing.assert_allclose(image, expected, atol=1e-6)


def test_limit_train_keeps_class_proportions_and_other_splits():
    data = ImageDataModule(my_dataset((300, 200, 100)), val_fraction=0.1, limit_train=60, batch_size=10)
    assert samples(data.reference_dataloader())[1].bincount().tolist() == [30, 20, 10]
    assert len(data.reference_dataloader("val").dataset) == 60
    assert len(ImageDataModule(my_dataset(), limit_train=10_000).reference_dataloader().dataset) == 54


def test_transform_is_applied_to_training_bytes_only():
    images = []

    def darken(image):
        images.append((image.dtype, tuple(image.shape)))
        return image // 2

    data = ImageDataModule("digits", transform=darken, batch_size=1437 - 144, val_fraction=0.1)
    trained = samples(data.train_dataloader())[0]
    assert set(images) == {(torch.uint8, (1, 8, 8))}
    assert rows(trained) <= rows(samples(data.reference_dataloader())[0] // 2)
    count = len(images)
    assert trained.max() == 127
    assert samples(data.val_dataloader())[0].max() == samples(data.reference_dataloader())[0].max() == 255
    assert len(images) == count


def test_two_views_differ_and_are_fixed_in_evaluation():
    data = ImageDataModule("digits", two_views=True, transform=ContrastiveTransform(8, flip=False))
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        view1, view2, label = next(iter(loader))
        assert view1.shape == view2.shape == (100, 1, 8, 8)
        assert label.shape == (100,)
        assert (view1 != view2).flatten(1).any(dim=1).float().mean() > 0.9
    for first, again in zip(samples(data.val_dataloader()), samples(data.val_dataloader()), strict=True):
        assert torch.equal(first, again)
    assert len(next(iter(data.reference_dataloader("val")))) == 2


def test_random_views_do_not_depend_on_workers():
    def views(num_workers):
        transform = ContrastiveTransform(8)
        data = ImageDataModule("digits", two_views=True, transform=transform, num_workers=num_workers, limit_train=300)
        return samples(data.train_dataloader())

    before = torch.get_rng_state()
    without_workers = views(0)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(without_workers, views(2), strict=True))


def test_sample_is_transformed_differently_in_each_pass():
    data = ImageDataModule("digits", transform=v2.RandomCrop(8, padding=2))
    views: Any = data.train_dataloader().dataset
    first, later, again = (views.__getitems__([key])[0] for key in (5, 5 + len(views), 5))
    assert torch.equal(first, again)
    assert not torch.equal(first, later)


@pytest.mark.parametrize("channels", [1, 3])
def test_contrastive_transform_keeps_shape_type_and_channels(channels):
    image = torch.full((channels, 16, 16), 100, dtype=torch.uint8)
    image[0] += 50
    views = torch.stack([ContrastiveTransform((8, 12))(image) for _ in range(50)])
    assert views.shape == (50, channels, 8, 12)
    assert views.dtype == torch.uint8
    assert len(rows(views)) > 20
    plain = torch.stack([ContrastiveTransform(16, jitter=0)(image) for _ in range(20)])
    assert torch.equal(plain, image.expand(20, -1, -1, -1))


def test_module_receives_images_in_the_trainers_precision():
    class Probe(L.LightningModule):
        def test_step(self, batch, batch_idx):
            self.batch = batch

    module, data = Probe(), ImageDataModule("digits")
    trainer = L.Trainer(accelerator="cpu", precision="64-true", limit_test_batches=1, logger=False, barebones=True)
    trainer.test(module, data, verbose=False)
    image, label = module.batch
    assert image.dtype == torch.float64
    assert label.dtype == torch.int64
    assert image.min() < 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"min_scale": 0}, "min_scale=0:"), ({"min_scale": 1.5}, "min_scale=1.5"), ({"jitter": -1}, "jitter=-1")],
)
def test_invalid_augmentations_raise(arguments, message):
    with pytest.raises(ValueError, match=message):
        ContrastiveTransform(8, **arguments)


def test_single_sample_equals_that_of_a_batch():
    views: Any = ImageDataModule("digits").test_dataloader().dataset
    image, label = views[5]
    images, labels = views.__getitems__([4, 5])
    assert torch.equal(image, images[1])
    assert label == labels[1]


def test_data_modules_can_be_printed():
    assert str(ImageDataModule("digits")) == "ImageDataModule('digits', batch_size=100)"
    assert str(GaussianDataModule(dim=2, steps_per_mi=3)) == "GaussianDataModule(3 training batches of 64)"

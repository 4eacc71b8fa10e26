"""ImageDataModule: labelled images whose mutual information with their labels is known."""

from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple, final

import lightning.pytorch as L
import torch
from torch import Tensor
from torch.utils.data import Dataset

from lightning_mi.data.batching import BatchLoader, FixedBatches, ShuffledBatches
from lightning_mi.data.images.datasets import (
    ImageSetName,
    check_image_set,
    download_torchvision,
    load_image_set,
    pair_digits,
)
from lightning_mi.data.images.pixels import PixelScaling, channel_statistics
from lightning_mi.data.images.sources import AbstractImages, DatasetImages
from lightning_mi.data.images.splits import entropy, split_by_class, take_by_class
from lightning_mi.data.images.views import ImageViews
from lightning_mi.data.stream import Batch, Split, check_at_least

_PAIRS = {"train": 100, "val": 10, "test": 20}  # of digits, in each of the 100 classes


class _Parts(NamedTuple):
    splits: dict[str, AbstractImages]
    class_names: list[str]


@final
class ImageDataModule(L.LightningDataModule):
    """Images and their class labels: known datasets by name, a folder of files, or a dataset of your own.

    The label is a function of the image, so that I(X; Y) = H(Y), the entropy of the labels in the split
    (:meth:`true_mi`). What a training estimates on these labels depends on the pairing. A batch is a tuple (image,
    label), or (view1, view2, label) with ``two_views``; images reach the module as (N, C, H, W) float32, labels as (N,)
    int64.

    Known datasets:

    - ``digits``: scikit-learn's 1,797 grey images of 8 x 8, 10 classes, no download; a fixed 20 percent for the test.
    - ``digit_pairs``: two of them side by side, 8 x 16, labelled by both, 100 classes, H(Y) = log 100; at most 10,000
      pairs to train on, 1,000 for validation, 2,000 for the test. No digit is in two splits.
    - ``fashion_mnist``, ``cifar10``, ``cifar100``: torchvision's, under ``root``; ``download`` fetches them.
    - ``image_folder``: ``root/train/CLASS/FILE`` and ``root/test/...`` (or ``root/val``), or ``root/CLASS/FILE`` of
      which a fixed 20 percent is the test. In color; set ``image_size`` unless all files have one size.

    Validation takes ``val_fraction`` of each class of the training part. Training batches come in an order of their
    own in each pass, whole batches only, and go on after a resume where they stopped. Evaluation batches are always
    the same, shuffled, and leave out no sample but a last single one, which has no partner. On several processes
    each sample is on one of them, and none is repeated.

    Pixels are scaled, resized and standardized on the device, a whole batch at a time, in ``on_after_batch_transfer``:
    a loader iterated by hand gives bytes, which that method turns into what the module sees.

    Args:
        dataset: A name, or a map-style ``torch.utils.data.Dataset`` of (image, label) to train on: tensors (C, H, W),
            arrays (H, W, C) or PIL images, and whole numbers from 0.
        root: The folder of the datasets of torchvision, or of your image files.
        batch_size: Samples N per batch on each rank, at least 2.
        test_dataset: The test part of your own ``dataset``; without it there is no test.
        download: Fetch torchvision's datasets if they are missing.
        val_fraction: BatchShard of each class held out for validation, 0 for no validation.
        image_size: Resize to this height and width, one number for a square; the aspect ratio may change.
        transform: A transform of ``torchvision.transforms.v2``, or any callable that takes and gives a tensor
            (C, H, W), applied to one image at a time, as bytes, in training. What it draws from torch's global
            generator depends on ``seed``, pass and sample alone.
        two_views: Apply ``transform`` twice: a batch is (view1, view2, label). In validation and test too, where the
            two views of a sample are always the same; :meth:`reference_dataloader` has the images themselves. Two views
            of an image share more than its label, and how much is not known.
        noisy_labels: Whether equal images may have different labels. H(Y) then exceeds I(X; Y), which is not known.
        normalize: Subtract each channel's mean over the training images and divide by its deviation. Of images that
            are read one by one, 1,000 are looked at.
        limit_train: Train on at most this many samples, each class in proportion.
        eval_batch_size: Samples per batch in evaluation; ``batch_size`` by default.
        seed: Chooses the validation samples, the pairs, the order of training and the random transforms.
        num_workers: Worker processes; 0 is right for datasets in memory without a transform.

    Raises:
        ValueError: If an argument is out of range; the message says which and what would be right.

    Source:
        Choi & Lee (UAI 2022), the supervised and the contrastive benchmark, on CIFAR-10 and CIFAR-100.

    Example:
        >>> data = ImageDataModule("digits", batch_size=50)
        >>> image, label = data.on_after_batch_transfer(next(iter(data.train_dataloader())))
        >>> image.shape, label.shape, data.num_classes, data.true_mi()
        (torch.Size([50, 1, 8, 8]), torch.Size([50]), 10, 2.3025)
    """

    def __init__(
        self,
        dataset: ImageSetName | Dataset = "digits",  # type: ignore[type-arg]  # jsonargparse cannot build a Dataset[Any]
        root: str = "data",
        batch_size: int = 100,
        *,
        test_dataset: Dataset | None = None,  # type: ignore[type-arg]
        download: bool = False,
        val_fraction: float = 0.1,
        image_size: int | tuple[int, int] | None = None,
        # Not Tensor to Tensor: for that, jsonargparse would want a class_path of a Tensor in YAML.
        transform: Callable[[Any], Any] | None = None,
        two_views: bool = False,
        noisy_labels: bool = False,
        normalize: bool = True,
        limit_train: int | None = None,
        eval_batch_size: int | None = None,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        size = (image_size, image_size) if isinstance(image_size, int) else image_size
        check_image_set(dataset, test_dataset)
        check_at_least("batch_size", batch_size, 2)
        check_at_least("eval_batch_size", batch_size if eval_batch_size is None else eval_batch_size, 2)
        check_at_least("limit_train", 2 if limit_train is None else limit_train, 2)
        check_at_least("image_size", 1 if size is None else min(size), 1)
        check_at_least("seed", seed, 0)
        check_at_least("num_workers", num_workers, 0)
        if not 0 <= val_fraction < 1:
            raise ValueError(
                f"val_fraction={val_fraction} is out of range: it is the share of the training samples held out for "
                "validation, from 0 (none) to below 1."
            )
        if two_views and transform is None:
            raise ValueError(
                "two_views=True without a transform gives two equal views. Give a random transform, such as "
                "lightning_mi.data.ContrastiveTransform."
            )
        self.dataset = dataset
        self.test_dataset = test_dataset
        self.root = root
        self.batch_size = batch_size
        self.eval_batch_size = batch_size if eval_batch_size is None else eval_batch_size
        self.download = download
        self.val_fraction = val_fraction
        self.image_size = None if size is None else (size[0], size[1])
        self.transform = transform
        self.two_views = two_views
        self.noisy_labels = noisy_labels
        self.normalize = normalize
        self.limit_train = limit_train
        self._class_counts: dict[Split, Tensor] = {}
        self.seed = seed
        self.num_workers = num_workers

    def prepare_data(self) -> None:
        """Fetch what is missing, if asked to; Lightning calls it in one process only.

        Raises:
            DatasetDownloadError: It could not be fetched.
        """
        if self.download and isinstance(self.dataset, str):
            download_torchvision(self.dataset, self.root)

    def setup(self, stage: str | None = None) -> None:
        """Read and split the dataset, once.

        Raises:
            DatasetNotFoundError: It is not in the folder that the message names.
            TypeError: The labels of a dataset of your own are not integers.
            ValueError: A class has too few samples to be split, or the labels are not whole numbers from 0.
        """
        del stage  # all splits come from the same files
        self._scaling  # noqa: B018  # reads everything

    @property
    def num_classes(self) -> int:
        """C, the number of classes."""
        return len(self._parts.class_names)

    @property
    def class_names(self) -> list[str]:
        """A name for each class."""
        return list(self._parts.class_names)

    @property
    def class_prior(self) -> Tensor:
        """The share of each class among the training samples, (C,) float32."""
        counts = self.class_counts("train")
        return (counts.double() / counts.sum()).float()

    def class_counts(self, split: Split | None = None) -> Tensor:
        """(C,) int64, the samples of each class in a split; by default of the one in force.

        Raises:
            ValueError: There is no such split.

        Example:
            >>> ImageDataModule("digits").class_counts("test")
            tensor([36, 36, 35, 37, 36, 36, 36, 36, 35, 36])
        """
        return self._counts(self._split_in_force() if split is None else split)

    def true_mi(self, step: int | None = None) -> float | None:
        """H(Y) of the labels in the split in force, nats: I(image; label), the same at every training step.

        None where I(X; Y) is not known: with ``two_views``, with ``noisy_labels``, and in training
        with a ``transform``, whose view may lose the label.
        """
        del step
        split = self._split_in_force()
        if self.two_views or self.noisy_labels or (split == "train" and self.transform is not None):
            return None
        counts = self._counts(split).double()
        return entropy(counts / counts.sum())

    def _counts(self, split: Split) -> Tensor:
        if split not in self._class_counts:  # asked at every logged step
            labels = self._images(split).labels
            self._class_counts[split] = torch.bincount(labels, minlength=self.num_classes)
        return self._class_counts[split]

    def _split_in_force(self) -> Split:
        trainer = self.trainer
        if trainer is None or trainer.state.fn is None:
            return "train"
        if trainer.validating or trainer.sanity_checking:
            return "val"
        return "test" if trainer.testing or trainer.predicting else "train"

    def train_dataloader(self) -> BatchLoader:
        """Training batches, from the first that has not been trained on."""
        images = self._parts.splits["train"]
        rank, world_size = self._place()
        batches = ShuffledBatches(len(images), self.batch_size, seed=self.seed, rank=rank, world_size=world_size)
        return self._loader(self._views("train", augment=True), batches, resume=self.trainer)

    def val_dataloader(self) -> BatchLoader | list[Any]:
        """The validation batches; an empty list if ``val_fraction`` is 0, which Lightning remarks on in a warning."""
        return self._evaluation("val") if "val" in self._parts.splits else []

    def test_dataloader(self) -> BatchLoader:
        """The test batches.

        Raises:
            ValueError: A dataset of your own came without ``test_dataset``.
        """
        if "test" not in self._parts.splits:
            raise ValueError("There is no test part: pass ImageDataModule(test_dataset=...) beside your dataset.")
        return self._evaluation("test")

    def predict_dataloader(self) -> BatchLoader:
        """The test batches."""
        return self.test_dataloader()

    def reference_dataloader(self, split: Split = "train") -> BatchLoader:
        """All samples of a split as they are, (image, label): no transform, one view, not even a single one left out.

        What features are read from for a probe, or for neighbors. Each is on one rank, none is repeated.

        Raises:
            ValueError: There is no such split.
        """
        images = self._images(split)
        rank, world_size = self._place()
        batches = FixedBatches(len(images), self.eval_batch_size, rank=rank, world_size=world_size, keep_all=True)
        return self._loader(self._views(split, augment=False), batches)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int = 0) -> Batch:
        """Scale, resize and standardize the views of a batch, on the device it is on, in the trainer's precision."""
        *views, labels = batch
        views = [self._scaling(view) for view in views]
        if self.trainer is not None:
            views = [self.trainer.precision_plugin.convert_input(view) for view in views]
        return *views, labels

    @cached_property
    def _parts(self) -> _Parts:
        if self.trainer is None:  # used by hand: nobody else calls it
            self.prepare_data()
        whole = load_image_set(self.dataset, self.root, self.test_dataset)
        generator = torch.Generator().manual_seed(self.seed)
        splits = {"train": whole.train}
        if self.val_fraction > 0:
            kept, held_out = split_by_class(
                whole.train.labels, self.val_fraction, generator, f"val_fraction={self.val_fraction}"
            )
            splits = {"train": whole.train.subset(kept), "val": whole.train.subset(held_out)}
        if whole.test is not None:
            splits["test"] = whole.test
        names = whole.class_names
        if self.dataset == "digit_pairs":
            splits = {
                name: pair_digits(
                    digits, _PAIRS[name], torch.Generator().manual_seed(0 if name == "test" else self.seed)
                )
                for name, digits in splits.items()
            }
            names = [left + right for left in names for right in names]
        train = splits["train"]
        if self.limit_train is not None and self.limit_train < len(train):
            splits["train"] = train.subset(take_by_class(train.labels, self.limit_train, generator))
        return _Parts(splits, names)

    @cached_property
    def _scaling(self) -> PixelScaling:
        if not self.normalize:
            return PixelScaling(size=self.image_size)
        return PixelScaling(*channel_statistics(self._parts.splits["train"], self.image_size), size=self.image_size)

    def _images(self, split: Split) -> AbstractImages:
        if split not in self._parts.splits:
            raise ValueError(f"There is no {split} split: this data module has {', '.join(self._parts.splits)}.")
        return self._parts.splits[split]

    def _place(self) -> tuple[int, int]:
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)

    def _evaluation(self, split: Split) -> BatchLoader:
        views = self._views(split, augment=self.two_views)
        rank, world_size = self._place()
        return self._loader(views, FixedBatches(len(views), self.eval_batch_size, rank=rank, world_size=world_size))

    def _views(self, split: Split, *, augment: bool) -> ImageViews:
        images = self._parts.splits[split]
        return ImageViews(
            images,
            self.transform if augment else None,
            num_views=2 if self.two_views and augment else 1,
            size=self.image_size if isinstance(images, DatasetImages) else None,
            seed=self.seed,
            split=split,
        )

    def _loader(
        self, views: ImageViews, batches: ShuffledBatches | FixedBatches, resume: L.Trainer | None = None
    ) -> BatchLoader:
        on_gpu = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        return BatchLoader(views, batches, num_workers=self.num_workers, pin_memory=on_gpu, resume=resume)

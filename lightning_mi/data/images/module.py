"""ImageDataModule: images with labels, whose mutual information is known, or without."""

from collections.abc import Callable
from functools import cached_property
from typing import Any, final

import lightning.pytorch as L
import torch
from torch import Tensor
from torch.utils.data import Dataset

from lightning_mi.data.batching import BatchLoader, FixedBatches, ShuffledBatches
from lightning_mi.data.images.arguments import check_arguments
from lightning_mi.data.images.batch_transform import NUM_DRAWS, BatchedContrastiveTransform
from lightning_mi.data.images.datasets import ImageSetName, download_torchvision
from lightning_mi.data.images.parts import ImageParts, current_split, load_parts
from lightning_mi.data.images.pixels import PixelScaling, channel_statistics
from lightning_mi.data.images.sources import AbstractImages, DatasetImages
from lightning_mi.data.images.views import ImageViews, device_views
from lightning_mi.data.stream import Batch, Split
from lightning_mi.utilities.labels import entropy

_NO_CLASSES = "Got labelled=False: the images have no classes. Omit the parts that need labels, or set labelled=True."


@final
class ImageDataModule(L.LightningDataModule):
    """Images with or without class labels: a named dataset, a folder of image files, or your own dataset.

    The label is a function of the image, so I(X; Y) = H(Y), the entropy of the labels of the split (:meth:`true_mi`).
    A batch is a tuple (image, label) or, with ``two_views``, (view1, view2, label); without ``labelled`` it has no
    label. The module receives images as (N, C, H, W) float32 and labels as (N,) int64.

    Named datasets:

    - ``digits``: 1,797 grey images of 8 x 8 pixels from scikit-learn, 10 classes; the test part is a fixed 20 percent.
    - ``digit_pairs``: two digits side by side, 8 x 16 pixels, labelled by both, 100 classes, H(Y) = log 100; at most
      10,000 pairs for training, 1,000 for validation, 2,000 for the test. No digit is in two splits.
    - ``fashion_mnist``, ``cifar10``, ``cifar100``: torchvision's datasets under ``root``.
    - ``image_folder``: ``root/train/CLASS/FILE`` and ``root/test/...`` (or ``root/val``), or ``root/CLASS/FILE`` with a
      fixed 20 percent as the test part. Images are in color; set ``image_size`` unless all have one size. Without
      ``labelled``, files may be at any depth of ``root`` (or of ``root/train`` and ``root/test``).

    Each pass over the training part has a new random order and contains whole batches only; a resumed training
    continues with the next batch. Evaluation batches are always the same, in a shuffled order; only a last batch of one
    sample is dropped, because it has no marginal pair. With several ranks, each sample is on one rank, and none is
    repeated.

    Loaders return bytes; ``on_after_batch_transfer`` scales, resizes, augments and standardizes them on the device.

    Args:
        dataset: A name, or a map-style ``torch.utils.data.Dataset`` of (image, label) for training. Images are tensors
            (C, H, W), arrays (H, W, C) or PIL images; labels are whole numbers from 0. Without ``labelled``, of images,
            or of tuples that start with one. For an iterable, see :meth:`BatchedContrastiveTransform.two_views`.
        root: Folder of torchvision's datasets, or of the image files.
        batch_size: Samples N per batch on each rank, at least 2.
        test_dataset: Test part of your own ``dataset``; None means that there is none.
        download: Download missing datasets of torchvision.
        val_fraction: Fraction of each class of the training part held out for validation; 0 for none.
        image_size: Height and width to resize to, one number for a square; the aspect ratio may change.
        transform: Transform of single training images: any callable on (C, H, W) byte tensors, such as those of
            ``torchvision.transforms.v2``. Its draws from torch's global generator depend on ``seed``, pass and sample.
        batch_transform: Transform of whole batches on the device, after ``transform``. Its draws depend on ``seed``,
            pass and sample as well: views are the same with any batch size, number of ranks, and after a resume.
        two_views: Transform twice and return (view1, view2, label), in evaluation too, with fixed views. The true MI is
            then unknown, because two views share more than the label.
        labelled: Whether images have labels. Without, batches contain none, and there is no true MI.
        noisy_labels: Whether equal images may have different labels. The true MI is then unknown: H(Y) exceeds it.
        normalize: Standardize each channel by its mean and deviation over the training images (1,000 of them if files).
        limit_train: Maximum number of training samples; each class is reduced in proportion.
        eval_batch_size: Samples per evaluation batch; by default ``batch_size``.
        seed: Seed of the validation part, the digit pairs, the training order and the random transforms.
        num_workers: Worker processes of each loader; 0 is fastest for datasets in memory without a transform.

    Raises:
        TypeError: If a number is not of the right type.
        ValueError: If an argument is out of range.

    Source: Choi and Lee 2022 (supervised and contrastive benchmarks).

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
        *,
        batch_size: int = 100,
        test_dataset: Dataset | None = None,  # type: ignore[type-arg]
        download: bool = False,
        val_fraction: float = 0.1,
        image_size: int | tuple[int, int] | None = None,
        # Not Tensor to Tensor: jsonargparse would require the class_path of a Tensor in YAML.
        transform: Callable[[Any], Any] | None = None,
        batch_transform: BatchedContrastiveTransform | None = None,
        two_views: bool = False,
        labelled: bool = True,
        noisy_labels: bool = False,
        normalize: bool = True,
        limit_train: int | None = None,
        eval_batch_size: int | None = None,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        size = (image_size, image_size) if isinstance(image_size, int) else image_size
        self.dataset, self.test_dataset, self.root = dataset, test_dataset, root
        self.batch_size = batch_size
        self.eval_batch_size = batch_size if eval_batch_size is None else eval_batch_size
        self.download = download
        self.val_fraction = val_fraction
        self.image_size = None if size is None else (size[0], size[1])
        self.transform = transform
        self.batch_transform = batch_transform
        self.two_views = two_views
        self.labelled = labelled
        self.noisy_labels = noisy_labels
        self.normalize = normalize
        self.limit_train = limit_train
        self.seed = seed
        self.num_workers = num_workers
        check_arguments(self)
        self._class_counts: dict[Split, Tensor] = {}  # cached, because the true MI is logged at every step

    def __str__(self) -> str:
        """Dataset and batch size; Lightning's text reads ``DataLoader`` alone, and fails."""
        return f"ImageDataModule({self.dataset!r}, batch_size={self.batch_size})"

    def prepare_data(self) -> None:
        """Download the dataset if ``download`` is set and it is missing; Lightning calls this in one process only.

        Raises:
            DatasetDownloadError: If the download fails.
        """
        if self.download and isinstance(self.dataset, str):
            download_torchvision(self.dataset, self.root)

    def setup(self, stage: str | None = None) -> None:
        """Read and split the dataset at the first call.

        Raises:
            DatasetNotFoundError: If the dataset is missing; the message names the folder.
            TypeError: If the labels of your own dataset are not integers.
            ValueError: If a class has too few samples to be split, or labels are not whole numbers from 0.
        """
        del stage  # all splits come from the same files
        self._scaling  # noqa: B018  # reads everything

    @property
    def num_classes(self) -> int:
        """Number of classes C."""
        return len(self.class_names)

    @property
    def class_names(self) -> list[str]:
        """Names of the classes; an AttributeError without ``labelled``."""
        if not self.labelled:
            raise AttributeError(_NO_CLASSES)
        return list(self._parts.class_names)

    @property
    def class_prior(self) -> Tensor:
        """Frequency of each class among the training samples, (C,) float32."""
        counts = self.class_counts("train")
        return (counts.double() / counts.sum()).float()

    def class_counts(self, split: Split | None = None) -> Tensor:
        """Number of samples of each class in a split, (C,) int64; by default in the current split.

        Raises:
            AttributeError: If the images are not labelled.
            ValueError: If there is no such split.

        Example:
            >>> ImageDataModule("digits").class_counts("test")
            tensor([36, 36, 35, 37, 36, 36, 36, 36, 35, 36])
        """
        split = current_split(self.trainer) if split is None else split
        if split not in self._class_counts:
            labels = self._images(split).labels
            self._class_counts[split] = torch.bincount(labels, minlength=self.num_classes)
        return self._class_counts[split]

    @property
    def augments_evaluation(self) -> bool:
        """Whether evaluation batches have augmented views."""
        return self.two_views

    def true_mi(self, step: int | None = None) -> float | None:
        """I(image; label) = H(Y) of the current split in nats, the same at every training step.

        None if unknown: with ``two_views``, ``noisy_labels``, without ``labelled``, and in training with a transform.
        """
        del step
        split = current_split(self.trainer)
        augmented = self.two_views or (split == "train" and (self.transform or self.batch_transform) is not None)
        if augmented or self.noisy_labels or not self.labelled:
            return None
        counts = self.class_counts(split).double()
        return entropy(counts / counts.sum())

    def train_dataloader(self) -> BatchLoader:
        """Loader of the training batches, starting with the first one not trained on yet."""
        images = self._parts.splits["train"]
        rank, world_size = self._rank_and_world_size()
        batches = ShuffledBatches(len(images), self.batch_size, seed=self.seed, rank=rank, world_size=world_size)
        return self._loader(self._views("train", augment=True), batches, resume=self.trainer)

    def val_dataloader(self) -> BatchLoader | list[Any]:
        """Loader of the validation batches; an empty list if ``val_fraction`` is 0, about which Lightning warns."""
        return self._evaluation_loader("val") if "val" in self._parts.splits else []

    def test_dataloader(self) -> BatchLoader:
        """Loader of the test batches.

        Raises:
            ValueError: If your own dataset has no ``test_dataset``.
        """
        if "test" not in self._parts.splits:
            raise ValueError("Got a dataset without a test part: pass ImageDataModule(test_dataset=...) as well.")
        return self._evaluation_loader("test")

    def predict_dataloader(self) -> BatchLoader:
        """Loader of the test batches."""
        return self.test_dataloader()

    def reference_dataloader(self, split: Split = "train") -> BatchLoader:
        """Loader of all samples of a split as (image, label) without transform: each once, on one rank; for probes.

        Raises:
            ValueError: If there is no such split.
        """
        images = self._images(split)
        rank, world_size = self._rank_and_world_size()
        batches = FixedBatches(len(images), self.eval_batch_size, rank=rank, world_size=world_size, keep_all=True)
        return self._loader(self._views(split, augment=False), batches)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int = 0) -> Batch:
        """Scale, resize and standardize the images of a batch on its device, in the precision of the trainer."""
        views, labels = device_views(batch, self._scaling, self.batch_transform)
        if self.trainer is not None:
            views = [self.trainer.precision_plugin.convert_input(view) for view in views]
        return *views, *labels

    @cached_property
    def _parts(self) -> ImageParts:
        if self.trainer is None:  # without a trainer nothing else calls it
            self.prepare_data()
        return load_parts(
            self.dataset,
            self.root,
            test_dataset=self.test_dataset,
            val_fraction=self.val_fraction,
            limit_train=self.limit_train,
            seed=self.seed,
            labelled=self.labelled,
        )

    @cached_property
    def _scaling(self) -> PixelScaling:
        if not self.normalize:
            return PixelScaling(size=self.image_size)
        return PixelScaling(*channel_statistics(self._parts.splits["train"], self.image_size), size=self.image_size)

    def _images(self, split: Split) -> AbstractImages:
        if split not in self._parts.splits:
            raise ValueError(f"Got split={split!r}: this data module has {', '.join(self._parts.splits)}.")
        return self._parts.splits[split]

    def _rank_and_world_size(self) -> tuple[int, int]:
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)

    def _evaluation_loader(self, split: Split) -> BatchLoader:
        views = self._views(split, augment=self.two_views)
        rank, world_size = self._rank_and_world_size()
        return self._loader(views, FixedBatches(len(views), self.eval_batch_size, rank=rank, world_size=world_size))

    def _views(self, split: Split, *, augment: bool) -> ImageViews:
        images = self._parts.splits[split]
        return ImageViews(
            images,
            self.transform if augment else None,
            num_views=2 if self.two_views and augment else 1,
            num_draws=NUM_DRAWS if self.batch_transform is not None and augment else 0,
            labelled=self.labelled,
            size=self.image_size if isinstance(images, DatasetImages) else None,
            seed=self.seed,
            split=split,
        )

    def _loader(
        self, views: ImageViews, batches: ShuffledBatches | FixedBatches, resume: L.Trainer | None = None
    ) -> BatchLoader:
        on_gpu = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        return BatchLoader(views, batches, num_workers=self.num_workers, pin_memory=on_gpu, resume=resume)

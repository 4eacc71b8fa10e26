"""LightningDataModules with known mutual information, and their laws."""

from lightning_mi.data.gaussian import GaussianDataModule
from lightning_mi.data.gaussian_laws import gaussian_log_ratio, gaussian_log_ratio_matrix, gaussian_mi, gaussian_rho
from lightning_mi.data.images.batch_transform import BatchedContrastiveTransform
from lightning_mi.data.images.module import ImageDataModule
from lightning_mi.data.images.views import ContrastiveTransform
from lightning_mi.data.law_module import LawDataModule
from lightning_mi.data.onehot import OneHotDataModule
from lightning_mi.data.sigterm_workers import ignore_job_signals
from lightning_mi.data.stream import BatchStream, StreamLoader, batch_generator
from lightning_mi.data.transforms import TRANSFORMS, Transform, get_transform
from lightning_mi.exceptions import CorruptImageError, DatasetDownloadError, DatasetNotFoundError

__all__ = [
    "TRANSFORMS",
    "BatchStream",
    "BatchedContrastiveTransform",
    "ContrastiveTransform",
    "CorruptImageError",
    "DatasetDownloadError",
    "DatasetNotFoundError",
    "GaussianDataModule",
    "ImageDataModule",
    "LawDataModule",
    "OneHotDataModule",
    "StreamLoader",
    "Transform",
    "batch_generator",
    "gaussian_log_ratio",
    "gaussian_log_ratio_matrix",
    "gaussian_mi",
    "gaussian_rho",
    "get_transform",
    "ignore_job_signals",
]

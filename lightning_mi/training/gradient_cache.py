"""Gradient cache: encode a large batch in chunks, with the memory of one chunk."""

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lightning_mi.utilities.checks import check_whole

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def encode_in_chunks(encoder: nn.Module, view: Tensor, size: int) -> Tensor:
    """Encode a view in chunks, and recompute each chunk in backward: activations of one chunk at a time.

    Gradients equal those of encoding the whole view, at the cost of one more forward pass. Random layers draw the same
    numbers in both passes. Works under autocast and DDP.

    Args:
        encoder: A module whose output for a sample depends on that sample only.
        view: (N, ...) input of the encoder.
        size: Samples per chunk.

    Returns:
        (N, ...) representations.

    Raises:
        TypeError: The view is not a tensor.
        ValueError: The size is below 1, or the encoder normalizes by batch statistics.

    Source: Gao et al. 2021 (gradient cache); Chen et al. 2016 (recomputation).

    Example:
        >>> encode_in_chunks(nn.Linear(3, 2), torch.zeros(10, 3), size=4).shape
        torch.Size([10, 2])
    """
    check_chunk_size(size)
    if not isinstance(view, Tensor):
        raise TypeError(
            f"Got a view of type {type(view).__name__} to encode in chunks: a chunk is some rows of a tensor. "
            "Override `encode` to split other views, or omit `encoder_chunk_size`."
        )
    chunks = torch.split(view, size)
    if len(chunks) > 1:
        _check_independent(encoder)
    if not torch.is_grad_enabled():
        return torch.cat([encoder(chunk) for chunk in chunks])
    return torch.cat([checkpoint(encoder, chunk, use_reentrant=False) for chunk in chunks])


def check_chunk_size(size: int) -> None:
    """Check that a chunk has at least one sample."""
    check_whole("encoder_chunk_size", size, 1)


def _check_independent(encoder: nn.Module) -> None:
    for name, module in encoder.named_modules():
        if isinstance(module, _BATCH_NORMS) and (module.training or not module.track_running_stats):
            raise ValueError(
                f"Got a network with {type(module).__name__} (`{name}`) to encode in chunks: it would normalize each "
                "chunk by the statistics of that chunk, not of the batch. Use GroupNorm or LayerNorm, set it to "
                "evaluation mode, or omit `encoder_chunk_size`."
            )

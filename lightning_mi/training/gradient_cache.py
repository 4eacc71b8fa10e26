"""Encoding in chunks: a batch as large as the pairs want, in the memory that a small one takes."""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from lightning_mi.utilities.checks import check_whole


def encode_in_chunks(encoder: nn.Module, view: Tensor, size: int) -> Tensor:
    """Encode a view a chunk at a time, and again in the backward pass, where only one chunk's activations are alive.

    The gradients are those of encoding the whole view at once, at the price of one more forward pass. Random layers
    draw the same in both passes. It works under autocast and DDP.

    Args:
        encoder: Any module whose output for a sample depends on that sample alone.
        view: (N, ...) what it takes.
        size: Samples in a chunk.

    Returns:
        (N, ...) representations.

    Raises:
        TypeError: The view is not a tensor.
        ValueError: The size is below 1, or the encoder normalizes by the statistics of its batch, which a chunk is not.

    Source:
        Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup", RepL4NLP 2021 (there
        called gradient cache); Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016.

    Example:
        >>> encode_in_chunks(nn.Linear(3, 2), torch.zeros(10, 3), size=4).shape
        torch.Size([10, 2])
    """
    check_chunk_size(size)
    if not isinstance(view, Tensor):
        raise TypeError(
            f"Got a view of type {type(view).__name__} to encode in chunks: they are cut from the rows of a tensor. "
            "Override `encode` to cut other views, or leave out `encoder_chunk_size`."
        )
    chunks = torch.split(view, size)
    if len(chunks) > 1:
        _check_independent(encoder)
    if not torch.is_grad_enabled():
        return torch.cat([encoder(chunk) for chunk in chunks])
    return torch.cat([checkpoint(encoder, chunk, use_reentrant=False) for chunk in chunks])


def check_chunk_size(size: int) -> None:
    """Check that a chunk holds at least one sample."""
    check_whole("encoder_chunk_size", size, 1)


def _check_independent(encoder: nn.Module) -> None:
    for name, module in encoder.named_modules():
        if isinstance(module, _BatchNorm) and (module.training or not module.track_running_stats):
            raise ValueError(
                f"Got an encoder with {type(module).__name__} (`{name}`) to encode in chunks: it would normalize each "
                "chunk by the chunk's own statistics, which is another network. Use GroupNorm or LayerNorm, put it in "
                "evaluation mode, or leave out `encoder_chunk_size`."
            )

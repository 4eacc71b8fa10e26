r"""Contrastive losses by name.

Each returns a :class:`~lightning_mi.MILoss` with InfoNCE as its bound. Its loss is the negative of the estimate of the
mutual information. The published loss is larger by a constant, the logarithm of the number of candidates R in a row:

.. math:: L_{\mathrm{published}} = -\mathrm{InfoNCE} + \log R

because InfoNCE divides the sum of exponentials by R. The gradients are equal.
"""

from typing import Literal

from lightning_mi.bounds import InfoNCE
from lightning_mi.critics import InnerProductCritic
from lightning_mi.loss import MILoss
from lightning_mi.pairs import SameLabel, TwoTowers, TwoViews


def ntxent(temperature: float = 0.5, *, gather: bool = True) -> MILoss:
    r"""NT-Xent, the loss of SimCLR: two views of each sample by one encoder.

    ``loss(x, y)`` of N samples is the published loss minus log(2 N - 1): each of the 2 N views is compared with its
    partner among the 2 N - 1 other views. With several ranks N counts the samples of all ranks.

    Args:
        temperature: Divides the cosines.
        gather: As in :class:`~lightning_mi.pairs.AbstractPairing`.

    Raises:
        ValueError: The temperature is not positive.

    Source: Chen et al. 2020, equation 1.

    Example:
        >>> import torch
        >>> x = torch.eye(4)
        >>> ntxent(temperature=0.01)(x, x)  # -log 7
        tensor(-1.9459)
    """
    critic = InnerProductCritic(normalize=True, temperature=temperature)
    return MILoss(critic, InfoNCE(), TwoViews(gather=gather))


def supcon(
    temperature: float = 0.1,
    *,
    num_views: Literal[1, 2] = 1,
    ignore_index: int | None = None,
    gather: bool = True,
) -> MILoss:
    r"""SupCon, the supervised contrastive loss :math:`L_{out}`: samples with the same label are positives.

    ``loss(x, labels)``, or ``loss(x, y, labels)`` with two views, is the published loss minus log R, with R = N - 1 or
    2 N - 1 other views of N samples. The published loss is a sum over anchors; this is its mean over the anchors that
    have a positive. Terms are not scaled by a base temperature, as released code does.

    Args:
        temperature: Divides the cosines.
        num_views: The number of views of each sample.
        ignore_index: Samples with this label take no part; R does not count them. None by default.
        gather: As in :class:`~lightning_mi.pairs.AbstractPairing`.

    Raises:
        ValueError: The temperature is not positive, or ``num_views`` is below 1.

    Source: Khosla et al. 2020, equation 2.

    Example:
        >>> import torch
        >>> supcon(temperature=0.01)(torch.eye(2)[[0, 0, 1, 1]], torch.tensor([0, 0, 1, 1]))  # -log 3
        tensor(-1.0986)
    """
    critic = InnerProductCritic(normalize=True, temperature=temperature)
    pairs = SameLabel(weighting="anchor", ignore_index=ignore_index, num_views=num_views, gather=gather)
    return MILoss(critic, InfoNCE(), pairs)


def clip(
    temperature: float = 0.07,
    *,
    learnable: bool = True,
    min_temperature: float | None = 0.01,
    gather: bool = True,
    tile_bytes: float | None = None,
) -> MILoss:
    r"""The loss of CLIP: two encoders, the mean of both directions, with a learnable temperature.

    ``loss(x, y)`` of N pairs is the published loss minus log N. With several ranks N counts the pairs of all ranks.
    Give the parameters of the loss, its temperature, to the optimizer, without weight decay.

    Args:
        temperature: Divides the cosines; its initial value if it is learnable.
        learnable: Learn the temperature.
        min_temperature: Minimum of a learnable temperature; 0.01 is a logit scale of at most 100.
        gather: As in :class:`~lightning_mi.pairs.AbstractPairing`.
        tile_bytes: As in :class:`~lightning_mi.pairs.AllPairs`.

    Raises:
        ValueError: The temperature is not positive or below the minimum.

    Source: Radford et al. 2021, section 2.5 (temperature).

    Example:
        >>> import torch
        >>> loss = clip(temperature=0.01)
        >>> loss(torch.eye(4), torch.eye(4)), loss.critic.temperature  # -log 4
        (tensor(-1.3863, grad_fn=<NegBackward0>), 0.01)
    """
    critic = InnerProductCritic(
        normalize=True,
        temperature=temperature,
        learnable=learnable,
        min_temperature=min_temperature if learnable else None,
    )
    return MILoss(critic, InfoNCE(), TwoTowers(gather=gather, tile_bytes=tile_bytes))

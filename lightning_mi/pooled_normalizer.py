"""PooledNormalizer: what normalizes a batch of predictions that has no marginal pairs of its own."""

import math
from typing import final

import torch
from torch import Tensor


@final
class PooledNormalizer:
    r"""The log of :math:`E_Q[e^T]` over all batches of a data loader so far; nats.

    A batch with marginal pairs is normalized by these. The last batch of a data loader may hold a single sample, which
    has none: it is normalized by those of the batches before it.

    Example:
        >>> normalizer = PooledNormalizer()
        >>> normalizer.of_batch(torch.tensor(1.0), num_marginal=6, batch_idx=0), normalizer.of_batch(None, 0, 1)
        (tensor(1.), tensor(1.))
    """

    def __init__(self) -> None:
        self._log_sums: dict[int, Tensor] = {}
        self._counts: dict[int, int] = {}

    def of_batch(self, log_mean_exp: Tensor | None, num_marginal: int, batch_idx: int, loader: int = 0) -> Tensor:
        """The log-normalizer for a batch.

        Args:
            log_mean_exp: Of the batch's own marginal pairs, a scalar in nats; None if it has none.
            num_marginal: How many it has.
            batch_idx: Its place in its data loader; at 0 the loader begins anew.
            loader: The place of its data loader.

        Raises:
            ValueError: Neither the batch nor one before it has marginal pairs.
        """
        if batch_idx == 0:
            self._log_sums.pop(loader, None)
        if log_mean_exp is not None:
            log_sum, before = log_mean_exp.detach() + math.log(num_marginal), self._log_sums.get(loader)
            self._log_sums[loader] = log_sum if before is None else torch.logaddexp(before, log_sum)
            self._counts[loader] = num_marginal + (0 if before is None else self._counts[loader])
            return log_mean_exp
        if loader not in self._log_sums:
            raise ValueError(
                "Got a batch without marginal pairs to predict, and none before it had any: pointwise mutual "
                "information is normalized by the scores of marginal pairs. Raise the batch size to two or more."
            )
        return self._log_sums[loader] - math.log(self._counts[loader])

    def clear(self) -> None:
        """Drop all that was pooled."""
        self._log_sums, self._counts = {}, {}

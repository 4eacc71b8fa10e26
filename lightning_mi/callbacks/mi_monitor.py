"""MIMonitor: the mutual information of any two tensors of a module, during training."""

from collections.abc import Sequence
from typing import final

import lightning.pytorch as L

from lightning_mi.callbacks.watch.engine import AbstractWatch, Pair
from lightning_mi.callbacks.watch.layers import Reduction
from lightning_mi.callbacks.watch.replay import Forward
from lightning_mi.callbacks.watch.sources import Key, parse_source
from lightning_mi.utilities.checks import check_finite


@final
class MIMonitor(AbstractWatch):
    """Reads the mutual information of pairs of layers, batch entries and outputs of any LightningModule.

    A variable is the path of a layer (``"encoder"``), an entry of the batch (``"batch.1"``, ``"batch.caption"``) or of
    what a step returns (``"outputs.z"``). One-dimensional integers are labels, and are read by a classifier: H(Y) minus
    the cross entropy. Other pairs are read by InfoNCE, at most log n of the n held-out samples. If one variable is a
    deterministic function of the other, their information is infinite, and the reading is near log n: set ``noise``.

    Probes are fitted and read as by :class:`~lightning_mi.callbacks.InformationPlane`. Outputs exist in steps only, so
    that pairs with one are cross-fitted to the outputs of ``validation_step``.

    Logs for each pair ``mi_monitor/X/Y``, with ``_standard_error``, ``_train_gap`` and ``_limit``.

    Args:
        pairs: Pairs of variables.
        noise: Standard deviation of Gaussian noise on the first variable of each pair, in units of the root mean square
            of the deviations of its features.
        input: As in :class:`~lightning_mi.callbacks.InformationPlane`, for the replay.
        reduction: As in :class:`~lightning_mi.callbacks.InformationPlane`.
        forward: As in :class:`~lightning_mi.callbacks.InformationPlane`.
        buffer: As in :class:`~lightning_mi.callbacks.InformationPlane`.
        held_out: As in :class:`~lightning_mi.callbacks.InformationPlane`.
        hidden: As in :class:`~lightning_mi.callbacks.InformationPlane`.
        every_n_epochs: As in :class:`~lightning_mi.callbacks.InformationPlane`.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is out of range.
        MisconfigurationException: As in :class:`~lightning_mi.callbacks.InformationPlane`.
        WatchError: As in :class:`~lightning_mi.callbacks.InformationPlane`.

    Source: Barber and Agakov 2003; Choi and Lee 2022; van den Oord et al. 2018.

    Example:
        >>> monitor = MIMonitor([("encoder", "batch.caption"), ("encoder", "batch.1")])
        >>> trainer = L.Trainer(logger=False, accelerator="cpu", callbacks=[monitor])
    """

    def __init__(
        self,
        pairs: Sequence[tuple[str, str]],
        *,
        noise: float = 0.0,
        input: Key | None = None,
        reduction: Reduction = "mean",
        forward: Forward | None = None,
        buffer: int = 2048,
        held_out: int = 2048,
        hidden: int = 64,
        every_n_epochs: int = 1,
    ) -> None:
        check_finite("noise", noise, "in units of the deviation of the first variable's features")
        if noise < 0:
            raise ValueError(f"Got noise={noise}: it must be at least 0.")
        if not pairs or not all(map(_is_pair, pairs)):
            raise ValueError(f'Got pairs={pairs!r}: give pairs of variables, such as [("encoder", "batch.1")].')
        super().__init__(reduction, forward, input, buffer, held_out, hidden, every_n_epochs)
        self._sources, self._noise = [(parse_source(x), parse_source(y)) for x, y in pairs], noise

    @property
    def state_key(self) -> str:
        """The key in the checkpoint, which depends on the variables: a trainer may have several monitors."""
        return f"MIMonitor{[(x.name, y.name) for x, y in self._sources], self._noise}"

    def find_pairs(self, pl_module: L.LightningModule) -> list[Pair]:
        """The pairs of the argument."""
        return [Pair(f"mi_monitor/{x.name}/{y.name}", x, y, self._noise) for x, y in self._sources]

    def draw(self, trainer: L.Trainer) -> None:
        """Nothing: the charts show the readings."""


def _is_pair(pair: object) -> bool:
    return isinstance(pair, list | tuple) and len(pair) == 2

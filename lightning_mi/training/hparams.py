"""Hyper-parameters of a checkpoint: plain values only."""

import warnings
from typing import Any

import lightning.pytorch as L

from lightning_mi._compat.lightning_loops import hyper_parameters


def save_plain_hyperparameters(module: L.LightningModule) -> None:
    """Save the plain arguments of a module's ``__init__`` as hyper-parameters; call it in ``__init__``."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Attribute '.*' is an instance of `nn.Module`")
        module.save_hyperparameters()
    for saved in hyper_parameters(module):
        keep_plain(saved)


def keep_plain(hparams: dict[str, Any]) -> None:
    """Remove, in place, values that do not load with ``weights_only=True``, such as modules and callables.

    Example:
        >>> hparams = {"rate": 0.1, "layers": [8, 8], "activation": print}
        >>> keep_plain(hparams)
        >>> hparams
        {'rate': 0.1, 'layers': [8, 8]}
    """
    for name in [name for name, value in hparams.items() if not _is_plain(value)]:
        del hparams[name]


def _is_plain(value: Any) -> bool:
    # Exact types: np.float64 is a float and many an Enum a str, and neither loads with weights_only=True.
    if type(value) is dict:
        return all(_is_plain(v) for v in [*value.keys(), *value.values()])
    if type(value) in (list, tuple):
        return all(_is_plain(v) for v in value)
    return value is None or type(value) in (str, int, float, bool)

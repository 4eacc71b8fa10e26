"""Which hyper-parameters may go into a checkpoint."""

import warnings
from typing import Any, cast

import lightning.pytorch as L


def save_plain_hyperparameters(module: L.LightningModule) -> None:
    """Keep those arguments of a module's ``__init__`` that a checkpoint can give back; to be called from there."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Attribute '.*' is an instance of `nn.Module`")
        module.save_hyperparameters()
    for saved in (module._hparams, module._hparams_initial):
        keep_plain(cast("dict[str, Any]", saved))


def keep_plain(hparams: dict[str, Any]) -> None:
    """Drop, in place, whatever a checkpoint could not give back with ``weights_only=True``: modules and callables.

    Example:
        >>> hparams = {"rate": 0.1, "layers": [8, 8], "activation": print}
        >>> keep_plain(hparams)
        >>> hparams
        {'rate': 0.1, 'layers': [8, 8]}
    """
    for name in [name for name, value in hparams.items() if not _is_plain(value)]:
        del hparams[name]


def _is_plain(value: Any) -> bool:
    # Exact types: np.float64 is a float and many an Enum a str, yet neither loads with weights_only=True.
    if type(value) is dict:
        return all(_is_plain(v) for v in [*value.keys(), *value.values()])
    if type(value) in (list, tuple):
        return all(_is_plain(v) for v in value)
    return value is None or type(value) in (str, int, float, bool)

"""Train one cell of a grid in this process and write its curves."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning_mi.bench.cells import AbstractCell
from lightning_mi.bench.grid import Cell
from lightning_mi.bench.loggers import finish, logger_config
from lightning_mi.bench.results import write_curves
from lightning_mi.bench.worker import quiet_process

# Callbacks of a recipe that a grid drops: it has its own progress bar, curves and layout, and validates at the end.
DROPPED_CALLBACKS = ("ProgressBar", "Checkpoint", "EarlyStopping", "TensorBoardLayout")


def train_cell(
    folder: Path, cell: Cell, report: Callable[[float], None], stopped: Callable[[], bool] = lambda: False
) -> None:
    """Train a cell and write its curves atomically under ``folder``.

    Args:
        folder: Results of the benchmark.
        cell: The training.
        report: Called a few times a second with the fraction of the steps done.
        stopped: Called at every step; the training stops once it returns True.

    Raises:
        Interrupted: If ``stopped`` returned True.
        DatasetNotFoundError: If the data set is missing; the message contains the command that downloads it.
    """
    from lightning_mi.bench.recorder import Recorder

    with quiet_process(), download_hint(cell.config["data"]["init_args"]):
        cli = instantiate(cell.config, folder / "tensorboard", cell.name, tracker=tracker_config(cell, folder))
        recorder = Recorder(report, stopped, _symbol_scores(cli.datamodule))
        labelled = hasattr(cli.datamodule, "num_classes")
        cli.trainer.callbacks += [recorder, _layout(cell, labelled)]
        cli.trainer.fit(cli.model, datamodule=cli.datamodule)
        # Labelled data are evaluated on their validation and test sets; streamed data are new at every training step.
        validated = _validate(cli) if labelled else {}
        tested = cli.trainer.test(cli.model, datamodule=cli.datamodule, verbose=False)[0] if labelled else {}
        finish(cli.trainer.loggers)
    if cli.trainer.is_global_zero:
        write_curves(
            folder,
            cell,
            recorder.curves(),
            diverged_at=recorder.diverged_at,
            steps_an_epoch=int(cli.trainer.num_training_batches),
            validated=validated,
            tested=tested,
            num_classes=getattr(cli.datamodule, "num_classes", None),
        )


def _validate(cli: Any) -> dict[str, float]:
    """The metrics of the validation set after the last step; none without a validation set."""
    import lightning.pytorch as L
    from lightning.pytorch.utilities.model_helpers import is_overridden

    data, trainer = cli.datamodule, cli.trainer
    if not is_overridden("val_dataloader", data, L.LightningDataModule) or not data.val_dataloader():
        return {}
    trainer.limit_val_batches = 1.0  # none in the fit
    return dict(trainer.validate(cli.model, datamodule=data, verbose=False)[0])


def instantiate(
    config: dict[str, Any],
    log_folder: Path,
    name: str,
    *,
    tracker: dict[str, Any] | None = None,
    dropped: tuple[str, ...] = DROPPED_CALLBACKS,
    validate: bool = False,
) -> Any:
    """Build trainer, model and data of a configuration like ``lightning-mi fit``, but quiet and without checkpoints.

    Args:
        config: Configuration in the form of ``lightning-mi fit --config``.
        log_folder: Folder of the TensorBoard logs.
        name: Name of the run.
        tracker: Configuration of a further logger.
        dropped: Ends of the class names of the callbacks to drop.
        validate: True to validate as configured; otherwise there is no validation.

    Returns:
        A LightningCLI with ``trainer``, ``model`` and ``datamodule``.
    """
    from lightning.pytorch.cli import LightningCLI

    trainer = config.get("trainer", {})
    callbacks = trainer.get("callbacks") or []
    board = {"save_dir": str(log_folder), "name": name, "version": "", "default_hp_metric": False}
    loggers = [{"class_path": "lightning.pytorch.loggers.TensorBoardLogger", "init_args": board}]
    quiet = {
        "logger": [*loggers, tracker] if tracker else loggers[0],
        "callbacks": [
            each
            for each in (callbacks if isinstance(callbacks, list) else [callbacks])
            if not each["class_path"].endswith(dropped)
        ],
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        **({} if validate else {"limit_val_batches": 0}),
    }
    return LightningCLI(
        save_config_callback=None,
        auto_configure_optimizers=False,
        args=copy.deepcopy(config) | {"trainer": trainer | quiet},  # LightningCLI writes into it
        run=False,
    )


def tracker_config(cell: AbstractCell, folder: Path) -> dict[str, Any] | None:
    """The configuration of the cell's experiment tracker; None without one."""
    return None if cell.tracker is None else logger_config(**cell.tracker, run=cell.name, folder=folder)


def _layout(cell: Cell, labelled: bool) -> Any:
    """TensorBoard layout of the grid. Streamed data have many short steps, so their figures are rarer."""
    from lightning_mi.callbacks import TensorBoardLayout

    return TensorBoardLayout(
        histograms_every_n_steps=20 if labelled else 200,
        figures_every_n_steps=100 if labelled else 1000,
        hparams={"study": cell.study, "loss": cell.loss, "variant": cell.variant},
        metrics=None if labelled else ["train/mi", "train/log_normalizer"],
    )


def _symbol_scores(data: Any) -> Any:
    """Function that returns the critic scores of all pairs of symbols; None if the data are not symbols."""
    import torch

    from lightning_mi.data import OneHotDataModule
    from lightning_mi.module import MIEstimationModule

    if not isinstance(data, OneHotDataModule):
        return None
    symbols = torch.arange(data.num_symbols)

    @torch.no_grad()
    def symbol_scores(module: MIEstimationModule) -> torch.Tensor:
        x, y = module.encode(symbols.to(module.device), symbols.to(module.device))
        return module.critic.pairwise(x, y)

    return symbol_scores


@contextmanager
def download_hint(data: dict[str, Any]) -> Iterator[None]:
    """Context manager: replace the hint of DatasetNotFoundError by the option of `bench`."""
    from lightning_mi.data import DatasetNotFoundError

    try:
        yield
    except DatasetNotFoundError as error:
        if error.__cause__ is None or not {"dataset", "root"} <= data.keys():
            raise
        call = f"ImageDataModule('{data['dataset']}', root='{data['root']}', download=True).prepare_data()"
        raise DatasetNotFoundError(
            f"Found no usable {data['dataset']} in {Path(data['root']).absolute()}. Add --download to `bench`, or "
            f'download it first: python -c "from lightning_mi.data import ImageDataModule; {call}" (on every node of '
            "a Ray cluster)."
        ) from error

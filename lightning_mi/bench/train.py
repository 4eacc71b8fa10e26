"""Train one cell of a grid in this process and write its curves."""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning_mi.bench.grid import Cell
from lightning_mi.bench.results import write_curves
from lightning_mi.bench.worker import configure_worker

# Kinds of callbacks: a grid shows one bar and keeps curves, does not validate, and has a layout of its own.
_NOT_IN_A_GRID = ("ProgressBar", "Checkpoint", "EarlyStopping", "TensorBoardLayout")


def train_cell(
    folder: Path, cell: Cell, report: Callable[[float], None], stopped: Callable[[], bool] = lambda: False
) -> None:
    """Train a cell and write its curves under ``folder``, whole or not at all.

    Args:
        folder: Of the benchmark's results.
        cell: What to train.
        report: Called a few times a second with the fraction of the steps done.
        stopped: Asked at every step whether to give up.
    """
    from lightning_mi.bench.recorder import Recorder

    with _quiet_process(), _naming_missing_data(cell.config["data"]["init_args"]):
        cli = instantiate(cell.config, folder / "tensorboard", cell.name)
        recorder = Recorder(report, stopped, _probe(cli.datamodule))
        labelled = hasattr(cli.datamodule, "num_classes")
        layout = _layout(cell, 20, 100, None) if labelled else _streamed_layout(cell)
        cli.trainer.callbacks += [recorder, layout]
        cli.trainer.fit(cli.model, datamodule=cli.datamodule)
        # Labelled data have a test set to be judged on; streamed ones are fresh at every step already.
        tested = cli.trainer.test(cli.model, datamodule=cli.datamodule, verbose=False)[0] if labelled else {}
    if cli.trainer.is_global_zero:
        write_curves(
            folder,
            cell,
            recorder.curves(),
            diverged_at=recorder.diverged_at,
            steps_an_epoch=int(cli.trainer.num_training_batches),
            tested=tested,
            num_classes=getattr(cli.datamodule, "num_classes", None),
        )


@contextmanager
def _quiet_process() -> Iterator[None]:
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    configure_worker()
    with warnings.catch_warnings():
        # A run that diverges is a result here, recorded as such; the warning would be printed once a process.
        warnings.simplefilter("ignore")
        yield


def instantiate(config: dict[str, Any], log_folder: Path, name: str) -> Any:
    """Make trainer, model and data of a configuration, as ``lightning-mi fit`` does, but quiet and without checkpoints.

    Args:
        config: As ``lightning-mi fit --config`` takes it.
        log_folder: Where TensorBoard finds the run.
        name: Of the run.

    Returns:
        A LightningCLI with ``trainer``, ``model`` and ``datamodule``.
    """
    from lightning.pytorch.cli import LightningCLI

    from lightning_mi.module import MIEstimationModule

    trainer = config.get("trainer", {})
    logger = {"save_dir": str(log_folder), "name": name, "version": "", "default_hp_metric": False}
    quiet = {
        "logger": {"class_path": "lightning.pytorch.loggers.TensorBoardLogger", "init_args": logger},
        "callbacks": [c for c in trainer.get("callbacks") or [] if not c["class_path"].endswith(_NOT_IN_A_GRID)],
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "limit_val_batches": 0,
    }
    return LightningCLI(
        MIEstimationModule,
        subclass_mode_model=True,
        save_config_callback=None,
        auto_configure_optimizers=False,
        args=config | {"trainer": trainer | quiet},
        run=False,
    )


def _layout(cell: Cell, histograms: int, figures: int, metrics: list[str] | None) -> Any:
    """The grid's columns for TensorBoard; figures as rare as each kind of training can afford."""
    from lightning_mi.callbacks import TensorBoardLayout

    return TensorBoardLayout(
        histograms_every_n_steps=histograms,
        figures_every_n_steps=figures,
        hparams={"study": cell.study, "loss": cell.loss, "variant": cell.variant},
        metrics=metrics,
    )


def _streamed_layout(cell: Cell) -> Any:
    return _layout(cell, 200, 1000, ["train/mi", "train/log_normalizer"])


def _probe(data: Any) -> Any:
    """Critic scores of all pairs of symbols, where the data are symbols."""
    import torch

    from lightning_mi.data import OneHotDataModule
    from lightning_mi.module import MIEstimationModule

    if not isinstance(data, OneHotDataModule):
        return None
    symbols = torch.arange(data.num_symbols)

    @torch.no_grad()
    def scores_of_symbols(module: MIEstimationModule) -> torch.Tensor:
        x, y = module.encode(symbols.to(module.device), symbols.to(module.device))
        return module.critic.pairwise(x, y)

    return scores_of_symbols


@contextmanager
def _naming_missing_data(data: dict[str, Any]) -> Iterator[None]:
    """Say how to fetch a missing data set for a grid, which takes no option for it."""
    from lightning_mi.data import DatasetNotFoundError

    try:
        yield
    except DatasetNotFoundError as error:
        if error.__cause__ is None or not {"dataset", "root"} <= data.keys():
            raise
        call = f"ImageDataModule('{data['dataset']}', root='{data['root']}', download=True).prepare_data()"
        raise DatasetNotFoundError(
            f"no usable {data['dataset']} in {Path(data['root']).absolute()}, and `bench` does not download. "
            f'Fetch it first: python -c "from lightning_mi.data import ImageDataModule; {call}" (on every node of '
            "a Ray cluster)."
        ) from error

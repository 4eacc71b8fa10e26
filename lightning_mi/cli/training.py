"""`lightning-mi fit | validate | test | predict`: Lightning's CLI with recipes and safe checkpoints.

Differences from a stock `LightningCLI`:

1. `--config` accepts the name of a recipe as well as a file.
2. `--ckpt_path best | last` finds the checkpoint of an earlier run and prints its path. Commands other than `fit` print
   a notice if there is a checkpoint and they do not read it.
3. Hyper-parameters come from the command line only. A checkpoint gives weights and state, read with
   `weights_only=True`.
4. Checkpoints are written atomically, by `AtomicCheckpointIO`. SIGINT, SIGTERM and SIGHUP save one; the exit status is
   130, 143 or 129.
5. An invalid configuration, or an output folder that cannot be written, gives one message before anything is written.
   `JSONARGPARSE_DEBUG=true` gives the traceback.
6. `fit` prints the last estimate on validation data with its standard error and, if known, the true MI.
7. `predict` writes the predictions to files, in `predictions` under the output folder, unless a prediction writer is
   configured.
"""

import json
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast, final

from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.callbacks import BasePredictionWriter, ModelCheckpoint, ProgressBar
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from lightning_mi.callbacks import SaveAtTermination
from lightning_mi.checkpoints.atomic_io import use_atomic_checkpoints
from lightning_mi.checkpoints.loading import (
    CheckpointAlias,
    describe_differences,
    explain_mismatch,
    local_path,
    read_checkpoint,
)
from lightning_mi.cli.checkpoint_lookup import find_checkpoint, newest_checkpoint
from lightning_mi.cli.commands import TRAINING_COMMANDS, TRAINING_EXAMPLES
from lightning_mi.cli.key_suggestions import load_object
from lightning_mi.cli.messages import (
    format_estimates,
    silence_batch_indices,
    silence_notices,
    silence_training_state,
)
from lightning_mi.cli.parser import ConfigurationError, TrainingParser, add_config_option, resolve, tracebacks_enabled
from lightning_mi.exceptions import CheckpointError
from lightning_mi.utilities.atomic_files import require_writable, sweep
from lightning_mi.utilities.distributed import destroy_process_group
from lightning_mi.utilities.interrupts import SIGNALS, exit_status, interruptible
from lightning_mi.utilities.lifeline import is_launched_rank
from lightning_mi.utilities.parser_errors import readable


def run_training(arguments: Sequence[str]) -> int:
    """Run `fit`, `validate`, `test` or `predict` and return the exit status.

    Args:
        arguments: Arguments after the program's name; the first is one of the four commands.
    """
    command = arguments[0]
    if "--help" in arguments or "-h" in arguments:
        print(f"lightning-mi {command}: {TRAINING_COMMANDS[command]}\n\n{TRAINING_EXAMPLES[command]}")
    # As with `python -m`, modules in the current folder can be imported.
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    silence_notices()
    try:
        _TrainingCLI(arguments)
    except SystemExit as stop:  # help and version exit with 0, errors with 2, signals with 128 and more
        status = stop.code if isinstance(stop.code, int) else 1
        # Lightning kills rank 0 if another rank exits with a status other than 0, even after it saved its state.
        return 0 if status > 128 and is_launched_rank() else status
    except (CheckpointError, MisconfigurationException, ConfigurationError) as error:
        if tracebacks_enabled():
            raise
        print(f"lightning-mi {command}: error: {error}", file=sys.stderr)
        return 2
    finally:
        destroy_process_group()
    return 0


@final
class _TrainingCLI(LightningCLI):
    def __init__(self, arguments: Sequence[str]) -> None:
        self._arguments = arguments
        super().__init__(
            model_class=LightningModule,
            datamodule_class=LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            parser_class=TrainingParser,
            parser_kwargs={"prog": "lightning-mi"},
            save_config_kwargs={"overwrite": True},  # a resumed run may write into its old folder
            auto_configure_optimizers=False,  # the module builds its optimizer
            args=list(arguments),
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]  # static in Lightning, called on the object
        """The command in use: skip the parsers of the other three, which take about 0.1 s each to build."""
        return {self._arguments[0]: LightningCLI.subcommands()[self._arguments[0]]}

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        parser = self.parser_class(**kwargs)
        add_config_option(parser)
        return parser

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Hide the checkpoint from Lightning, whose CLI would read hyper-parameters from it."""
        self.config = parser.parse_args(resolve(self._arguments))
        self._requested_checkpoint: str | None = self.config[self.config.subcommand].ckpt_path
        self.config[self.config.subcommand].ckpt_path = None

    def before_instantiate_classes(self) -> None:
        """Drop the progress bars of a recipe with `--trainer.enable_progress_bar false`, for which Lightning raises."""
        trainer = self.config[self.config.subcommand].trainer
        if trainer.enable_progress_bar is False and isinstance(trainer.callbacks, list):
            trainer.callbacks = [each for each in trainer.callbacks if not _is_progress_bar(each)]

    def instantiate_classes(self) -> None:
        try:
            super().instantiate_classes()
        except ValueError as error:
            raise ConfigurationError(f"{readable(str(error))} (JSONARGPARSE_DEBUG=true shows where)") from error

    def after_instantiate_classes(self) -> None:
        if getattr(self.trainer, "fast_dev_run", False):
            return  # it writes no files
        use_atomic_checkpoints(self.trainer)
        self._append_callbacks()
        try:
            for folder in [*self._run_folders(), Path(self.trainer.default_root_dir)]:
                require_writable(folder)
        except OSError as error:
            raise ConfigurationError(str(error)) from None
        if self.trainer.is_global_zero:
            for folder in self._run_folders():
                sweep(folder, recursively=True)

    def _append_callbacks(self) -> None:
        """Save at signals in `fit`, write files in `predict`, unless the configuration has callbacks for it."""
        callbacks: list[Any] = self.trainer.callbacks  # type: ignore[attr-defined]  # set by Lightning's connector
        saves_at_signals = any(isinstance(callback, SaveAtTermination) for callback in callbacks)
        if self.subcommand == "fit" and self.trainer.checkpoint_callbacks and not saves_at_signals:
            callbacks.append(SaveAtTermination())
        writes_predictions = any(isinstance(callback, BasePredictionWriter) for callback in callbacks)
        if self.subcommand == "predict" and not writes_predictions:
            from lightning_mi.callbacks.prediction_writer import PredictionWriter

            folder = Path(self.trainer.default_root_dir) / "predictions"
            callbacks.append(PredictionWriter(folder))
            silence_batch_indices()
            _notify(f"predictions: written to {folder}")

    # LightningCLI calls these methods, one for each command, instead of the trainer's.

    def fit(self, **arguments: Any) -> None:
        self._run(self.trainer.fit, arguments)
        if self.trainer.is_global_zero:
            for line in format_estimates(self.trainer.callback_metrics):
                print(line)

    def validate(self, **arguments: Any) -> None:
        self._run(self.trainer.validate, arguments)

    def test(self, **arguments: Any) -> None:
        self._run(self.trainer.test, arguments)

    def predict(self, **arguments: Any) -> None:
        self._run(self.trainer.predict, arguments)

    def _run(self, command: Callable[..., object], arguments: dict[str, Any]) -> None:
        checkpoint = self._checkpoint()
        if self.subcommand != "fit":
            silence_training_state()
        # weights_only: for a checkpoint from a URL, Lightning's default would unpickle arbitrary code.
        try:
            with interruptible(), explain_mismatch(checkpoint) if checkpoint else nullcontext():
                command(**{**arguments, "ckpt_path": checkpoint, "weights_only": True})
        except SystemExit as stop:
            if stop.code in [exit_status(number) for number in SIGNALS]:
                _notify(self._resume_hint())
            raise

    def _resume_hint(self) -> str:
        """The command that resumes after a signal, or a notice that no checkpoint was saved."""
        callbacks = self.trainer.checkpoint_callbacks
        if not any(isinstance(callback, SaveAtTermination) and callback.saved for callback in callbacks):
            return "Ended by a signal; no checkpoint was saved."
        options = [*self._arguments]
        for index, option in enumerate(options):
            if option.startswith("--ckpt_path"):
                del options[index : index + (1 if "=" in option else 2)]
                break
        return f"Resume with: {shlex.join(['lightning-mi', *options, '--ckpt_path', 'last'])}"

    def _checkpoint(self) -> Path | None:
        request = self._requested_checkpoint
        if request is None:
            if self.subcommand != "fit" and (newest := newest_checkpoint(self._run_folders())) is not None:
                _notify(
                    f"warning: `{self.subcommand}` reads no checkpoint, so the weights are untrained. "
                    f"`--ckpt_path last` reads {newest}, the newest of earlier trainings; `--ckpt_path best` reads the "
                    "best of that run."
                )
            return None
        if request in ("best", "last"):
            path = find_checkpoint(cast("CheckpointAlias", request), self._run_folders())
        else:
            path = local_path(request)
        content = read_checkpoint(path)
        _notify(f"checkpoint: {path} (step {content.get('global_step', 'unknown')})")
        model = json.loads(self.parser.dump(self.config, format="json", skip_none=False))[self.subcommand]["model"]
        for difference in describe_differences(content, model):
            _notify(f"checkpoint: {difference}; the command line's value is used")
        return path

    def _run_folders(self) -> list[Path]:
        """Folders in which runs with this configuration save checkpoints, for all version numbers."""
        trainer = self.trainer
        callbacks = [item for item in trainer.checkpoint_callbacks if isinstance(item, ModelCheckpoint)]
        folders = [Path(callback.dirpath) for callback in callbacks if callback.dirpath is not None]
        folders += [Path(log.save_dir or trainer.default_root_dir) / str(log.name) for log in trainer.loggers]
        return [*folders, Path(trainer.default_root_dir) / "checkpoints"]


def _is_progress_bar(callback: Any) -> bool:
    kind = load_object(callback["class_path"])
    return isinstance(kind, type) and issubclass(kind, ProgressBar)


@rank_zero_only
def _notify(message: str) -> None:
    print(message, file=sys.stderr)

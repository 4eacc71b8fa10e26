"""`lightning-mi fit | validate | test | predict`: Lightning's command line, made safe around recipes and checkpoints.

What differs from a stock `LightningCLI`:

1. `--config` takes a recipe's name as well as a file.
2. `--ckpt_path best | last` finds the checkpoint of an earlier process and says which one it took. Commands other than
   `fit` say so if they read none.
3. The command line decides the hyper-parameters. A checkpoint gives weights and state, read with `weights_only=True`.
4. Checkpoints are written whole or not at all, by `AtomicCheckpointIO`. SIGINT, SIGTERM and SIGHUP save one; the exit
   status is 130, 143 or 129.
5. A mistake in the configuration, or an output folder that cannot be written, is one message before anything is
   written. Set `JSONARGPARSE_DEBUG=true` for the traceback.
6. `fit` ends with the estimate of its last validation, its standard error and, where it is known, the truth.
"""

import json
import math
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NoReturn, cast, final

from jsonargparse import ActionConfigFile, Namespace
from lightning.pytorch import LightningDataModule
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from lightning_mi.callbacks import SaveAtTermination
from lightning_mi.checkpoints.atomic_io import use_atomic_checkpoints
from lightning_mi.checkpoints.loading import Wanted, describe_differences, local_path, naming_misfits, read_checkpoint
from lightning_mi.cli.checkpoint_lookup import find_checkpoint, newest_run
from lightning_mi.cli.commands import TRAINING_COMMANDS
from lightning_mi.cli.messages import readable, silence_notices, silence_training_state
from lightning_mi.exceptions import CheckpointError, UnknownRecipeError
from lightning_mi.module import MIEstimationModule
from lightning_mi.training.epoch_metrics import estimate_name, standard_error_name
from lightning_mi.utilities.atomic_files import require_writable, sweep
from lightning_mi.utilities.distributed import destroy_process_group
from lightning_mi.utilities.interrupts import SIGNALS, exit_status, interruptible
from lightning_mi.utilities.lifeline import is_launched_rank
from lightning_mi.utilities.recipe_registry import find_file

_HINT = "`lightning-mi fit --help` shows examples and every option, `lightning-mi ls` the recipes for --config."

_EXAMPLES = {
    "fit": """\
examples:
  lightning-mi fit --config gaussian
  lightning-mi fit --config gaussian --trainer.max_steps 500 --model.bound lightning_mi.bounds.NWJ
  lightning-mi fit --config mine.yaml --model my_project.MyModule
  lightning-mi fit --config gaussian --ckpt_path last      go on where the last run stopped
  lightning-mi fit --config gaussian --print_config        the whole configuration, to keep and edit
""",
    "validate": """\
examples:
  lightning-mi validate --config gaussian --ckpt_path best
  lightning-mi validate --config mine.yaml --ckpt_path runs/first.ckpt
""",
    "test": """\
examples:
  lightning-mi test --config gaussian --ckpt_path last
  lightning-mi test --config gaussian --ckpt_path runs/first.ckpt
""",
    "predict": """\
examples:
  lightning-mi predict --config mine.yaml --ckpt_path last
""",
}


def run_training(arguments: Sequence[str]) -> int:
    """Run `fit`, `validate`, `test` or `predict` and return the exit status.

    Args:
        arguments: the command line after the program's name; the first is one of the four commands.
    """
    command = arguments[0]
    if "--help" in arguments or "-h" in arguments:
        print(f"lightning-mi {command}: {TRAINING_COMMANDS[command]}\n\n{_EXAMPLES[command]}")
    # As `python -m` does: a user's own modules are found where the command is run
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    silence_notices()
    try:
        _TrainingCLI(
            model_class=MIEstimationModule,
            datamodule_class=LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            parser_class=_Parser,
            parser_kwargs={"prog": "lightning-mi"},
            save_config_kwargs={"overwrite": True},  # a run that resumes in its own folder must not stop there
            auto_configure_optimizers=False,  # the module builds its own optimizer: one place to choose it
            args=list(arguments),
        )
    except SystemExit as stop:  # help and version stop with 0, errors with 2, signals with 128 and more
        status = stop.code if isinstance(stop.code, int) else 1
        # Lightning kills the first rank if another one, which saved and ended as it should, has any status but 0.
        return 0 if status > 128 and is_launched_rank() else status
    except (CheckpointError, MisconfigurationException, _ConfigurationError) as problem:
        if _wants_tracebacks():
            raise
        print(f"lightning-mi {command}: error: {problem}", file=sys.stderr)
        return 2
    finally:
        destroy_process_group()
    return 0


def _wants_tracebacks() -> bool:
    return os.environ.get("JSONARGPARSE_DEBUG", "").lower() == "true"


class _ConfigurationError(Exception):
    """A value was refused by the class it was meant for, or the output folder cannot be written."""


@final
class _RecipeOrFile(ActionConfigFile):
    """`--config`: a recipe's name, or a configuration file."""

    # jsonargparse passes a namespace of its own, and leaves its method without annotations
    def __call__(  # type: ignore[override]  # the first of these
        self, parser: Any, cfg: Namespace, values: str, option_string: str | None = None
    ) -> None:
        super().__call__(parser, cfg, self._resolve(parser, values), option_string)  # type: ignore[no-untyped-call]  # the second

    def _resolve(self, parser: LightningArgumentParser, value: str) -> str:
        has_folder = Path(value).name != value
        if Path(value).suffix != "":
            if Path(value).is_file():
                return value
            parser.error(f"--config {value}: there is no such file. `lightning-mi ls` lists the recipes.")
        try:
            return str(find_file(value, "recipe").path)
        except UnknownRecipeError as problem:
            if has_folder and Path(value).is_file():
                return value
            parser.error(f"--config {value}: {problem} A configuration file is named with its suffix: {value}.yaml.")


@final
class _Parser(LightningArgumentParser):
    """Lightning's parser with errors of one message instead of the usage of hundreds of options."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        if not self.exit_on_error or _wants_tracebacks():
            super().error(message, ex)
        program = self.prog.replace(" [options]", "")
        self.exit(2, f"{program}: error: {readable(message)}\n{_HINT}\n")


@final
class _TrainingCLI(LightningCLI):
    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        parser = self.parser_class(**kwargs)
        parser.add_argument(
            "-c", "--config", action=_RecipeOrFile, help="A recipe's name (see `lightning-mi ls`) or a YAML file."
        )
        return parser

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Keep the checkpoint from Lightning, which would let its hyper-parameters override the command line's."""
        self._arguments = cast("Sequence[str]", args)
        self.config = parser.parse_args(self._arguments)
        self._requested_checkpoint: str | None = self.config[self.config.subcommand].ckpt_path
        self.config[self.config.subcommand].ckpt_path = None

    def instantiate_classes(self) -> None:
        try:
            super().instantiate_classes()
        except ValueError as problem:
            raise _ConfigurationError(f"{readable(str(problem))} (JSONARGPARSE_DEBUG=true shows where)") from problem

    def after_instantiate_classes(self) -> None:
        if getattr(self.trainer, "fast_dev_run", False):
            return  # writes nothing
        use_atomic_checkpoints(self.trainer)
        listens = any(isinstance(callback, SaveAtTermination) for callback in self.trainer.checkpoint_callbacks)
        if self.subcommand == "fit" and self.trainer.checkpoint_callbacks and not listens:
            self.trainer.callbacks.append(SaveAtTermination())  # type: ignore[attr-defined]  # set by its connector
        try:
            for folder in self._output_folders():
                require_writable(folder)
        except OSError as problem:
            raise _ConfigurationError(str(problem)) from None
        if self.trainer.is_global_zero:
            for folder in self._run_folders():
                sweep(folder, recursively=True)

    # LightningCLI runs a method of the command's name in place of the trainer's.

    def fit(self, **arguments: Any) -> None:
        self._run(self.trainer.fit, arguments)
        if self.trainer.is_global_zero:
            for line in _estimates(self.trainer.callback_metrics):
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
        # Lightning's own default is to run code from a checkpoint that comes from a web address
        try:
            with interruptible(), naming_misfits(checkpoint) if checkpoint else nullcontext():
                command(**{**arguments, "ckpt_path": checkpoint, "weights_only": True})
        except SystemExit as stop:
            if stop.code in [exit_status(number) for number in SIGNALS]:
                _say(self._resume_hint())
            raise

    def _resume_hint(self) -> str:
        """What a signal left, and the command that goes on from it."""
        callbacks = self.trainer.checkpoint_callbacks
        if not any(isinstance(callback, SaveAtTermination) and callback.saved for callback in callbacks):
            return "Ended by a signal; no checkpoint was saved."
        options = [*self._arguments]
        for index, option in enumerate(options):
            if option.startswith("--ckpt_path"):
                del options[index : index + (1 if "=" in option else 2)]
                break
        return f"Go on from there: {shlex.join(['lightning-mi', *options, '--ckpt_path', 'last'])}"

    def _checkpoint(self) -> Path | None:
        request = self._requested_checkpoint
        if request is None:
            if self.subcommand != "fit" and (run := newest_run(self._run_folders())) is not None:
                _say(
                    "checkpoint: none is read, so the weights are those of the configuration, untrained. Checkpoints "
                    f"of earlier trainings are in {run}: `--ckpt_path best` or `--ckpt_path last` reads one."
                )
            return None
        if request in ("best", "last"):
            path = find_checkpoint(cast("Wanted", request), self._run_folders())
        else:
            path = local_path(request)
        content = read_checkpoint(path)
        _say(f"checkpoint: {path} (step {content.get('global_step', 'unknown')})")
        model = json.loads(self.parser.dump(self.config, format="json", skip_none=False))[self.subcommand]["model"]
        for difference in describe_differences(content, model):
            _say(f"checkpoint: {difference}; the command line's value is used")
        return path

    def _run_folders(self) -> list[Path]:
        """Where runs with this configuration leave checkpoints, whatever their version number."""
        trainer = self.trainer
        callbacks = [item for item in trainer.checkpoint_callbacks if isinstance(item, ModelCheckpoint)]
        folders = [Path(callback.dirpath) for callback in callbacks if callback.dirpath is not None]
        folders += [Path(log.save_dir or trainer.default_root_dir) / str(log.name) for log in trainer.loggers]
        return [*folders, Path(trainer.default_root_dir) / "checkpoints"]

    def _output_folders(self) -> list[Path]:
        return [*self._run_folders(), Path(self.trainer.default_root_dir)]


def _estimates(metrics: Mapping[str, Any]) -> list[str]:
    """One line for each data loader: the estimate of validation, its standard error and, where known, the truth."""
    lines = []
    for name, estimate in metrics.items():
        if estimate_name(name) != "val/mi":
            continue
        error, truth = metrics.get(standard_error_name(name)), metrics.get(name.replace("val/mi", "val/true_mi", 1))
        lines.append(
            f"{name} {float(estimate):.2f}"
            + ("" if error is None or math.isnan(error) else f" +- {float(error):.2f}")
            + " nats"
            + ("" if truth is None else f" (truth: {float(truth):.2f})")
        )
    return lines


@rank_zero_only
def _say(message: str) -> None:
    print(message, file=sys.stderr)

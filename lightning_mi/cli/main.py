"""The front door of `lightning-mi`: what answers at once is answered here, trainings are handed to Lightning's CLI.

Nothing here imports torch. `fit`, `validate`, `test` and `predict` belong to `cli_training`, which does.
"""

import argparse
import atexit
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from lightning_mi import __version__
from lightning_mi.cli.commands import TRAINING_COMMANDS
from lightning_mi.exceptions import UnknownRecipeError
from lightning_mi.utilities.atomic_files import require_writable
from lightning_mi.utilities.interrupts import end_at_once, handle_signals
from lightning_mi.utilities.lifeline import is_launched_rank, launched_ranks
from lightning_mi.utilities.recipe_registry import Kind, RecipeFile, find_file, list_files

_OVERVIEW = """\
examples:
  lightning-mi ls                                   what there is to run
  lightning-mi fit --config gaussian                train a recipe by its name
  lightning-mi fit --config gaussian --trainer.max_steps 500
  lightning-mi cp gaussian mine.yaml                copy a recipe, then edit it
  lightning-mi fit --config mine.yaml --model my_project.MyModule
  lightning-mi bench gaussian                       every loss on one benchmark
"""

_LS = """\
example:
  lightning-mi ls
"""

_CP = """\
examples:
  lightning-mi cp gaussian                          writes ./gaussian.yaml
  lightning-mi cp gaussian mine.yaml
  lightning-mi cp bench/gaussian grid.yaml          a benchmark's grid
"""

_BENCH = """\
examples:
  lightning-mi bench gaussian                       a first look: the quick preset
  lightning-mi bench gaussian --preset paper        the paper's settings: takes far longer
  lightning-mi bench gaussian --losses MINE NWJ --seeds 0 1 2
  lightning-mi bench gaussian --output runs/first --jobs 2
  lightning-mi bench gaussian --ray auto            on the Ray cluster that this machine is a node of
  lightning-mi bench gaussian --ray ray://head:10001 --gpus-per-run 0.5
  lightning-mi bench contrastive --data cifar10 --gpus-per-run 2

on a Ray cluster (pip install 'lightning-mi[ray]'):
  Every training is a task of one CPU and --gpus-per-run GPUs. The nodes need lightning_mi in the version that is
  installed here, and no shared file system: results, TensorBoard logs too, come back as trainings end and are written
  here. When a worker is lost its training is done again, up to three times. Ctrl-C stops the trainings; the same
  command goes on from the finished ones, on the cluster or off it.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run `lightning-mi` and return its exit status.

    Args:
        argv: the arguments after the program's name; those of this process by default.

    Example:
        >>> main(["cp", "no_such_recipe"])
        2
    """
    if argv is not None:
        return _run(list(argv))
    # A program, not a call from Python: until something is at stake, a signal ends it at once.
    handle_signals(end_at_once)
    interrupted: list[int] = []
    atexit.register(_skip_finalization, interrupted)  # registered first, so it runs after every other exit function
    status = _run(sys.argv[1:])
    if status > 128 or is_launched_rank():
        interrupted.append(status)
    return status


def _skip_finalization(interrupted: list[int]) -> None:
    """End an interrupted program now: an interpreter that has imported torch takes seconds to free it."""
    if interrupted:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(*interrupted)


def _run(arguments: list[str]) -> int:
    if arguments and arguments[0] in TRAINING_COMMANDS:
        with launched_ranks():
            from lightning_mi.cli.training import run_training  # torch and Lightning: seconds

            return run_training(arguments)
    options = _parser().parse_args(arguments)
    if options.command == "ls":
        return _list()
    try:
        if options.command == "cp":
            return _copy(options.name, options.destination, force=options.force)
        parts = [options.name, options.data, options.preset]
        output = options.output or Path("lightning_mi_runs") / "-".join(part for part in parts if part)
        require_writable(output)
    except (UnknownRecipeError, OSError) as problem:
        print(f"lightning-mi {options.command}: error: {problem}", file=sys.stderr)
        return 2
    if options.ray is not None and options.jobs is not None:
        options.refuse("--jobs does not go with --ray: the cluster's CPUs and GPUs say how many trainings run at once")
    return _bench(options, output)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lightning-mi",
        description="Estimate mutual information, and train on it, with PyTorch Lightning.",
        epilog=_OVERVIEW,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"lightning_mi {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, purpose: str, examples: str) -> argparse.ArgumentParser:
        return commands.add_parser(
            name,
            help=purpose,
            description=purpose,
            epilog=examples,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    for name, purpose in TRAINING_COMMANDS.items():
        commands.add_parser(name, help=purpose, add_help=False)  # listed here, answered by Lightning's CLI
    add("ls", "list the recipes and benchmarks", _LS)

    copy = add("cp", "copy a recipe or a benchmark's grid, to edit it", _CP)
    copy.add_argument("name", metavar="NAME", help="a name that `lightning-mi ls` shows; bench/NAME is a benchmark")
    copy.add_argument(
        "destination", metavar="DEST", nargs="?", type=Path, help="a file or an existing folder (default: ./NAME.yaml)"
    )
    copy.add_argument("--force", action="store_true", help="overwrite an existing file")

    bench = add("bench", "run a benchmark: every loss, several seeds, a table and figures", _BENCH)
    names = [benchmark.name for benchmark in list_files("benchmark")]
    bench.add_argument("name", metavar="NAME", choices=names, help=f"one of: {', '.join(names)}")
    bench.add_argument(
        "--preset",
        choices=["quick", "full", "paper"],
        default="quick",
        help="how much to compute (default: quick; full, of contrastive alone, takes all training images)",
    )
    bench.add_argument(
        "--output", type=Path, metavar="DIR", help="where results go (default: lightning_mi_runs/NAME[-DATA]-PRESET)"
    )
    bench.add_argument("--jobs", type=_positive, metavar="N", help="processes (default: chosen from the cores)")
    bench.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="train on a Ray cluster instead: HOST:PORT or auto from one of its nodes, ray://HOST:PORT from elsewhere",
    )
    bench.add_argument(
        "--gpus-per-run",
        type=_gpus,
        metavar="N",
        help="GPUs for a training: several, which share every batch, or a fraction of one (default: one in turn; with "
        "--ray none)",
    )
    bench.add_argument("--seeds", type=_seed, nargs="+", metavar="SEED", help="seeds (default: the preset's)")
    bench.add_argument("--data", metavar="SET", help="a data set that the benchmark offers (default: its first)")
    bench.add_argument("--losses", nargs="+", metavar="LOSS", help="losses by name (default: all of the benchmark's)")
    bench.set_defaults(refuse=bench.error)
    return parser


def _list() -> int:
    launches: dict[Kind, str] = {"recipe": "lightning-mi fit --config NAME", "benchmark": "lightning-mi bench NAME"}
    for kind, launch in launches.items():
        files = list_files(kind)
        width = max((len(file.name) for file in files), default=0)
        print(f"{kind}s ({launch})")
        for file in files:
            print(f"  {file.name:<{width}}  {file.purpose}".rstrip())
    return 0


def _copy(name: str, destination: Path | None, *, force: bool) -> int:
    source = _find_for_copy(name)
    target = destination or Path(source.path.name)
    if target.is_dir():
        target = target / source.path.name
    if target.exists() and not force:
        raise FileExistsError(f"{target} exists already. Name another destination, or add --force to overwrite it.")
    shutil.copyfile(source.path, target)
    print(f"copied {source.kind} {source.name} to {target}")
    return 0


def _find_for_copy(name: str) -> RecipeFile:
    """A recipe before a benchmark of the same name: `bench/NAME` means the benchmark."""
    if name.startswith("bench/"):
        return find_file(name.removeprefix("bench/"), "benchmark")
    try:
        return find_file(name, "recipe")
    except UnknownRecipeError as no_recipe:
        try:
            return find_file(name, "benchmark")
        except UnknownRecipeError:
            known = ", ".join(f"bench/{benchmark.name}" for benchmark in list_files("benchmark")) or "none"
            raise UnknownRecipeError(f"{no_recipe} Known benchmarks: {known}.") from None


def _bench(options: argparse.Namespace, output: Path) -> int:
    from lightning_mi.bench.run import run  # torch and Lightning: seconds

    return run(
        name=options.name,
        preset=options.preset,
        output=output,
        jobs=options.jobs,
        seeds=options.seeds,
        losses=options.losses,
        data=options.data,
        ray=options.ray,
        gpus_per_run=options.gpus_per_run or 0.0,
    )


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return int(text)


def _gpus(text: str) -> float:
    try:
        gpus = float(text)
    except ValueError:
        gpus = -1.0
    if not (0 <= gpus <= 1 or (gpus > 1 and gpus.is_integer())):  # what Ray can set apart
        raise argparse.ArgumentTypeError(f"{text!r} is neither a whole number of GPUs nor a fraction of one")
    return gpus


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a seed: seeds are whole numbers from 0")
    return int(text)

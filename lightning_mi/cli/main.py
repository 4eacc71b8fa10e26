"""Entry point of `lightning-mi`.

`ls`, `cp` and help run here without importing torch. `fit`, `validate`, `test` and `predict` run in
`lightning_mi.cli.training`, `bench` in `lightning_mi.bench.run`.
"""

import argparse
import atexit
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from lightning_mi.bench.grid_file import is_training
from lightning_mi.cli.commands import TRAINING_COMMANDS, build_parser
from lightning_mi.exceptions import GridError, UnknownRecipeError
from lightning_mi.utilities.atomic_files import require_writable
from lightning_mi.utilities.interrupts import end_at_once, handle_signals
from lightning_mi.utilities.lifeline import is_launched_rank, launched_ranks
from lightning_mi.utilities.recipe_registry import Kind, RecipeFile, find_file, list_files


def main(argv: Sequence[str] | None = None) -> int:
    """Run `lightning-mi` and return its exit status.

    Args:
        argv: Arguments after the program's name; by default those of this process.

    Example:
        >>> main(["cp", "no_such_recipe"])
        2
    """
    if argv is not None:
        return _run(list(argv))
    # Called as a program: until a training runs, a signal ends the process at once.
    handle_signals(end_at_once)
    interrupted: list[int] = []
    atexit.register(_skip_finalization, interrupted)  # registered first, so it runs after every other exit function
    status = _run(sys.argv[1:])
    if status > 128 or is_launched_rank():
        interrupted.append(status)
    return status


def _skip_finalization(interrupted: list[int]) -> None:
    """End an interrupted program at once: the finalization of an interpreter with torch takes seconds."""
    if interrupted:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(*interrupted)


def _run(arguments: list[str]) -> int:
    if arguments and arguments[0] in TRAINING_COMMANDS:
        with launched_ranks():
            from lightning_mi.cli.training import run_training  # imports torch and Lightning: seconds

            return run_training(arguments)
    options, unknown = build_parser().parse_known_args(arguments)
    if unknown:
        options.fail(f"unrecognized arguments: {' '.join(unknown)}")
    try:
        if options.command == "ls":
            return _list()
        if options.command == "cp":
            return _copy(options.name, options.destination, force=options.force)
        if options.command == "estimate":
            return _estimate(options)
        if options.command == "pairwise":
            return _pairwise(options)
        if options.command == "results":
            return _results(options)
        return _bench(options)
    except (UnknownRecipeError, GridError, OSError) as error:
        print(f"lightning-mi {options.command}: error: {error}", file=sys.stderr)
        return 2


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
        raise FileExistsError(f"{target} already exists. Choose another destination, or add --force to overwrite it.")
    shutil.copyfile(source.path, target)
    print(f"copied {source.kind} {source.name} to {target}")
    return 0


def _find_for_copy(name: str) -> RecipeFile:
    """The recipe called ``name``, otherwise the benchmark; ``bench/NAME`` is always the benchmark."""
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


def _estimate(options: argparse.Namespace) -> int:
    if len(options.files) > 3:
        options.fail(f"got {len(options.files)} files: give x.npy, y.npy and optionally z.npy, or one table")
    from lightning_mi.cli.estimate import run  # imports torch and Lightning: seconds

    return run(options)


def _pairwise(options: argparse.Namespace) -> int:
    from lightning_mi.cli.pairwise import run  # imports torch and Lightning: seconds

    return run(options)


def _bench(options: argparse.Namespace) -> int:
    if options.ray is not None and options.jobs is not None:
        options.fail("got --jobs with --ray: the CPUs and GPUs of the cluster limit what runs in parallel. Drop --jobs")
    if options.sweep or is_training(options.name):
        return _sweep(options)
    stem = Path(options.name).stem if options.name.endswith((".yaml", ".yml")) else options.name
    output = options.output or Path("lightning_mi_runs") / "-".join(filter(None, [stem, options.data, options.preset]))
    require_writable(output)
    from lightning_mi.bench.run import run  # imports torch and Lightning: seconds

    return run(
        options.name,
        options.preset,
        output=output,
        jobs=options.jobs,
        seeds=options.seeds,
        losses=options.losses,
        data=options.data,
        tasks=options.tasks,
        methods=options.methods,
        samples=options.samples,
        peers=options.peer,
        critic_steps=options.critic_steps,
        audit=options.audit,
        ray=options.ray,
        gpus_per_run=options.gpus_per_run or 0.0,
        tracker=options.logger,
        download=options.download,
    )


def _sweep(options: argparse.Namespace) -> int:
    for option in ("losses", "data", "tasks", "methods", "samples", "peer", "critic_steps", "audit"):
        if getattr(options, option):
            options.fail(
                f"got --{option.replace('_', '-')} for a sweep of the recipe {options.name}. Use --sweep, such as "
                "--sweep model.bound=DV,NWJ or --sweep data.mi=2,4"
            )
    from lightning_mi.cli.sweep_command import run  # imports torch and Lightning: seconds

    return run(options)


def _results(options: argparse.Namespace) -> int:
    from lightning_mi.cli.results import run  # imports NumPy

    return run(options)

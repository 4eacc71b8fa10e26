"""`lightning-mi bench`: run a grid, then write its tables and figures."""

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from lightning_mi.bench.cells import Grid
from lightning_mi.bench.download import download as download_data
from lightning_mi.bench.gpus import gpus_of_worker, max_parallel_runs, visible_gpus
from lightning_mi.bench.grid import load_grid
from lightning_mi.bench.grid_file import find_grid_file, report_kind
from lightning_mi.bench.local_pool import run_cells
from lightning_mi.bench.loggers import Tracker, prepare
from lightning_mi.bench.manifest import write_grid
from lightning_mi.bench.progress_table import ProgressTable
from lightning_mi.bench.ray_pool import run_cells as run_cells_on_ray
from lightning_mi.bench.reports.summary import format_table
from lightning_mi.bench.reports.tables import count
from lightning_mi.exceptions import GridError, RayClusterError, UnknownRecipeError
from lightning_mi.utilities.atomic_files import sweep
from lightning_mi.utilities.interrupts import interruptible

# Options that a kind of benchmark has beside those of all.
_TRAINING_OPTIONS = frozenset({"--losses", "--data", "--gpus-per-run", "--logger", "--download"})
_OPTIONS = {
    "arrays": frozenset({"--tasks", "--methods", "--samples", "--peer"}),
    "minimize": frozenset({"--methods", "--critic-steps", "--audit"}),
    "plane": frozenset(),
}


def run(
    name: str,
    preset: str,
    *,
    output: Path,
    jobs: int | None = None,
    seeds: list[int] | None = None,
    losses: list[str] | None = None,
    data: str | None = None,
    tasks: list[str] | None = None,
    methods: list[str] | None = None,
    samples: list[int] | None = None,
    peers: list[str] | None = None,
    critic_steps: list[int] | None = None,
    audit: str | None = None,
    ray: str | None = None,
    gpus_per_run: float = 0.0,
    tracker: Tracker | None = None,
    download: bool = False,
) -> int:
    """Run a benchmark: run the cells without results, write tables and figures, print their paths.

    Args:
        name: A benchmark in ``recipes/bench``, or a YAML file of the same form.
        preset: One of its presets.
        output: Folder of the results. Finished cells in it are reused.
        jobs: Number of worker processes; by default the number of cores or, with ``gpus_per_run``, as many as fit on
            the GPUs. Ignored on a Ray cluster.
        seeds: Seeds instead of the preset's.
        losses: Losses instead of the preset's.
        data: A data set that the benchmark offers; by default its first.
        tasks: Tasks instead of the preset's; of the benchmark ``arrays``.
        methods: Methods instead of the preset's; of the benchmarks ``arrays`` and ``minimize``.
        samples: Numbers of samples instead of the preset's; of the benchmark ``arrays``.
        peers: Other packages, as ``NAME=COMMAND``; of the benchmark ``arrays``.
        critic_steps: Numbers of critic steps for each batch instead of the preset's; of the benchmark ``minimize``.
        audit: Budget of the audit instead of the preset's; of the benchmark ``minimize``.
        ray: Address of a Ray cluster; by default the cells run on this machine.
        gpus_per_run: GPUs of a training, or the fraction of one. With 0, trainings use the GPUs of this machine in
            turn, and no GPU on a Ray cluster. With more than 1, the GPUs of a training share every batch.
        tracker: Experiment tracker that also receives the logs; of benchmarks that train recipes.
        download: Download the data sets of torchvision that are missing.

    Returns:
        The exit status: 0, 1 after a failure, 2 for invalid arguments, 130 after Ctrl-C (SIGINT), 143 after SIGTERM,
        129 after SIGHUP.
    """
    try:
        path = find_grid_file(name)
        kind = report_kind(path)
        given: dict[str, Any] = {"--losses": losses, "--data": data, "--gpus-per-run": gpus_per_run, "--tasks": tasks}
        given |= {"--methods": methods, "--samples": samples, "--peer": peers, "--logger": tracker}
        given |= {"--critic-steps": critic_steps, "--audit": audit, "--download": download}
        _check_options(name, kind, given)
        grid: Grid[Any]
        if kind == "arrays":
            from lightning_mi.bench.arrays.grid import ArrayChoices, load_array_grid  # imports torch: seconds

            grid = load_array_grid(path, preset, ArrayChoices(seeds, tasks, methods, samples, peers or []))
        elif kind == "minimize":
            from lightning_mi.bench.minimize.grid import MinimizeChoices, load_minimize_grid

            grid = load_minimize_grid(path, preset, MinimizeChoices(seeds, methods, critic_steps, audit))
        elif kind == "plane":
            from lightning_mi.bench.plane.grid import load_plane_grid

            grid = load_plane_grid(path, preset, seeds)
        else:
            grid = load_grid(name, preset, seeds=seeds, losses=losses, data=data, devices=max(1, int(gpus_per_run)))
    except (ValueError, UnknownRecipeError, OSError) as error:
        return _fail(error, status=2)
    return run_grid(
        grid, output=output, jobs=jobs, ray=ray, gpus_per_run=gpus_per_run, tracker=tracker, download=download
    )


def run_grid(
    grid: Grid[Any],
    *,
    output: Path,
    jobs: int | None = None,
    ray: str | None = None,
    gpus_per_run: float = 0.0,
    tracker: Tracker | None = None,
    download: bool = False,
) -> int:
    """Run the cells of a grid without results, write tables and figures, print their paths.

    Arguments and exit status are those of :func:`run`.
    """
    console = Console()

    def write(line: str) -> None:
        console.print(line, highlight=False, soft_wrap=True)

    try:
        if ray is None and gpus_per_run:
            gpus_of_worker(0, gpus_per_run, visible_gpus())  # raises for more GPUs than this machine has
            jobs = jobs or max_parallel_runs(gpus_per_run, visible_gpus())
        sweep(output, recursively=True)
        cells = grid.cells
        if tracker is not None:
            settings = {"tracker": tracker, "group": "-".join(part for part in (grid.name, grid.data) if part)}
            prepare(**settings, folder=output)
            cells = [replace(cell, tracker=settings) for cell in cells]
        if download and ray is None:
            write(f"data: {', '.join(download_data(cells))}")
        elif download:
            raise GridError("Got --download with --ray: each node reads its own files. Download on every node first.")
        write_grid(output, grid)
    except (ValueError, OSError) as error:
        return _fail(error, status=2)
    write(f"{count(len(grid.cells), grid.noun)}, results in {output}")
    if grid.report == "sweep":
        write(f"Settings of all runs: {grid.note}." if grid.note else f"All other settings: {grid.reference}.")
    elif grid.note:
        write(f"Preset {grid.preset}, differences from {grid.reference}: {grid.note}.")
    table = ProgressTable(grid, console)
    try:
        with interruptible():
            with table.live():
                if ray is None:
                    run_cells(
                        cells,
                        output,
                        jobs=jobs or len(os.sched_getaffinity(0)),
                        on_progress=table.progress,
                        on_finished=table.finished,
                        on_failed=table.failed,
                        gpus_per_run=gpus_per_run,
                    )
                else:
                    run_cells_on_ray(
                        cells,
                        output,
                        address=ray,
                        gpus_per_run=gpus_per_run,
                        on_progress=table.progress,
                        on_finished=table.finished,
                        on_failed=table.failed,
                    )
            if len(table.failures) == len(grid.cells):
                return _fail(_failed(table.failures, grid.noun), status=1)
            paths = _report(grid, output)
            if grid.report == "sweep":
                from lightning_mi.bench.reports.write import summary_of

                write(format_table(summary_of(grid, output)))
            else:
                console.print(table.table())
            for path in paths:
                write(f"wrote {path}")
    except SystemExit as interrupt:
        console.print(f"Interrupted. Finished {grid.noun}s are saved; the same command resumes the grid.")
        return int(interrupt.code or 0)
    except RayClusterError as error:
        return _fail(error, status=2)
    if (logs := output / "tensorboard").is_dir():
        write(f"curves of every training: tensorboard --logdir {logs}")
    return _fail(_failed(table.failures, grid.noun), status=1) if table.failures else 0


def _failed(failures: dict[str, str], noun: str) -> str:
    """Errors with the names of the cells that raised them, each error once."""
    names: dict[str, list[str]] = {}
    for name, error in failures.items():
        names.setdefault(error, []).append(name)
    lines = [f"{', '.join(failed)} failed: {error}" for error, failed in names.items()]
    return "\n".join([*lines, f"Other {noun}s are saved; the same command repeats those that failed."])


def _check_options(name: str, kind: str, options: dict[str, Any]) -> None:
    """Raise if an option of another kind of benchmark is given."""
    known = _OPTIONS.get(kind, _TRAINING_OPTIONS)
    if given := [option for option, value in options.items() if value and option not in known]:
        raise GridError(f"Got {', '.join(given)} for the benchmark {name}, which has no such choice. Drop the option.")


def _fail(message: object, *, status: int) -> int:
    print(f"lightning-mi bench: error: {message}", file=sys.stderr)
    return status


def _report(grid: Grid[Any], output: Path) -> list[Path]:
    from lightning_mi.bench.reports.write import write_report  # imports matplotlib: seconds

    return write_report(grid, output)

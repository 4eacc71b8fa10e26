"""`lightning-mi bench`: run a grid, then write its tables and figures."""

import os
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from lightning_mi.bench.benchmark_file import report_kind
from lightning_mi.bench.cells import Grid
from lightning_mi.bench.gpus import gpus_of_worker, max_parallel_runs, visible_gpus
from lightning_mi.bench.grid import load_grid
from lightning_mi.bench.local_pool import run_cells
from lightning_mi.bench.progress_table import ProgressTable
from lightning_mi.bench.ray_pool import run_cells as run_cells_on_ray
from lightning_mi.bench.reports.tables import count
from lightning_mi.exceptions import CellFailedError, GridError, RayClusterError, UnknownRecipeError
from lightning_mi.utilities.atomic_files import sweep
from lightning_mi.utilities.interrupts import interruptible
from lightning_mi.utilities.recipe_registry import find_file

# Options that a kind of benchmark has beside those of all.
_TRAINING_OPTIONS = frozenset({"--losses", "--data", "--gpus-per-run"})
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
) -> int:
    """Run a benchmark: run the cells without results, write tables and figures, print their paths.

    Args:
        name: A benchmark in ``recipes/bench``.
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

    Returns:
        The exit status: 0, 1 after a failure, 2 for invalid arguments, 130 after Ctrl-C (SIGINT), 143 after SIGTERM,
        129 after SIGHUP.
    """
    console = Console()

    def write(line: str) -> None:
        console.print(line, highlight=False, soft_wrap=True)

    try:
        path = find_file(name, "benchmark").path
        kind = report_kind(path)
        given: dict[str, Any] = {"--losses": losses, "--data": data, "--gpus-per-run": gpus_per_run, "--tasks": tasks}
        given |= {"--methods": methods, "--samples": samples, "--peer": peers}
        given |= {"--critic-steps": critic_steps, "--audit": audit}
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
        if ray is None and gpus_per_run:
            gpus_of_worker(0, gpus_per_run, visible_gpus())  # raises for more GPUs than this machine has
            jobs = jobs or max_parallel_runs(gpus_per_run, visible_gpus())
        sweep(output, recursively=True)
    except (ValueError, UnknownRecipeError, OSError) as error:
        return _fail(error, status=2)
    write(f"{count(len(grid.cells), grid.noun)}, results in {output}")
    if grid.note:
        write(f"Preset {preset}, differences from {grid.reference}: {grid.note}.")
    table = ProgressTable(grid, console)
    try:
        with interruptible():
            with table.live():
                if ray is None:
                    run_cells(
                        grid.cells,
                        output,
                        jobs=jobs or len(os.sched_getaffinity(0)),
                        on_progress=table.progress,
                        on_finished=table.finished,
                        gpus_per_run=gpus_per_run,
                    )
                else:
                    run_cells_on_ray(
                        grid.cells,
                        output,
                        address=ray,
                        gpus_per_run=gpus_per_run,
                        on_progress=table.progress,
                        on_finished=table.finished,
                    )
            console.print(table.table())
            for path in _report(grid, output):
                write(f"wrote {path}")
    except SystemExit as interrupt:
        console.print(f"Interrupted. Finished {grid.noun}s are saved; the same command resumes the grid.")
        return int(interrupt.code or 0)
    except RayClusterError as error:
        return _fail(error, status=2)
    except CellFailedError as error:
        return _fail(f"{error}\nFinished {grid.noun}s are saved; the same command resumes the grid.", status=1)
    if (logs := output / "tensorboard").is_dir():
        write(f"curves of every training: tensorboard --logdir {logs}")
    return 0


def _check_options(name: str, kind: str, options: dict[str, Any]) -> None:
    """Raise if an option of another kind of benchmark is given."""
    known = _OPTIONS.get(kind, _TRAINING_OPTIONS)
    if given := [option for option, value in options.items() if value and option not in known]:
        raise GridError(f"Got {', '.join(given)} for the benchmark {name}, which has no such choice. Drop the option.")


def _fail(message: object, *, status: int) -> int:
    print(f"lightning-mi bench: error: {message}", file=sys.stderr)
    return status


def _report(grid: Grid[Any], output: Path) -> list[Path]:
    from lightning_mi.bench.reports.arrays import report as report_arrays
    from lightning_mi.bench.reports.gaussian import report as report_gaussian  # imports matplotlib: seconds
    from lightning_mi.bench.reports.images import report as report_images
    from lightning_mi.bench.reports.minimize import report as report_minimize
    from lightning_mi.bench.reports.onehot import report as report_onehot
    from lightning_mi.bench.reports.plane import report as report_plane

    reports: dict[str, Any] = {
        "arrays": report_arrays,
        "gaussian": report_gaussian,
        "minimize": report_minimize,
        "onehot": report_onehot,
        "plane": report_plane,
        "supervised": report_images,
        "contrastive": report_images,
    }
    paths: list[Path] = reports[grid.report](grid, output)
    return paths

"""`lightning-mi bench`: train a grid, then tabulate and draw it."""

import os
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from lightning_mi.bench.gpus import gpus_of, jobs_for, visible_gpus
from lightning_mi.bench.grid import Grid, load_grid
from lightning_mi.bench.local_pool import run_cells
from lightning_mi.bench.progress_table import Display
from lightning_mi.bench.ray_pool import run_cells as run_cells_on_ray
from lightning_mi.exceptions import CellFailedError, RayClusterError, UnknownRecipeError
from lightning_mi.utilities.atomic_files import sweep
from lightning_mi.utilities.interrupts import interruptible


def run(
    name: str,
    preset: str,
    output: Path,
    jobs: int | None,
    seeds: list[int] | None,
    losses: list[str] | None,
    data: str | None = None,
    ray: str | None = None,
    gpus_per_run: float = 0.0,
) -> int:
    """Run a benchmark: train what has not been trained, write tables and figures, say where.

    Args:
        name: A benchmark of ``recipes/bench``.
        preset: One of its presets.
        output: The folder of its results. Finished trainings found in it are not repeated.
        jobs: Processes that train; by default as many as there are cores, or as the GPUs have room for where
            ``gpus_per_run`` is given. Without meaning on a Ray cluster.
        seeds: Replace the preset's.
        losses: Only these.
        data: A data set that the benchmark offers; its first by default.
        ray: Address of a Ray cluster to train on; processes of this machine by default.
        gpus_per_run: GPUs, or the fraction of one, that a training has. With 0 it has none on a Ray cluster, and takes
            turns on those of this machine. With more than 1, each trains on its share of every batch.

    Returns:
        The exit status: 0, 1 after a failure, 2 for a mistake in the arguments, 130 after Ctrl-C (SIGINT), 143 after
        SIGTERM, 129 after SIGHUP.
    """
    console = Console()
    try:
        grid = load_grid(name, preset, seeds=seeds, losses=losses, data=data, devices=max(1, int(gpus_per_run)))
        if ray is None and gpus_per_run:
            gpus_of(0, gpus_per_run, visible_gpus())
            jobs = jobs or jobs_for(gpus_per_run, visible_gpus())
        _check_writable(output)
        sweep(output, recursively=True)
    except (ValueError, UnknownRecipeError, OSError) as error:
        print(f"lightning-mi bench: error: {error}", file=sys.stderr)
        return 2
    console.print(f"{len(grid.cells)} trainings, results in {output}", highlight=False, soft_wrap=True)
    if grid.note:
        console.print(f"Preset {preset}, reduced against the paper: {grid.note}.", highlight=False, soft_wrap=True)
    display = Display(grid, console)
    try:
        with interruptible():
            with display.live():
                if ray is None:
                    jobs = jobs or len(os.sched_getaffinity(0))
                    run_cells(grid.cells, output, jobs, display.progress, display.finished, gpus_per_run)
                else:
                    run_cells_on_ray(grid.cells, output, ray, gpus_per_run, display.progress, display.finished)
            console.print(display.table())
            for path in _report(grid, output):
                console.print(f"wrote {path}", highlight=False, soft_wrap=True)
    except SystemExit as interrupt:
        console.print("Interrupted. Finished trainings are kept; the same command goes on from there.")
        return int(interrupt.code or 0)
    except RayClusterError as error:
        print(f"lightning-mi bench: error: {error}", file=sys.stderr)
        return 2
    except CellFailedError as error:
        print(f"lightning-mi bench: error: {error}\nFinished trainings are kept.", file=sys.stderr)
        return 1
    console.print(
        f"curves of every training: tensorboard --logdir {output / 'tensorboard'}", highlight=False, soft_wrap=True
    )
    return 0


def _report(grid: Grid, output: Path) -> list[Path]:
    from lightning_mi.bench.reports.gaussian import report as report_gaussian  # matplotlib: seconds
    from lightning_mi.bench.reports.images import report as report_images
    from lightning_mi.bench.reports.onehot import report as report_onehot

    reports = {
        "gaussian": report_gaussian,
        "onehot": report_onehot,
        "supervised": report_images,
        "contrastive": report_images,
    }
    return reports[grid.report](grid, output)


def _check_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(f"cannot write results into {folder}: {error.strerror}. Choose another --output.") from error

"""`lightning-mi bench` on a recipe: load the sweep and run its grid."""

import argparse
import os
import sys
from pathlib import Path

from lightning_mi.bench.manifest import MANIFEST, read_grid
from lightning_mi.bench.reports.write import has_finished
from lightning_mi.bench.run import run_grid
from lightning_mi.cli.messages import silence_notices
from lightning_mi.cli.parser import ConfigurationError
from lightning_mi.cli.sweep import load_sweep, output_name
from lightning_mi.exceptions import GridError
from lightning_mi.utilities.atomic_files import require_writable


def run(options: argparse.Namespace) -> int:
    """Run the sweep of the command line and return the exit status.

    Raises:
        GridError: If an axis or the file is invalid, or the output folder holds a sweep with other settings.
    """
    if os.getcwd() not in sys.path:  # as in `fit`, modules in the current folder can be imported
        sys.path.insert(0, os.getcwd())
    silence_notices()
    output = options.output or Path("lightning_mi_runs") / output_name(options.name, options.sweep)
    require_writable(output)
    devices = max(1, int(options.gpus_per_run or 0))
    try:
        grid = load_sweep(options.name, options.sweep, seeds=options.seeds, devices=devices)
    except ConfigurationError as error:
        raise GridError(str(error).replace("got --config", "got")) from error
    except SystemExit as stop:  # the parser has printed the reason
        return int(stop.code or 0)
    _check_same_settings(output, grid.note)
    return run_grid(
        grid,
        output=output,
        jobs=options.jobs,
        ray=options.ray,
        gpus_per_run=options.gpus_per_run or 0.0,
        tracker=options.logger,
        download=options.download,
    )


def _check_same_settings(output: Path, settings: str) -> None:
    """Runs are named by their axes, so those of other settings would be overwritten."""
    if not (output / MANIFEST).is_file():
        return
    earlier = read_grid(output)
    if earlier.report == "sweep" and earlier.note != settings and has_finished(earlier, output):
        raise GridError(
            f"Got {settings or 'no settings beside the axes'}, and {output} holds the sweep of the same axes with "
            f"{earlier.note or 'none'}: its runs would be overwritten. Pass another folder, --output FOLDER."
        )

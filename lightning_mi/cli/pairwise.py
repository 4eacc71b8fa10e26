"""`lightning-mi pairwise`: the mutual information of each pair of columns of a file."""

import argparse
import sys

from lightning_mi.cli.tables import read_columns
from lightning_mi.estimation import pairwise


def run(options: argparse.Namespace) -> int:
    """Read the file, print the estimates, and return the exit status."""
    labels = [] if options.discrete is None else [name.strip() for name in options.discrete.split(",")]
    try:
        result = pairwise(
            read_columns(options.file, options.columns),
            discrete=dict.fromkeys(labels, True),
            adjust=options.adjust,
            folds=options.folds,
            budget=options.budget,
            units=options.units,
            seed=options.seed,
            accelerator=options.accelerator,
        )
    except ValueError as error:
        print(f"lightning-mi pairwise: error: {error}", file=sys.stderr)
        return 2
    print(result.to_json() if options.json else result)
    return 0

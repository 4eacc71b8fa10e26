"""`lightning-mi estimate`: the mutual information of two arrays or of columns of a file."""

import argparse
import sys

from lightning_mi.cli.tables import read_variables
from lightning_mi.estimation import estimate


def run(options: argparse.Namespace) -> int:
    """Read the files, print the estimate, and return the exit status."""
    try:
        x, y = read_variables(options.files, options.x, options.y)
        result = estimate(
            x,
            y,
            discrete=dict.fromkeys(options.discrete, True),
            folds=options.folds,
            budget=options.budget,
            units=options.units,
            seed=options.seed,
            accelerator=options.accelerator,
        )
    except ValueError as error:
        print(f"lightning-mi estimate: error: {error}", file=sys.stderr)
        return 2
    if options.json:
        print(result.to_json())
        return 0
    print(result)
    for finding in result.findings:
        print(f"  {finding.code}: {finding.text} {finding.remedy}")
    return 0

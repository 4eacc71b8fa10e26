"""`lightning-mi estimate`: the mutual information of two arrays or of columns of a file."""

import argparse
import signal
import sys

from lightning_mi.cli.tables import read_variables
from lightning_mi.estimation import estimate
from lightning_mi.utilities.interrupts import exit_status


def run(options: argparse.Namespace) -> int:
    """Read the files, print the estimate, and return the exit status: after Ctrl-C that of SIGINT."""
    try:
        x, y, z, groups = read_variables(options.files, options.x, options.y, options.given, options.groups)
        result = estimate(
            x,
            y,
            conditional_on=z,
            discrete=dict.fromkeys(options.discrete, True),
            groups=groups,
            blocks=options.blocks,
            folds=options.folds,
            budget=options.budget,
            permutations=options.permutations,
            confidence=options.confidence,
            units=options.units,
            seed=options.seed,
            accelerator=options.accelerator,
        )
    except ValueError as error:
        print(f"lightning-mi estimate: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return exit_status(signal.SIGINT)
    status = 0 if result.complete else exit_status(signal.SIGINT)
    if options.json:
        print(result.to_json())
        return status
    print(result)
    for finding in result.findings:
        print(f"  {finding.code}: {finding.text} {finding.remedy}")
    return status

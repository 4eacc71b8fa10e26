"""The commands of `lightning-mi`: purpose, examples and options. Imports nothing heavy, so that help is fast."""

import argparse
from pathlib import Path

from lightning_mi import __version__
from lightning_mi.cli.arguments import Parser, positive, seed
from lightning_mi.cli.bench_options import BENCH_EXAMPLES, RESULTS_EXAMPLES, add_bench_options, add_results_options

TRAINING_COMMANDS = {
    "fit": "train a recipe or your own configuration",
    "validate": "evaluate on the validation data",
    "test": "evaluate on the test data",
    "predict": "write predictions for the test data to files",
}

TRAINING_EXAMPLES = {
    "fit": """\
examples:
  lightning-mi fit --config gaussian
  lightning-mi fit --config gaussian --trainer.max_steps 500 --model.bound lightning_mi.bounds.NWJ
  lightning-mi fit --config mine.yaml --model my_project.MyModule
  lightning-mi fit --config gaussian --ckpt_path last      resume the last run
  lightning-mi fit --config gaussian --print_config        print the whole configuration, to save and edit
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

_OVERVIEW = """\
examples:
  lightning-mi ls                                   list recipes and benchmarks
  lightning-mi estimate x.npy y.npy                 the mutual information of two arrays
  lightning-mi pairwise data.csv                    the mutual information of each pair of columns
  lightning-mi fit --config gaussian                train a recipe
  lightning-mi fit --config gaussian --trainer.max_steps 500
  lightning-mi cp gaussian mine.yaml                copy a recipe, to edit it
  lightning-mi fit --config mine.yaml --model my_project.MyModule
  lightning-mi bench gaussian                       train every loss of a benchmark
  lightning-mi bench gaussian --sweep model.regularizer.weight=0.1,1 --sweep data.mi=2,4 --seeds 0 1 2
  lightning-mi results lightning_mi_runs            the tables and figures of finished runs
"""

_ESTIMATE = """\
examples:
  lightning-mi estimate x.npy y.npy                 two arrays, (n,) or (n, D)
  lightning-mi estimate data.csv --x a,b --y c      columns of a csv or parquet file
  lightning-mi estimate data.npz --x features --y labels --discrete y
  lightning-mi estimate x.npy y.npy --budget quick --json
  lightning-mi estimate data.csv --x a,b --y c --given age       the conditional mutual information
  lightning-mi estimate x.npy y.npy z.npy                        given z
  lightning-mi estimate data.csv --x a --y b --groups person     samples of one group stay in one fold

Ctrl-C prints the estimate of what was fitted so far, and the exit status is 130.
"""

_PAIRWISE = """\
examples:
  lightning-mi pairwise data.csv                    every pair of columns of a csv, parquet, npz or npy file
  lightning-mi pairwise data.csv --columns a,b,c --discrete c
  lightning-mi pairwise data.csv --adjust fdr --json
"""

_LS = """\
example:
  lightning-mi ls
"""

_CP = """\
examples:
  lightning-mi cp gaussian                          writes ./gaussian.yaml
  lightning-mi cp gaussian mine.yaml
  lightning-mi cp bench/gaussian grid.yaml          a benchmark's grid, for `lightning-mi bench grid.yaml`
"""


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands. The training commands are only listed: Lightning's CLI parses their options."""
    parser = Parser(
        prog="lightning-mi",
        description="Estimate mutual information, and train on it, with PyTorch Lightning.",
        epilog=_OVERVIEW,
    )
    parser.add_argument("--version", action="version", version=f"lightning_mi {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, purpose: str, examples: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=purpose, description=purpose, epilog=examples)
        command.set_defaults(fail=command.error)  # for arguments that no command knows, and checks of several at once
        return command

    for name, purpose in TRAINING_COMMANDS.items():
        commands.add_parser(name, help=purpose, add_help=False)
    add("ls", "list the recipes and benchmarks", _LS)
    _add_estimate_options(add("estimate", "estimate the mutual information of two arrays", _ESTIMATE))
    _add_pairwise_options(add("pairwise", "estimate the mutual information of each pair of columns", _PAIRWISE))
    _add_copy_options(add("cp", "copy a recipe or a benchmark's grid, to edit it", _CP))
    add_bench_options(add("bench", "run a benchmark or a sweep of a recipe: a table and figures", BENCH_EXAMPLES))
    add_results_options(add("results", "print the table of finished runs, and draw their figures", RESULTS_EXAMPLES))
    return parser


def _add_copy_options(copy: argparse.ArgumentParser) -> None:
    copy.add_argument("name", metavar="NAME", help="a name in `lightning-mi ls`; bench/NAME is a benchmark")
    copy.add_argument(
        "destination", metavar="DEST", nargs="?", type=Path, help="a file or an existing folder (default: ./NAME.yaml)"
    )
    copy.add_argument("--force", action="store_true", help="overwrite an existing file")


def _add_estimate_options(estimate: argparse.ArgumentParser) -> None:
    estimate.add_argument("files", metavar="FILE", nargs="+", type=Path, help="x.npy y.npy [z.npy], or one table")
    estimate.add_argument("--x", metavar="COLUMNS", help="columns of x, separated by commas")
    estimate.add_argument("--y", metavar="COLUMNS", help="columns of y, separated by commas")
    estimate.add_argument(
        "--given", "--conditional-on", metavar="COLUMNS", help="columns of z, for the conditional mutual information"
    )
    estimate.add_argument(
        "--discrete", nargs="+", choices=["x", "y", "z"], default=[], help="labels without an order (default: detected)"
    )
    estimate.add_argument("--groups", metavar="COLUMN", help="samples of one group stay in one fold")
    estimate.add_argument("--blocks", type=positive, metavar="N", help="so do N consecutive samples of a time series")
    estimate.add_argument("--permutations", type=positive, metavar="N", default=999, help="for p (default: 999)")
    estimate.add_argument("--confidence", type=float, metavar="P", default=0.95, help="of the limits (default: 0.95)")
    _add_estimation_options(estimate, budget="standard")


def _add_pairwise_options(pairwise: argparse.ArgumentParser) -> None:
    pairwise.add_argument("file", metavar="FILE", type=Path, help="a csv, parquet or npz file, or an npy file (n, D)")
    pairwise.add_argument("--columns", metavar="COLUMNS", help="columns, separated by commas (default: all)")
    pairwise.add_argument(
        "--discrete", metavar="COLUMNS", help="columns of labels without an order (default: detected)"
    )
    pairwise.add_argument(
        "--adjust", choices=["holm", "fdr"], default="holm", help="adjustment of the p-values (default: holm)"
    )
    _add_estimation_options(pairwise, budget="quick")


def _add_estimation_options(command: argparse.ArgumentParser, budget: str) -> None:
    command.add_argument("--budget", choices=["quick", "standard", "careful"], default=budget)
    command.add_argument("--folds", type=positive, metavar="K", default=4, help="folds of the samples (default: 4)")
    command.add_argument("--units", choices=["nats", "bits"], default="nats")
    command.add_argument("--seed", type=seed, default=0)
    command.add_argument("--accelerator", default="cpu", help="cpu, gpu or auto (default: cpu)")
    command.add_argument("--json", action="store_true", help="print a JSON object")

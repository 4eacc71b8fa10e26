"""The commands of `lightning-mi`: purpose, examples and options. Imports nothing heavy, so that help is fast."""

import argparse
from pathlib import Path

from lightning_mi import __version__
from lightning_mi.utilities.recipe_registry import list_files

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
  lightning-mi cp bench/gaussian grid.yaml          a benchmark's grid
"""

_BENCH = """\
examples:
  lightning-mi bench gaussian                       the quick preset, for a first look
  lightning-mi bench gaussian --preset paper        the paper's settings: takes far longer
  lightning-mi bench gaussian --losses MINE NWJ --seeds 0 1 2
  lightning-mi bench gaussian --output runs/first --jobs 2
  lightning-mi bench gaussian --ray auto            on the Ray cluster of which this machine is a node
  lightning-mi bench gaussian --ray ray://head:10001 --gpus-per-run 0.5
  lightning-mi bench contrastive --data cifar10 --gpus-per-run 2
  lightning-mi bench arrays                         `estimate` beside other methods, on laws with known MI
  lightning-mi bench arrays --tasks 'student-*' --methods estimate-quick nearest-neighbors --samples 500 2000
  lightning-mi bench arrays --peer neuralmi=ENVIRONMENT/bin/python
  lightning-mi bench minimize                       penalties on MI, on data whose MI is known at every step
  lightning-mi bench minimize --methods none CLUB DV --critic-steps 1 5 --seeds 0 1 2 --audit quick
  lightning-mi bench plane                          the callback InformationPlane beside other probes of layers

other packages in `bench arrays`:
  --peer NAME=COMMAND adds a package that is installed in a Python environment of its own. For neuralmi, torch-mist and
  bmi, COMMAND is the interpreter of that environment. For any other NAME it is a program of yours: it is called with an
  npz file (x and y of shape (n, D), labels as one-hot columns, and seed), and prints {"mi": NATS} as its last line.

on a Ray cluster (pip install 'lightning-mi[ray]'):
  Every training or estimation is a task of one CPU and --gpus-per-run GPUs. The nodes need the same version of
  lightning_mi as this machine, and no shared file system: results and TensorBoard logs are sent to this machine when a
  task ends. If a worker is lost, its task is repeated, up to three times. Ctrl-C stops the tasks; the same command
  resumes after the finished ones, on the cluster or on this machine.
"""


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands. The training commands are only listed: Lightning's CLI parses their options."""
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
        commands.add_parser(name, help=purpose, add_help=False)
    add("ls", "list the recipes and benchmarks", _LS)
    _add_estimate_options(add("estimate", "estimate the mutual information of two arrays", _ESTIMATE))
    _add_pairwise_options(add("pairwise", "estimate the mutual information of each pair of columns", _PAIRWISE))
    _add_copy_options(add("cp", "copy a recipe or a benchmark's grid, to edit it", _CP))
    _add_bench_options(add("bench", "run a benchmark: every loss or method, a table and figures", _BENCH))
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
    estimate.add_argument("--blocks", type=_positive, metavar="N", help="so do N consecutive samples of a time series")
    estimate.add_argument("--permutations", type=_positive, metavar="N", default=999, help="for p (default: 999)")
    estimate.add_argument("--confidence", type=float, metavar="P", default=0.95, help="of the limits (default: 0.95)")
    _add_estimation_options(estimate, budget="standard")
    estimate.set_defaults(fail=estimate.error)


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
    command.add_argument("--folds", type=_positive, metavar="K", default=4, help="folds of the samples (default: 4)")
    command.add_argument("--units", choices=["nats", "bits"], default="nats")
    command.add_argument("--seed", type=_seed, default=0)
    command.add_argument("--accelerator", default="cpu", help="cpu, gpu or auto (default: cpu)")
    command.add_argument("--json", action="store_true", help="print a JSON object")


def _add_bench_options(bench: argparse.ArgumentParser) -> None:
    names = [benchmark.name for benchmark in list_files("benchmark")]
    bench.add_argument("name", metavar="NAME", choices=names, help=f"one of: {', '.join(names)}")
    bench.add_argument(
        "--preset",
        choices=["quick", "full", "paper", "cubic", "sizes"],
        default="quick",
        help="size of the benchmark (default: quick). full: contrastive on all training images. cubic: gaussian with "
        "the cubes of y. sizes: arrays with 500 to 20,000 samples",
    )
    bench.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="folder of the results (default: lightning_mi_runs/NAME[-DATA]-PRESET)",
    )
    bench.add_argument("--jobs", type=_positive, metavar="N", help="worker processes (default: one for each core)")
    bench.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="run on a Ray cluster: HOST:PORT or auto on one of its nodes, ray://HOST:PORT on any other machine",
    )
    bench.add_argument(
        "--gpus-per-run",
        type=_gpus,
        metavar="N",
        help="GPUs of a training: several, which share every batch, or a fraction of one (default: one GPU in turn; "
        "with --ray none)",
    )
    bench.add_argument(
        "--seeds", type=_seed, nargs="+", metavar="SEED", help="seeds (default: the seeds of the preset)"
    )
    bench.add_argument("--data", metavar="SET", help="a data set of the benchmark (default: its first)")
    bench.add_argument("--losses", nargs="+", metavar="LOSS", help="names of losses (default: all of the benchmark)")
    methods = bench.add_argument_group("options of bench arrays and bench minimize")
    methods.add_argument("--methods", nargs="+", metavar="METHOD", help="names of methods (default: of the preset)")
    arrays = bench.add_argument_group("options of bench arrays")
    arrays.add_argument("--tasks", nargs="+", metavar="TASK", help="names, patterns such as 'student-*', or groups")
    arrays.add_argument("--samples", type=_positive, nargs="+", metavar="N", help="samples of an estimation")
    arrays.add_argument("--peer", action="append", metavar="NAME=COMMAND", help="another package; may be repeated")
    minimize = bench.add_argument_group("options of bench minimize")
    minimize.add_argument("--critic-steps", type=_positive, nargs="+", metavar="K", help="critic steps for each batch")
    minimize.add_argument(
        "--audit", choices=["quick", "standard", "careful"], help="measure the MI that is left by `estimate`, too"
    )
    bench.set_defaults(fail=bench.error)  # for checks of several options at once


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"got {text!r}: it must be a positive whole number")
    return int(text)


def _gpus(text: str) -> float:
    try:
        gpus = float(text)
    except ValueError:
        gpus = -1.0
    if not (0 <= gpus <= 1 or (gpus > 1 and gpus.is_integer())):  # what Ray can reserve
        raise argparse.ArgumentTypeError(f"got {text!r}: it must be a whole number of GPUs or a fraction of one")
    return gpus


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"got {text!r}: a seed is a whole number, at least 0")
    return int(text)

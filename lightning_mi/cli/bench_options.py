"""The options of `lightning-mi bench` and `lightning-mi results`."""

import argparse
from pathlib import Path

from lightning_mi.cli.arguments import gpus, positive, seed
from lightning_mi.utilities.recipe_registry import list_files

BENCH_EXAMPLES = """\
examples:
  lightning-mi bench gaussian                       the quick preset, for a first look
  lightning-mi bench gaussian --preset paper        the paper's settings: takes far longer
  lightning-mi bench gaussian --losses MINE NWJ --seeds 0 1 2
  lightning-mi bench gaussian --output runs/first --jobs 2
  lightning-mi bench mine.yaml                      a grid of your own: a copy by `cp bench/gaussian mine.yaml`
  lightning-mi bench gaussian --sweep model.regularizer.weight=0.1,1 --sweep data.mi=2,4 --seeds 0 1 2
  lightning-mi bench supervised/digits --sweep model.bound=DV,NWJ --sweep trainer.max_epochs=5
  lightning-mi bench gaussian --logger wandb        the logs also to W&B, as a group of runs
  lightning-mi bench contrastive --data fashion_mnist --download
  lightning-mi bench gaussian --ray auto            on the Ray cluster of which this machine is a node
  lightning-mi bench gaussian --ray ray://head:10001 --gpus-per-run 0.5
  lightning-mi bench contrastive --data cifar10 --gpus-per-run 2
  lightning-mi bench arrays                         `estimate` beside other methods, on laws with known MI
  lightning-mi bench arrays --tasks 'student-*' --methods estimate-quick nearest-neighbors --samples 500 2000
  lightning-mi bench arrays --peer neuralmi=ENVIRONMENT/bin/python
  lightning-mi bench minimize                       penalties on MI, on data whose MI is known at every step
  lightning-mi bench minimize --methods none CLUB DV --critic-steps 1 5 --seeds 0 1 2 --audit quick
  lightning-mi bench plane                          the callback InformationPlane beside other probes of layers

sweeps:
  --sweep KEY=VALUE,VALUE is an axis: any key that `lightning-mi fit` accepts, with or without init_args. All values of
  all axes are combined. One value is a setting of all runs. NAME is then a recipe, a configuration of `fit`, or
  a file with the keys recipe, sweep and seeds. Commas in [] or {} do not separate values.

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

RESULTS_EXAMPLES = """\
examples:
  lightning-mi results lightning_mi_runs/gaussian-quick        a Markdown table on stdout; figures beside the results
  lightning-mi results runs/a runs/b --format latex > table.tex
  lightning-mi results lightning_mi_runs --format csv --metrics test/mi test/accuracy
  lightning-mi results runs/a --figures pdf
"""


def add_bench_options(bench: argparse.ArgumentParser) -> None:
    """Add the options of `bench`."""
    names = [benchmark.name for benchmark in list_files("benchmark")]
    bench.add_argument(
        "name", metavar="NAME", help=f"a benchmark ({', '.join(names)}), a recipe, or a YAML file of your own"
    )
    bench.add_argument(
        "--preset",
        default="quick",
        help="size of the benchmark: quick (default) or paper; also full, contrastive on all training images; cubic, "
        "gaussian with the cubes of y; sizes, arrays with 500 to 20,000 samples",
    )
    bench.add_argument(
        "--sweep", action="append", default=[], metavar="KEY=VALUES", help="an axis of a sweep; may be repeated"
    )
    bench.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="folder of the results (default: lightning_mi_runs/NAME[-DATA]-PRESET, or sweep-NAME-AXES)",
    )
    bench.add_argument("--jobs", type=positive, metavar="N", help="worker processes (default: one for each core)")
    bench.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="run on a Ray cluster: HOST:PORT or auto on one of its nodes, ray://HOST:PORT on any other machine",
    )
    bench.add_argument(
        "--gpus-per-run",
        type=gpus,
        metavar="N",
        help="GPUs of a training: several, which share every batch, or a fraction of one (default: one GPU in turn; "
        "with --ray none)",
    )
    bench.add_argument("--seeds", type=seed, nargs="+", metavar="SEED", help="seeds (default: the seeds of the preset)")
    bench.add_argument("--data", metavar="SET", help="a data set of the benchmark (default: its first)")
    bench.add_argument("--losses", nargs="+", metavar="LOSS", help="names of losses (default: all of the benchmark)")
    bench.add_argument("--download", action="store_true", help="download the data sets of torchvision that are missing")
    bench.add_argument("--logger", choices=["wandb", "mlflow"], help="send the logs there, too: one group of runs")
    methods = bench.add_argument_group("options of bench arrays and bench minimize")
    methods.add_argument("--methods", nargs="+", metavar="METHOD", help="names of methods (default: of the preset)")
    arrays = bench.add_argument_group("options of bench arrays")
    arrays.add_argument("--tasks", nargs="+", metavar="TASK", help="names, patterns such as 'student-*', or groups")
    arrays.add_argument("--samples", type=positive, nargs="+", metavar="N", help="samples of an estimation")
    arrays.add_argument("--peer", action="append", metavar="NAME=COMMAND", help="another package; may be repeated")
    minimize = bench.add_argument_group("options of bench minimize")
    minimize.add_argument("--critic-steps", type=positive, nargs="+", metavar="K", help="critic steps for each batch")
    minimize.add_argument(
        "--audit", choices=["quick", "standard", "careful"], help="measure the MI that is left by `estimate`, too"
    )


def add_results_options(results: argparse.ArgumentParser) -> None:
    """Add the options of `results`."""
    results.add_argument(
        "folders", metavar="FOLDER", nargs="+", type=Path, help="output of `bench`, or a folder of them"
    )
    results.add_argument(
        "--format", choices=["markdown", "csv", "latex"], default="markdown", help="of the table (default: markdown)"
    )
    results.add_argument("--figures", choices=["png", "pdf", "svg"], default="png", help="their format (default: png)")
    results.add_argument("--metrics", nargs="+", metavar="NAME", help="columns, named as in results.csv")

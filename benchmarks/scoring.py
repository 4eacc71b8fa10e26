"""Tiled scores against dense scores ("at once"): time and peak memory of a step, forward and backward.

A step scores all pairs of a batch, computes a bound with its regularizer, and differentiates with respect to the
factors of the scores or, for a joint critic, to its parameters. The forms run in turns in one process, on one thread or
one GPU, and the fastest step of each counts. Memory is the peak of a step minus that before it, in a separate process.

    python benchmarks/scoring.py --csv scoring.csv
    python benchmarks/scoring.py --critics separable --sizes 4096 --bounds DV JS
    python benchmarks/scoring.py --critics joint --sizes 256 --dim 784 --bounds DV --forms tiles concatenated
    python benchmarks/scoring.py --device cuda --sizes 4096 16384 32768
    python benchmarks/scoring.py --peer peer/bin/python        with torch-mist, see staircase_peers.py
"""

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.common import add_device, ask_peer, peak_megabytes, run_apart, seconds_now, show
from lightning_mi import bounds, critics, pairs, regularizers

BOUNDS: dict[str, Callable[[], bounds.AbstractBound]] = {
    name: getattr(bounds, name) for name in ("DV", "NWJ", "TUBA", "MINE", "SMILE", "InfoNCE", "JS")
} | {"SMILE(js)": partial(bounds.SMILE, objective="js")}
DIMS = {"separable": 128, "joint": 20}
SIZES = {"separable": (512, 1024, 4096), "joint": (64, 128, 512)}
LARGEST_AT_ONCE = 16384  # above it, only tiles
# Losses of torch-mist that correspond to a bound; it has no regularizer.
PEERS = {"MINE": "MINE", "NWJ": "NWJ", "SMILE(js)": "SMILE", "InfoNCE": "InfoNCE", "JS": "JS"}
LARGEST_OF_PEER = 1024  # at 4096 its separable scores need 35 GB
HEADING = ["critic", "dim", "N", "bound", "form", "ms a step", "over the last form", "MB"]


class Concatenated(critics.AbstractCritic):
    """The textbook joint critic, which concatenates all pairs."""

    def __init__(self, critic: critics.JointCritic) -> None:
        super().__init__()
        self.critic = critic
        self.network = nn.Sequential(critic.first, *critic.rest)

    def paired(self, x: Tensor, y: Tensor) -> Tensor:
        return self.critic.paired(x, y)

    def pairwise(self, x: Tensor, y: Tensor) -> Tensor:
        concatenated = torch.cat([x.repeat_interleave(len(y), dim=0), y.repeat(len(x), 1)], dim=1)
        scores: Tensor = self.network(concatenated)
        return scores.view(len(x), len(y))


def step(
    device: str, form: str, critic: str, n: int, dim: int, bound: str, tile_bytes: float | None = None
) -> Callable[[], None]:
    """A step in one form, as a function without arguments."""
    torch.manual_seed(0)
    x, y = (0.3 * torch.randn(2, n, dim)).to(device)
    joint = critics.JointCritic(dim, dim).to(device)
    scored: critics.AbstractCritic = joint
    if critic == "separable":  # without its networks, whose cost grows with N and is the same in both forms
        scored, x, y = critics.InnerProductCritic(), x.requires_grad_(), y.requires_grad_()
    elif form == "concatenated":
        scored = Concatenated(joint)
    estimate, regularizer = BOUNDS[bound](), regularizers.Squared(weight=0.1)
    pairing = pairs.AllPairs(tile_bytes=tile_bytes if form == "tiles" else math.inf)

    def run() -> None:
        for leaf in (x, y, *scored.parameters()):
            leaf.grad = None
        terms = estimate(pairing(scored, x, y))
        (regularizer(terms) - terms.objective).backward()

    return run


def milliseconds(steps: Sequence[Callable[[], None]], seconds: float, device: str) -> list[float]:
    """Milliseconds of the fastest step of each form; the forms take turns for ``seconds``, at least three rounds."""
    fastest = [math.inf] * len(steps)
    end, rounds = seconds_now(device) + seconds, 0
    while rounds < 3 or seconds_now(device) < end:
        for index, run in enumerate(steps):
            start = seconds_now(device)
            run()
            fastest[index] = min(fastest[index], seconds_now(device) - start)
        rounds += 1
    return [1000 * duration for duration in fastest]


def megabytes(device: str, form: str, critic: str, n: int, dim: int, bound: str) -> float:
    """Peak memory of a step in this process."""
    small = 256 if form == "tiles" else 16
    step(device, form, critic, small, dim, bound, tile_bytes=2**16)()  # a first step loads libraries
    return peak_megabytes(step(device, form, critic, n, dim, bound), device)


def megabytes_apart(device: str, *case: object) -> float:
    """Peak memory of a step in a new process, whose peak resident size nothing else has raised."""
    command = [sys.executable, __file__, "--device", device, "--memory-of", *map(str, case)]
    return float(run_apart(command))


def rows_of(
    device: str, critic: str, n: int, dim: int, bound: str, forms: Sequence[str], seconds: float
) -> list[list[str]]:
    """One table row for each form."""
    forms = [form for form in forms if form == "tiles" or n <= LARGEST_AT_ONCE]
    times = milliseconds([step(device, form, critic, n, dim, bound) for form in forms], seconds, device)
    rows = []
    for form, found in zip(forms, times, strict=True):
        ratio = "" if len(forms) == 1 else f"{found / times[-1]:.2f}"
        memory = megabytes_apart(device, form, critic, n, dim, bound)
        rows.append([critic, str(dim), str(n), bound, form, f"{found:.1f}", ratio, f"{memory:.0f}"])
    return rows


def row_of_peer(
    python: str, device: str, critic: str, n: int, dim: int, bound: str, seconds: float, reference: float
) -> list[str]:
    """The table row of torch-mist; ``reference`` is the milliseconds that its ratio is over."""
    options = {"device": device, "loss": PEERS[bound], "critic": critic, "n": n, "dim": dim, "seconds": seconds}
    found = ask_peer(python, "torch_mist_scoring.py", **options)
    time, memory = found["milliseconds"], found["megabytes"]
    return [critic, str(dim), str(n), bound, "torch-mist", f"{time:.1f}", f"{time / reference:.2f}", f"{memory:.0f}"]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--critics", nargs="+", default=list(DIMS), choices=DIMS)
    parser.add_argument("--bounds", nargs="+", default=list(BOUNDS), choices=BOUNDS)
    parser.add_argument("--sizes", nargs="+", type=int, help="N; defaults depend on the critic")
    parser.add_argument("--dim", type=int, help="width of the factors, or of x and y for a joint critic")
    parser.add_argument(
        "--forms",
        nargs="+",
        default=["tiles", "at once"],
        choices=["tiles", "at once", "concatenated"],
        help="forms to time; ratios are over the last one",
    )
    parser.add_argument(
        "--seconds", type=float, default=4.0, help="duration of the timed steps, at least 3 of each form"
    )
    parser.add_argument("--peer", help="Python of an environment with torch-mist")
    parser.add_argument("--tiny", action="store_true", help="a few pairs, as a smoke test")
    add_device(parser)
    parser.add_argument("--csv", type=Path)
    parser.add_argument("--memory-of", nargs=5, metavar=("FORM", "CRITIC", "N", "DIM", "BOUND"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if options.memory_of:
        form, critic, n, dim, bound = options.memory_of
        print(megabytes(options.device, form, critic, int(n), int(dim), bound))
        return
    if options.tiny:
        options.sizes, options.seconds = [8], 0.0
    rows = []
    for critic in options.critics:
        for n in options.sizes or SIZES[critic]:
            for bound in options.bounds:
                dim = options.dim or DIMS[critic]
                found = rows_of(options.device, critic, n, dim, bound, options.forms, options.seconds)
                if options.peer and bound in PEERS and n <= LARGEST_OF_PEER:
                    last = float(found[-1][HEADING.index("ms a step")])
                    where = options.peer, options.device, critic, n, dim, bound
                    found.append(row_of_peer(*where, options.seconds, reference=last))
                rows += found
                print(*(" ".join(row) for row in found), sep="\n", file=sys.stderr, flush=True)
    show(HEADING, rows, options.csv)


if __name__ == "__main__":
    main()

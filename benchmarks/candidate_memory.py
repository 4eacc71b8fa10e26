"""Memory and bytes moved by one step, of an all-gather and of a ring, beside a formula: docs/million_pairs.md.

One step is the forward and the backward pass of a regularized InfoNCE on representations x and y, N pairs over W ranks
on gloo. Memory is what torch allocates on rank 0 in the step, at its peak, without x and y: the sum of torch's
allocation events, temporary tensors included, gloo's own buffers not. Bytes moved are what the kernel counts on rank
0's TCP connections, sent and received, half of the sum.

    python benchmarks/candidate_memory.py                    some minutes on four cores
    python benchmarks/candidate_memory.py --pairs 65536 --ranks 4 --critics separable
"""

import argparse
import json
import os
import socket
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.profiler import ProfilerActivity, profile

from benchmarks.common import quiet, show
from lightning_mi import MILoss, bounds, critics, pairs, regularizers

HIDDEN = 256  # of the separable critic, two layers for x and two for y
FORMS: dict[str, bool | str] = {"all-gather": True, "ring": "ring"}
CRITICS: dict[str, Callable[[int], critics.AbstractCritic]] = {
    "inner product": lambda dim: critics.InnerProductCritic(),
    "cosine": lambda dim: critics.InnerProductCritic(normalize=True, temperature=0.1),
    "separable": lambda dim: critics.SeparableCritic(dim, dim, hidden=(HIDDEN, HIDDEN), embed_dim=dim),
}


class Live(NamedTuple):
    """Tensors that exist at the peak, counted in floats of a shape.

    Attributes:
        all_dim: (N, D).
        all_hidden: (N, H).
        rank_dim: (N / W, D).
        rank_hidden: (N / W, H).
        tiles: Tiles of scores.
    """

    all_dim: float = 0
    all_hidden: float = 0
    rank_dim: float = 0
    rank_hidden: float = 0
    tiles: float = 0


# The peak of an all-gather is in the backward pass of the critic, as that of one rank. That of a ring is in the pass
# over the blocks, or in the same backward pass, of N / W pairs.
ONE_RANK = {"inner product": Live(rank_dim=5), "cosine": Live(rank_dim=8), "separable": Live(rank_dim=3, rank_hidden=6)}
LIVE = {
    ("inner product", "all-gather"): Live(all_dim=3, rank_dim=3),
    ("inner product", "ring"): Live(rank_dim=5, tiles=2),
    ("cosine", "all-gather"): Live(all_dim=7, rank_dim=2),
    ("cosine", "ring"): Live(rank_dim=7, tiles=2),
    ("separable", "all-gather"): Live(all_dim=2, all_hidden=4, rank_dim=2, rank_hidden=2),
    ("separable", "ring"): Live(rank_dim=7, rank_hidden=4, tiles=2),
}


def memory_bytes(critic: str, form: str, pairs: int, ranks: int, dim: int, tile: float, hidden: int = HIDDEN) -> float:
    """Peak memory of a step on one rank, in bytes."""

    tile = min(tile, 4 * (pairs / ranks) ** 2)  # a block of scores may be smaller than a tile

    def size(live: Live) -> float:
        floats = dim * (live.all_dim * pairs + live.rank_dim * pairs / ranks)
        return 4 * (floats + hidden * (live.all_hidden * pairs + live.rank_hidden * pairs / ranks)) + live.tiles * tile

    if ranks == 1:
        return size(ONE_RANK[critic])
    live = LIVE[critic, form]
    if form == "all-gather":
        return size(live)
    if ranks == 2:  # it never holds a received block while it receives the next one
        live = live._replace(rank_dim=live.rank_dim - 1)
    return max(size(live), size(ONE_RANK[critic]))


def moved_bytes(form: str, pairs: int, ranks: int, dim: int, reduce_scatter: bool = False) -> float:
    """Bytes that one rank sends in a step; it receives as many.

    Args:
        form: ``"all-gather"`` or ``"ring"``.
        pairs: N.
        ranks: W.
        dim: D of what is gathered, or passes round.
        reduce_scatter: The backend has a reduce-scatter, as NCCL; gloo has an all-reduce, of twice the bytes.
    """
    if ranks == 1:
        return 0.0
    block = 4 * dim * pairs / ranks
    if form == "ring":  # candidates in forward, candidates and gradients in backward; the gradients come home
        return block * (2 * (ranks - 1) + ranks)
    return block * (ranks - 1) * (2 if reduce_scatter else 3)


def peak_bytes(run: Callable[[], object], folder: str) -> int:
    """Peak of the memory that torch allocates in a run."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    path = Path(folder, f"{os.getpid()}.json")
    profiler.export_chrome_trace(str(path))
    events = [event for event in json.loads(path.read_text())["traceEvents"] if event.get("name") == "[memory]"]
    total = peak = 0
    for event in sorted(events, key=lambda event: event["ts"]):
        total += event["args"]["Bytes"]
        peak = max(peak, total)
    return peak


def transferred_bytes() -> int:
    """Bytes that this process's TCP connections have sent and received so far."""
    total = 0
    for name in os.listdir("/proc/self/fd"):
        if not os.path.realpath(f"/proc/self/fd/{name}").rpartition("/")[2].startswith("socket:"):
            continue
        with socket.socket(fileno=os.dup(int(name))) as connection:
            if connection.type == socket.SOCK_STREAM and connection.family in (socket.AF_INET, socket.AF_INET6):
                info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 136)
                # struct tcp_info of Linux: bytes_acked and bytes_received
                total += sum(int.from_bytes(info[start : start + 8], "little") for start in (120, 128))
    return total


def work(rank: int, ranks: int, folder: str, critic: str, form: str, rows: int, dim: int, tile: float) -> None:
    """Run one rank; rank 0 writes its peak and its bytes moved."""
    quiet()
    if ranks > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=ranks)
    torch.manual_seed(rank)
    x, y = (torch.randn(rows, dim, requires_grad=True) for _ in range(2))
    pairing = pairs.AllPairs(gather=FORMS[form], tile_bytes=tile)
    loss = MILoss(CRITICS[critic](dim), bounds.InfoNCE(), pairing, regularizers.Squared(weight=0.1))
    loss(x[:4], y[:4]).backward()  # connects the ranks
    x.grad = y.grad = None
    loss.zero_grad(set_to_none=True)
    before = transferred_bytes()
    peak = peak_bytes(lambda: loss(x, y).backward(), folder)
    if rank == 0:
        Path(folder, "result").write_text(json.dumps([peak, (transferred_bytes() - before) / 2]))
    if ranks > 1:
        dist.barrier()
        dist.destroy_process_group()


def measure(critic: str, form: str, pairs: int, ranks: int, dim: int, tile: float) -> tuple[float, float]:
    """Peak memory and bytes moved of rank 0."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = (ranks, folder, critic, form, pairs // ranks, dim, tile)
        mp.start_processes(work, arguments, nprocs=ranks, start_method="fork")
        peak, moved = json.loads(Path(folder, "result").read_text())
    return peak, moved


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, nargs="+", default=[4096, 16384], help="N, over all ranks")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 3, 4])
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--critics", nargs="+", choices=CRITICS, default=list(CRITICS))
    parser.add_argument("--tile", type=float, default=2**20, help="bytes of a tile")
    parser.add_argument("--csv", type=Path)
    # benchmarks/run.py passes a device to each script; this one counts tensors, which are the same on every device.
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    options = parser.parse_args(arguments)
    heading = ["critic", "N", "W", "form", "MB", "MB, formula", "MB moved", "MB moved, formula"]
    rows = []
    for critic in options.critics:
        for number in options.pairs:
            for ranks in options.ranks:
                for form in FORMS if ranks > 1 else ["all-gather"]:
                    peak, moved = measure(critic, form, number, ranks, options.dim, options.tile)
                    expected = memory_bytes(critic, form, number, ranks, options.dim, options.tile)
                    expected_moved = moved_bytes(form, number, ranks, options.dim)
                    numbers = [f"{size / 1e6:.1f}" for size in (peak, expected, moved, expected_moved)]
                    rows.append([critic, str(number), str(ranks), form if ranks > 1 else "one rank", *numbers])
                    print("#", *rows[-1], flush=True)
    show(heading, rows, options.csv)


if __name__ == "__main__":
    main()

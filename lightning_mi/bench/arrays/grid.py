"""The grid of the benchmark of arrays: samples x tasks x methods x seeds."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, final

from lightning_mi import __version__
from lightning_mi.bench.arrays.cell import ArrayCell
from lightning_mi.bench.arrays.methods import METHODS
from lightning_mi.bench.arrays.peers import DISTRIBUTIONS, Peer, parse_peer
from lightning_mi.bench.arrays.tasks import draw, select_tasks
from lightning_mi.bench.benchmark_file import read_preset, replaced_note
from lightning_mi.bench.cells import Grid
from lightning_mi.estimation.inputs import MIN_SAMPLES
from lightning_mi.exceptions import GridError
from lightning_mi.utilities.suggestions import did_you_mean

_TRIAL = 2  # samples that show the shapes of a task


@final
@dataclass(frozen=True)
class ArrayChoices:
    """Options of the command line that replace those of the preset.

    Attributes:
        seeds: Seeds; None means those of the preset.
        tasks: Names, patterns or groups of tasks; None means those of the preset.
        methods: Names of methods; None means those of the preset.
        samples: Numbers of samples; None means those of the preset.
        peers: Other packages, as ``NAME=COMMAND``, beside the methods.
    """

    seeds: list[int] | None = None
    tasks: list[str] | None = None
    methods: list[str] | None = None
    samples: list[int] | None = None
    peers: list[str] = field(default_factory=list)


@final
@dataclass(frozen=True)
class ArrayPreset:
    """Scope of a run.

    Attributes:
        seeds: Seeds of samples and estimations.
        samples: Numbers of samples.
        tasks: Names, patterns or groups of tasks.
        methods: Names of methods.
        note: Differences from the preset ``paper``; empty if there are none.
    """

    seeds: list[int]
    samples: list[int]
    tasks: list[str]
    methods: list[str]
    note: str = ""


def load_array_grid(path: Path, preset: str, choices: ArrayChoices) -> Grid[ArrayCell]:
    """Expand the benchmark of arrays into its estimations.

    Args:
        path: The benchmark's YAML file.
        preset: One of its presets.
        choices: Options that replace those of the preset.

    Raises:
        GridError: If a preset, a task, a method, a peer or a key is unknown, or a number of samples too small.

    Example:
        >>> from lightning_mi.utilities.recipe_registry import find_file
        >>> choices = ArrayChoices(tasks=["1v1-additive-*"], methods=["cca"], samples=[100])
        >>> grid = load_array_grid(find_file("arrays", "benchmark").path, "quick", choices)
        >>> [cell.name for cell in grid.cells]
        ['1v1-additive-0.1-cca-n100-seed0', '1v1-additive-0.75-cca-n100-seed0']
    """
    document, chosen = read_preset(path, preset, ArrayPreset)
    peers = {peer.name: peer for peer in map(parse_peer, choices.peers)}
    laws = select_tasks(choices.tasks or chosen.tasks)
    methods = [*_select_methods(choices.methods or chosen.methods, peers), *peers]
    samples = choices.samples or chosen.samples
    if min(samples) < MIN_SAMPLES:
        raise GridError(f"Got {min(samples)} samples: an estimation needs at least {MIN_SAMPLES}.")
    trials = {name: draw(law, _TRIAL, 0) for name, law in laws.items()}
    cells = [
        _cell(task, repr(law), method, peers.get(method), n, seed)
        for seed in (chosen.seeds if choices.seeds is None else choices.seeds)
        for n in dict.fromkeys(samples)
        for task, law in laws.items()
        for method in methods
        if method in peers or METHODS[method].applies(trials[task])
    ]
    if not cells:
        raise GridError(
            "Got tasks for which none of the methods is defined: choose another method, such as estimate-quick."
        )
    note = replaced_note(chosen.note, {name: choice for name, choice in asdict(choices).items() if name != "peers"})
    return Grid(path.stem, preset, note, document["report"], cells, noun="estimation", reference="preset paper")


def _select_methods(names: Sequence[str], peers: dict[str, Peer]) -> list[str]:
    """The methods in their order, without the peers among the names."""
    for name in names:
        if name in DISTRIBUTIONS and name not in peers:
            raise GridError(f"Got method {name}: it is another package. Name its interpreter: --peer {name}=PYTHON.")
        if name not in METHODS and name not in peers:
            methods = f"{', '.join(METHODS)}, and peers by --peer"
            raise GridError(f"Got method {name!r}: the methods are {methods}.{did_you_mean(name, METHODS)}")
    return [name for name in METHODS if name in names]


def _cell(task: str, law: str, method: str, peer: Peer | None, n: int, seed: int) -> ArrayCell:
    config: dict[str, Any] = {"law": law, "method": method, "samples": n, "seed": seed}
    if peer is None:
        config |= {"peer": None, "settings": METHODS[method].settings, "version": __version__}
    else:
        config |= {"peer": asdict(peer)}
    return ArrayCell(seed=seed, config=config, task=task, method=method, samples=n)

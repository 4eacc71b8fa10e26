"""The grid of the benchmark of minimization: methods x critic steps x seeds."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast, final, get_args

from lightning_mi import __version__
from lightning_mi.bench.benchmark_file import read_preset, read_record, replaced_note
from lightning_mi.bench.cells import Grid
from lightning_mi.bench.minimize.cell import MinimizeCell
from lightning_mi.bench.minimize.methods import METHODS, WITHOUT_CRITIC
from lightning_mi.bench.minimize.training import Settings
from lightning_mi.estimation.options import PLANS, Budget
from lightning_mi.exceptions import GridError
from lightning_mi.utilities.suggestions import did_you_mean


@final
@dataclass(frozen=True)
class MinimizeChoices:
    """Options of the command line that replace those of the preset.

    Attributes:
        seeds: Seeds; None means those of the preset.
        methods: Names of methods; None means those of the preset.
        critic_steps: Numbers of critic steps for each batch; None means those of the preset.
        audit: Budget of the audit; None means that of the preset.
    """

    seeds: list[int] | None = None
    methods: list[str] | None = None
    critic_steps: list[int] | None = None
    audit: str | None = None


@final
@dataclass(frozen=True)
class MinimizePreset:
    """Scope of a run.

    Attributes:
        seeds: Seeds of task, weights and batches.
        methods: Names of methods.
        critic_steps: Numbers of critic steps for each batch.
        audit: Budget of :func:`lightning_mi.estimate` after a training; None for no audit.
        note: Differences from the preset ``paper``; empty if there are none.
    """

    seeds: list[int]
    methods: list[str]
    critic_steps: list[int]
    audit: str | None = None
    note: str = ""


def load_minimize_grid(path: Path, preset: str, choices: MinimizeChoices) -> Grid[MinimizeCell]:
    """Expand the benchmark of minimization into its trainings.

    Args:
        path: The benchmark's YAML file.
        preset: One of its presets.
        choices: Options that replace those of the preset.

    Raises:
        GridError: If a preset, a method, a budget or a key is unknown, or a number of critic steps below 1.

    Example:
        >>> from lightning_mi.utilities.recipe_registry import find_file
        >>> choices = MinimizeChoices(methods=["none", "DV"], critic_steps=[5])
        >>> grid = load_minimize_grid(find_file("minimize", "benchmark").path, "quick", choices)
        >>> [cell.name for cell in grid.cells]
        ['none-seed0', 'DV-steps5-seed0']
    """
    document, chosen = read_preset(path, preset, MinimizePreset, keys=["training"])
    settings = read_record(Settings, document["training"], path.name)
    methods = _select_methods(choices.methods or chosen.methods)
    critic_steps = choices.critic_steps or chosen.critic_steps
    if min(critic_steps) < 1:
        raise GridError(f"Got {min(critic_steps)} critic steps: a critic takes at least 1 for each batch.")
    audit = choices.audit or chosen.audit
    if audit is not None and audit not in get_args(Budget):
        raise GridError(f"Got audit {audit!r}: the budgets of estimate are {', '.join(get_args(Budget))}.")
    cells = [
        _cell(method, steps, seed, settings, audit)
        for seed in (chosen.seeds if choices.seeds is None else choices.seeds)
        for method in methods
        for steps in ([None] if method in WITHOUT_CRITIC else dict.fromkeys(critic_steps))
    ]
    note = replaced_note(chosen.note, asdict(choices))
    return Grid(path.stem, preset, note, document["report"], cells, reference="preset paper")


def _select_methods(names: Sequence[str]) -> list[str]:
    """The methods in their order."""
    known = [*WITHOUT_CRITIC, *METHODS]
    if unknown := [name for name in names if name not in known]:
        suggestion = did_you_mean(unknown[0], known)
        raise GridError(f"Got method {unknown[0]!r}: the methods are {', '.join(known)}.{suggestion}")
    return [name for name in known if name in names]


def _cell(method: str, critic_steps: int | None, seed: int, settings: Settings, audit: str | None) -> MinimizeCell:
    config: dict[str, Any] = {
        "method": method,
        "penalty": None if method in WITHOUT_CRITIC else METHODS[method].settings,
        "critic_steps": critic_steps,
        "training": asdict(settings),
        "audit": audit,
        "plan": None if audit is None else repr(PLANS[cast("Budget", audit)]),
        "seed": seed,
        "version": __version__,
    }
    return MinimizeCell(seed=seed, config=config, method=method, critic_steps=critic_steps)

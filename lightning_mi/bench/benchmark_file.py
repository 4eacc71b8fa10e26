"""A benchmark's YAML file, read into records: presets, studies, losses."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar, final

from lightning_mi.bench.grid_file import read_mapping, unknown_choice
from lightning_mi.exceptions import GridError
from lightning_mi.utilities.suggestions import did_you_mean

_REQUIRED = {
    "recipe": "it names the recipe that every run trains, such as `recipe: gaussian`",
    "report": "it names the kind of tables and figures, such as `report: gaussian`",
    "presets": "it holds seeds and settings, by the name of a preset",
    "studies": "it holds settings of all losses, by the name of a study; `{plain: {}}` without any",
    "losses": "it lists the bounds",
}

Weight = float | list[float]  # lambda, or the values of a sweep
Overrides = dict[str, Any]  # dotted key of the recipe -> value


@final
@dataclass(frozen=True)
class Preset:
    """Scope of a benchmark run: seeds, losses, studies, variants and reduced settings.

    Attributes:
        seeds: Seeds of the weights and the data.
        note: Differences from the paper's settings; empty if there are none.
        overrides: Settings of the recipe that it replaces.
        losses: Names of its losses; None means all.
        studies: Names of its studies; None means all.
        variants: Its variants; None means all.
        weight: The regularizer's weight for losses without one.
    """

    seeds: list[int]
    note: str = ""
    overrides: Overrides = field(default_factory=dict)
    losses: list[str] | None = None
    studies: list[str] | None = None
    variants: list[str] | None = None
    weight: Weight | None = None


@final
@dataclass(frozen=True)
class Study:
    """One question that a benchmark answers: all losses under common settings.

    Attributes:
        overrides: Settings of the recipe that it replaces.
        losses: Names of its losses; None means all.
        variants: Its variants; None takes the variants of the preset.
        targets: Targets of the regularized variants, nats.
        weight: The regularizer's weight; None means that of the loss.
    """

    overrides: Overrides = field(default_factory=dict)
    losses: list[str] | None = None
    variants: list[str] | None = None
    targets: list[float] = field(default_factory=lambda: [0.0])
    weight: Weight | None = None


@final
@dataclass(frozen=True)
class PublishedForm:
    """A bound with its regularizer, as in the code that the paper's authors released.

    Attributes:
        bound: Class in ``lightning_mi.bounds``; None means that of the loss.
        bound_args: Its arguments.
        scale: Scale on which the regularizer measures the distance from the target.
        target: The regularizer's target; None means that of the study.
        weight: The regularizer's weight; None means that of the study or the loss.
    """

    bound: str | None = None
    bound_args: dict[str, Any] = field(default_factory=dict)
    scale: str = "log"
    target: float | None = None
    weight: Weight | None = None


@final
@dataclass(frozen=True)
class LossRow:
    """One line under ``losses``.

    Attributes:
        loss: Name of the loss.
        bound: Class in ``lightning_mi.bounds``.
        paper: Name in the paper; None for a loss that the paper does not have.
        original: Arguments of the bound without a regularizer.
        regularized: Arguments of the bound with a regularizer.
        published: The form of the released code; None if there is none.
        weight: The regularizer's weight; None means that of the preset.
        overrides: Settings of the recipe that it replaces.
        data_overrides: Further settings for single data sets.
    """

    loss: str
    bound: str
    paper: str | None
    original: dict[str, Any] = field(default_factory=dict)
    regularized: dict[str, Any] = field(default_factory=dict)
    published: PublishedForm | None = None
    weight: Weight | None = None
    overrides: Overrides = field(default_factory=dict)
    data_overrides: dict[str, Overrides] = field(default_factory=dict)


@final
@dataclass(frozen=True)
class Benchmark:
    """A benchmark's YAML file.

    Attributes:
        file: Name of the file, for messages.
        recipe: Name of the recipe, with ``{data}`` for the data set.
        report: Kind of report: its tables and figures.
        presets: Presets by name.
        studies: Studies by name.
        losses: The losses, in the order of the table.
        datasets: Names of the data sets that can be chosen; the first is the default.
    """

    file: str
    recipe: str
    report: str
    presets: dict[str, Preset]
    studies: dict[str, Study]
    losses: list[LossRow]
    datasets: list[str]

    def preset(self, name: str) -> Preset:
        """The preset called ``name``.

        Raises:
            GridError: If there is none.
        """
        if name not in self.presets:
            raise GridError(unknown_choice("preset", name, self.file, self.presets))
        return self.presets[name]

    def data(self, name: str | None) -> str | None:
        """The data set called ``name``; the first one for None.

        Raises:
            GridError: If there is none.
        """
        if name is not None and name not in self.datasets:
            raise GridError(unknown_choice("data", name, self.file, self.datasets or ["no choice of data"]))
        return name or next(iter(self.datasets), None)

    def select_losses(self, names: Sequence[str] | None) -> list[LossRow]:
        """The losses called ``names``, in the order of the file; all for None.

        Raises:
            GridError: If one is unknown.
        """
        known = [row.loss for row in self.losses]
        if unknown := sorted(set(names or ()) - set(known)):
            suggestions = "".join(did_you_mean(name, known) for name in unknown)
            raise GridError(f"Got losses {', '.join(unknown)}: {self.file} has {', '.join(known)}.{suggestions}")
        return [row for row in self.losses if not names or row.loss in names]


def read_benchmark(path: Path) -> Benchmark:
    """Read and check a benchmark's YAML file.

    Raises:
        GridError: If a key is unknown or missing.
    """
    document = read_mapping(path)
    check_keys(document, {"recipe", "datasets", *_REQUIRED}, path.name)
    for key, purpose in _REQUIRED.items():
        if key not in document:
            raise GridError(
                f"{path.name} has no key {key}: {purpose}. `lightning-mi cp bench/gaussian` copies an example."
            )
    datasets = document.get("datasets", [])
    return Benchmark(
        file=path.name,
        recipe=document["recipe"],
        report=document["report"],
        presets={name: read_record(Preset, entry, path.name) for name, entry in document["presets"].items()},
        studies={name: read_record(Study, entry, path.name) for name, entry in document["studies"].items()},
        losses=[_loss_row(entry, datasets, path.name) for entry in document["losses"]],
        datasets=datasets,
    )


def _loss_row(entry: Mapping[str, Any], datasets: Iterable[str], file: str) -> LossRow:
    check_keys(entry.get("data_overrides", {}), datasets, file)
    published = entry.get("published")
    record = None if published is None else read_record(PublishedForm, published, file)
    return read_record(LossRow, {"paper": entry.get("loss"), **entry, "published": record}, file)


class _Dataclass(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Any]]


_Record = TypeVar("_Record", bound=_Dataclass)


def read_record(kind: type[_Record], entry: Mapping[str, Any], file: str) -> _Record:
    """A dataclass from an entry of a benchmark's file.

    Raises:
        GridError: If a key is unknown or missing.
    """
    check_keys(entry, [attribute.name for attribute in fields(kind)], file)
    try:
        return kind(**entry)
    except TypeError as error:  # a required key is missing
        raise GridError(f"{file}: {error}.") from error


def check_keys(mapping: Mapping[str, Any], known: Iterable[str], file: str) -> None:
    """Check that a mapping of a benchmark's file has only known keys.

    Raises:
        GridError: If a key is unknown.
    """
    known = sorted(known)
    if unknown := sorted(set(mapping) - set(known)):
        suggestions = "".join(did_you_mean(key, known) for key in unknown)
        raise GridError(f"{file} has the unknown key {', '.join(unknown)}; known: {', '.join(known)}.{suggestions}")


def read_preset(
    path: Path, preset: str, kind: type[_Record], keys: Iterable[str] = ()
) -> tuple[dict[str, Any], _Record]:
    """The file of a benchmark without recipes, and one of its presets.

    Args:
        path: The file.
        preset: Name of the preset.
        kind: The dataclass of its presets.
        keys: Keys of the file beside ``report`` and ``presets``.

    Raises:
        GridError: If the preset or a key is unknown, or a key is missing.
    """
    document = read_mapping(path)
    check_keys(document, {"report", "presets", *keys}, path.name)
    presets = {name: read_record(kind, entry, path.name) for name, entry in document["presets"].items()}
    if preset not in presets:
        raise GridError(unknown_choice("preset", preset, path.name, presets))
    return document, presets[preset]


def replaced_note(note: str, choices: Mapping[str, Any]) -> str:
    """The note of a preset, with the names of the choices that replace its own.

    Example:
        >>> replaced_note("one seed", {"seeds": None, "methods": ["DV"]})
        'one seed; methods replaced on the command line'
    """
    if not (replaced := [name.replace("_", " ") for name, choice in choices.items() if choice]):
        return note
    return f"{f'{note}; ' if note else ''}{', '.join(replaced)} replaced on the command line"

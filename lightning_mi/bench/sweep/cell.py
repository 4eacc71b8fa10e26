"""A cell of a sweep: one training of a recipe with its values of the axes."""

import re
from dataclasses import dataclass
from typing import final

from lightning_mi.bench.cells import AbstractCell


@final
@dataclass(frozen=True)
class SweepCell(AbstractCell):
    """One training of a sweep.

    Attributes:
        seed: Seed of the weights and, if the data module has one, of the data.
        config: The whole training, in the form of ``lightning-mi fit --config``.
        recipe: Name of the recipe.
        settings: Values of the axes with several values, by column name.
    """

    recipe: str
    settings: dict[str, str]

    @property
    def kind(self) -> str:
        """The cell's name without its seed: what differs between the runs.

        Example:
            >>> SweepCell(0, {}, "supervised/digits", {"bound": "NWJ", "hidden": "[64,64]"}).kind
            'bound=NWJ,hidden=_64_64_'
        """
        text = ",".join(f"{label}={_file_name(value)}" for label, value in self.settings.items())
        return text or _file_name(self.recipe)


def _file_name(text: str) -> str:
    return re.sub(r"[^\w.+-]+", "_", text)

"""docs/many_critics.md: its example runs, at a smaller size."""

import re

import pytest

from tests.helpers.paths import ROOT

PAGE = (ROOT / "docs" / "many_critics.md").read_text(encoding="utf-8")


@pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers")
def test_example_runs():
    [example] = re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)
    names: dict[str, object] = {}
    example = example.replace("steps_per_mi=200", "steps_per_mi=4").replace(
        "limit_val_batches=10", "limit_val_batches=1"
    )
    example = example.replace("range(5)", "range(2)").replace("seed 3", "seed 1")
    exec(example.replace("log_every_n_steps=50", "log_every_n_steps=2"), names)
    assert len(names["ensemble"].members) == 24  # type: ignore[attr-defined]

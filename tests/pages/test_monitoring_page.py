"""docs/monitoring.md: its example for any module is short, its defaults are the code's."""

import re
from inspect import signature

import pytest
import torch

from lightning_mi.callbacks import AdaptiveRegularizer, StabilityMonitor
from lightning_mi.callbacks.stability import criteria
from tests.helpers.page_files import run_block
from tests.helpers.paths import ROOT

PAGE = (ROOT / "docs" / "monitoring.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)


def test_any_module_needs_at_most_five_lines():
    [example] = [block for block in BLOCKS if "class MyMI(" in block]
    assert 1 <= example.count("# for the monitor") <= 5


def test_defaults_equal_those_in_the_text():
    text = " ".join(PAGE.split())
    for name in ("window", "every_n_steps", "min_rate", "alpha", "max_roll_backs", "raise_by"):
        assert f"`{name}={signature(StabilityMonitor).parameters[name].default:g}`" in text, name
    for name in ("raise_by", "relax_by"):
        assert f"`{name}={signature(AdaptiveRegularizer).parameters[name].default:g}`" in text, name
    for number in (criteria.SATURATED, criteria.EXCESS, criteria.FEW_PAIRS, criteria.PUSH):
        assert f"{number:.3g}" in text


@pytest.fixture(scope="module")
def warnings_of_the_toy(tmp_path_factory):
    torch.manual_seed(0)
    return run_block(toy(), tmp_path_factory.mktemp("toy"))[1]


def toy():
    [block] = [block for block in BLOCKS if "OneHotDataModule" in block]
    return block


def test_the_drift_shown_is_warned_of_as_quoted(warnings_of_the_toy):
    [warning] = warnings_of_the_toy
    [quoted] = [
        " ".join(text.split()) for text in re.findall(r"^```text\n(Step.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)
    ]
    number = r"-?\d+(?:\.\d+)?"
    assert re.sub(number, "#", warning) == re.sub(number, "#", quoted)
    for text in (warning, quoted):
        step, rate = map(float, re.search(rf"Step ({number}): .* drift by ({number}) nats", text).groups())
        assert 1200 <= step <= 1500  # seeds 0, 101, 102, 103: 1300 to 1400
        assert -2.5 < rate < -0.7  # -1.6 to -1.1


@pytest.mark.slow
def test_with_the_remedy_no_warning_comes(warnings_of_the_toy, tmp_path):
    [warning] = warnings_of_the_toy
    remedy = re.search(r"add `(regularizers\.\w+\(weight=[\d.]+\))`", warning).group(1)
    assert f"With `regularizer={remedy}` no warning comes." in PAGE
    fixed = toy().replace("    bound=", f"    regularizer={remedy},\n    bound=")
    assert run_block(f"from lightning_mi import regularizers\n{fixed}", tmp_path)[1] == []

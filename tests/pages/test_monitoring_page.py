"""docs/monitoring.md: its example for any module is short, its defaults are the code's."""

import re
from inspect import signature

from lightning_mi.callbacks import AdaptiveRegularizer, StabilityMonitor
from lightning_mi.callbacks.stability import criteria
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

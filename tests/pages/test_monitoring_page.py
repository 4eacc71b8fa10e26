"""What docs/monitoring.md says of defaults and of modules of one's own holds."""

import re
from inspect import signature

from lightning_mi.callbacks import AdaptiveRegularizer, StabilityMonitor
from lightning_mi.callbacks.stability import criteria as verdicts
from tests.helpers.paths import ROOT

PAGE = (ROOT / "docs" / "monitoring.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)


def test_a_module_of_ones_own_takes_five_lines():
    [own] = [block for block in BLOCKS if "class MyMI(" in block]
    assert 1 <= own.count("# for the monitor") <= 5


def test_the_defaults_are_those_in_the_text():
    text = " ".join(PAGE.split())
    for name in ("window", "every_n_steps", "min_rate", "alpha", "max_roll_backs", "raise_by"):
        assert f"`{name}={signature(StabilityMonitor).parameters[name].default:g}`" in text, name
    for name in ("raise_by", "relax_by"):
        assert f"`{name}={signature(AdaptiveRegularizer).parameters[name].default:g}`" in text, name
    for number in (verdicts.SATURATED, verdicts.EXCESS, verdicts.FEW_PAIRS, verdicts.PUSH):
        assert f"{number:.3g}" in text

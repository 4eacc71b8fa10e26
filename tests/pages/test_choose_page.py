"""docs/choose.md and docs/start.md: the table of bounds equals the declarations, the score matrix reads the truth."""

import re

import torch

from lightning_mi import bounds
from tests.helpers.page_files import read_estimate, run_block
from tests.helpers.paths import ROOT

CHOOSE = (ROOT / "docs" / "choose.md").read_text(encoding="utf-8")
START = (ROOT / "docs" / "start.md").read_text(encoding="utf-8")


def test_the_table_of_bounds_equals_the_declarations():
    table = CHOOSE.partition("\n## Which bound\n\n")[2].partition("\n\n")[0]
    header, _, *body = [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in table.splitlines()]
    yes_or_no = {"yes": True, "no": False}
    assert len(body) >= 7
    for cells in body:
        row = dict(zip(header, cells, strict=True))
        bound = getattr(bounds, row["bound"])
        assert yes_or_no[row["lower bound"]] == bound.is_lower_bound
        assert yes_or_no[row["ceiling log N"]] == bound.capped_at_log_n
        assert yes_or_no[row["self-normalized"]] == bound.self_normalized


def test_the_score_matrix_shown_reads_the_truth(tmp_path):
    torch.manual_seed(0)
    [block] = re.findall(r"^```python\n((?:(?!```).)*log_ratio_matrix.*?)^```$", START, flags=re.DOTALL | re.MULTILINE)
    estimate, truth = read_estimate(run_block(block, tmp_path)[0])
    assert truth == 2.0
    assert abs(estimate - truth) < 0.2  # four standard deviations of one batch

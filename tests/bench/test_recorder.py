"""Rows recorded at every step."""

import torch

from lightning_mi.bench.recorder import RowBuffer


def test_rows_of_several_chunks_are_stacked_in_order() -> None:
    rows, buffer = torch.randn(2500, 3), RowBuffer()
    for row in rows:
        buffer.append(row)
    assert torch.equal(buffer.stack(), rows)

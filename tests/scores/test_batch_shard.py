"""Differentiable all-gather of rows: order, dtypes, and gradients summed over ranks."""

import pytest
import torch

from lightning_mi.scores.batch_shard import gather, shard_of
from lightning_mi.utilities.distributed import all_gather_ints
from tests.helpers.processes import on_processes

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


def _gathered(rank):
    rows = torch.full((rank, 2), float(rank), dtype=torch.bfloat16, requires_grad=True)
    shard = shard_of([count for (count,) in all_gather_ints([rank], torch.device("cpu"))])
    gathered = shard.gather(rows)
    weights = torch.arange(6.0).view(3, 2) * (rank + 1)
    (gathered * weights).sum().backward()
    stacked = gather(torch.tensor(float(rank), requires_grad=True))
    return gathered.detach(), rows.grad, shard.start, stacked.detach()


def test_rows_keep_rank_order_and_sum_their_gradients(tmp_path):
    for rank, (gathered, gradient, start, stacked) in enumerate(on_processes(_gathered, 3, tmp_path)):
        assert gathered.tolist() == [[1.0, 1.0], [2.0, 2.0], [2.0, 2.0]]
        assert gathered.dtype == gradient.dtype == torch.bfloat16
        assert start == max(0, rank - 1)
        assert gradient.tolist() == (6 * torch.arange(6.0).view(3, 2))[start : start + rank].tolist()
        assert stacked.tolist() == [0.0, 1.0, 2.0]


def _side_by_side(rank):
    counts = (2, 0, 3)
    shard = shard_of(counts)
    start, stop = shard.start, shard.start + counts[rank]
    whole = (
        torch.arange(10.0, dtype=torch.float64).view(5, 2),
        torch.tensor([2**62 + 1, -7, 0, 5, 2**53 + 1]),
        torch.arange(30.0).view(5, 3, 2).transpose(1, 2).to(torch.bfloat16),
    )
    local = [part[start:stop].clone() for part in whole]
    local = [part.requires_grad_() if part.is_floating_point() else part for part in local]
    first, labels, last = shard.gather_all(*local)
    same = all(torch.equal(a, b) for a, b in zip((first, labels, last), whole, strict=True))
    (first.square().sum() * (rank + 1)).backward()
    expected = 2 * 6 * whole[0][start:stop]
    return same, labels.requires_grad, local[0].grad, expected, local[2].grad


def test_tensors_of_any_dtype_share_one_collective(tmp_path):
    for same, differentiable, gradient, expected, unused in on_processes(_side_by_side, 3, tmp_path):
        assert same
        assert not differentiable
        torch.testing.assert_close(gradient, expected, rtol=0, atol=0)
        assert unused is None


def _transposed(rank):
    rows = (torch.arange(6.0).view(3, 2).T + 10 * rank).requires_grad_()
    gathered = shard_of([2, 2]).gather(rows)
    (gathered.T @ torch.arange(4.0)).sum().backward()
    return gathered.detach(), rows.grad


def test_rows_that_are_not_contiguous_are_gathered(tmp_path):
    for rank, (gathered, gradient) in enumerate(on_processes(_transposed, 2, tmp_path)):
        rows = torch.arange(6.0).view(3, 2).T
        assert torch.equal(gathered, torch.cat([rows, rows + 10]))
        assert gradient.tolist() == [[4.0 * rank] * 3, [4.0 * rank + 2] * 3]


class _NoGradient(torch.autograd.Function):
    """A sum whose backward returns no gradient at all."""

    @staticmethod
    def forward(ctx, x):
        return x.sum()

    @staticmethod
    def backward(ctx, gradient):
        return None


def _one_rank_without_gradient(rank):
    rows = torch.ones(2, 3, requires_grad=True)
    gathered = shard_of((2, 2)).gather(rows)
    (gathered.sum() if rank == 0 else _NoGradient.apply(gathered)).backward()
    return rows.grad


def test_rank_without_gradient_takes_part_in_backward(tmp_path):
    for gradient in on_processes(_one_rank_without_gradient, 2, tmp_path):
        assert torch.equal(gradient, torch.ones(2, 3))


def _double_backward(rank):
    x = torch.ones(2, requires_grad=True)
    (gradient,) = torch.autograd.grad(gather(x).square().sum(), x, create_graph=True)
    try:
        gradient.sum().backward()
    except RuntimeError as error:
        return str(error)
    return ""


def test_double_backward_over_ranks_is_an_error(tmp_path):
    assert all("once_differentiable" in message for message in on_processes(_double_backward, 2, tmp_path))

"""TimeSteps: contexts against representations some steps later."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from lightning_mi import bounds, critics, pairs
from lightning_mi.scores.tiled import TiledMarginals
from tests.helpers.gaussian_critic import Exact
from tests.helpers.pairs_by_definition import Positions, decode
from tests.helpers.row_loops import infonce

N, T = 3, 5


def views(num_predictions=None, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (N, T, 2) if num_predictions is None else (N, T, num_predictions, 2)
    context = torch.randn(shape, generator=generator, dtype=torch.float64)
    future = torch.randn(N, T, 2, generator=generator, dtype=torch.float64)
    return context.requires_grad_(), future.requires_grad_()


def pairs_by_loops(offsets, same_sequence):
    """(row, future) by (sequence, time), for joint and marginal pairs; one row for each context and offset."""
    joint, marginal = [], []
    for k in offsets:
        for n in range(N):
            for t in range(T - k):
                joint.append(((n, t, k), (n, t + k)))
                for m in range(N):
                    for s in range(min(offsets), T):
                        if m != n or (same_sequence and s != t + k):
                            marginal.append(((n, t, k), (m, s)))
    return joint, marginal


@pytest.mark.parametrize("same_sequence", [False, True])
@pytest.mark.parametrize("offsets", [(0,), (2,), (1, 3)])
def test_pairs_equal_loops_over_sequences_and_times(offsets, same_sequence):
    numbers = torch.arange(float(N * T)).view(N, T, 1)
    scores = pairs.TimeSteps(offsets, same_sequence=same_sequence)(Positions(), numbers, numbers)
    joint, marginal = pairs_by_loops(offsets, same_sequence)

    def number(found):
        return sorted((n * T + t, m * T + s) for (n, t, _), (m, s) in found)

    assert sorted(decode(scores.joint)) == number(joint)
    assert sorted(decode(scores.marginal_values())) == number(marginal)
    assert (scores.num_joint, scores.num_marginal) == (len(joint), len(marginal))
    assert scores.num_candidates == 1 + len(marginal) // len(joint)


@pytest.mark.parametrize(("offsets", "num_predictions"), [((2,), None), ((1, 3), None), ((3, 1), 2)])
def test_loss_and_gradients_equal_loops(offsets, num_predictions):
    context, future = views(num_predictions)
    loss = -bounds.InfoNCE()(pairs.TimeSteps(offsets)(critics.InnerProductCritic(), context, future)).objective
    loss.backward()
    joint, marginal = pairs_by_loops(offsets, same_sequence=False)
    z = [(n, t) for n in range(N) for t in range(T)]

    def at(n, t, k):
        return (n, t) if num_predictions is None else (n, t, offsets.index(k))

    x = np.array([context.detach().numpy()[at(*row)] for row, _ in joint])
    y = np.array([future.detach().numpy()[place] for place in z])
    rows = [(i, z.index(to), [z.index(m) for r, m in marginal if r == row]) for i, (row, to) in enumerate(joint)]
    expected = infonce(x, y, rows)
    d_context = np.zeros(context.shape)
    for (row, _), gradient in zip(joint, expected.x, strict=True):
        d_context[at(*row)] += gradient
    assert loss.item() == pytest.approx(expected.loss, abs=1e-12)
    np.testing.assert_allclose(context.grad.numpy(), d_context, atol=1e-12)
    np.testing.assert_allclose(future.grad.numpy().reshape(N * T, 2), expected.y, atol=1e-12)


def test_one_prediction_for_each_offset_is_one_bilinear_form_for_each():
    """Scores of Linear + inner product equal those of a BilinearCritic for each offset."""
    context, future = (view.detach() for view in views())
    predict = nn.Linear(2, 2 * 2, bias=False).double()
    predictions = predict(context).unflatten(-1, (2, 2))
    scores = pairs.TimeSteps((1, 2))(critics.InnerProductCritic(), predictions, future)
    expected = []
    for index, offset in enumerate((1, 2)):
        critic = critics.BilinearCritic(2, 2).double()
        critic.weight.data = predict.weight.detach()[2 * index : 2 * index + 2].T
        expected.append(pairs.TimeSteps(offset)(critic, context, future).joint)
    torch.testing.assert_close(scores.joint, torch.cat(expected))


@pytest.mark.parametrize("same_sequence", [False, True])
@pytest.mark.parametrize("bound", [bounds.DV(), bounds.InfoNCE(), bounds.DCL(), bounds.JS()], ids=str)
def test_tiled_equals_dense(bound, same_sequence):
    results = []
    for tile_bytes in (200, math.inf):
        context, future = views()
        pairing = pairs.TimeSteps((1, 2), same_sequence=same_sequence, tile_bytes=tile_bytes)
        scores = pairing(critics.InnerProductCritic(), context, future)
        terms = bound(scores)
        values = scores.marginal_values().sort().values.detach()
        results.append((torch.stack(terms), values, *torch.autograd.grad(terms.objective, [context, future])))
        assert isinstance(scores._layout.marginals, TiledMarginals) == (tile_bytes == 200)
    for tiled, dense in zip(*results, strict=True):
        torch.testing.assert_close(tiled, dense, rtol=0, atol=1e-12)


def autoregression(num_sequences, num_times, rho, seed):
    """A stationary Gaussian autoregression of order 1 with unit variance, (N, T, 1)."""
    noise = torch.randn(num_sequences, num_times, generator=torch.Generator().manual_seed(seed))
    steps = [noise[:, 0]]
    for t in range(1, num_times):
        steps.append(rho * steps[-1] + math.sqrt(1 - rho**2) * noise[:, t])
    return torch.stack(steps, dim=1).unsqueeze(-1)


def read(offset, same_sequence, rho=0.9):
    """DV by the exact critic on 40 batches of 60 sequences."""
    pairing, values = pairs.TimeSteps(offset, same_sequence=same_sequence), []
    for seed in range(40):
        z = autoregression(60, 12, rho, seed)
        values.append(bounds.DV()(pairing(Exact(rho**offset), z, z)).value)
    return torch.stack(values)


@pytest.mark.parametrize("offset", [1, 3])
def test_estimate_is_the_information_of_the_future(offset):
    values = read(offset, same_sequence=False)
    truth = -0.5 * math.log(1 - 0.9 ** (2 * offset))
    assert values.std() / 40**0.5 < 0.02
    assert values.mean().item() == pytest.approx(truth, abs=0.03)


def test_times_of_the_same_sequence_lower_the_estimate():
    differences = read(1, same_sequence=True) - read(1, same_sequence=False)
    assert differences.mean() < -10 * differences.std() / 40**0.5


@pytest.mark.parametrize(
    ("offsets", "context", "future", "message"),
    [
        (5, (4, 5, 2), (4, 5, 2), r"^Got offset 5 and sequences of 5 times: .* Choose an offset below T"),
        ((1, 2), (4, 5, 3, 2), (4, 5, 2), r"^Got a context of shape \(4, 5, 3, 2\) .*\(N, T, 2, D\)"),
        (1, (4, 5, 2), (4, 6, 2), r"^Got a context of shape \(4, 5, 2\).* with the same T"),
        (1, (4, 2), (4, 2), r"^Got a context of shape \(4, 2\)"),
        (1, (4, 5, 2), (3, 5, 2), r"^Got 4 x and 3 y"),
        (1, (1, 5, 2), (1, 5, 2), r"^Got a batch of 1"),
    ],
)
def test_wrong_shapes_raise(offsets, context, future, message):
    with pytest.raises(ValueError, match=message):
        pairs.TimeSteps(offsets)(critics.InnerProductCritic(), torch.ones(context), torch.ones(future))


@pytest.mark.parametrize(
    ("offsets", "error", "message"),
    [
        (-1, ValueError, r"^Got offset=-1: it must be at least 0"),
        (1.0, TypeError, r"^Got offset=1\.0, a float"),
        ((), ValueError, r"^Got offsets=\(\): they are one or more"),
        ([1, 1], ValueError, r"^Got offsets=\(1, 1\): .* different"),
    ],
)
def test_invalid_offsets_raise(offsets, error, message):
    with pytest.raises(error, match=message):
        pairs.TimeSteps(offsets)


def test_true_value_is_unknown():
    assert pairs.TimeSteps(1).true_value(object(), bounds.DV()) is None

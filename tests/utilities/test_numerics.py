"""Exponentials and logarithms of scores, against SciPy."""

import math

import numpy as np
import pytest
import torch
from scipy.special import logsumexp, softmax

from lightning_mi.utilities.numerics import (
    disable_finite_checks,
    exp_linear,
    finite_checks_enabled,
    full_precision,
    log_ema,
    log_mean_exp,
    row_softmax,
    shifted_exp,
    to_common_scale,
    upcast,
)

FAR = [0.0, -1e4, 1e6, 1e30]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64], ids=str)
def test_upcast_widens_and_never_narrows(dtype: torch.dtype) -> None:
    x = torch.tensor([0.1, 1e4], dtype=dtype)
    assert upcast(x).dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert torch.equal(upcast(x).double(), x.double())


def test_full_precision_disables_autocast_within() -> None:
    weight, x = torch.tensor([[1 + 2**-20]]), torch.ones(1, 1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with full_precision("cpu"):
            assert torch.nn.functional.linear(x, weight).dtype == torch.float32
            assert torch.nn.functional.linear(x, weight) == weight
        assert torch.nn.functional.linear(x, weight).dtype == torch.bfloat16


@pytest.mark.parametrize("shape", [(1,), (2, 3, 4)])
def test_log_mean_exp_equals_scipy(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, dtype=torch.float64) * 5
    expected = logsumexp(x.numpy()) - math.log(x.numel())
    assert log_mean_exp(x, count=x.numel()).item() == pytest.approx(expected, abs=1e-13)


@pytest.mark.parametrize("dim", [0, 1])
def test_log_mean_exp_along_a_dimension_equals_a_loop(dim: int) -> None:
    x, mask = torch.randn(6, 6, dtype=torch.float64) * 5, (torch.rand(6, 6) < 0.5).fill_diagonal_(True)
    observed = log_mean_exp(x, mask, count=mask.sum(dim), dim=dim)
    for i in range(6):
        used = x.select(1 - dim, i)[mask.select(1 - dim, i)].numpy()
        assert observed[i].item() == pytest.approx(logsumexp(used) - math.log(len(used)), abs=1e-13)


def test_log_mean_exp_divides_by_the_count_it_is_given() -> None:
    x = torch.randn(4, dtype=torch.float64)
    assert log_mean_exp(x, count=8).item() == pytest.approx(logsumexp(x.numpy()) - math.log(8))


@pytest.mark.parametrize("masked", [1e30, math.inf, math.nan])
def test_masked_entries_have_no_weight_and_no_gradient(masked: float) -> None:
    x, mask = torch.randn(4, 4, dtype=torch.float64), torch.rand(4, 4) < 0.6
    spoiled = x.masked_fill(~mask, masked).requires_grad_()
    observed = log_mean_exp(spoiled, mask, count=int(mask.sum()))
    observed.backward()
    used = x[mask].numpy()
    assert observed.item() == pytest.approx(logsumexp(used) - math.log(len(used)), abs=1e-13)
    assert spoiled.grad is not None
    assert (spoiled.grad[~mask] == 0).all()
    np.testing.assert_allclose(spoiled.grad[mask].numpy(), softmax(used), rtol=1e-12)


@pytest.mark.parametrize("dim", [None, 1], ids=["everything", "rows"])
@pytest.mark.parametrize("far", FAR)
def test_log_mean_exp_is_exact_far_from_zero(far: float, dim: int | None) -> None:
    x = (torch.randn(4, 8) + far).requires_grad_()
    observed = log_mean_exp(x, count=32 if dim is None else 8, dim=dim)
    observed.sum().backward()
    exact = x.detach().double().numpy()
    expected = logsumexp(exact, axis=dim) - math.log(32 if dim is None else 8)
    np.testing.assert_allclose(observed.detach().numpy(), expected, rtol=2e-7, atol=1e-6)
    np.testing.assert_allclose(x.grad.numpy(), softmax(exact, axis=dim), rtol=1e-5)


@pytest.mark.parametrize("dim", [None, 1], ids=["everything", "rows"])
@pytest.mark.parametrize("far", FAR)
def test_weighted_log_mean_exp_is_exact_far_from_zero(far: float, dim: int | None) -> None:
    x, weights = (torch.randn(4, 8) + far).requires_grad_(), torch.rand(8) * (torch.arange(8) != 2)
    observed = log_mean_exp(x, count=3, dim=dim, log_weights=weights.log())
    observed.sum().backward()
    exact, b = x.detach().double().numpy(), np.broadcast_to(weights.double().numpy(), (4, 8))
    expected = logsumexp(exact, b=b, axis=dim) - math.log(3)
    np.testing.assert_allclose(observed.detach().numpy(), expected, rtol=2e-7, atol=1e-6)
    slopes = b * softmax(exact, axis=dim)
    np.testing.assert_allclose(x.grad.numpy(), slopes / slopes.sum(axis=dim, keepdims=True), rtol=1e-5)
    assert x.grad is not None
    assert (x.grad[:, 2] == 0).all()


def test_score_of_weight_zero_has_no_effect() -> None:
    x = torch.tensor([3.0, 1e30, 3.0])
    observed = log_mean_exp(x, count=1, log_weights=torch.tensor([0.25, 0.0, 0.75]).log())
    assert observed.item() == pytest.approx(3.0)


def test_log_mean_exp_of_infinities_is_their_limit() -> None:
    assert log_mean_exp(torch.tensor([0.0, math.inf]), count=2) == math.inf
    assert log_mean_exp(torch.tensor([-math.inf, -math.inf]), count=2) == -math.inf
    assert log_mean_exp(torch.tensor([0.0, -math.inf]), count=2).item() == pytest.approx(-math.log(2))
    assert log_mean_exp(torch.tensor([0.0, math.nan]), count=2).isnan()


@pytest.mark.parametrize("cap", [None, 0.0, 1.0])
def test_exp_linear_is_the_exponential_then_its_tangent(cap: float | None) -> None:
    x = torch.tensor([-1e4, -3.0, 0.0, 0.999, 1.0, 1.001, 4.0, 6.5], dtype=torch.float64, requires_grad=True)
    y = exp_linear(x, cap)
    y.sum().backward()
    for value, observed, slope in zip(x.tolist(), y.tolist(), x.grad.tolist(), strict=True):
        straight = cap is not None and value > cap
        assert observed == pytest.approx(math.exp(cap) * (1 + value - cap) if straight else math.exp(value), rel=1e-14)
        assert slope == pytest.approx(math.exp(cap) if straight else math.exp(value), rel=1e-14)


def test_exp_linear_is_never_above_the_exponential() -> None:
    x = torch.linspace(-3, 6, 200, dtype=torch.float64)
    assert (exp_linear(x, 1.0) <= x.exp() * (1 + 1e-15)).all()


@pytest.mark.parametrize("size", [1e30, math.inf])
def test_exp_linear_does_not_overflow_before_its_argument(size: float) -> None:
    x = torch.tensor([size, -size], requires_grad=True)
    y = exp_linear(x, 1.0)
    y.sum().backward()
    torch.testing.assert_close(y.detach(), torch.tensor([math.e * size, 0.0]))
    torch.testing.assert_close(x.grad, torch.tensor([math.e, 0.0]))


@pytest.mark.parametrize(("average", "new", "rate"), [(1.0, -2.0, 0.01), (-1e4, 1e4, 0.5), (1e4, -1e4, 0.01)])
def test_log_ema_is_the_logarithm_of_the_average(average: float, new: float, rate: float) -> None:
    expected = logsumexp([average, new], b=[1 - rate, rate])
    observed = log_ema(torch.tensor(average, dtype=torch.float64), torch.tensor(new, dtype=torch.float64), rate)
    assert observed.item() == pytest.approx(expected, rel=1e-14, abs=1e-14)


def test_common_scale_keeps_sums_and_ignores_empty_ones() -> None:
    scales = torch.tensor([[3.0, 1e4, -math.inf], [1.0, 1e4 - 2, -math.inf], [-math.inf, -1e4, -math.inf]]).double()
    common, factors = to_common_scale(scales)
    np.testing.assert_array_equal(common.numpy(), scales.numpy().max(axis=0))
    np.testing.assert_allclose(factors[:, :2].numpy(), np.exp((scales - common)[:, :2].numpy()), rtol=1e-14)
    assert (factors[:, 2] == 0).all()


def test_row_softmax_handles_empty_and_infinite_rows() -> None:
    x = torch.tensor([[1.0, 3.0, -math.inf], [-math.inf] * 3, [0.0, math.inf, 0.0], [1e4, 1e4, 0.0]])
    out = torch.empty(4, 3)
    weights, maximum, total = row_softmax(x, out)
    assert weights is out
    np.testing.assert_allclose(weights[[0, 1, 3]], [[*softmax([1.0, 3.0]), 0.0], [0.0] * 3, [0.5, 0.5, 0.0]], rtol=1e-6)
    assert maximum.tolist() == [3.0, -math.inf, math.inf, 1e4]
    assert total.tolist() == pytest.approx([1 + math.exp(-2), 0.0, 1.0, 2.0])


@pytest.mark.parametrize("anchor", [1e4, math.inf, -math.inf])
def test_shifted_exp_writes_to_out(anchor: float) -> None:
    x = torch.tensor([1e4, 0.0, -math.inf]) - (0 if math.isfinite(anchor) else 1e4 - 1)
    expected = np.exp(x.double().numpy() - (anchor if math.isfinite(anchor) else 0))
    out = torch.empty(3)
    assert shifted_exp(x, torch.tensor(anchor), out) is out
    np.testing.assert_allclose(out, expected, rtol=1e-6)
    assert torch.equal(shifted_exp(x, torch.tensor(anchor)), out)


def test_finite_checks_can_be_disabled() -> None:
    assert finite_checks_enabled()
    with disable_finite_checks():
        assert not finite_checks_enabled()
    assert finite_checks_enabled()

"""TUBA: constant and learned baselines, and its relation to NWJ."""

import copy
import math

import pytest
import torch
from torch import nn

from lightning_mi import Scores, bounds
from tests.helpers.specs import LEARNED_BIAS, LEARNED_WEIGHT

T = torch.randn(6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
Y = torch.randn(6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(5))


class Output(nn.Module):
    """A baseline that returns a fixed tensor."""

    def __init__(self, output: torch.Tensor) -> None:
        super().__init__()
        self.output = nn.Parameter(output)

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        return self.output


def gradient_of_objective(bound: bounds.AbstractBound, t: torch.Tensor) -> torch.Tensor:
    t = t.clone().requires_grad_()
    bound(Scores.from_matrix(t)).objective.backward()
    assert t.grad is not None
    return t.grad


@pytest.mark.parametrize("cap", [None, 0.0, 1.0])
def test_baseline_e_is_nwj(cap: float | None) -> None:
    tuba, nwj = bounds.TUBA(baseline=math.e, cap=cap), bounds.NWJ(cap=cap)
    for mean in (-1.0, 5.0):  # below and above the cap
        terms, expected = (tuple(bound(Scores.from_matrix(T + mean))) for bound in (tuba, nwj))
        torch.testing.assert_close(terms, expected, rtol=1e-13, atol=1e-13)
        torch.testing.assert_close(gradient_of_objective(tuba, T + mean), gradient_of_objective(nwj, T + mean))


@pytest.mark.parametrize("bound", [bounds.NWJ(), bounds.TUBA(), bounds.TUBA(2.5)], ids=["NWJ", "TUBA", "TUBA(2.5)"])
def test_cap_limits_the_gradient_but_not_the_value(bound: bounds.NWJ | bounds.TUBA) -> None:
    literal = copy.deepcopy(bound)
    literal.cap = None
    t = T + 9.0
    terms, expected = bound(Scores.from_matrix(t)), literal(Scores.from_matrix(t))
    assert terms.value == expected.value == expected.objective < terms.objective
    assert gradient_of_objective(bound, t).sum().item() == pytest.approx(1 - math.e)


def test_learned_baseline_gets_the_gradient_of_the_objective() -> None:
    baseline = nn.Linear(2, 1).double()
    bound = bounds.TUBA(baseline, cap=None)
    bound(Scores.from_matrix(T, y=Y)).objective.backward()
    # Minus the mean over joint pairs, plus e^ell times the mean over marginal pairs, weighted by their softmax.
    off_diagonal = ~torch.eye(6, dtype=torch.bool)
    with torch.no_grad():
        ratio = (T - baseline(Y).T).exp().masked_fill(~off_diagonal, 0.0) / off_diagonal.sum()
        by_candidate = ratio.sum(dim=0) - 1 / 6
    torch.testing.assert_close(baseline.weight.grad, (by_candidate @ Y)[None])
    torch.testing.assert_close(baseline.bias.grad, by_candidate.sum()[None])


def test_baseline_without_parameters_is_a_function_of_the_candidates() -> None:
    class Sum(nn.Module):
        def forward(self, y: torch.Tensor) -> torch.Tensor:
            return y.sum(dim=1)

    expected = bounds.TUBA(1.0)(Scores.from_matrix(T - Y.sum(dim=1)))
    torch.testing.assert_close(tuple(bounds.TUBA(Sum())(Scores.from_matrix(T, y=Y))), tuple(expected))


def test_learned_baseline_is_in_the_state_dict(tmp_path) -> None:
    bound, other = bounds.TUBA(nn.Linear(2, 1).double()), bounds.TUBA(nn.Linear(2, 1).double())
    assert set(bound.state_dict()) == {"baseline.weight", "baseline.bias"}
    torch.save(bound.state_dict(), tmp_path / "bound.pt")
    other.load_state_dict(torch.load(tmp_path / "bound.pt", weights_only=True))
    scores = Scores.from_matrix(T, y=Y)
    assert other(scores).value == bound(scores).value


def test_learned_constant_equals_the_constant() -> None:
    learned = bounds.TUBA(Output(torch.full((6, 1), math.log(2.5), dtype=torch.float64)))
    terms = learned(Scores.from_matrix(T, y=Y))
    torch.testing.assert_close(tuple(terms), tuple(bounds.TUBA(2.5)(Scores.from_matrix(T))), rtol=1e-13, atol=1e-13)


def test_baseline_may_return_a_column_or_a_vector() -> None:
    log_a = Y @ torch.tensor(LEARNED_WEIGHT) + LEARNED_BIAS
    readings = [bounds.TUBA(Output(output))(Scores.from_matrix(T, y=Y)) for output in (log_a, log_a[:, None])]
    assert readings[0] == readings[1]


def test_labels_can_be_candidates() -> None:
    class LabelBaseline(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.log_a = nn.Embedding(6, 1)

        def forward(self, labels: torch.Tensor) -> torch.Tensor:
            return self.log_a(labels)

    baseline = LabelBaseline()
    bound = bounds.TUBA(baseline)
    labels = torch.arange(6)
    log_a = baseline(labels)[:, 0].detach().double()
    terms = bound(Scores.from_matrix(T, y=labels))
    expected = bounds.TUBA()(Scores.from_matrix(T - log_a))
    torch.testing.assert_close(tuple(terms), tuple(expected), rtol=1e-12, atol=1e-12)


def test_half_precision_candidates_are_converted_for_the_baseline() -> None:
    bound = bounds.TUBA(nn.Linear(2, 1))
    y = Y.to(torch.bfloat16)
    terms = bound(Scores.from_matrix(T.float(), y=y))
    assert terms == bound(Scores.from_matrix(T.float(), y=y.float()))


def test_half_precision_baseline_gives_float32_terms() -> None:
    bound = bounds.TUBA(nn.Linear(2, 1)).to(torch.bfloat16)
    terms = bound(Scores.from_matrix(T.to(torch.bfloat16), y=Y.float()))
    assert {term.dtype for term in terms} == {torch.float32}


def test_learned_baseline_without_candidates_is_an_error() -> None:
    with pytest.raises(ValueError, match="Got scores without candidates `y`"):
        bounds.TUBA(nn.Linear(2, 1))(Scores.from_matrix(T.float()))


def test_baseline_of_another_shape_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"Got a baseline of shape \(6, 3\) .* one log a\(y\) for each"):
        bounds.TUBA(nn.Linear(2, 3).double())(Scores.from_matrix(T, y=Y))

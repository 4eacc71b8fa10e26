"""MINE's moving average: its value, when it is updated, and its state."""

import numpy as np
import pytest
import torch
from scipy.special import logsumexp

from lightning_mi import Scores, bounds

BATCHES = [np.random.default_rng(seed).normal(mean, 1.0, (5, 5)) for seed, mean in enumerate([0.0, 3.0, -2.0, 8.0])]
OFF_DIAGONAL = ~np.eye(5, dtype=bool)


def train_on(bound: bounds.MINE, batches: list[np.ndarray]) -> None:
    for batch in batches:
        bound(Scores.from_matrix(torch.tensor(batch, requires_grad=True)))


def average_of(batches: list[np.ndarray], rate: float) -> float:
    """The plain exponential moving average of E_Q[e^T], in linear space, started at the first batch."""
    average = np.exp(batches[0][OFF_DIAGONAL]).mean()
    for batch in batches[1:]:
        average = (1 - rate) * average + rate * np.exp(batch[OFF_DIAGONAL]).mean()
    return average


@pytest.mark.parametrize("rate", [0.01, 0.3, 1.0])
def test_average_equals_an_exponential_moving_average(rate: float) -> None:
    bound = bounds.MINE(rate).double()
    for count in range(1, len(BATCHES) + 1):
        train_on(bound, BATCHES[count - 1 : count])
        assert bound.log_average.item() == pytest.approx(np.log(average_of(BATCHES[:count], rate)), abs=1e-12)
        assert bound.num_updates.item() == count
        assert not bound.log_average.requires_grad


def test_gradient_divides_by_the_average_of_all_batches_so_far() -> None:
    bound = bounds.MINE(0.3).double()
    train_on(bound, BATCHES[:-1])
    t = torch.tensor(BATCHES[-1], requires_grad=True)
    bound(Scores.from_matrix(t)).objective.backward()
    exponentials = np.where(OFF_DIAGONAL, np.exp(BATCHES[-1]), 0.0) / OFF_DIAGONAL.sum()
    expected = np.eye(5) / 5 - exponentials / average_of(BATCHES, 0.3)
    np.testing.assert_allclose(t.grad.numpy(), expected, rtol=1e-11, atol=1e-14)


def test_first_batch_has_the_gradient_of_dv() -> None:
    gradients = []
    for bound in (bounds.MINE(), bounds.DV()):
        t = torch.tensor(BATCHES[1], requires_grad=True)
        bound.double()(Scores.from_matrix(t)).objective.backward()
        gradients.append(t.grad)
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-14)


def test_average_of_scores_whose_exponential_overflows_is_right() -> None:
    bound = bounds.MINE(0.01)
    batches = [np.full((5, 5), level) for level in (1e4, 2e4, 1e4)]
    train_on(bound, [batch.astype(np.float32) for batch in batches])
    expected = logsumexp([logsumexp([1e4, 2e4], b=[0.99, 0.01]), 1e4], b=[0.99, 0.01])
    assert bound.log_average.item() == pytest.approx(expected, rel=1e-6)


def test_average_rises_past_the_largest_float_and_returns() -> None:
    bound = bounds.MINE(0.5)
    train_on(bound, [np.full((5, 5), level, np.float32) for level in (0.0, 500.0, *[0.0] * 100)])
    assert bound.log_average.item() == pytest.approx(500 - 101 * np.log(2), rel=1e-5)


def test_average_is_constant_in_evaluation_or_without_gradients() -> None:
    bound = bounds.MINE(0.3).double()
    train_on(bound, BATCHES[:2])
    before = {name: value.clone() for name, value in bound.state_dict().items()}
    with torch.no_grad():
        train_on(bound, BATCHES[2:])
    assert before == bound.state_dict()
    train_on(bound.eval(), BATCHES[2:])
    assert before == bound.state_dict()


def test_evaluation_before_training_equals_dv() -> None:
    bound = bounds.MINE().eval()
    terms = bound(Scores.from_matrix(torch.tensor(BATCHES[1])))
    torch.testing.assert_close(tuple(terms), tuple(bounds.DV()(Scores.from_matrix(torch.tensor(BATCHES[1])))))
    assert bound.num_updates == 0


@pytest.mark.parametrize("level", [100.0, 1e4])
def test_evaluation_far_above_the_average_is_finite(level: float) -> None:
    bound = bounds.MINE()
    train_on(bound, [np.zeros((5, 5), np.float32)])
    terms = bound.eval()(Scores.from_matrix(torch.full((5, 5), level)))
    assert terms.objective == terms.value == 0


@pytest.mark.filterwarnings("ignore::lightning_mi.exceptions.MINumericalWarning")
@pytest.mark.parametrize("bad", [np.inf, np.nan])
@pytest.mark.parametrize("position", [0, 1])
def test_non_finite_batch_does_not_change_the_average(bad: float, position: int) -> None:
    bound, clean = bounds.MINE(0.3).double(), bounds.MINE(0.3).double()
    train_on(clean, BATCHES)
    train_on(bound, [*BATCHES[:position], np.full((5, 5), bad), *BATCHES[position:]])
    assert bound.state_dict() == clean.state_dict()


def test_average_survives_saving_and_loading(tmp_path) -> None:
    trained, uninterrupted = bounds.MINE(0.3).double(), bounds.MINE(0.3).double()
    train_on(uninterrupted, BATCHES)
    train_on(trained, BATCHES[:2])
    torch.save(trained.state_dict(), tmp_path / "bound.pt")
    resumed = bounds.MINE(0.3).double()
    resumed.load_state_dict(torch.load(tmp_path / "bound.pt", weights_only=True))
    train_on(resumed, BATCHES[2:])
    assert set(trained.state_dict()) == {"log_average", "num_updates"}
    assert resumed.state_dict() == uninterrupted.state_dict()


def test_average_stays_in_full_precision_in_a_half_precision_module():
    bound = bounds.MINE().to(torch.bfloat16)
    assert bound.log_average.dtype == torch.float32
    assert bounds.MINE().double().log_average.dtype == torch.float64


@pytest.mark.parametrize("training", [True, False])
def test_terms_have_the_dtype_of_the_scores(training: bool) -> None:
    bound = bounds.MINE().double()
    train_on(bound, BATCHES[:2])
    terms = bound.train(training)(Scores.from_matrix(torch.zeros(3, 3)))
    assert {term.dtype for term in terms} == {torch.float32}
